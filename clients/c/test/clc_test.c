/* SPDX-License-Identifier: Apache-2.0 */
/* CLC messages against captures of a real kernel (smc/testdata), cut and changed; negotiation; the closing machine. No daemon, no root. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clc.h"
#include "fake.h"
#include "ismfs.h"
#include "smc.h"

#ifndef TESTDATA
#define TESTDATA "../../smc/testdata/"
#endif

enum { FILE_HEADER = 24, RECORD_HEADER = 16, ETHERNET = 14, MOST = 1 << 20 };

static const unsigned char golden_gid[CLC_GID] = { 0xc3, 0x4b, 0xbf, 0x62, 0x50, 0x08, 0xfc, 0xe5, 0xb7, 0x52, 0x1a, 0x86, 0xb1, 0x50, 0x62, 0xae };
static const char golden_eid[CLC_EID + 1] = "SMCV2-ANCHOR-UEID.01            ";

static unsigned int seen[5]; /* messages by type */

/* ---- one message: what is built from what was parsed is the same; a part of it is nothing; changed bytes do no harm ---- */

static int parse_any(const unsigned char *b, size_t n)
{
	struct clc_proposal p;
	struct clc_answer a;
	uint32_t code;
	bool out_of_sync;
	int ok = clc_parse_proposal(b, n, &p) == 0;

	ok += clc_parse_answer(b, n, &a) == 0;
	ok += clc_parse_decline(b, n, &code, &out_of_sync) == 0;
	return ok;
}

static void test_proposal(const unsigned char *b, size_t n)
{
	struct clc_local local = { .active = true };
	struct clc_proposal p;
	struct clc_answer accept = { 0 };
	unsigned char built[CLC_MAX];

	CHECK(clc_parse_proposal(b, n, &p) == 0 && p.version == 2 && p.type_v2 == 1 && p.process == 0);
	CHECK(p.has_v2 && p.has_v2d && p.gids == 2 && p.release == 1 && p.features == CLC_EMULATED_ISM);
	memcpy(local.gid, golden_gid, CLC_GID);
	local.eids = p.eids;
	memcpy(local.eid, p.eid, sizeof(p.eid));
	CHECK(clc_put_proposal(built, &local, 0) == n && memcmp(built, b, n) == 0);
	if (p.eids == 0) {
		CHECK(clc_answer_proposal(&p, &local, &accept) == SMC_DECL_NOUEID);
		return;
	}
	CHECK(memcmp(p.eid[0], golden_eid, CLC_EID) == 0);
	CHECK(clc_answer_proposal(&p, &local, &accept) == 0 && memcmp(accept.eid, golden_eid, CLC_EID) == 0 && accept.release == 1);
	local.eid[0][0]++;
	CHECK(clc_answer_proposal(&p, &local, &accept) == SMC_DECL_NOSMCDDEV);
	local.gid[15]++;
	CHECK(clc_answer_proposal(&p, &local, &accept) == SMC_DECL_NOSMCD2DEV);
	/* With this process's id it is longer by nothing, and says so. */
	CHECK(clc_put_proposal(built, &local, 0x12345678) == n && clc_parse_proposal(built, n, &p) == 0 && p.process == 0x12345678);
}

