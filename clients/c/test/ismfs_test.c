/* SPDX-License-Identifier: Apache-2.0 */
/* Cursors, hostile headers, ring copies, ends and counters, against a fake mount (no daemon, no root). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cursor.h"
#include "fake.h"
#include "internal.h"

#define LEN 4064u /* the ring of the smallest DMB */

static struct cursor at(uint16_t wrap, uint32_t count)
{
	return (struct cursor){ .count = count, .wrap = wrap };
}

static void test_words(void)
{
	struct word w = { .at = { 0x11223344, 0x5566 }, .producer_flags = 0x80, .state_flags = 0x40 };
	uint64_t packed = word_pack(w);
	struct word back = word_unpack(packed);
	unsigned char bytes[8];

	memcpy(bytes, &packed, 8);
	CHECK(bytes[6] == 0x80 && bytes[7] == 0x40);
	CHECK(cursor_equal(back.at, w.at) && back.producer_flags == 0x80 && back.state_flags == 0x40);
}

static void test_distance(void)
{
	CHECK(cursor_distance(at(0, 0), at(0, 0), LEN) == 0);
	CHECK(cursor_distance(at(0, 10), at(0, 30), LEN) == 20);
	CHECK(cursor_distance(at(0, 30), at(0, 10), LEN) == -EPROTO);
	CHECK(cursor_distance(at(0, 30), at(1, 30), LEN) == LEN);
	CHECK(cursor_distance(at(0, 30), at(1, 31), LEN) == -EPROTO);
	CHECK(cursor_distance(at(65535, LEN - 1), at(0, 0), LEN) == 1);
	CHECK(cursor_distance(at(0, 0), at(2, 0), LEN) == -EPROTO);
	CHECK(cursor_distance(at(1, 0), at(0, 0), LEN) == -EPROTO);
	CHECK(cursor_equal(cursor_add(at(65535, LEN - 1), 1, LEN), at(0, 0)));
	CHECK(cursor_equal(cursor_add(at(3, 7), LEN, LEN), at(4, 7)));
}

/* Every byte arrives, and none beside them, wherever the two begin. */
static void test_fill(void)
{
	static const size_t sizes[] = { 0, 1, 63, 2047, 2048, 2049, 4096, 5000, 65536 };
	static const struct {
		size_t to, from;
	} places[] = { { 0, 0 }, { 44, 0 }, { 64, 64 }, { 1, 63 }, { 63, 1 }, { 100, 4196 }, { 17, 5 } };
	enum { ROOM = 65536 + 8192 };
	static _Alignas(4096) unsigned char from[ROOM], got[ROOM], want[ROOM];

	for (size_t i = 0; i < ROOM; i++)
		from[i] = (unsigned char)(i * 7 + i / 251);
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
		for (size_t p = 0; p < sizeof(places) / sizeof(places[0]); p++) {
			memset(got, 0xee, ROOM);
			memset(want, 0xee, ROOM);
			memcpy(want + places[p].to, from + places[p].from, sizes[s]);
			ring_fill(got + places[p].to, from + places[p].from, sizes[s]);
			CHECK(memcmp(got, want, ROOM) == 0);
		}
}

