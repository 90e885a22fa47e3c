/* SPDX-License-Identifier: Apache-2.0 */
/* Decline codes, buffer sizes and the closing machine. */
#include <errno.h>
#include <stddef.h>

#include "hot.h"
#include "ismfs.h"
#include "smc.h"

/* In the order of docs/dmb-format.md 3.2. */
static const struct {
	uint32_t code;
	const char *name;
} declines[] = {
	{ 0x01010000, "MEM" },        { 0x02010000, "TIMEOUT_CL" }, { 0x02020000, "TIMEOUT_AL" }, { 0x03000000, "CNFERR" },
	{ 0x03010000, "PEERNOSMC" },  { 0x03020000, "IPSEC" },      { 0x03030000, "NOSMCDEV" },   { 0x03030001, "NOSMCDDEV" },
	{ 0x03030002, "NOSMCRDEV" },  { 0x03030003, "NOISM2SUPP" }, { 0x03030004, "NOV2EXT" },    { 0x03030005, "NOV2DEXT" },
	{ 0x03030006, "NOSEID" },     { 0x03030007, "NOSMCD2DEV" }, { 0x03030008, "NOUEID" },     { 0x03030009, "RELEASEERR" },
	{ 0x0303000a, "MAXCONNERR" }, { 0x0303000b, "MAXLINKERR" }, { 0x03040000, "MODEUNSUPP" }, { 0x03050000, "RMBE_EC" },
	{ 0x03060000, "OPTUNSUPP" },  { 0x03070000, "DIFFPREFIX" }, { 0x03080000, "GETVLANERR" }, { 0x03090000, "ISMVLANERR" },
	{ 0x030a0000, "NOACTLINK" },  { 0x030b0000, "NOSRVLINK" },  { 0x030c0000, "VERSMISMAT" }, { 0x030d0000, "MAX_DMB" },
	{ 0x030e0000, "NOROUTE" },    { 0x030f0000, "NOINDIRECT" }, { 0x04000000, "SYNCERR" },    { 0x05000000, "PEERDECL" },
	{ 0x09990000, "INTERR" },     { 0x09990001, "ERR_RTOK" },   { 0x09990002, "ERR_RDYLNK" }, { 0x09990003, "ERR_REGBUF" },
};

enum { DECLINES = sizeof(declines) / sizeof(declines[0]) };

HOT unsigned int smc_decline_index(uint32_t code)
{
	unsigned int interr = 0;

	for (unsigned int i = 0; i < DECLINES; i++) {
		if (declines[i].code == code)
			return i;
		if (declines[i].code == SMC_DECL_INTERR)
			interr = i;
	}
	return interr;
}

const char *smc_decline_name(uint32_t code)
{
	unsigned int i = smc_decline_index(code);

	return declines[i].code == code ? declines[i].name : "?";
}

uint8_t smc_compress_buffer(uint64_t size)
{
	uint8_t n = 0;

	while (n < SMC_MAX_COMPRESSED && (uint64_t)SMC_MIN_BUFFER << n < size)
		n++;
	return n;
}

/* ---- the machine ---- */

#define DONE ISMFS_PEER_DONE_WRITING
#define CLOSED ISMFS_PEER_CONN_CLOSED
#define ABORT ISMFS_PEER_CONN_ABORT
#define ANY_CLOSE (CLOSED | ABORT)

static bool is_connected(const struct smc_machine *m)
{
	return m->state == SMC_ACTIVE || (m->state >= SMC_PEERCLOSEWAIT1 && m->state <= SMC_APPFINCLOSEWAIT);
}

/* Closed or abort is the last thing that a peer hears. */
static uint8_t send_flags(struct smc_machine *m, uint8_t flags)
{
	if (m->tx & ANY_CLOSE)
		return 0;
	m->tx |= flags;
	return flags;
}

static void fail(struct smc_machine *m, int error)
{
	if (m->error == 0)
		m->error = error;
}

int smc_shutdown_read(struct smc_machine *m)
{
	if (!is_connected(m))
		return -ENOTCONN;
	m->no_read = true;
	return 0;
}

/* smc_close_shutdown_write */
int smc_shutdown_write(struct smc_machine *m)
{
	if (!is_connected(m))
		return -ENOTCONN;
	if (m->state == SMC_ACTIVE)
		m->state = SMC_PEERCLOSEWAIT1;
	else if (m->state == SMC_APPCLOSEWAIT1)
		m->state = SMC_APPCLOSEWAIT2;
	else
		return 0;
	return send_flags(m, DONE);
}