static void test_answer(const unsigned char *b, size_t n)
{
	struct clc_local sent = { .eids = 1 };
	struct clc_answer a, other;
	unsigned char built[CLC_MAX];

	CHECK(clc_parse_answer(b, n, &a) == 0 && a.type_v1 == 1 && a.chid == CLC_CHID_LOOPBACK && a.index == 0 && a.size == 2);
	CHECK(memcmp(a.gid, golden_gid, CLC_GID) == 0 && memcmp(a.eid, golden_eid, CLC_EID) == 0 && a.bit == 0 && a.page == 0);
	CHECK(a.token != 0 && a.link != 0 && a.first_contact == (n == 130));
	if (a.first_contact)
		CHECK(a.os == CLC_OS_LINUX && a.release == 1 && memcmp(a.host, "smcguest ", 9) == 0 && a.features == CLC_EMULATED_ISM);
	CHECK(clc_put_answer(built, &a) == n && memcmp(built, b, n) == 0);

	memcpy(sent.gid, golden_gid, CLC_GID);
	memcpy(sent.eid[0], golden_eid, CLC_EID);
	CHECK(clc_check_accept(&sent, &a) == 0);
	other = a;
	CHECK(clc_check_confirm(&a, &other) == 0);
	other.eid[3]++;
	CHECK(clc_check_accept(&sent, &other) == -EPROTO && clc_check_confirm(&a, &other) == -EPROTO);
	other = a;
	other.version = 1;
	CHECK(clc_check_accept(&sent, &other) == SMC_DECL_MODEUNSUPP);
	other = a;
	other.first_contact = !a.first_contact;
	CHECK(clc_check_confirm(&a, &other) == -EPROTO);
	other = a;
	other.bit = 4711;
	other.process = 7;
	other.page = UINT64_C(0x1122334455667788);
	CHECK(clc_put_answer(built, &other) == n && clc_parse_answer(built, n, &a) == 0 && a.bit == 4711);
	if (a.first_contact)
		CHECK(a.process == 7 && a.page == UINT64_C(0x1122334455667788));
}

static void test_decline(const unsigned char *b, size_t n)
{
	unsigned char built[CLC_MAX];
	uint32_t code;
	bool out_of_sync;

	CHECK(clc_parse_decline(b, n, &code, &out_of_sync) == 0 && code == SMC_DECL_NOUEID && !out_of_sync);
	CHECK(clc_put_decline(built, code) == n && memcmp(built, b, n) == 0);
	CHECK(clc_put_decline(built, SMC_DECL_SYNCERR) == n && clc_parse_decline(built, n, &code, &out_of_sync) == 0 && out_of_sync);
}

static void test_message(const unsigned char *b, size_t n)
{
	struct clc_header h;
	unsigned char *changed = malloc(n);

	CHECK(clc_parse_header(b, &h) == 0 && h.length == n);
	seen[h.type]++;
	if (h.type == CLC_PROPOSAL)
		test_proposal(b, n);
	else if (h.type == CLC_DECLINE)
		test_decline(b, n);
	else
		test_answer(b, n);
	CHECK(parse_any(b, n) == 1);
	for (size_t cut = 0; cut < n; cut++) { /* of exactly that size, for who watches memory */
		unsigned char *part = malloc(cut > 0 ? cut : 1);

		memcpy(part, b, cut);
		CHECK(parse_any(part, cut) == 0);
		free(part);
	}
	for (int i = 0; i < 200000; i++) {
		memcpy(changed, b, n);
		for (int k = rand() % 4; k >= 0; k--)
			changed[rand() % (int)n] = (unsigned char)rand();
		(void)parse_any(changed, n);
	}
	free(changed);
}

/* ---- captures: Ethernet and IPv4 ---- */

