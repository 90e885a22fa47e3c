/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's numbers, with the kernel's names behind them, and the closing machine. No I/O. */
#ifndef ISMFS_SMC_H
#define ISMFS_SMC_H

#include <stdbool.h>
#include <stdint.h>

/* Why two ends do not speak SMC (SMC_CLC_DECL_*). The codes of SMC-R are in docs/dmb-format.md 3.2; a peer may send any. */
enum smc_decline {
	SMC_DECL_MEM = 0x01010000,
	SMC_DECL_TIMEOUT_CL = 0x02010000,
	SMC_DECL_CNFERR = 0x03000000,
	SMC_DECL_PEERNOSMC = 0x03010000,
	SMC_DECL_NOSMCDEV = 0x03030000,
	SMC_DECL_NOSMCDDEV = 0x03030001,
	SMC_DECL_NOSMCRDEV = 0x03030002,
	SMC_DECL_NOV2EXT = 0x03030004,
	SMC_DECL_NOV2DEXT = 0x03030005,
	SMC_DECL_NOSMCD2DEV = 0x03030007,
	SMC_DECL_NOUEID = 0x03030008,
	SMC_DECL_RELEASEERR = 0x03030009,
	SMC_DECL_MODEUNSUPP = 0x03040000,
	SMC_DECL_OPTUNSUPP = 0x03060000,
	SMC_DECL_MAX_DMB = 0x030d0000,
	SMC_DECL_SYNCERR = 0x04000000,
	SMC_DECL_PEERDECL = 0x05000000,
	SMC_DECL_INTERR = 0x09990000,
};

/* The place of a code among the counters of a procs block; a code that is none counts as INTERR. */
unsigned int smc_decline_index(uint32_t code);

/* The code's name without SMC_CLC_DECL_, "?" for one that is none. */
const char *smc_decline_name(uint32_t code);

/* States of a socket (enum smc_state). */
enum smc_state {
	SMC_ACTIVE = 1,
	SMC_INIT = 2,
	SMC_CLOSED = 7,
	SMC_LISTEN = 10,
	SMC_PEERCLOSEWAIT1 = 20,
	SMC_PEERCLOSEWAIT2 = 21,
	SMC_APPCLOSEWAIT1 = 22,
	SMC_APPCLOSEWAIT2 = 23,
	SMC_APPFINCLOSEWAIT = 24,
	SMC_PEERFINCLOSEWAIT = 25,
	SMC_PEERABORTWAIT = 26,
	SMC_PROCESSABORT = 27,
};

/*
 * The closing protocol of one connection (net/smc/smc_close.c). The caller guards it by a lock. Every step returns the state flags
 * (ISMFS_PEER_*) that are new in tx: write a consumer word and signal the peer. 0: there is nothing to send.
 */
struct smc_machine {
	uint8_t state;
	uint8_t tx;    /* flags that were sent; they belong into every consumer word from then on */
	uint8_t rx;    /* flags that were received */
	bool released; /* the program has closed */
	bool no_read;  /* the program has shut down reading */
	int error;     /* ECONNRESET, ECONNABORTED or 0 */
};

/* What read and write give when there is nothing to move: 0 wait, SMC_EOF, or an errno. */
#define SMC_EOF (-1)
int smc_read_stop(const struct smc_machine *m);
int smc_write_stop(const struct smc_machine *m);

/* -ENOTCONN if the connection is not one that can be shut down. */
int smc_shutdown_read(struct smc_machine *m);
int smc_shutdown_write(struct smc_machine *m);
int smc_shutdown_both(struct smc_machine *m, bool unread);

uint8_t smc_close(struct smc_machine *m, bool unread);
uint8_t smc_kill(struct smc_machine *m);
void smc_received(struct smc_machine *m, uint8_t flags);

/* Sizes of the DMBs of SMC connections: 2^(n+14) bytes. */
enum { SMC_MIN_BUFFER = 16 << 10, SMC_MAX_BUFFER = 1 << 20, SMC_MAX_COMPRESSED = 6 };
uint8_t smc_compress_buffer(uint64_t size);

#endif