static void test_accept(void)
{
	static const struct {
		struct cursor last, next, limit;
		int want;
	} cases[] = {
		{ { 10, 0 }, { 20, 0 }, { 10, 1 }, 0 },
		{ { 10, 0 }, { 10, 1 }, { 10, 1 }, 0 },
		{ { 10, 0 }, { 10, 0 }, { 10, 0 }, 0 },
		{ { 10, 0 }, { LEN, 0 }, { 10, 1 }, -EPROTO },       /* count beyond the ring */
		{ { 10, 0 }, { UINT32_MAX, 0 }, { 10, 1 }, -EPROTO },
		{ { 10, 0 }, { 9, 0 }, { 10, 1 }, -EPROTO },         /* backwards */
		{ { 10, 0 }, { 11, 1 }, { 10, 1 }, -EPROTO },        /* more than a ring */
		{ { 10, 0 }, { 0, 2 }, { 10, 1 }, -EPROTO },         /* wrap skipped */
		{ { 10, 1 }, { 20, 0 }, { 10, 2 }, -EPROTO },        /* wrap back */
		{ { 0, 0 }, { 21, 0 }, { 20, 0 }, -EPROTO },         /* consumed more than was produced */
		{ { 0, 65535 }, { 0, 0 }, { 0, 0 }, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cursor last = cases[i].last;

		CHECK(cursor_accept(&last, cases[i].next, cases[i].limit, LEN) == cases[i].want);
		CHECK(cursor_equal(last, cases[i].want == 0 ? cases[i].next : cases[i].last));
	}
}

static void test_tokens(void)
{
	uint64_t token = 0;
	char text[ISMFS_TOKEN_TEXT];

	ismfs_token_format(0xabcdef, text);
	CHECK(strcmp(text, "0000000000abcdef") == 0);
	CHECK(ismfs_token_parse(text, &token) == 0 && token == 0xabcdef);
	CHECK(ismfs_token_parse("0000000000000000", &token) == -EINVAL);
	CHECK(ismfs_token_parse("0000000000ABCDEF", &token) == -EINVAL);
	CHECK(ismfs_token_parse("abcdef", &token) == -EINVAL);
}

/* Write a word into end 0's header as a hostile peer would, and receive, or send, there. */
static void hostile(struct fake *fake, size_t offset, struct word w, bool receive)
{
	struct fake_pair pair;
	uint64_t packed = word_pack(w);
	char byte = 0;

	fake_connect(fake, ISMFS_MIN_SIZE, false, 0, &pair);
	memcpy(pair.own[0].map + offset, &packed, sizeof(packed));
	if (receive)
		CHECK(ismfs_conn_recv(pair.conn[0], &byte, 1, 0) == -EPROTO);
	else
		CHECK(ismfs_conn_send(pair.conn[0], &byte, 1, 0) == -EPROTO);
	CHECK(ismfs_conn_recv(pair.conn[0], &byte, 1, 0) == -EPROTO);
	fake_disconnect(&pair);
}

static void test_hostile(struct fake *fake)
{
	hostile(fake, ISMFS_OFF_PROD, (struct word){ .at = { LEN, 0 } }, true);
	hostile(fake, ISMFS_OFF_PROD, (struct word){ .at = { 1, 1 } }, true);
	hostile(fake, ISMFS_OFF_PROD, (struct word){ .at = { 0, 2 } }, true);
	hostile(fake, ISMFS_OFF_PROD, (struct word){ .at = { 0, 65535 } }, true);
	hostile(fake, ISMFS_OFF_CONS, (struct word){ .at = { 1, 0 } }, false);
	hostile(fake, ISMFS_OFF_CONS, (struct word){ .at = { UINT32_MAX, 0 } }, false);
}

static void test_flag_that_goes_away(struct fake *fake)
{
	struct fake_pair pair;
	uint64_t done = word_pack((struct word){ .state_flags = ISMFS_PEER_DONE_WRITING }), none = 0;
	char byte;

	fake_connect(fake, ISMFS_MIN_SIZE, false, 0, &pair);
	memcpy(pair.own[0].map + ISMFS_OFF_CONS, &done, 8);
	CHECK(ismfs_conn_recv(pair.conn[0], &byte, 1, 0) == 0);
	memcpy(pair.own[0].map + ISMFS_OFF_CONS, &none, 8);
	CHECK(ismfs_conn_recv(pair.conn[0], &byte, 1, 0) == -EPROTO);
	fake_disconnect(&pair);
}

/* Every step size goes round the ring's end at another place. */
static void test_ring(struct fake *fake, bool separated, size_t step)
{
	unsigned char out[LEN], in[LEN];
	struct fake_pair pair;
	size_t sent = 0, received = 0;

	fake_connect(fake, ISMFS_MIN_SIZE, separated, separated ? ISMFS_USE_BELL : 0, &pair);
	while (received < 3 * LEN + step) {
		ssize_t n;

		for (size_t i = 0; i < step; i++)
			out[i] = pattern(sent + i);
		n = ismfs_conn_send(pair.conn[0], out, step, 0);
		CHECK(n >= 0 || n == -EAGAIN);
		sent += n > 0 ? (size_t)n : 0;
		n = ismfs_conn_recv(pair.conn[1], in, step, 0);
		CHECK(n > 0);
		for (ssize_t i = 0; i < n; i++)
			CHECK(in[i] == pattern(received + (size_t)i));
		received += (size_t)n;
	}
	fake_disconnect(&pair);
}

static void test_full_and_borrowed(struct fake *fake)
{
	struct fake_pair pair;
	char data[LEN + 1] = { 0 };
	const void *read_at;
	void *write_at;

	fake_connect(fake, ISMFS_MIN_SIZE, false, 0, &pair);
	CHECK(ismfs_conn_peek(pair.conn[1], &read_at) == 0);
	CHECK(ismfs_conn_reserve(pair.conn[0], &write_at) == LEN);
	memset(write_at, 'x', 100);
	CHECK(ismfs_conn_commit(pair.conn[0], LEN + 1) == -EINVAL);
	CHECK(ismfs_conn_commit(pair.conn[0], 100) == 0);
	CHECK(ismfs_conn_send(pair.conn[0], data, sizeof(data), 0) == LEN - 100);
	CHECK(ismfs_conn_send(pair.conn[0], data, 1, 0) == -EAGAIN);
	CHECK(ismfs_conn_peek(pair.conn[1], &read_at) == LEN);
	CHECK(((const char *)read_at)[99] == 'x');
	CHECK(ismfs_conn_consume(pair.conn[1], LEN + 1) == -EINVAL);
	CHECK(ismfs_conn_consume(pair.conn[1], LEN) == 0);
	CHECK(ismfs_conn_send(pair.conn[0], data, 1, 0) == 1);
	fake_disconnect(&pair);
}

static void test_ends(struct fake *fake)
{
	struct fake_pair pair;
	char data[8] = "1234567";

	fake_connect(fake, ISMFS_MIN_SIZE, false, 0, &pair);
	CHECK(ismfs_conn_send(pair.conn[0], data, 4, 0) == 4);
	CHECK(ismfs_conn_shutdown(pair.conn[0]) == 0);
	CHECK(ismfs_conn_send(pair.conn[0], data, 1, 0) == -EPIPE);
	CHECK(ismfs_conn_recv(pair.conn[1], data, 8, 0) == 4);
	CHECK(ismfs_conn_recv(pair.conn[1], data, 8, 0) == 0);
	CHECK(ismfs_conn_send(pair.conn[1], data, 1, 0) == 1);
	ismfs_conn_close(pair.conn[0]); /* with a byte unread */
	pair.conn[0] = NULL;
	CHECK(ismfs_conn_send(pair.conn[1], data, 1, 0) == -ECONNRESET);
	CHECK(ismfs_conn_recv(pair.conn[1], data, 8, 0) == -ECONNRESET);
	fake_disconnect(&pair);
}

/* What a dead peer had published is read first. */
static void test_peer_gone(struct fake *fake, unsigned int flags)
{
	struct fake_pair pair;
	char data[8] = "1234567";

	fake_connect(fake, ISMFS_MIN_SIZE, false, flags, &pair);
	CHECK(ismfs_conn_send(pair.conn[0], data, 4, 0) == 4);
	fake_drop_reference(fake, &pair.own[0]);
	fake_drop_reference(fake, &pair.own[1]);
	CHECK(ismfs_conn_recv(pair.conn[1], data, 8, -1) == 4);
	CHECK(ismfs_conn_recv(pair.conn[1], data, 8, -1) == -ECONNRESET);
	CHECK(ismfs_conn_send(pair.conn[1], data, 8, -1) == -ECONNRESET);
	fake_disconnect(&pair);
}

static void test_procs(struct fake *fake)
{
	struct ismfs_procs *procs;
	struct fake_pair pair;
	struct ismfs_conn *counted;
	char data[64] = { 0 };
	uint64_t numbers[65];
	int fd;

	CHECK(ismfs_procs_open(&fake->dev, &procs) == 0);
	fake_connect(fake, ISMFS_MIN_SIZE, false, 0, &pair);
	CHECK(ismfs_conn_open(&fake->dev, &pair.own[0], &pair.peer[0], procs, 0, &counted) == 0);
	CHECK(ismfs_conn_send(counted, data, sizeof(data), 0) == (ssize_t)sizeof(data));
	fd = openat(fake->dev.dir, "procs/7", O_RDONLY);
	CHECK(pread(fd, numbers, sizeof(numbers), 64) == (ssize_t)sizeof(numbers));
	CHECK(numbers[60] == sizeof(data) && numbers[62] == 1 && numbers[18] == 1 && numbers[59] == 0);
	close(fd);
	ismfs_conn_close(counted);
	fake_disconnect(&pair);
	ismfs_procs_close(procs);
}

int main(void)
{
	struct fake fake;

	alarm(120);
	test_words();
	test_fill();
	test_distance();
	test_accept();
	test_tokens();
	fake_open(&fake);
	test_hostile(&fake);
	test_flag_that_goes_away(&fake);
	for (size_t step = 1; step < LEN; step = step * 3 + 1) {
		test_ring(&fake, false, step);
		test_ring(&fake, true, step);
	}
	test_full_and_borrowed(&fake);
	test_ends(&fake);
	test_peer_gone(&fake, 0);
	test_peer_gone(&fake, ISMFS_USE_BELL);
	test_procs(&fake);
	fake_close(&fake);
	puts("ok");
	return 0;
}
