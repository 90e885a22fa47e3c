/* SPDX-License-Identifier: Apache-2.0 */
/* A signal that comes when a call has begun and does not sleep yet ends it, as one that comes in its sleep. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static atomic_bool came;
static _Thread_local volatile sig_atomic_t armed;

/* In the place of the C library's: a wait asks for the time before it sleeps. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
	if (armed) {
		armed = 0;
		raise(SIGUSR1);
	}
	return (int)syscall(SYS_clock_gettime, clock, now);
}

static void handle(int n)
{
	(void)n;
	came = true;
}

static void arm(void)
{
	armed = 1;
}

/* Over TCP nobody asks for the time, and the signal comes in the sleep. */
static void *send_late(void *of)
{
	usleep(100000);
	if (!came)
		check(pthread_kill(*(pthread_t *)of, SIGUSR1) == 0);
	return NULL;
}

static bool is_under_run(void)
{
	const char *before = getenv("LD_PRELOAD");

	return before != NULL && strstr(before, "libsmc-preload") != NULL;
}

static void ends_by_signal(int (*wait)(int fd), int fd, int flags)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = flags };
	pthread_t self = pthread_self(), sender;

	came = false;
	check(sigaction(SIGUSR1, &action, NULL) == 0);
	check(pthread_create(&sender, NULL, send_late, &self) == 0);
	check(wait(fd) == -1 && errno == EINTR && came);
	check(!armed || !is_under_run());
	armed = 0;
	check(pthread_join(sender, NULL) == 0);
	check(signal(SIGUSR1, SIG_DFL) != SIG_ERR);
}

/* ---- the calls ---- */

static int in_read(int fd)
{
	char b;

	arm();
	return (int)read(fd, &b, 1);
}

static int in_accept(int fd)
{
	arm();
	return accept(fd, NULL, NULL);
}

static int in_poll(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	arm();
	return poll(&p, 1, -1);
}

static int in_poll_of_two(int one, int other)
{
	struct pollfd p[2] = { { .fd = one, .events = POLLIN }, { .fd = other, .events = POLLIN } };

	arm();
	return poll(p, 2, -1);
}

/* A connection, and what the kernel alone can tell of. */
static int in_poll_with_pipe(int fd)
{
	int ends[2], n;

	check(pipe(ends) == 0);
	n = in_poll_of_two(fd, ends[0]);
	check(close(ends[0]) == 0 && close(ends[1]) == 0);
	return n;
}

static int another;

static int in_poll_of_connections(int fd)
{
	return in_poll_of_two(fd, another);
}

static int in_select(int fd)
{
	fd_set in;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	arm();
	return select(fd + 1, &in, NULL, NULL, NULL);
}

static int in_epoll(int fd)
{
	int set = epoll_create1(EPOLL_CLOEXEC), n;
	struct epoll_event e = { .events = EPOLLIN };

	check(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0);
	arm();
	n = epoll_wait(set, &e, 1, -1);
	check(close(set) == 0);
	return n;
}

static void signal_before_the_sleep(void)
{
	struct pair p = pair_open(), q = pair_open();
	struct timeval limit = { .tv_sec = 60 };
	int listener = listen_any();

	another = q.server;
	ends_by_signal(in_read, p.server, 0);
	ends_by_signal(in_accept, listener, 0);
	ends_by_signal(in_poll, p.server, SA_RESTART);
	ends_by_signal(in_poll_with_pipe, p.server, SA_RESTART);
	ends_by_signal(in_poll_of_connections, p.server, SA_RESTART);
	ends_by_signal(in_select, p.server, SA_RESTART);
	ends_by_signal(in_epoll, p.server, SA_RESTART);
	check(setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
	ends_by_signal(in_read, p.server, SA_RESTART);
	check(close(listener) == 0);
	pair_close(p);
	pair_close(q);
}

static void *write_later(void *fd)
{
	usleep(200000);
	write_all(*(int *)fd, "w", 1);
	return NULL;
}

static void signal_resumes(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
	struct pair p = pair_open();
	pthread_t writer;

	came = false;
	check(sigaction(SIGUSR1, &action, NULL) == 0);
	check(pthread_create(&writer, NULL, write_later, &p.client) == 0);
	check(in_read(p.server) == 1);
	check(came || !is_under_run());
	armed = 0;
	check(pthread_join(writer, NULL) == 0 && signal(SIGUSR1, SIG_DFL) != SIG_ERR);
	pair_close(p);
}

/* A byte, and the rest later: the signal is not in the middle. */
static void *write_later_and_later(void *fd)
{
	(void)write_later(fd);
	usleep(50000);
	write_all(*(int *)fd, "hole", 4);
	return NULL;
}

/* One that has come before the first byte, and resumes, does not end the call when it has moved some. */
static void signal_resumes_and_ends_nothing(void)
{
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
	struct pair p = pair_open();
	pthread_t self = pthread_self(), writer, sender;
	char b[5];

	came = false;
	check(sigaction(SIGUSR1, &action, NULL) == 0);
	check(pthread_create(&sender, NULL, send_late, &self) == 0);
	check(pthread_create(&writer, NULL, write_later_and_later, &p.client) == 0);
	check(recv(p.server, b, 5, MSG_WAITALL) == 5 && memcmp(b, "whole", 5) == 0);
	check(came && pthread_join(writer, NULL) == 0 && pthread_join(sender, NULL) == 0);
	check(signal(SIGUSR1, SIG_DFL) != SIG_ERR);
	pair_close(p);
}

void test_signals(void)
{
	RUN(signal_before_the_sleep);
	RUN(signal_resumes);
	RUN(signal_resumes_and_ends_nothing);
}
