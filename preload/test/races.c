/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that move the bytes of one connection at once, each in its own way: each byte is moved once. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

enum { MUCH = 16 << 20, PIECE = 1 << 16, READERS = 4 };

/* ---- reading ---- */

struct reader {
	pthread_t thread;
	int fd, i;
	uint64_t seen[256];
};

static void see(struct reader *r, const unsigned char *b, ssize_t n)
{
	for (ssize_t i = 0; i < n; i++)
		r->seen[b[i]]++;
}

static void empty_pipe(struct reader *r, int pipe, ssize_t n)
{
	unsigned char b[PIECE];

	while (n > 0) {
		ssize_t got = read(pipe, b, (size_t)n);

		check(got > 0);
		see(r, b, got);
		n -= got;
	}
}

/* Reads, or splices, so that all is moved or that the pipe is full before. */
static void *read_some(void *reader)
{
	struct reader *r = reader;
	unsigned char b[PIECE];
	int pipes[2];
	ssize_t n;

	check(pipe(pipes) == 0 && fcntl(pipes[1], F_SETPIPE_SZ, 4096) > 0);
	do {
		n = r->i % 2 == 0 ? splice(r->fd, NULL, pipes[1], NULL, PIECE, 0) : read(r->fd, b, 3000);
		check(n >= 0);
		if (r->i % 2 == 0)
			empty_pipe(r, pipes[0], n);
		else
			see(r, b, n);
	} while (n > 0);
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0);
	return NULL;
}

static void readers_beside_splices(void)
{
	struct pair p = pair_open();
	struct reader readers[READERS];
	unsigned char b[PIECE];
	uint64_t sent[256] = { 0 };
	uint32_t seed = 1;

	memset(readers, 0, sizeof(readers));
	for (int i = 0; i < READERS; i++) {
		readers[i].fd = p.server;
		readers[i].i = i;
		check(pthread_create(&readers[i].thread, NULL, read_some, &readers[i]) == 0);
	}
	for (int left = MUCH; left > 0; left -= PIECE) {
		for (int i = 0; i < PIECE; i++) {
			seed = seed * 1103515245 + 12345;
			b[i] = (unsigned char)(seed >> 16);
			sent[b[i]]++;
		}
		write_all(p.client, b, PIECE);
	}
	check(shutdown(p.client, SHUT_WR) == 0);
	for (int i = 0; i < READERS; i++)
		check(pthread_join(readers[i].thread, NULL) == 0);
	for (int v = 0; v < 256; v++) {
		for (int i = 0; i < READERS; i++)
			sent[v] -= readers[i].seen[v];
		check(sent[v] == 0);
	}
	pair_close(p);
}

/* ---- writing ---- */

enum { ROUNDS = 300 };

struct writer {
	pthread_t thread;
	int fd;
	bool splices;
	uint64_t sent;
};

static pthread_barrier_t full, emptied;

/* Until nothing more fits. */
static void fill(struct writer *w, const char *b, size_t n, const int pipes[2], size_t *held)
{
	for (;;) {
		ssize_t put;

		if (w->splices && *held == 0) {
			check(write(pipes[1], b, n) == (ssize_t)n);
			*held = n;
		}
		put = wrote(w->splices ? splice(pipes[0], NULL, w->fd, NULL, n, SPLICE_F_NONBLOCK) : write(w->fd, b, n));
		check(put > 0 || (put == -1 && errno == EAGAIN));
		if (put < 0)
			return;
		w->sent += (uint64_t)put;
		*held -= w->splices ? (size_t)put : 0;
	}
}

static void *write_some(void *writer)
{
	struct writer *w = writer;
	size_t held = 0;
	char b[4000];
	int pipes[2];

	memset(b, w->splices ? 's' : 'w', sizeof(b));
	check(pipe(pipes) == 0);
	for (int i = 0; i < ROUNDS; i++) {
		fill(w, b, sizeof(b), pipes, &held);
		pthread_barrier_wait(&full);
		pthread_barrier_wait(&emptied);
	}
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0);
	return NULL;
}

static ssize_t take(int fd, uint64_t got[2])
{
	char b[PIECE];
	ssize_t n = read(fd, b, sizeof(b));

	for (ssize_t i = 0; i < n; i++)
		got[b[i] == 's']++;
	return n;
}

/* Nobody reads while they write: who waited would wait for ever. */
static void writers_beside_splices(void)
{
	struct pair p = pair_open();
	struct writer writers[2] = { { .fd = p.client }, { .fd = p.client, .splices = true } };
	uint64_t got[2] = { 0 };

	set_nonblocking(p.client, 1);
	set_nonblocking(p.server, 1);
	check(pthread_barrier_init(&full, NULL, 3) == 0 && pthread_barrier_init(&emptied, NULL, 3) == 0);
	for (int i = 0; i < 2; i++)
		check(pthread_create(&writers[i].thread, NULL, write_some, &writers[i]) == 0);
	for (int i = 0; i < ROUNDS; i++) {
		pthread_barrier_wait(&full);
		while (take(p.server, got) > 0)
			;
		check(errno == EAGAIN);
		pthread_barrier_wait(&emptied);
	}
	for (int i = 0; i < 2; i++)
		check(pthread_join(writers[i].thread, NULL) == 0);
	set_nonblocking(p.server, 0);
	check(shutdown(p.client, SHUT_WR) == 0);
	while (take(p.server, got) > 0)
		;
	check(got[0] == writers[0].sent && got[1] == writers[1].sent && got[0] + got[1] > 0);
	pair_close(p);
}

void test_races(void)
{
	RUN(readers_beside_splices);
	RUN(writers_beside_splices);
}
