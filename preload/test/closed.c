/* SPDX-License-Identifier: Apache-2.0 */
/* What a program finds whose peer has closed, or reset: errors, each told once, and the signal, in TCP's order. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* ---- peers that go; what is left is one end ---- */

/* Everything has been read. */
static int closed(void)
{
	struct pair p = pair_open();

	check(close(p.server) == 0);
	return p.client;
}

static int reset(void)
{
	struct pair p = pair_open();

	write_all(p.client, "unread", 6);
	check(close(p.server) == 0);
	return p.client;
}

/* It had ended its own direction before. */
static int reset_after_its_end(void)
{
	struct pair p = pair_open();

	check(shutdown(p.server, SHUT_WR) == 0);
	wants_end(p.client);
	write_all(p.client, "unread", 6);
	check(close(p.server) == 0);
	return p.client;
}

/* ---- what calls give ---- */

static void writes(int fd)
{
	signals = 0;
	check(write(fd, "w", 1) == 1 && signals == 0);
}

static void is_reset(ssize_t n)
{
	check(n == -1 && errno == ECONNRESET && signals == 0);
}

static void is_broken(ssize_t n, int signalled)
{
	check(n == -1 && errno == EPIPE && signals == signalled);
	signals = 0;
}

static void is_over(int fd)
{
	for (int i = 0; i < 2; i++) {
		is_broken(write(fd, "w", 1), 1);
		wants_end(fd);
	}
	is_broken(send(fd, "w", 1, MSG_NOSIGNAL), 0);
}

static int error_of(int fd)
{
	int error = -1;
	socklen_t size = sizeof(error);

	check(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0);
	return error;
}

static void shows(int fd, short wanted)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };

	check(poll(&p, 1, 5000) == 1 && p.revents == wanted);
}

enum { ENDED = POLLIN | POLLOUT | POLLRDHUP };

/* ---- a peer that has closed ---- */

static void lost_write(void)
{
	int fd = closed();

	shows(fd, ENDED);
	wants_end(fd);
	writes(fd);
	shows(fd, ENDED | POLLHUP | POLLERR);
	wants_end(fd);
	is_broken(write(fd, "w", 1), 1);
	shows(fd, ENDED | POLLHUP);
	check(error_of(fd) == 0);
	is_over(fd);
	check(close(fd) == 0);

	fd = closed();
	writes(fd);
	check(error_of(fd) == EPIPE && error_of(fd) == 0);
	is_over(fd);
	check(close(fd) == 0);
}

/* No more than a buffer's worth is taken. */
static void lost_in_part(void)
{
	enum { MUCH = 64 << 20 };
	char *b = calloc(1, MUCH);
	int fd = closed();
	ssize_t n;

	check(b != NULL);
	n = write(fd, b, MUCH);
	check(n > 0 && n < MUCH);
	is_over(fd);
	check(close(fd) == 0);
	free(b);
}

/* A set that shows edges alone has shown the end; the answer to the write is another one. */
static void lost_with_edges(void)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET };
	int fd = closed(), set = epoll_create1(EPOLL_CLOEXEC);

	check(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0);
	check(epoll_wait(set, &e, 1, 5000) == 1 && e.events == (EPOLLIN | EPOLLRDHUP));
	while (epoll_wait(set, &e, 1, 100) > 0)
		check(e.events == (EPOLLIN | EPOLLRDHUP));
	writes(fd);
	check(epoll_wait(set, &e, 1, 5000) == 1 && e.events == (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP));
	check(close(set) == 0 && close(fd) == 0);
}

/* ---- a peer that resets: whichever call comes first tells ---- */

static void reset_told_by_write(void)
{
	int fd = reset();

	shows(fd, ENDED | POLLHUP | POLLERR);
	is_reset(write(fd, "w", 1));
	shows(fd, ENDED | POLLHUP);
	check(error_of(fd) == 0);
	is_over(fd);
	check(close(fd) == 0);
}

static void reset_told_by_read(void)
{
	int fd = reset();
	char b;

	is_reset(recv(fd, &b, 1, MSG_PEEK));
	wants_end(fd);
	is_over(fd);
	check(close(fd) == 0);
}

static void reset_told_by_option(void)
{
	int fd = reset();

	check(error_of(fd) == ECONNRESET);
	wants_end(fd);
	is_over(fd);
	check(close(fd) == 0);
}

