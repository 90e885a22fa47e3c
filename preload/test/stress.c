/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many connections at once, many of them short.
 *
 *   smc-run-stress serve PORT             echoes; every second client is a thread's, every other one a child's
 *   smc-run-stress talk PORT MS THREADS   each thread connects, exchanges bytes that it knows again, closes, and begins anew
 *   smc-run-stress once PORT N HOW        connects, writes N bytes and ends
 *   smc-run-stress collect PORT WHEN      takes such clients one after another, and says what it has got of each. WHEN: soon; late: it looks
 *                                         at their Confirm when they have gone; or busy: it never sleeps
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 200000 };

static struct sockaddr_in address = { .sin_family = AF_INET };
static _Atomic long exchanged;
static int64_t until;

static void fail(const char *what)
{
	fprintf(stderr, "smc-run-stress: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* ---- the server ---- */

static void echo(int fd)
{
	char b[16384];
	ssize_t n;

	while ((n = read(fd, b, sizeof(b))) > 0)
		for (ssize_t done = 0, put; done < n; done += put) {
			put = write(fd, b + done, (size_t)(n - done));
			if (put < 0) {
				n = -1;
				break;
			}
		}
	close(fd);
}

#ifdef SANITIZED

/* A thread that ends gives its part of the sanitizer's memory back, past the lock of allocator.c: here none does. */
static void *echo_all(void *from)
{
	int fd;

	while (read((int)(intptr_t)from, &fd, sizeof(fd)) == (ssize_t)sizeof(fd))
		echo(fd);
	return NULL;
}

static void echo_in_thread(int fd)
{
	enum { THREADS = 16 };
	static int to[2];
	pthread_t thread;

	if (to[1] == 0) {
		if (pipe(to) != 0)
			fail("pipe");
		for (int i = 0; i < THREADS; i++)
			if (pthread_create(&thread, NULL, echo_all, (void *)(intptr_t)to[0]) != 0)
				fail("pthread_create");
	}
	if (write(to[1], &fd, sizeof(fd)) != (ssize_t)sizeof(fd))
		fail("write");
}

#else

static void *echo_one(void *fd)
{
	echo((int)(intptr_t)fd);
	return NULL;
}

static void echo_in_thread(int fd)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, echo_one, (void *)(intptr_t)fd) != 0)
		fail("pthread_create");
	pthread_detach(thread);
}

#endif

static int listens(void)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 128) != 0)
		fail("listen");
	return listener;
}

static void serve(void)
{
	int listener = listens();

	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0;; i++) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			fail("accept");
		if (i % 2 == 0) {
			echo_in_thread(fd);
			continue;
		}
		switch (fork()) {
		case -1:
			fail("fork");
			break;
		case 0:
			close(listener);
			echo(fd);
			_exit(0);
		}
		close(fd);
	}
}

/* ---- clients ---- */

struct exchange {
	int fd;
	const unsigned char *out;
	size_t n;
};

static void *send_all(void *argument)
{
	struct exchange *e = argument;

	for (size_t done = 0; done < e->n;) {
		ssize_t put = write(e->fd, e->out + done, e->n - done);

		if (put <= 0)
			fail("write");
		done += (size_t)put;
	}
	return NULL;
}

/* A large message has to be read while it is written: by another thread. */
static void exchange(int fd, const unsigned char *out, unsigned char *in, size_t n)
{
	struct exchange e = { fd, out, n };
	pthread_t writer;
	bool large = n > 4096;

	if (!large)
		send_all(&e);
	else if (pthread_create(&writer, NULL, send_all, &e) != 0)
		fail("pthread_create");
	for (size_t done = 0; done < n;) {
		ssize_t got = read(fd, in + done, n - done);

		if (got <= 0)
			fail("read");
		done += (size_t)got;
	}
	if (large)
		pthread_join(writer, NULL);
	if (memcmp(out, in, n) != 0) {
		fprintf(stderr, "smc-run-stress: %zu bytes came back changed\n", n);
		exit(1);
	}
	atomic_fetch_add(&exchanged, (long)n);
}

static void *talk(void *argument)
{
	unsigned int seed = (unsigned int)(intptr_t)argument;
	unsigned char *out = malloc(MOST), *in = malloc(MOST);

	for (int i = 0; i < MOST; i++)
		out[i] = (unsigned char)(rand_r(&seed) >> 8);
	while (now_ms() < until) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
			fail("connect");
		for (int k = rand_r(&seed) % 20; k >= 0; k--) {
			size_t most = rand_r(&seed) % 4 == 0 ? MOST : 500, n = 1 + (size_t)rand_r(&seed) % (most - 1);

			exchange(fd, out + rand_r(&seed) % (MOST - n + 1), in, n);
		}
		close(fd);
	}
	free(out);
	free(in);
	return NULL;
}

