/* SPDX-License-Identifier: Apache-2.0 */
/* Waits with a signal mask, waits for ends, and what closes under a waiting thread. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"

static void *write_soon(void *fd)
{
	usleep(100000);
	write_all(*(int *)fd, "s", 1);
	return NULL;
}

/* ---- each call that takes a mask: waits for a descriptor to be readable ---- */

typedef int waiting(int fd, int ms, const sigset_t *mask);

static struct timespec ms_of(int ms)
{
	return (struct timespec){ ms / 1000, ms % 1000 * 1000000L };
}

static int by_ppoll(int fd, int ms, const sigset_t *mask)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct timespec limit = ms_of(ms);

	return ppoll(&p, 1, &limit, mask);
}

static int by_pselect(int fd, int ms, const sigset_t *mask)
{
	struct timespec limit = ms_of(ms);
	fd_set in;

	FD_ZERO(&in);
	FD_SET(fd, &in);
	return pselect(fd + 1, &in, NULL, NULL, &limit, mask);
}

static int set_of(int fd, uint32_t events)
{
	struct epoll_event e = { .events = events };
	int set = epoll_create1(EPOLL_CLOEXEC);

	check(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0);
	return set;
}

static int closing(int set, int result)
{
	int saved = errno;

	check(close(set) == 0);
	errno = saved;
	return result;
}

static int by_epoll_pwait(int fd, int ms, const sigset_t *mask)
{
	struct epoll_event e;
	int set = set_of(fd, EPOLLIN);

	return closing(set, epoll_pwait(set, &e, 1, ms, mask));
}

static int by_epoll_pwait2(int fd, int ms, const sigset_t *mask)
{
	struct epoll_event e;
	struct timespec limit = ms_of(ms);
	int set = set_of(fd, EPOLLIN);

	return closing(set, epoll_pwait2(set, &e, 1, &limit, mask));
}

/* A signal that is blocked but for the wait ends it; one that is blocked in the wait, too, does not. */
static void masked(waiting *wait)
{
	struct sigaction action = { .sa_handler = count_signal }, old;
	struct pair p = pair_open();
	sigset_t blocked, before;
	pthread_t writer;
	char b;

	check(sigaction(SIGUSR1, &action, &old) == 0);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	check(pthread_sigmask(SIG_BLOCK, &blocked, &before) == 0);
	signals = 0;
	check(raise(SIGUSR1) == 0);
	check(wait(p.server, 20, &blocked) == 0 && wait(p.server, 20, NULL) == 0 && signals == 0);
	check(wait(p.server, 5000, &before) == -1 && errno == EINTR && signals == 1);
	check(pthread_create(&writer, NULL, write_soon, &p.client) == 0);
	check(wait(p.server, 5000, &before) == 1);
	check(pthread_join(writer, NULL) == 0);
	check(wait(p.server, 0, &before) == 1);
	read_all(p.server, &b, 1);
	check(wait(p.server, 0, &before) == 0 && signals == 1);
	check(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0 && sigaction(SIGUSR1, &old, NULL) == 0);
	pair_close(p);
}

static void masked_ppoll(void)
{
	masked(by_ppoll);
}

static void masked_pselect(void)
{
	masked(by_pselect);
}

static void masked_epoll(void)
{
	masked(by_epoll_pwait);
	masked(by_epoll_pwait2);
}

/* ---- select that sleeps ---- */

static void select_sleeps(void)
{
	struct pair p = pair_open(), q = pair_open();
	int top = p.server > q.server ? p.server : q.server;
	struct timeval limit = { 5, 0 }, soon = { 0, 20000 };
	pthread_t writer;
	fd_set in;
	char b;

	FD_ZERO(&in);
	FD_SET(p.server, &in);
	FD_SET(q.server, &in);
	check(select(top + 1, &in, NULL, NULL, &soon) == 0 && soon.tv_sec == 0 && soon.tv_usec == 0);
	FD_SET(p.server, &in);
	FD_SET(q.server, &in);
	check(pthread_create(&writer, NULL, write_soon, &q.client) == 0);
	check(select(top + 1, &in, NULL, NULL, &limit) == 1 && FD_ISSET(q.server, &in) && !FD_ISSET(p.server, &in));
	check(limit.tv_sec < 5);
	check(pthread_join(writer, NULL) == 0);
	read_all(q.server, &b, 1);
	pair_close(p);
	pair_close(q);
}

/* ---- ends as epoll shows them ---- */

static uint32_t shown(int set)
{
	struct epoll_event e = { 0 };

	check(epoll_wait(set, &e, 1, 5000) == 1);
	return e.events;
}

static void hung_up(void)
{
	struct pair p = pair_open();
	int set = set_of(p.server, EPOLLRDHUP), bare = set_of(p.server, 0);
	struct epoll_event e;

	check(epoll_wait(set, &e, 1, 0) == 0);
	check(shutdown(p.client, SHUT_WR) == 0);
	check(shown(set) == EPOLLRDHUP && epoll_wait(bare, &e, 1, 20) == 0);
	check(shutdown(p.server, SHUT_WR) == 0);
	check(shown(set) == (EPOLLRDHUP | EPOLLHUP) && shown(bare) == EPOLLHUP);
	check(close(set) == 0 && close(bare) == 0);
	pair_close(p);
}

