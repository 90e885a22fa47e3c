/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing in every form, modes, limits and ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
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
	check(pthread_create(&other, NULL, signal_again, &self) == 0);
	check(read(p.server, &b, 1) == -1 && errno == EINTR);
	action.sa_flags = SA_RESTART;
	check(sigaction(SIGUSR1, &action, NULL) == 0);
	check(pthread_create(&writer, NULL, write_late, &p.client) == 0);
	check(read(p.server, &b, 1) == 1 && b == 'z');
	check(pthread_join(writer, NULL) == 0 && pthread_join(other, NULL) == 0);
	check(sigaction(SIGUSR1, &old, NULL) == 0);
	pair_close(p);
}

static atomic_bool returned;

static void *write_some_and_signal(void *fd)
{
	usleep(50000);
	write_all(*(int *)fd, "abc", 3);
	while (!atomic_load(&returned)) {
		usleep(50000);
		check(pthread_kill(to_signal, SIGUSR1) == 0);
	}
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
	ssize_t n;

	to_signal = pthread_self();
	check(sigaction(SIGUSR1, &action, &old) == 0);
	for (int peek = MSG_PEEK;; peek = 0) {
		check(pthread_create(&other, NULL, write_some_and_signal, &p.client) == 0);
		atomic_store(&returned, false);
		check(recv(p.server, b, 7, MSG_WAITALL | peek) == 3 && memcmp(b, "abc", 3) == 0);
		atomic_store(&returned, true);
		check(pthread_join(other, NULL) == 0);
		if (!peek)
			break;
		read_all(p.server, b, 7);
	}
	read_all(p.server, b, 4);
	check(pthread_create(&other, NULL, signal_again, &to_signal) == 0);
	n = wrote(write(p.client, much, sizeof(much)));
	check(n > 0 && n < (ssize_t)sizeof(much) && pthread_join(other, NULL) == 0);
	read_all(p.server, much, (size_t)n);
	check(sigaction(SIGUSR1, &old, NULL) == 0);
	pair_close(p);
}

/* The same of calls that are several: what follows a part of a message is not sent, and messages that have come are told of. */
static void interrupted_among_messages(void)
{
	struct sigaction action = { .sa_handler = count_signal, .sa_flags = SA_RESTART }, old;
	static char much[16 << 20];
	struct iovec iovs[] = { { much, sizeof(much) }, { "abc", 3 } };
	struct mmsghdr m[] = { { .msg_hdr = { .msg_iov = &iovs[0], .msg_iovlen = 1 } }, { .msg_hdr = { .msg_iov = &iovs[1], .msg_iovlen = 1 } } };
	struct pair p = pair_open();
	pthread_t self = pthread_self(), other;

	check(sigaction(SIGUSR1, &action, &old) == 0);
	check(pthread_create(&other, NULL, signal_again, &self) == 0);
	check(sendmmsg(p.client, m, 2, 0) == 1 && wrote(m[0].msg_len) > 0 && m[0].msg_len < sizeof(much));
	check(pthread_join(other, NULL) == 0);
	read_all(p.server, much, m[0].msg_len);
	write_all(p.client, "abc", 3);
	check(pthread_create(&other, NULL, signal_again, &self) == 0);
	iovs[0].iov_len = 3;
	check(recvmmsg(p.server, m, 2, 0, NULL) == 1 && m[0].msg_len == 3 && memcmp(much, "abc", 3) == 0);
	check(pthread_join(other, NULL) == 0 && sigaction(SIGUSR1, &old, NULL) == 0);
	pair_close(p);
}

/* Calls that are none of a connection's. */
static void not_a_listener(void)
{
	struct pair p = pair_open();
	int error;
	socklen_t negative = (socklen_t)-1;

	check(accept(p.client, NULL, NULL) == -1 && errno == EINVAL);
	check(accept4(p.server, NULL, NULL, 0) == -1 && errno == EINVAL);
	check(getsockopt(p.client, SOL_SOCKET, SO_ERROR, &error, &negative) == -1 && errno == EINVAL);
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
	RUN(interrupted_among_messages);
	RUN(not_a_listener);
	RUN(writers);
	RUN(shut_while_another_reads);
	RUN(streams);
}