/* ---- clients that do not stay ---- */

static unsigned char nth(size_t i)
{
	return (unsigned char)(i % 251);
}

static bool has_ended(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || info.tcpi_state != TCP_ESTABLISHED;
}

/* The client can write once it has been answered, which a poll does; the rest of its handshake is left for later. */
static void wait_for_end(int fd)
{
	struct pollfd in = { .fd = fd, .events = POLLIN };

	for (int i = 0; i < 1000 && !has_ended(fd); i++) {
		usleep(2000);
		if (i % 100 == 5)
			(void)poll(&in, 1, 0);
	}
	usleep(20000); /* its memory goes after its TCP */
}

/* Returns what read ended with: 0, an errno. */
static int collect_one(int fd, bool busy, size_t *got)
{
	unsigned char b[5000];
	ssize_t n;

	*got = 0;
	while ((n = recv(fd, b, sizeof(b), busy ? MSG_DONTWAIT : 0)) > 0 || (busy && n < 0 && errno == EAGAIN))
		for (ssize_t i = 0; i < n; i++)
			if (b[i] != nth((*got)++))
				return EILSEQ;
	return n < 0 ? errno : 0;
}

static void collect(const char *when)
{
	bool late = strcmp(when, "late") == 0, busy = strcmp(when, "busy") == 0;
	int listener = listens();

	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL), error;
		size_t got;

		if (fd < 0)
			fail("accept");
		if (late)
			wait_for_end(fd);
		error = collect_one(fd, busy, &got);
		close(fd);
		printf("got %zu, then %s\n", got, error != 0 ? strerror(error) : "the end");
		fflush(stdout);
	}
}

static void end_as(const char *how, int fd)
{
	struct rlimit none = { 0, 0 };
	struct linger zero = { 1, 0 };

	(void)setrlimit(RLIMIT_CORE, &none);
	if (strcmp(how, "close") == 0)
		close(fd);
	else if (strcmp(how, "shutdown") == 0)
		(void)shutdown(fd, SHUT_WR);
	else if (strcmp(how, "linger") == 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &zero, sizeof(zero)) == 0)
		close(fd);
	else if (strcmp(how, "exit") == 0)
		exit(0);
	else if (strcmp(how, "quick_exit") == 0)
		quick_exit(0);
	else if (strcmp(how, "exit_group") == 0)
		(void)syscall(SYS_exit_group, 0);
	else if (strcmp(how, "exec") == 0)
		(void)execl("/bin/true", "true", (char *)NULL);
	else if (strcmp(how, "abort") == 0)
		abort();
	else if (strcmp(how, "kill") == 0)
		(void)raise(SIGKILL);
	else if (strcmp(how, "term") == 0)
		(void)raise(SIGTERM);
	_exit(0);
}

static void once(size_t size, const char *how)
{
	struct exchange all = { .fd = socket(AF_INET, SOCK_STREAM, 0), .n = size };
	unsigned char *b = malloc(size);

	for (size_t i = 0; i < size; i++)
		b[i] = nth(i);
	if (all.fd < 0 || connect(all.fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		fail("connect");
	all.out = b;
	send_all(&all);
	end_as(how, all.fd);
}

static bool is_mode(const char *mode, const char *name, int argc, int args)
{
	return strcmp(mode, name) == 0 && argc == args;
}

int main(int argc, char **argv)
{
	pthread_t threads[64];
	int n;

	if (argc < 3) {
		fprintf(stderr, "usage: smc-run-stress serve PORT | talk PORT MS THREADS | once PORT N HOW | collect PORT WHEN\n");
		return 2;
	}
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t)atoi(argv[2]));
	if (is_mode(argv[1], "serve", argc, 3))
		serve();
	else if (is_mode(argv[1], "collect", argc, 4))
		collect(argv[3]);
	else if (is_mode(argv[1], "once", argc, 5))
		once((size_t)atoi(argv[3]), argv[4]);
	else if (!is_mode(argv[1], "talk", argc, 5))
		return 2;
	until = now_ms() + atoi(argv[3]);
	n = atoi(argv[4]) < 64 ? atoi(argv[4]) : 64;
	for (int i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, talk, (void *)(intptr_t)(i + 1)) != 0)
			fail("pthread_create");
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	printf("bytes %ld\n", 2 * atomic_load(&exchanged));
	return 0;
}