/* A peer that has closed has not hung up on who has bytes to read. */
static void closed_with_bytes(void)
{
	struct pair p = pair_open();
	int set = set_of(p.server, EPOLLIN | EPOLLRDHUP);
	struct pollfd in = { .fd = p.server, .events = POLLIN | POLLRDHUP };
	char b[4];

	write_all(p.client, "last", 4);
	check(close(p.client) == 0);
	check(shown(set) == (EPOLLIN | EPOLLRDHUP));
	check(poll(&in, 1, 5000) == 1 && in.revents == (POLLIN | POLLRDHUP));
	read_all(p.server, b, 4);
	check(read(p.server, b, 1) == 0);
	check(shown(set) == (EPOLLIN | EPOLLRDHUP));
	check(shutdown(p.server, SHUT_WR) == 0);
	check(shown(set) == (EPOLLIN | EPOLLRDHUP | EPOLLHUP));
	check(close(set) == 0 && close(p.server) == 0);
}

static void reset(void)
{
	struct pair p = pair_open();
	int set = set_of(p.server, EPOLLIN | EPOLLRDHUP);
	char b;

	write_all(p.server, "unread", 6);
	check(close(p.client) == 0);
	check(shown(set) == (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP));
	check(read(p.server, &b, 1) == -1 && errno == ECONNRESET);
	check(close(set) == 0 && close(p.server) == 0);
}

/* ---- SA_RESTART: the kernel resumes reads without a limit, and nothing else ---- */

static void signal_soon(void)
{
	struct itimerval soon = { .it_value = { 0, 50000 } };

	check(setitimer(ITIMER_REAL, &soon, NULL) == 0);
}

static void resumed(void)
{
	struct sigaction action = { .sa_handler = count_signal, .sa_flags = SA_RESTART }, old;
	struct pair p = pair_open();
	struct pollfd in = { .fd = p.server, .events = POLLIN };
	pthread_t writer;
	fd_set set;
	char b;

	check(sigaction(SIGALRM, &action, &old) == 0);
	signals = 0;
	check(pthread_create(&writer, NULL, write_soon, &p.client) == 0);
	signal_soon();
	check(read(p.server, &b, 1) == 1 && signals == 1);
	check(pthread_join(writer, NULL) == 0);
	signal_soon();
	check(poll(&in, 1, -1) == -1 && errno == EINTR);
	FD_ZERO(&set);
	FD_SET(p.server, &set);
	signal_soon();
	check(select(p.server + 1, &set, NULL, NULL, NULL) == -1 && errno == EINTR);
	check(setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 5, 0 }, sizeof(struct timeval)) == 0);
	signal_soon();
	check(read(p.server, &b, 1) == -1 && errno == EINTR && signals == 4);
	check(sigaction(SIGALRM, &old, NULL) == 0);
	pair_close(p);
}

/* ---- accept with a limit, while other connections are there ---- */

static void accept_limited(void)
{
	struct pair p = pair_open();
	struct timeval limit = { 0, 100000 };
	int listener = listen_any();

	check(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
	check(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
	check(close(listener) == 0);
	pair_close(p);
}

/* ---- close while another thread waits ---- */

static void *read_one(void *fd)
{
	char b;

	return (void *)(intptr_t)read(*(int *)fd, &b, 1);
}

static void *poll_one(void *fd)
{
	struct pollfd p = { .fd = *(int *)fd, .events = POLLIN };

	return (void *)(intptr_t)poll(&p, 1, 5000);
}

/* The thread's wait ends with the connection, if not before. */
static void closed_under_a_reader(void)
{
	struct pair p = pair_open(), q;
	int fd = p.client;
	pthread_t waiter;
	void *result;
	char b;

	check(pthread_create(&waiter, NULL, read_one, &fd) == 0);
	usleep(100000);
	check(close(p.client) == 0);
	q = pair_open(); /* one of it has the number now, and is left alone */
	check(close(p.server) == 0);
	check(pthread_join(waiter, &result) == 0 && (intptr_t)result == 0);
	write_all(q.client, "q", 1);
	read_all(q.server, &b, 1);
	pair_close(q);
}

static void closed_under_poll(void)
{
	struct pair p = pair_open();
	int fd = p.client;
	pthread_t waiter;
	void *result;

	check(pthread_create(&waiter, NULL, poll_one, &fd) == 0);
	usleep(100000);
	check(close(p.client) == 0 && close(p.server) == 0);
	check(pthread_join(waiter, &result) == 0 && (intptr_t)result == 1);
}

static void *wait_in_set(void *set)
{
	struct epoll_event e = { 0 };
	int n = epoll_wait(*(int *)set, &e, 1, 5000);

	return (void *)(intptr_t)(n == 1 ? e.data.fd : -1);
}

/* What is closed leaves the set, under whoever waits there; the others stay. */
static void closed_under_epoll(void)
{
	struct pair p = pair_open(), q = pair_open();
	struct epoll_event e = { .events = EPOLLIN, .data.fd = q.server };
	int set = set_of(p.server, EPOLLIN);
	pthread_t waiter;
	void *result;

	check(epoll_ctl(set, EPOLL_CTL_ADD, q.server, &e) == 0);
	check(pthread_create(&waiter, NULL, wait_in_set, &set) == 0);
	usleep(100000);
	check(close(p.server) == 0 && close(p.client) == 0);
	write_all(q.client, "x", 1);
	check(pthread_join(waiter, &result) == 0 && (intptr_t)result == q.server);
	check(close(set) == 0 && close(q.client) == 0 && close(q.server) == 0);
}

void test_waits(void)
{
	RUN(masked_ppoll);
	RUN(masked_pselect);
	RUN(masked_epoll);
	RUN(select_sleeps);
	RUN(hung_up);
	RUN(closed_with_bytes);
	RUN(reset);
	RUN(resumed);
	RUN(accept_limited);
	RUN(closed_under_a_reader);
	RUN(closed_under_poll);
	RUN(closed_under_epoll);
}