static uint32_t little32(const unsigned char *b)
{
	return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void test_capture(const char *name)
{
	unsigned char *b = malloc(MOST);
	FILE *f = fopen(name, "rb");
	size_t n, at = FILE_HEADER;

	CHECK(f != NULL && b != NULL);
	n = fread(b, 1, MOST, f);
	fclose(f);
	while (at + RECORD_HEADER < n) {
		size_t frame = little32(b + at + 8);
		const unsigned char *ip = b + at + RECORD_HEADER + ETHERNET, *tcp = ip + (ip[0] & 15) * 4, *payload = tcp + (tcp[12] >> 4) * 4;
		const unsigned char *end = ip + (ip[2] << 8 | ip[3]);

		if (end - payload >= CLC_HEADER && payload[0] == 0xE2 && payload[1] == 0xD4 && payload[2] == 0xC3)
			test_message(payload, (size_t)(end - payload));
		at += RECORD_HEADER + frame;
	}
	free(b);
}

static void test_gid(void)
{
	unsigned char gid[CLC_GID];

	CHECK(clc_parse_gid("c34bbf62-5008-FCE5-b752-1a86b15062ae\n", gid) == 0 && memcmp(gid, golden_gid, CLC_GID) == 0);
	CHECK(clc_parse_gid("c34bbf62-5008-FCE5-b752-1a86b15062a", gid) == -EINVAL);
	CHECK(clc_parse_gid("c34bbf6205008-FCE5-b752-1a86b15062ae", gid) == -EINVAL);
	CHECK(clc_parse_gid("c34bbf62-5008-FCE5-b752-1a86b15062ae0", gid) == -EINVAL);
}

static void test_sizes(void)
{
	CHECK(smc_compress_buffer(1) == 0 && smc_compress_buffer(16384) == 0 && smc_compress_buffer(16385) == 1);
	CHECK(smc_compress_buffer(65536) == 2 && smc_compress_buffer(1 << 20) == 6 && smc_compress_buffer(1 << 30) == 6);
	CHECK(smc_decline_index(0x01010000) == 0 && smc_decline_index(SMC_DECL_PEERDECL) == 31 && smc_decline_index(0x09990003) == 35);
	CHECK(smc_decline_index(12345) == smc_decline_index(SMC_DECL_INTERR) && strcmp(smc_decline_name(SMC_DECL_MAX_DMB), "MAX_DMB") == 0);
}

/* ---- the machine (reference 2.9) ---- */

static void test_machine(void)
{
	struct smc_machine m = { .state = SMC_ACTIVE };

	CHECK(smc_read_stop(&m) == 0 && smc_write_stop(&m) == 0);
	CHECK(smc_shutdown_write(&m) == ISMFS_PEER_DONE_WRITING && m.state == SMC_PEERCLOSEWAIT1 && smc_write_stop(&m) == EPIPE);
	CHECK(smc_shutdown_write(&m) == 0 && smc_read_stop(&m) == 0);
	smc_received(&m, ISMFS_PEER_DONE_WRITING);
	CHECK(m.state == SMC_PEERCLOSEWAIT2 && smc_read_stop(&m) == SMC_EOF);
	smc_received(&m, ISMFS_PEER_DONE_WRITING | ISMFS_PEER_CONN_CLOSED);
	CHECK(m.state == SMC_APPFINCLOSEWAIT);
	CHECK(smc_close(&m, false) == ISMFS_PEER_CONN_CLOSED && m.state == SMC_CLOSED && smc_shutdown_read(&m) == -ENOTCONN);

	m = (struct smc_machine){ .state = SMC_ACTIVE };
	smc_received(&m, ISMFS_PEER_CONN_CLOSED);
	CHECK(m.state == SMC_APPCLOSEWAIT1 && smc_read_stop(&m) == SMC_EOF && smc_write_stop(&m) == ECONNRESET);
	CHECK(smc_close(&m, true) == ISMFS_PEER_CONN_ABORT && m.state == SMC_CLOSED);

	m = (struct smc_machine){ .state = SMC_ACTIVE };
	smc_received(&m, ISMFS_PEER_CONN_ABORT);
	CHECK(m.state == SMC_PROCESSABORT && smc_read_stop(&m) == ECONNRESET && smc_write_stop(&m) == ECONNRESET);
	CHECK(smc_close(&m, false) == ISMFS_PEER_CONN_ABORT);

	m = (struct smc_machine){ .state = SMC_ACTIVE };
	CHECK(smc_kill(&m) == ISMFS_PEER_CONN_ABORT && smc_read_stop(&m) == ECONNABORTED && smc_close(&m, false) == 0);

	m = (struct smc_machine){ .state = SMC_ACTIVE };
	CHECK(smc_shutdown_both(&m, false) == ISMFS_PEER_CONN_CLOSED && smc_read_stop(&m) == SMC_EOF && smc_write_stop(&m) == EPIPE);
	smc_received(&m, ISMFS_PEER_CONN_CLOSED);
	CHECK(m.state == SMC_APPFINCLOSEWAIT && smc_close(&m, false) == 0);
}

int main(void)
{
	test_gid();
	test_sizes();
	test_machine();
	test_capture(TESTDATA "smcd1.pcap");
	test_capture(TESTDATA "smcd2.pcap");
	test_capture(TESTDATA "noeid.pcap");
	CHECK(seen[CLC_PROPOSAL] == 4 && seen[CLC_ACCEPT] == 3 && seen[CLC_CONFIRM] == 3 && seen[CLC_DECLINE] == 1);
	printf("clc_test: ok\n");
	return 0;
}
