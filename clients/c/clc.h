/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CLC messages (net/smc/smc_clc.h), as SMC-D over a loopback-ism device uses them. Every message begins with
 *
 *   off size field
 *     0    4 eyecatcher  "SMCR" or "SMCD" in EBCDIC; a receiver takes either
 *     4    1 type
 *     5    2 length      of the whole message, big-endian as all that follows
 *     7    1 bits 7-4 version, 3-2 typev2 (bit 3 elsewhere: first contact, out of sync), 1-0 typev1
 *
 * and ends with the eyecatcher again. Parsers return 0 or -EPROTO and trust no length. Building never fails.
 */
#ifndef ISMFS_CLC_H
#define ISMFS_CLC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLC_HEADER = 8, CLC_MAX = 652, CLC_EID = 32, CLC_HOST = 32, CLC_GID = 16 };
enum { CLC_PROPOSAL = 1, CLC_ACCEPT = 2, CLC_CONFIRM = 3, CLC_DECLINE = 4 };
enum { CLC_MAX_EIDS = 8, CLC_MAX_GIDS = 8, CLC_CHID_LOOPBACK = 0xFFFF, CLC_RELEASE = 1, CLC_EMULATED_ISM = 1, CLC_OS_LINUX = 2 };

struct clc_header {
	uint8_t type, version, type_v1, type_v2;
	uint16_t length;
};

/* What the first CLC_HEADER bytes show. */
int clc_parse_header(const unsigned char *b, struct clc_header *h);

/* What a side brings to a handshake. */
struct clc_local {
	unsigned char gid[CLC_GID];
	bool active;
	unsigned int eids; /* at most 4 here, 8 from a peer */
	unsigned char eid[CLC_MAX_EIDS][CLC_EID];
};

/* A Proposal as far as a server here looks at it. */
struct clc_proposal {
	uint8_t version, type_v1, type_v2;
	uint32_t process; /* the client's procs id, 0 if it says none */
	bool has_v2, has_v2d, seid;
	uint8_t release;
	uint16_t features;
	unsigned int eids, gids;
	unsigned char eid[CLC_MAX_EIDS][CLC_EID];
	unsigned char gid[CLC_MAX_GIDS][10]; /* 8 bytes of a GID, 2 of a CHID */
};

size_t clc_put_proposal(unsigned char b[CLC_MAX], const struct clc_local *local, uint32_t process);
int clc_parse_proposal(const unsigned char *b, size_t n, struct clc_proposal *p);

/* An Accept or a Confirm. */
struct clc_answer {
	uint8_t type, version, type_v1;
	bool first_contact;
	unsigned char gid[CLC_GID];
	uint64_t token;
	uint8_t index, size; /* of the DMB: 2^(size+14) bytes */
	uint16_t bit;        /* of the sender's DMB in the sender's doorbell page, 0 none */
	uint32_t link;       /* the sender's link group */
	uint16_t chid;
	unsigned char eid[CLC_EID];
	/* first contact only */
	uint8_t os, release;
	char host[CLC_HOST];
	uint16_t features;
	uint32_t process; /* the sender's procs id, 0 none */
	uint64_t page;    /* token of the sender's doorbell page, 0 none */
};

size_t clc_put_answer(unsigned char b[CLC_MAX], const struct clc_answer *a);
int clc_parse_answer(const unsigned char *b, size_t n, struct clc_answer *a);

size_t clc_put_decline(unsigned char b[CLC_MAX], uint32_t code);
int clc_parse_decline(const unsigned char *b, size_t n, uint32_t *code, bool *out_of_sync);

/*
 * The server's decision on a Proposal: 0 and what was agreed in accept's eid, release and features, or a decline code
 * (smc_listen_v2_check, smc_find_ism_v2_device_serv, smc_listen_find_device).
 */
uint32_t clc_answer_proposal(const struct clc_proposal *p, const struct clc_local *local, struct clc_answer *accept);

/* The client's check of an Accept: 0, a decline code (positive), or -EPROTO. */
int64_t clc_check_accept(const struct clc_local *sent, const struct clc_answer *accept);

/* The server's check of a Confirm: 0, a decline code, or -EPROTO. */
int64_t clc_check_confirm(const struct clc_answer *accept, const struct clc_answer *confirm);

/* UUID text as it stands in the file gid. */
int clc_parse_gid(const char *text, unsigned char gid[CLC_GID]);

#endif
