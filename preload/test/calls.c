/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing in every form, modes, limits and ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static void vectors_and_messages(void)
{
	struct pair p = pair_open();
	char a[5] = "", b[7] = "";
	struct iovec out[2] = { { (char *)"hello", 5 }, { (char *)" world!", 7 } }, in[2] = { { a, 5 }, { b, 7 } };
	struct msghdr m = { .msg_iov = out, .msg_iovlen = 2 }, back = { .msg_iov = in, .msg_iovlen = 2 };
	struct mmsghdr many[2] = { { .msg_hdr = m }, { .msg_hdr = m } };
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);

	check(wrote(writev(p.client, out, 2)) == 12);
	check(readv(p.server, in, 2) == 12 && memcmp(a, "hello", 5) == 0 && memcmp(b, " world!", 7) == 0);
	memset(a, 0, 5);
	check(wrote(sendmsg(p.server, &m, 0)) == 12);
	check(recvmsg(p.client, &back, 0) == 12 && memcmp(a, "hello", 5) == 0 && back.msg_flags == 0);
	check(wrote(sendto(p.client, "abc", 3, 0, NULL, 0)) == 3);
	check(recvfrom(p.server, a, 5, 0, (struct sockaddr *)&from, &size) == 3 && memcmp(a, "abc", 3) == 0);
	check(sendmmsg(p.client, many, 2, 0) == 2 && many[0].msg_len == 12 && many[1].msg_len == 12);
	wrote(24);
	check(recv(p.server, a, 5, MSG_WAITALL) == 5);
	for (int left = 19; left > 0;) {
		ssize_t n = recv(p.server, b, left < 7 ? (size_t)left : 7, 0);

		check(n > 0);
		left -= (int)n;
	}
	check(read(p.server, a, 0) == 0 && write(p.client, a, 0) == 0);
	pair_close(p);
}

