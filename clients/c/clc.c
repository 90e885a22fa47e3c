/* SPDX-License-Identifier: Apache-2.0 */
/* The codec. Offsets of the messages are in the tables above each part. */
#include <errno.h>
#include <string.h>

#include "clc_path.h"
#include "smc.h"

enum { TRAILER = 4, FLAG = 2 /* of type_v2: first contact, out of sync */ };

static const unsigned char eyecatcher_r[4] = { 0xE2, 0xD4, 0xC3, 0xD9 };
static const unsigned char eyecatcher_d[4] = { 0xE2, 0xD4, 0xC3, 0xC4 };

static bool is_eyecatcher(const unsigned char *b)
{
	return memcmp(b, eyecatcher_r, 4) == 0 || memcmp(b, eyecatcher_d, 4) == 0;
}

static void put16(unsigned char *b, uint16_t v)
{
	b[0] = (unsigned char)(v >> 8);
	b[1] = (unsigned char)v;
}

static void put32(unsigned char *b, uint32_t v)
{
	put16(b, (uint16_t)(v >> 16));
	put16(b + 2, (uint16_t)v);
}

static void put64(unsigned char *b, uint64_t v)
{
	put32(b, (uint32_t)(v >> 32));
	put32(b + 4, (uint32_t)v);
}