/* smc_close_active */
static uint8_t close_active(struct smc_machine *m, bool unread)
{
	uint8_t final = unread ? ABORT : CLOSED;

	switch (m->state) {
	case SMC_INIT:
	case SMC_LISTEN:
	case SMC_PEERABORTWAIT:
		m->state = SMC_CLOSED;
		return 0;
	case SMC_ACTIVE:
		m->state = SMC_PEERCLOSEWAIT1;
		return send_flags(m, final);
	case SMC_PEERCLOSEWAIT1:
	case SMC_PEERCLOSEWAIT2:
		return m->tx & DONE ? send_flags(m, final) : 0;
	case SMC_APPCLOSEWAIT1:
	case SMC_APPCLOSEWAIT2:
		m->state = m->rx & ANY_CLOSE ? SMC_CLOSED : SMC_PEERFINCLOSEWAIT;
		return send_flags(m, final);
	case SMC_APPFINCLOSEWAIT:
		m->state = SMC_CLOSED;
		return m->tx & DONE ? send_flags(m, final) : 0;
	case SMC_PROCESSABORT:
		m->state = SMC_CLOSED;
		return send_flags(m, ABORT);
	}
	return 0;
}

int smc_shutdown_both(struct smc_machine *m, bool unread)
{
	int sent;

	if (!is_connected(m))
		return -ENOTCONN;
	sent = close_active(m, unread);
	m->no_read = true;
	return sent;
}

uint8_t smc_close(struct smc_machine *m, bool unread)
{
	uint8_t sent = close_active(m, unread);

	m->released = true;
	m->no_read = true;
	return sent;
}

/* smc_conn_kill: the device or the link group ends */
uint8_t smc_kill(struct smc_machine *m)
{
	if (m->state == SMC_INIT || m->state == SMC_LISTEN || m->state == SMC_CLOSED || m->state == SMC_PEERABORTWAIT)
		return 0;
	m->state = SMC_CLOSED;
	fail(m, ECONNABORTED);
	return send_flags(m, ABORT);
}

/* smc_close_passive_abort_received */
static void received_abort(struct smc_machine *m)
{
	switch (m->state) {
	case SMC_INIT:
	case SMC_ACTIVE:
	case SMC_APPCLOSEWAIT1:
	case SMC_APPFINCLOSEWAIT:
		m->state = SMC_PROCESSABORT;
		break;
	case SMC_PEERCLOSEWAIT1:
	case SMC_PEERCLOSEWAIT2:
		m->state = (m->tx & DONE) && !(m->tx & ANY_CLOSE) ? SMC_PROCESSABORT : SMC_CLOSED;
		break;
	case SMC_APPCLOSEWAIT2:
	case SMC_PEERFINCLOSEWAIT:
	case SMC_PEERABORTWAIT:
		m->state = SMC_CLOSED;
		break;
	default:
		return;
	}
	fail(m, ECONNRESET);
}

/* the rest of smc_close_passive_work */
static void received_close(struct smc_machine *m)
{
	switch (m->state) {
	case SMC_INIT:
	case SMC_ACTIVE:
		m->state = SMC_APPCLOSEWAIT1;
		break;
	case SMC_PEERCLOSEWAIT1:
	case SMC_PEERCLOSEWAIT2:
		if (m->rx & DONE)
			m->state = SMC_PEERCLOSEWAIT2;
		if (m->rx & ANY_CLOSE)
			m->state = m->released && (m->tx & ANY_CLOSE) ? SMC_CLOSED : SMC_APPFINCLOSEWAIT;
		break;
	case SMC_PEERFINCLOSEWAIT:
		if (m->rx & ANY_CLOSE)
			m->state = SMC_CLOSED;
		break;
	}
}

void smc_received(struct smc_machine *m, uint8_t flags)
{
	m->rx |= flags;
	if (m->rx & ABORT)
		received_abort(m);
	else if (m->rx != 0)
		received_close(m);
}

int smc_read_stop(const struct smc_machine *m)
{
	if (m->state == SMC_INIT || m->state == SMC_LISTEN)
		return ENOTCONN;
	if (m->error != 0)
		return m->error;
	if (m->state == SMC_PEERFINCLOSEWAIT || m->no_read || m->rx != 0)
		return SMC_EOF;
	return m->state == SMC_CLOSED ? ENOTCONN : 0;
}

int smc_write_stop(const struct smc_machine *m)
{
	if (m->state == SMC_INIT)
		return ENOTCONN;
	if (m->error != 0)
		return m->error;
	if (m->state != SMC_ACTIVE && m->state != SMC_APPCLOSEWAIT1)
		return EPIPE;
	return m->rx & ANY_CLOSE ? ECONNRESET : 0;
}