static void flags(void)
{
	struct pair p = pair_open();
	char b[64];
	int n = -1;

	check(recv(p.server, b, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	write_all(p.client, "peeked", 6);
	check(recv(p.server, b, 64, MSG_PEEK) == 6 && recv(p.server, b, 2, MSG_PEEK) == 2);
	check(ioctl(p.server, FIONREAD, &n) == 0 && n == 6);
	check(recv(p.server, b, 64, 0) == 6 && memcmp(b, "peeked", 6) == 0);
	check(ioctl(p.server, FIONREAD, &n) == 0 && n == 0);
	check(wrote(send(p.client, "ab", 2, MSG_MORE)) == 2 && wrote(send(p.client, "c", 1, MSG_NOSIGNAL)) == 1);
	check(recv(p.server, b, 3, MSG_WAITALL) == 3 && memcmp(b, "abc", 3) == 0);
	n = 1;
	check(ioctl(p.server, FIONBIO, &n) == 0 && read(p.server, b, 1) == -1 && errno == EAGAIN);
	check(fcntl(p.server, F_GETFL) & O_NONBLOCK);
	check(fcntl(p.server, F_SETFL, 0) == 0);
	pair_close(p);
}

/* A writer that must not wait gets EAGAIN when the ring is full, and space when it is read. */
static void full(void)
{
	struct pair p = pair_open();
	static char b[1 << 16];
	struct pollfd out = { .fd = p.client, .events = POLLOUT };
	size_t sent = 0, got = 0;
	ssize_t n;

	check(fcntl(p.client, F_SETFL, O_NONBLOCK) == 0);
	while ((n = wrote(write(p.client, b, sizeof(b)))) > 0)
		sent += (size_t)n;
	check(errno == EAGAIN && sent > 0);
	check(poll(&out, 1, 0) == 0);
	while (got < sent) {
		n = read(p.server, b, sizeof(b));
		check(n > 0);
		got += (size_t)n;
	}
	check(got == sent && recv(p.server, b, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(poll(&out, 1, 5000) == 1 && out.revents == POLLOUT);
	check(wrote(write(p.client, b, 1)) == 1);
	read_all(p.server, b, 1);
	pair_close(p);
}

static void limits(void)
{
	struct pair p = pair_open();
	struct timeval limit = { 0, 100000 };
	struct timespec before, after;
	char b;

	check(setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
	clock_gettime(CLOCK_MONOTONIC, &before);
	check(read(p.server, &b, 1) == -1 && errno == EAGAIN);
	clock_gettime(CLOCK_MONOTONIC, &after);
	check((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 >= 95);
	pair_close(p);
}

static void ends(void)
{
	struct pair p = pair_open();
	char b[8];

	write_all(p.client, "last", 4);
	check(shutdown(p.client, SHUT_WR) == 0);
	check(read(p.server, b, 8) == 4 && read(p.server, b, 8) == 0 && read(p.server, b, 8) == 0);
	write_all(p.server, "still", 5);
	check(read(p.client, b, 8) == 5);
	check(send(p.client, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	pair_close(p);

	p = pair_open();
	write_all(p.client, "unread", 6);
	check(close(p.server) == 0);
	check(read(p.client, b, 8) == -1 && errno == ECONNRESET);
	check(close(p.client) == 0);

	p = pair_open();
	check(shutdown(p.client, SHUT_RDWR) == 0);
	check(read(p.client, b, 8) == 0 && send(p.client, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	check(read(p.server, b, 8) == 0 && close(p.server) == 0);
	pair_close(pair_open()); /* while what is shut down is not closed */
	check(close(p.client) == 0);

	p = pair_open();
	write_all(p.client, "read", 4);
	check(close(p.client) == 0);
	check(read(p.server, b, 8) == 4 && read(p.server, b, 8) == 0);
	check(close(p.server) == 0);

	p = pair_open();
	check(setsockopt(p.client, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger)) == 0);
	check(close(p.client) == 0);
	check(read(p.server, b, 8) == -1 && errno == ECONNRESET);
	check(close(p.server) == 0);
}

static volatile sig_atomic_t signals;

static void count_signal(int n)
{
	(void)n;
	signals++;
}

static void broken_pipe(void)
{
	struct sigaction action = { .sa_handler = count_signal }, old;
	struct pair p = pair_open();

	check(sigaction(SIGPIPE, &action, &old) == 0);
	check(shutdown(p.client, SHUT_WR) == 0);
	signals = 0;
	check(write(p.client, "x", 1) == -1 && errno == EPIPE && signals == 1);
	check(sigaction(SIGPIPE, &old, NULL) == 0);
	pair_close(p);
}

static void *signal_soon(void *thread)
{
	for (int i = 0; i < 20; i++) {
		usleep(20000);
		pthread_kill(*(pthread_t *)thread, SIGUSR1);
	}
	return NULL;
}

static pthread_t to_signal;

static void *write_late(void *fd)
{
	usleep(200000);
	write_all(*(int *)fd, "z", 1);
	return NULL;
}

static void interrupted(void)
{
	struct sigaction action = { .sa_handler = count_signal }, old;
	struct pair p = pair_open();
	pthread_t self = pthread_self(), other, writer;
	char b;

	check(sigaction(SIGUSR1, &action, &old) == 0);
	check(pthread_create(&other, NULL, signal_soon, &self) == 0);
	check(read(p.server, &b, 1) == -1 && errno == EINTR);
	action.sa_flags = SA_RESTART;
	check(sigaction(SIGUSR1, &action, NULL) == 0);
	check(pthread_create(&writer, NULL, write_late, &p.client) == 0);
	check(read(p.server, &b, 1) == 1 && b == 'z');
	check(pthread_join(writer, NULL) == 0 && pthread_join(other, NULL) == 0);
	check(sigaction(SIGUSR1, &old, NULL) == 0);
	pair_close(p);
}

static void *write_some_and_signal(void *fd)
{
	usleep(50000);
	write_all(*(int *)fd, "abc", 3);
	usleep(50000);
	check(pthread_kill(to_signal, SIGUSR1) == 0);
	usleep(50000);
	write_all(*(int *)fd, "defg", 4);
	return NULL;
}

/* A call that has moved bytes already is not resumed: it tells how many. */
static void interrupted_in_the_middle(void)
{
	struct sigaction action = { .sa_handler = count_signal, .sa_flags = SA_RESTART }, old;
	static char much[16 << 20];
	struct pair p = pair_open();
	pthread_t other;
	char b[8];
	ssize_t n, got;

	to_signal = pthread_self();
	check(sigaction(SIGUSR1, &action, &old) == 0);
	for (int peek = MSG_PEEK;; peek = 0) {
		check(pthread_create(&other, NULL, write_some_and_signal, &p.client) == 0);
		check(recv(p.server, b, 7, MSG_WAITALL | peek) == 3 && memcmp(b, "abc", 3) == 0);
		check(pthread_join(other, NULL) == 0);
		if (!peek)
			break;
		read_all(p.server, b, 7);
	}
	read_all(p.server, b, 4);
	check(pthread_create(&other, NULL, signal_soon, &to_signal) == 0);
	n = wrote(write(p.client, much, sizeof(much)));
	check(n > 0 && n < (ssize_t)sizeof(much) && pthread_join(other, NULL) == 0);
	for (got = 0; got < n;) {
		ssize_t one = read(p.server, much, sizeof(much));

		check(one > 0);
		got += one;
	}
	check(sigaction(SIGUSR1, &old, NULL) == 0);
	pair_close(p);
}

/* ---- files and pipes ---- */

enum { FILE_SIZE = 300000 };

static void *drain(void *fd)
{
	char *b = malloc(FILE_SIZE);

	read_all(*(int *)fd, b, FILE_SIZE);
	return b;
}

static void files(void)
{
	struct pair p = pair_open();
	char name[] = "/tmp/smc-run-test-XXXXXX", *b = malloc(FILE_SIZE);
	int fd = mkstemp(name), pipes[2];
	void *got;
	pthread_t reader;
	off_t at = 0;

	check(fd >= 0 && unlink(name) == 0 && pipe(pipes) == 0);
	for (int i = 0; i < FILE_SIZE; i++)
		b[i] = (char)(i * 7 + i / 251);
	check(write(fd, b, FILE_SIZE) == FILE_SIZE && lseek(fd, 0, SEEK_SET) == 0);

	check(pthread_create(&reader, NULL, drain, &p.server) == 0);
	while (at < FILE_SIZE)
		check(wrote(sendfile(p.client, fd, &at, (size_t)(FILE_SIZE - at))) > 0);
	check(lseek(fd, 0, SEEK_CUR) == 0);
	check(pthread_join(reader, &got) == 0 && memcmp(got, b, FILE_SIZE) == 0);
	free(got);

	check(pthread_create(&reader, NULL, drain, &p.server) == 0);
	for (ssize_t n = 0; n < FILE_SIZE;) {
		ssize_t one = wrote(sendfile(p.client, fd, NULL, 100000));

		check(one > 0);
		n += one;
	}
	check(lseek(fd, 0, SEEK_CUR) == FILE_SIZE && sendfile(p.client, fd, NULL, 1) == 0);
	check(pthread_join(reader, &got) == 0 && memcmp(got, b, FILE_SIZE) == 0);
	free(got);

	check(write(pipes[1], "through", 7) == 7);
	check(wrote(splice(pipes[0], NULL, p.client, NULL, 100, 0)) == 7);
	check(splice(p.server, NULL, pipes[1], NULL, 100, 0) == 7);
	check(read(pipes[0], b, 100) == 7 && memcmp(b, "through", 7) == 0);
	check(fcntl(p.server, F_SETFL, O_NONBLOCK) == 0);
	check(splice(p.server, NULL, pipes[1], NULL, 100, SPLICE_F_NONBLOCK) == -1 && errno == EAGAIN);
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0 && close(fd) == 0);
	free(b);
	pair_close(p);
}

static void *splice_there(void *fds)
{
	const int *fd = fds;

	return (void *)wrote(splice(fd[0], NULL, fd[1], NULL, 100, 0));
}

/* The smallest stack that a thread can have, and nothing below it; a sanitizer's frames do not fit there. */
static void splice_on_a_small_stack(void)
{
#ifdef SANITIZED
	enum { STACK = 1 << 20 };
#else
	enum { STACK = 16384 };
#endif
	struct pair p = pair_open();
	int pipes[2], fds[2];
	pthread_attr_t small;
	pthread_t thread;
	void *n;

	check(pipe(pipes) == 0 && write(pipes[1], "through", 7) == 7);
	fds[0] = pipes[0], fds[1] = p.client;
	check(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, STACK) == 0 && pthread_attr_setguardsize(&small, 1 << 20) == 0);
	check(pthread_create(&thread, &small, splice_there, fds) == 0 && pthread_join(thread, &n) == 0 && n == (void *)7);
	wants(p.server, "through");
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0);
	pair_close(p);
}

/* What sendfile refuses, it refuses with the kernel's errors: by EINVAL programs know that they have to copy. */
static void not_a_file(void)
{
	struct pair p = pair_open();
	int pipes[2], directory = open("/", O_RDONLY), file = open("/proc/self/exe", O_RDONLY);
	off_t before = -1;

	check(pipe(pipes) == 0 && directory >= 0 && file >= 0);
	check(sendfile(p.client, pipes[0], NULL, 10) == -1 && errno == EINVAL);
	check(sendfile(p.client, directory, NULL, 10) == -1 && errno == EINVAL);
	check(sendfile(p.client, p.server, NULL, 10) == -1 && errno == EINVAL);
	check(sendfile(p.client, file, &before, 10) == -1 && errno == EINVAL && before == -1);
	check(sendfile(p.client, -1, NULL, 10) == -1 && errno == EBADF);
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0 && close(directory) == 0 && close(file) == 0);
	pair_close(p);
}

/* Calls that are none of a connection's. */
static void not_a_listener(void)
{
	struct pair p = pair_open();
	struct epoll_event event = { .events = EPOLLIN };
	int set = epoll_create1(0), error;
	socklen_t negative = (socklen_t)-1;

	check(accept(p.client, NULL, NULL) == -1 && errno == EINVAL);
	check(accept4(p.server, NULL, NULL, 0) == -1 && errno == EINVAL);
	check(getsockopt(p.client, SOL_SOCKET, SO_ERROR, &error, &negative) == -1 && errno == EINVAL);
	check(epoll_ctl(set, EPOLL_CTL_ADD, p.client, &event) == 0);
	check(epoll_ctl(set, 9, p.client, &event) == -1 && errno == EINVAL);
	check(wrote(write(p.server, "x", 1)) == 1 && epoll_wait(set, &event, 1, 1000) == 1);
	check(close(set) == 0);
	pair_close(p);
}

/* A pipe that is nearly full, and one that is empty, both blocking: with SPLICE_F_NONBLOCK nobody waits for who would empty or fill it. */
static void splice_never_waits(void)
{
	enum { BEFORE = 60000, SENT = 20000 };
	struct pair p = pair_open();
	char *b = malloc(BEFORE + SENT), *got = malloc(BEFORE);
	ssize_t moved, at = 0;
	int pipes[2];

	for (int i = 0; i < BEFORE + SENT; i++)
		b[i] = (char)(i * 7 + i / 251);
	check(pipe(pipes) == 0);
	check(splice(pipes[0], NULL, p.client, NULL, 100, SPLICE_F_NONBLOCK) == -1 && errno == EAGAIN);
	check(write(pipes[1], b, BEFORE) == BEFORE);
	check(wrote(write(p.client, b + BEFORE, SENT)) == SENT);
	check(splice(p.server, NULL, p.client, NULL, 100, 0) == -1 && errno == EINVAL);
	check(fcntl(p.server, F_SETFL, O_NONBLOCK) == 0);
	while (at < BEFORE + SENT) {
		while (splice(p.server, NULL, pipes[1], NULL, SENT, SPLICE_F_NONBLOCK) > 0)
			;
		check(errno == EAGAIN);
		moved = read(pipes[0], got, BEFORE);
		check(moved > 0 && memcmp(got, b + at, (size_t)moved) == 0);
		at += moved;
	}
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0);
	free(b);
	free(got);
	pair_close(p);
}

/* What a splice could not write stays in the pipe, whether it may not wait, has waited for too long, or was interrupted. */
static void splice_takes_nothing_in_vain(void)
{
	struct sigaction action = { .sa_handler = count_signal }, old;
	struct timeval limit = { 0, 50000 }, none = { 0 };
	struct pair p = pair_open();
	pthread_t self = pthread_self(), other;
	char *b = calloc(1, FILE_SIZE);
	long long filled = 0;
	int pipes[2], held;
	ssize_t n;

	check(pipe(pipes) == 0 && write(pipes[1], "piped", 5) == 5);
	check(setsockopt(p.client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0);
	while ((n = wrote(write(p.client, b, FILE_SIZE))) > 0)
		filled += n;
	check(errno == EAGAIN);
	check(splice(pipes[0], NULL, p.client, NULL, 100, 0) == -1 && errno == EAGAIN);
	check(setsockopt(p.client, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none)) == 0);
	check(sigaction(SIGUSR1, &action, &old) == 0);
	check(pthread_create(&other, NULL, signal_soon, &self) == 0);
	check(splice(pipes[0], NULL, p.client, NULL, 100, 0) == -1 && errno == EINTR);
	check(pthread_join(other, NULL) == 0 && sigaction(SIGUSR1, &old, NULL) == 0);
	check(fcntl(p.client, F_SETFL, O_NONBLOCK) == 0);
	check(splice(pipes[0], NULL, p.client, NULL, 100, 0) == -1 && errno == EAGAIN);
	check(ioctl(pipes[0], FIONREAD, &held) == 0 && held == 5);
	check(fcntl(p.client, F_SETFL, 0) == 0);
	while (filled > 0) {
		n = read(p.server, b, filled < FILE_SIZE ? (size_t)filled : FILE_SIZE);
		check(n > 0);
		filled -= n;
	}
	check(wrote(splice(pipes[0], NULL, p.client, NULL, 100, 0)) == 5);
	wants(p.server, "piped");
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0);
	free(b);
	pair_close(p);
}

/* ---- threads ---- */

enum { WRITERS = 4, RECORDS = 2000, RECORD = 64 };

static void *write_records(void *fd)
{
	char record[RECORD];

	for (int i = 0; i < RECORDS; i++) {
		memset(record, 'a' + i % 26, RECORD);
		check(wrote(write(*(int *)fd, record, RECORD)) == RECORD);
	}
	return NULL;
}

/* Each small write arrives in one piece, as over TCP. */
static void writers(void)
{
	struct pair p = pair_open();
	pthread_t thread[WRITERS];
	char record[RECORD];

	for (int i = 0; i < WRITERS; i++)
		check(pthread_create(&thread[i], NULL, write_records, &p.client) == 0);
	for (int i = 0; i < WRITERS * RECORDS; i++) {
		read_all(p.server, record, RECORD);
		for (int k = 1; k < RECORD; k++)
			check(record[k] == record[0]);
	}
	for (int i = 0; i < WRITERS; i++)
		check(pthread_join(thread[i], NULL) == 0);
	pair_close(p);
}

static void *read_to_the_end(void *fd)
{
	char b;

	return (void *)(intptr_t)read(*(int *)fd, &b, 1);
}

static void shut_while_another_reads(void)
{
	struct pair p = pair_open();
	pthread_t readers[2];
	void *result;

	for (int i = 0; i < 2; i++)
		check(pthread_create(&readers[i], NULL, read_to_the_end, &p.client) == 0);
	usleep(100000);
	check(shutdown(p.client, SHUT_RDWR) == 0);
	for (int i = 0; i < 2; i++)
		check(pthread_join(readers[i], &result) == 0 && (intptr_t)result == 0);
	pair_close(p);
}

/* ---- stdio ---- */

static void streams(void)
{
	struct pair p = pair_open();
	FILE *client = fdopen(p.client, "r+"), *server = fdopen(p.server, "r+");
	char line[64];

	check(client != NULL && server != NULL && fileno(client) == p.client);
	check(wrote(fprintf(client, "hello %d\n", 1)) == 8 && fflush(client) == 0);
	check(fgets(line, sizeof(line), server) != NULL && strcmp(line, "hello 1\n") == 0);
	check(wrote(dprintf(p.server, "answer %d\n", 2)) == 9);
	check(fgets(line, sizeof(line), client) != NULL && strcmp(line, "answer 2\n") == 0);
	check(fclose(client) == 0 && fgets(line, sizeof(line), server) == NULL && feof(server) && fclose(server) == 0);
	check(read(p.client, line, 1) == -1 && errno == EBADF);
}

void test_calls(void)
{
	RUN(vectors_and_messages);
	RUN(flags);
	RUN(full);
	RUN(limits);
	RUN(ends);
	RUN(broken_pipe);
	RUN(interrupted);
	RUN(interrupted_in_the_middle);
	RUN(splice_on_a_small_stack);
	RUN(not_a_file);
	RUN(not_a_listener);
	RUN(files);
	RUN(splice_never_waits);
	RUN(splice_takes_nothing_in_vain);
	RUN(writers);
	RUN(shut_while_another_reads);
	RUN(streams);
}