static uint16_t get16(const unsigned char *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

static uint32_t get32(const unsigned char *b)
{
	return (uint32_t)get16(b) << 16 | get16(b + 2);
}

static uint64_t get64(const unsigned char *b)
{
	return (uint64_t)get32(b) << 32 | get32(b + 4);
}

/* ---- header ---- */

enum { LEAST_PROPOSAL = 40 + 8 + TRAILER, ANSWER_V1 = 48, ANSWER_V2 = 78, ANSWER_R_V1 = 68, ANSWER_R_V2 = 108,
       DECLINE_V1 = 28, DECLINE_V2 = 44 };

static bool length_allowed(const struct clc_header *h)
{
	switch (h->type) {
	case CLC_PROPOSAL:
		return h->length >= LEAST_PROPOSAL && h->length <= CLC_MAX;
	case CLC_ACCEPT:
	case CLC_CONFIRM:
		return h->length >= ANSWER_V1 && h->length <= CLC_MAX;
	case CLC_DECLINE:
		return h->length == (h->version == V1 ? DECLINE_V1 : DECLINE_V2);
	}
	return false;
}

int clc_parse_header(const unsigned char *b, struct clc_header *h)
{
	h->type = b[4];
	h->length = get16(b + 5);
	h->version = b[7] >> 4;
	h->type_v2 = b[7] >> 2 & 3;
	h->type_v1 = b[7] & 3;
	return is_eyecatcher(b) && h->version >= V1 && length_allowed(h) ? 0 : -EPROTO;
}

static int parse_frame(const unsigned char *b, size_t n, struct clc_header *h)
{
	if (n < CLC_HEADER || clc_parse_header(b, h) != 0 || h->length != n)
		return -EPROTO;
	return h->type == CLC_DECLINE || is_eyecatcher(b + n - TRAILER) ? 0 : -EPROTO;
}

static void put_frame(unsigned char *b, uint8_t type, size_t n, uint8_t types, const unsigned char *eyecatcher)
{
	memset(b, 0, n);
	memcpy(b, eyecatcher, 4);
	b[4] = type;
	put16(b + 5, (uint16_t)n);
	b[7] = types;
	memcpy(b + n - TRAILER, eyecatcher, 4);
}

/*
 * ---- Proposal ----
 *
 *   0 header | 8 id_for_peer | 16 RoCE gid | 32 mac | 38 iparea_offset
 *   40 SMC-D part: ism gid and chid (10) | 50 v2_ext_offset, from 52 | 52 vendor_oui (3) | 55 vendor_exp_options (5) | reserved
 *   80 prefixes, 8 + 17k, if typev1 is not none
 *   v2 extension: +0 eid_cnt +1 gid_cnt +3 release, SEID +6 smcd_v2_ext_offset, from +8, +26 feature_mask, +40 EIDs
 *   SMC-Dv2 extension: +0 SEID +48 GID and CHID, 10 each
 */
enum { SMCD_PART = 40, SMCD_END = 80, V2_EXT = 40, V2D_EXT = 48, GIDCHID = 10, PREFIX = 8, PREFIX_V6 = 17, MAX_V6 = 8,
       MAX_V2_OFFSET = 28 + PREFIX + MAX_V6 * PREFIX_V6, MAX_V2D_OFFSET = 32 + CLC_MAX_EIDS * CLC_EID };

/* Marks a Proposal as one of ismfs: locally administered, then "IS". */
static const unsigned char vendor_oui[3] = { 0x02, 0x49, 0x53 };

size_t clc_put_proposal(unsigned char b[CLC_MAX], const struct clc_local *local, uint32_t process)
{
	size_t eids = local->eids * CLC_EID, n = SMCD_END + V2_EXT + eids + V2D_EXT + 2 * GIDCHID + TRAILER;
	unsigned char *v2 = b + SMCD_END, *v2d = v2 + V2_EXT + eids;

	put_frame(b, CLC_PROPOSAL, n, V2 << 4 | PATH_D << 2 | PATH_NONE, eyecatcher_r);
	put16(b + 50, SMCD_END - 52);
	if (process != 0) {
		memcpy(b + 52, vendor_oui, 3);
		put32(b + 55, process);
	}
	v2[0] = (unsigned char)local->eids;
	v2[1] = 2;
	v2[3] = CLC_RELEASE << 4;
	put16(v2 + 6, (uint16_t)(V2_EXT - 8 + eids));
	put16(v2 + 26, CLC_EMULATED_ISM);
	memcpy(v2 + V2_EXT, local->eid, eids);
	memcpy(v2d + V2D_EXT, local->gid, 8);
	put16(v2d + V2D_EXT + 8, CLC_CHID_LOOPBACK);
	memcpy(v2d + V2D_EXT + GIDCHID, local->gid + 8, 8);
	put16(v2d + V2D_EXT + GIDCHID + 8, CLC_CHID_LOOPBACK);
	return n;
}

/* Where the prefixes that begin at an offset end, or -EPROTO. n is without the trailer. */
static long prefixes_end(const unsigned char *b, size_t n, size_t at)
{
	size_t end;

	if (n < at + PREFIX || b[at + 7] > MAX_V6)
		return -EPROTO;
	end = at + PREFIX + b[at + 7] * (size_t)PREFIX_V6;
	return n < end ? -EPROTO : (long)end;
}

static int parse_v2d(const unsigned char *v2, size_t room, struct clc_proposal *p)
{
	size_t at = get16(v2 + 6);

	p->gids = v2[1];
	if (p->gids > CLC_MAX_GIDS)
		return -EPROTO;
	if (at == 0 || at > MAX_V2D_OFFSET)
		return 0; /* to be declined with NOV2DEXT */
	at += 8;
	if (room < at + V2D_EXT + p->gids * GIDCHID)
		return -EPROTO;
	p->has_v2d = true;
	memcpy(p->gid, v2 + at + V2D_EXT, p->gids * GIDCHID);
	return 0;
}

/* end is where the areas before end; the length must be the exact sum of all. */
static int parse_v2_ext(const unsigned char *b, size_t n, size_t end, struct clc_proposal *p)
{
	size_t at = get16(b + 50), areas;
	const unsigned char *v2;

	if (at == 0 || at > MAX_V2_OFFSET)
		return n == end ? 0 : -EPROTO; /* to be declined with NOV2EXT */
	at += 52;
	if (n < at + V2_EXT)
		return -EPROTO;
	v2 = b + at;
	p->eids = v2[0];
	if (p->eids > CLC_MAX_EIDS || n - at < V2_EXT + p->eids * CLC_EID)
		return -EPROTO;
	p->has_v2 = true;
	p->release = v2[3] >> 4;
	p->seid = v2[3] & 1;
	p->features = get16(v2 + 26);
	memcpy(p->eid, v2 + V2_EXT, p->eids * CLC_EID);
	areas = V2_EXT + p->eids * CLC_EID;
	if (clc_has_d(p->type_v2)) {
		if (parse_v2d(v2, n - at, p) != 0)
			return -EPROTO;
		areas += V2D_EXT + p->gids * GIDCHID;
	}
	return n == end + areas ? 0 : -EPROTO;
}

int clc_parse_proposal(const unsigned char *b, size_t n, struct clc_proposal *p)
{
	struct clc_header h;
	uint16_t iparea;
	long end = SMCD_END;

	memset(p, 0, sizeof(*p));
	if (parse_frame(b, n, &h) != 0 || h.type != CLC_PROPOSAL)
		return -EPROTO;
	n -= TRAILER;
	iparea = get16(b + 38);
	if (iparea > SMCD_PART)
		return -EPROTO;
	p->version = h.version;
	p->type_v1 = h.type_v1;
	p->type_v2 = h.type_v2;
	if (p->version == V1) {
		if (p->type_v1 == PATH_NONE)
			return -EPROTO;
		return prefixes_end(b, n, 40 + (size_t)iparea) == (long)n ? 0 : -EPROTO;
	}
	if (n < SMCD_END)
		return -EPROTO;
	if (memcmp(b + 52, vendor_oui, 3) == 0)
		p->process = get32(b + 55);
	if (p->type_v1 != PATH_NONE) {
		end = iparea == SMCD_PART ? prefixes_end(b, n, SMCD_END) : -EPROTO;
		if (end < 0)
			return -EPROTO;
	}
	if (p->type_v2 == PATH_NONE)
		return (long)n == end ? 0 : -EPROTO;
	return parse_v2_ext(b, n, (size_t)end, p);
}

/*
 * ---- Accept, Confirm ----
 *
 *   0 header | 8 gid | 16 token | 24 dmbe_idx | 25 dmbe_size in bits 7-4 | 26 our bit | 28 linkid, host order
 *   32 chid | 34 eid | 66 gid_ext | 74 first-contact extension | trailer
 *   extension: +1 os, release +4 host name +36 max_conns, max_links +38 feature_mask +40 our procs id +44 our page
 */
enum { FCE = 74, FCE_LEN = 36, FCE_LEN_V2X = 52 };

size_t clc_put_answer(unsigned char b[CLC_MAX], const struct clc_answer *a)
{
	size_t fce = !a->first_contact ? 0 : a->release == 0 ? FCE_LEN : FCE_LEN_V2X, n = ANSWER_V2 + fce;

	put_frame(b, a->type, n, (uint8_t)(V2 << 4 | (a->first_contact ? FLAG << 2 : 0) | PATH_D), eyecatcher_d);
	memcpy(b + 8, a->gid, 8);
	put64(b + 16, a->token);
	b[24] = a->index;
	b[25] = (unsigned char)(a->size << 4);
	put16(b + 26, a->bit);
	memcpy(b + 28, &a->link, 4);
	put16(b + 32, a->chid);
	memcpy(b + 34, a->eid, CLC_EID);
	memcpy(b + 66, a->gid + 8, 8);
	if (fce == 0)
		return n;
	b[FCE + 1] = (unsigned char)(a->os << 4 | a->release);
	memcpy(b + FCE + 4, a->host, CLC_HOST);
	if (a->release > 0) {
		put16(b + FCE + 38, a->features);
		put32(b + FCE + 40, a->process);
		put64(b + FCE + 44, a->page);
	}
	return n;
}

/* smc_clc_msg_acc_conf_valid */
static bool answer_length_allowed(const struct clc_header *h)
{
	if (h->type_v1 == PATH_D)
		return h->version == V1 ? h->length == ANSWER_V1 : h->length >= ANSWER_V2;
	if (h->type_v1 == PATH_R)
		return h->version == V1 ? h->length == ANSWER_R_V1 : h->length >= ANSWER_R_V2;
	return false;
}

static int parse_fce(const unsigned char *b, size_t room, struct clc_answer *a)
{
	if (room < FCE_LEN)
		return -EPROTO;
	a->os = b[1] >> 4;
	a->release = b[1] & 15;
	memcpy(a->host, b + 4, CLC_HOST);
	if (a->release == 0)
		return 0;
	if (room < FCE_LEN_V2X)
		return -EPROTO;
	a->features = get16(b + 38);
	a->process = get32(b + 40);
	a->page = get64(b + 44);
	return 0;
}

int clc_parse_answer(const unsigned char *b, size_t n, struct clc_answer *a)
{
	struct clc_header h;

	memset(a, 0, sizeof(*a));
	if (parse_frame(b, n, &h) != 0 || (h.type != CLC_ACCEPT && h.type != CLC_CONFIRM) || !answer_length_allowed(&h))
		return -EPROTO;
	a->type = h.type;
	a->version = h.version;
	a->type_v1 = h.type_v1;
	a->first_contact = h.type_v2 & FLAG;
	if (a->type_v1 != PATH_D || a->version == V1)
		return 0; /* to be declined */
	memcpy(a->gid, b + 8, 8);
	a->token = get64(b + 16);
	a->index = b[24];
	a->size = b[25] >> 4;
	a->bit = get16(b + 26) & 0x7fff; /* 0x8000: the sender sleeps on its page only */
	memcpy(&a->link, b + 28, 4);
	a->chid = get16(b + 32);
	memcpy(a->eid, b + 34, CLC_EID);
	memcpy(a->gid + 8, b + 66, 8);
	return a->first_contact ? parse_fce(b + FCE, n - TRAILER - FCE, a) : 0;
}

/*
 * ---- Decline ----
 *
 *   0 header | 8 id_for_peer | 16 peer_diagnosis | 20 os in bits 7-4 | 24 four further codes | trailer, not checked
 */
size_t clc_put_decline(unsigned char b[CLC_MAX], uint32_t code)
{
	put_frame(b, CLC_DECLINE, DECLINE_V2, (uint8_t)(V2 << 4 | (code == SMC_DECL_SYNCERR ? FLAG << 2 : 0)), eyecatcher_r);
	put32(b + 16, code);
	b[20] = CLC_OS_LINUX << 4;
	return DECLINE_V2;
}

int clc_parse_decline(const unsigned char *b, size_t n, uint32_t *code, bool *out_of_sync)
{
	struct clc_header h;

	if (parse_frame(b, n, &h) != 0 || h.type != CLC_DECLINE || h.type_v1 > PATH_D)
		return -EPROTO;
	*code = get32(b + 16);
	*out_of_sync = h.type_v2 & FLAG;
	return 0;
}

/* ---- GID ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int clc_parse_gid(const char *text, unsigned char gid[CLC_GID])
{
	for (unsigned int i = 0; i < CLC_GID; i++) {
		int high, low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return -EINVAL;
		high = hex_digit(text[0]);
		low = high < 0 ? -1 : hex_digit(text[1]);
		if (low < 0)
			return -EINVAL;
		gid[i] = (unsigned char)(high << 4 | low);
		text += 2;
	}
	return *text == '\0' || *text == '\n' ? 0 : -EINVAL;
}