/* What had come before is read all the same. */
static void reset_with_bytes(void)
{
	struct pair p = pair_open();

	write_all(p.client, "unread", 6);
	write_all(p.server, "last", 4);
	check(close(p.server) == 0);
	is_reset(write(p.client, "w", 1));
	wants(p.client, "last");
	wants_end(p.client);
	is_over(p.client);
	check(close(p.client) == 0);
}

/* All that it said has been read, so reads say nothing. */
static void reset_after_end(void)
{
	int fd = reset_after_its_end();

	shows(fd, ENDED | POLLHUP | POLLERR);
	wants_end(fd);
	is_broken(write(fd, "w", 1), 1);
	check(error_of(fd) == 0);
	is_over(fd);
	check(close(fd) == 0);

	fd = reset_after_its_end();
	check(error_of(fd) == EPIPE);
	is_over(fd);
	check(close(fd) == 0);
}

/* Neither does one's own end hide it. */
static void reset_after_own_end(void)
{
	struct pair p = pair_open();

	write_all(p.client, "unread", 6);
	check(shutdown(p.client, SHUT_WR) == 0 && close(p.server) == 0);
	is_reset(write(p.client, "w", 1));
	is_over(p.client);
	check(close(p.client) == 0);
}

/* ---- the other calls that write ---- */

typedef ssize_t writer(int fd, int from);

static ssize_t by_writev(int fd, int from)
{
	struct iovec iov = { "w", 1 };

	(void)from;
	return writev(fd, &iov, 1);
}

static ssize_t by_sendmsg(int fd, int from)
{
	struct iovec iov = { "w", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	(void)from;
	return sendmsg(fd, &m, 0);
}

static ssize_t by_sendfile(int fd, int from)
{
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), saved;
	ssize_t n = sendfile(fd, file, NULL, 1);

	(void)from;
	saved = errno;
	check(file >= 0 && close(file) == 0);
	errno = saved;
	return n;
}

static ssize_t by_splice(int fd, int from)
{
	return splice(from, NULL, fd, NULL, 1, 0);
}

/* What cannot be written stays in the pipe. */
static void all_writers(void)
{
	static writer *const writers[] = { by_writev, by_sendmsg, by_sendfile, by_splice };
	int from[2];
	char b[8];

	check(pipe(from) == 0 && write(from[1], "abcdef", 6) == 6);
	for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
		int fd = closed();

		signals = 0;
		check(writers[i](fd, from[0]) == 1 && signals == 0);
		is_broken(writers[i](fd, from[0]), 1);
		is_over(fd);
		check(close(fd) == 0);
		fd = reset();
		is_reset(writers[i](fd, from[0]));
		is_broken(writers[i](fd, from[0]), 1);
		is_over(fd);
		check(close(fd) == 0);
	}
	check(read(from[0], b, sizeof(b)) == 5 && close(from[0]) == 0 && close(from[1]) == 0);
}

/* ---- processes ---- */

/* A program that minds no error ends by the signal, as yes does whose reader has gone. */
static void killed_by_it(void)
{
	struct pair p = pair_open();
	static char b[4096];
	int status = 0;
	pid_t child = fork();

	check(child >= 0);
	if (child == 0) {
		(void)signal(SIGPIPE, SIG_DFL);
		alarm(60);
		check(close(p.server) == 0);
		for (;;)
			wrote(write(p.client, b, sizeof(b)));
	}
	check(close(p.client) == 0);
	read_all(p.server, b, 1);
	check(close(p.server) == 0);
	check(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
}

/* The connection is one for all who have it. */
static void told_to_one(void)
{
	int fd = reset();
	pid_t child = fork();

	check(child >= 0);
	if (child == 0) {
		is_reset(write(fd, "w", 1));
		_exit(0);
	}
	ended_well(child);
	is_over(fd);
	check(close(fd) == 0);
}

void test_closed(void)
{
	struct sigaction action = { .sa_handler = count_signal }, old;

	check(sigaction(SIGPIPE, &action, &old) == 0);
	RUN(lost_write);
	RUN(lost_in_part);
	RUN(lost_with_edges);
	RUN(reset_told_by_write);
	RUN(reset_told_by_read);
	RUN(reset_told_by_option);
	RUN(reset_with_bytes);
	RUN(reset_after_end);
	RUN(reset_after_own_end);
	RUN(all_writers);
	RUN(killed_by_it);
	RUN(told_to_one);
	check(sigaction(SIGPIPE, &old, NULL) == 0);
}
