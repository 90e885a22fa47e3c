/* SPDX-License-Identifier: Apache-2.0 */
/* Signal handlers that use the very connection that their thread is at work on. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static int connection;
static volatile sig_atomic_t done, refused;

static void ring_every(long us)
{
	struct itimerval every = { { 0, us }, { 0, us } };

	check(setitimer(ITIMER_REAL, &every, NULL) == 0);
}

/* The handlers resume what they interrupt. */
static void handle(void (*handler)(int n))
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };

	done = refused = 0;
	check(sigaction(SIGALRM, &action, NULL) == 0);
}

static void stop(void)
{
	ring_every(0);
	check(signal(SIGALRM, SIG_DFL) != SIG_ERR);
}

/* What must not wait may not be done. */
static void count(ssize_t n)
{
	if (n == 1)
		done++;
	else
		refused += n == -1 && errno == EAGAIN ? 1 : 1000000;
}

static void writes(int n)
{
	int saved = errno;

	(void)n;
	count(wrote(write(connection, "h", 1)));
	errno = saved;
}

static void reads(int n)
{
	int saved = errno;
	char b;

	(void)n;
	count(recv(connection, &b, 1, MSG_DONTWAIT));
	errno = saved;
}

static void ends(int n)
{
	(void)n;
	exit(0);
}

/* ---- the thread waits: as if it did not ---- */

static void *answer(void *fd)
{
	char b;

	read_all(*(int *)fd, &b, 1);
	write_all(*(int *)fd, "a", 1);
	return NULL;
}

/* The read that is interrupted gets the answer to what the handler writes. */
static void writes_while_it_waits_to_read(void)
{
	struct pair p = pair_open();
	struct itimerval once = { .it_value = { 0, 50000 } };
	pthread_t peer;
	sigset_t alarms, before;

	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	connection = p.client;
	handle(writes);
	check(pthread_sigmask(SIG_BLOCK, &alarms, &before) == 0);
	check(pthread_create(&peer, NULL, answer, &p.server) == 0);
	check(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	check(setitimer(ITIMER_REAL, &once, NULL) == 0);
	wants(p.client, "a");
	check(done == 1 && refused == 0 && pthread_join(peer, NULL) == 0);
	stop();
	pair_close(p);
}

/* epoll_wait looks for news before it sleeps; the handler takes some of them. */
static void reads_while_it_waits_in_epoll(void)
{
	enum { MANY = 5000 };
	struct pair p = pair_open();
	struct epoll_event e = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC), got = 0;
	pid_t child = fork();
	ssize_t n;
	char b;

	check(child >= 0 && set >= 0);
	if (child == 0) {
		check(close(p.client) == 0);
		for (int i = 0; i < MANY; i++) {
			write_all(p.server, "h", 1);
			usleep(1);
		}
		read_all(p.server, &b, 1); /* no end before the handler has gone */
		_exit(0);
	}
	check(close(p.server) == 0 && epoll_ctl(set, EPOLL_CTL_ADD, p.client, &e) == 0);
	connection = p.client;
	handle(reads);
	ring_every(200);
	while (got + done < MANY) {
		check(epoll_wait(set, &e, 1, 5) >= 0 || errno == EINTR);
		while ((n = recv(p.client, &b, 1, MSG_DONTWAIT)) == 1)
			got++;
		check(n == -1 && errno == EAGAIN);
	}
	stop();
	write_all(p.client, "x", 1);
	check(got + done == MANY && done + refused > 0 && refused < 1000000);
	ended_well(child);
	check(read(p.client, &b, 1) == 0 && close(p.client) == 0 && close(set) == 0);
}

/* ---- it is at work: it goes on, and so does the handler ---- */

enum { MUCH = 64 << 20, PIECE = 1 << 18, FEW = 200 };

static char piece[PIECE * 64];

static void write_much(int fd)
{
	for (int i = 0; i < MUCH / PIECE; i++)
		write_all(fd, piece, PIECE);
}

static void read_much(int fd)
{
	for (size_t left = MUCH; left > 0;) {
		ssize_t n = read(fd, piece, left < PIECE ? left : PIECE);

		check(n > 0 || errno == EINTR);
		left -= n > 0 ? (size_t)n : 0;
	}
}

/* The server's end in a child, which writes much. */
static pid_t write_in_child(struct pair p)
{
	pid_t child = fork();

	check(child >= 0);
	if (child == 0) {
		check(close(p.client) == 0);
		write_much(p.server);
		_exit(0);
	}
	check(close(p.server) == 0);
	return child;
}

/* One that reads to the end, and then says how much that was. */
static pid_t count_in_child(struct pair p)
{
	unsigned long long got = 0;
	pid_t child = fork();
	ssize_t n;

	check(child >= 0);
	if (child == 0) {
		check(close(p.client) == 0);
		while ((n = read(p.server, piece, PIECE)) > 0)
			got += (unsigned long long)n;
		write_all(p.server, &got, sizeof(got));
		_exit(0);
	}
	check(close(p.server) == 0);
	return child;
}

static void writes_while_it_reads(void)
{
	struct pair p = pair_open();
	unsigned int heard = 0;
	pid_t child = fork();
	char b;

	check(child >= 0);
	if (child == 0) {
		check(close(p.client) == 0);
		write_much(p.server);
		while (read(p.server, &b, 1) == 1)
			heard++;
		write_all(p.server, &heard, sizeof(heard));
		_exit(0);
	}
	check(close(p.server) == 0);
	connection = p.client;
	handle(writes);
	ring_every(500);
	read_much(p.client);
	stop();
	check(shutdown(p.client, SHUT_WR) == 0);
	read_all(p.client, &heard, sizeof(heard));
	check(done > 0 && heard == (unsigned int)done && refused < 1000000);
	ended_well(child);
	check(close(p.client) == 0);
}

static void reads_while_it_writes(void)
{
	struct pair p = pair_open();
	pid_t child = fork();
	char b;

	check(child >= 0);
	if (child == 0) {
		check(close(p.client) == 0);
		for (int i = 0; i < FEW; i++)
			write_all(p.server, "h", 1);
		read_much(p.server);
		_exit(0);
	}
	check(close(p.server) == 0);
	connection = p.client;
	handle(reads);
	ring_every(500);
	write_much(p.client);
	stop();
	check(done > 0 && done <= FEW && refused < 1000000);
	for (int left = FEW - done; left > 0; left--)
		read_all(p.client, &b, 1);
	ended_well(child);
	check(read(p.client, &b, 1) == 0 && close(p.client) == 0);
}

/* The same direction: over TCP the bytes may come in between. */
static void writes_while_it_writes(void)
{
	struct pair p = pair_open();
	pid_t child = count_in_child(p);
	unsigned long long got;
	ssize_t n;

	connection = p.client;
	handle(writes);
	ring_every(500);
	for (size_t left = MUCH; left > 0; left -= n > 0 ? (size_t)n : 0) {
		n = wrote(write(p.client, piece, left < PIECE ? left : PIECE));
		check(n > 0 || errno == EINTR);
	}
	stop();
	check(shutdown(p.client, SHUT_WR) == 0);
	read_all(p.client, &got, sizeof(got));
	check(refused < 1000000 && got == MUCH + (unsigned long long)done);
	ended_well(child);
	check(close(p.client) == 0);
}

/* A program that is told to end does, whatever it is in the middle of. */
static void ends_while_it_reads(void)
{
	for (int i = 0; i < 10; i++) {
		struct pair p = pair_open();
		pid_t child = fork();

		check(child >= 0);
		if (child == 0) {
			check(close(p.client) == 0);
			handle(ends);
			ring_every(5000 + i * 100);
			for (;;)
				check(read(p.server, piece, PIECE) >= 0);
		}
		check(close(p.server) == 0);
		while (wrote(send(p.client, piece, PIECE, MSG_NOSIGNAL)) > 0)
			;
		ended_well(child);
		check(close(p.client) == 0);
	}
}

/* ---- other calls ---- */

static int set_of_handler;

/* All that tells of a connection. */
static void looks(int n)
{
	struct pollfd p = { connection, POLLIN | POLLOUT, 0 };
	struct epoll_event e = { .events = EPOLLIN };
	struct timeval now = { 0 };
	int saved = errno, held = -1, error = -1;
	socklen_t size = sizeof(error);
	fd_set out;
	bool well;

	(void)n;
	FD_ZERO(&out);
	FD_SET(connection, &out);
	well = poll(&p, 1, 0) >= 0 && select(connection + 1, NULL, &out, NULL, &now) >= 0;
	well = well && epoll_ctl(set_of_handler, EPOLL_CTL_ADD, connection, &e) == 0 && epoll_wait(set_of_handler, &e, 1, 0) >= 0;
	well = well && epoll_ctl(set_of_handler, EPOLL_CTL_DEL, connection, NULL) == 0;
	well = well && ioctl(connection, FIONREAD, &held) == 0 && held >= 0;
	well = well && getsockopt(connection, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
	if (well)
		done++;
	else
		refused++;
	errno = saved;
}

static void looks_while_it_reads(void)
{
	struct pair p = pair_open();
	pid_t child = write_in_child(p);

	set_of_handler = epoll_create1(EPOLL_CLOEXEC);
	check(set_of_handler >= 0);
	connection = p.client;
	handle(looks);
	ring_every(500);
	read_much(p.client);
	stop();
	check(done > 0 && refused == 0);
	ended_well(child);
	check(close(p.client) == 0 && close(set_of_handler) == 0);
}

static void closes(int n)
{
	int saved = errno;

	(void)n;
	if (close(connection) == 0)
		done++;
	errno = saved;
}

static void shuts(int n)
{
	int saved = errno;

	(void)n;
	if (shutdown(connection, SHUT_WR) == 0)
		done++;
	errno = saved;
}

/* Once, so much later: somewhere in the middle of what follows. */
static void ring_once(int round)
{
	struct itimerval once = { .it_value = { 0, 200 + round * 37 % 1000 } };

	check(setitimer(ITIMER_REAL, &once, NULL) == 0);
}

enum { TRIES = 60 };

static void closes_while_it_reads(void)
{
	for (int i = 0; i < TRIES; i++) {
		struct pair p = pair_open();
		pid_t child = fork();
		ssize_t n;

		check(child >= 0);
		if (child == 0) {
			check(close(p.client) == 0);
			while (wrote(send(p.server, piece, PIECE, MSG_NOSIGNAL)) > 0)
				;
			_exit(0);
		}
		check(close(p.server) == 0);
		connection = p.client;
		handle(closes);
		ring_once(i);
		while ((n = read(p.client, piece, PIECE)) > 0)
			;
		check(n <= 0 && (n == 0 || errno == EBADF) && done == 1);
		stop();
		ended_well(child);
	}
}

/* All that was written before arrives, and then the end. */
static void shuts_while_it_writes(void)
{
	check(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	for (int i = 0; i < TRIES; i++) {
		struct pair p = pair_open();
		pid_t child = count_in_child(p);
		unsigned long long put = 0, got;
		ssize_t n;

		connection = p.client;
		handle(shuts);
		ring_once(i);
		while ((n = wrote(write(p.client, piece, PIECE))) > 0)
			put += (unsigned long long)n;
		check(errno == EPIPE && done == 1);
		stop();
		read_all(p.client, &got, sizeof(got));
		check(got == put);
		ended_well(child);
		check(close(p.client) == 0);
	}
	check(signal(SIGPIPE, SIG_DFL) == SIG_IGN);
}

/* ---- a thread that is cancelled, which is a signal, too ---- */

static void *writes_for_ever(void *fd)
{
	check(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL) == 0);
	(void)!write(*(int *)fd, piece, PIECE * 64);
	return NULL;
}

/* It waited in the middle of its bytes. Others go on. */
static void cancelled_in_a_write(void)
{
	pid_t child = fork();
	struct pair p;
	pthread_t writer;
	ssize_t n;
	int held;

	check(child >= 0);
	if (child > 0) {
		ended_well(child);
		return;
	}
	p = pair_open();
	check(pthread_create(&writer, NULL, writes_for_ever, &p.client) == 0);
	do
		check(ioctl(p.server, FIONREAD, &held) == 0);
	while (held < 1000);
	usleep(200000);
	check(pthread_cancel(writer) == 0 && pthread_join(writer, NULL) == 0);
	while ((n = wrote(recv(p.server, piece, sizeof(piece), MSG_DONTWAIT))) > 0)
		; /* nobody else can tell how much it has written */
	check(errno == EAGAIN);
	check(wrote(send(p.client, "on", 2, MSG_DONTWAIT)) == 2);
	wants(p.server, "on");
	pair_close(p);
	_exit(0);
}

/* ---- how handlers are set ---- */

static volatile sig_atomic_t value, last;

static void tells(int n, siginfo_t *info, void *context)
{
	(void)context;
	last = n;
	value = info->si_code == SI_QUEUE ? info->si_value.sival_int : -1;
}

static void *queue(void *main)
{
	for (int i = 1; i <= 1000; i++) {
		union sigval v = { .sival_int = i };

		while (pthread_sigqueue(*(pthread_t *)main, SIGRTMIN, v) != 0) /* none of these is merged with another one */
			usleep(10);
		usleep(10);
	}
	return NULL;
}

/* What was set is what is told, and what comes with a signal gets there, in whatever it has come. */
static void handlers_as_they_are_set(void)
{
	struct sigaction full = { .sa_sigaction = tells, .sa_flags = SA_SIGINFO | SA_RESTART }, old;
	struct pair p = pair_open();
	pthread_t self = pthread_self(), other;
	pid_t child;

	check(signal(SIGUSR1, writes) == SIG_DFL && signal(SIGUSR1, SIG_IGN) == writes && signal(SIGUSR1, reads) == SIG_IGN);
	check(sigaddset(&full.sa_mask, SIGUSR2) == 0);
	check(sigaction(SIGUSR1, &full, &old) == 0 && old.sa_handler == reads && (old.sa_flags & (int)SA_RESTART));
	check(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_sigaction == tells && (old.sa_flags & SA_SIGINFO));
	check(sigismember(&old.sa_mask, SIGUSR2) == 1 && sigismember(&old.sa_mask, SIGINT) == 0);
	child = write_in_child(p);
	check(sigaction(SIGRTMIN, &full, NULL) == 0 && pthread_create(&other, NULL, queue, &self) == 0);
	read_much(p.client);
	check(pthread_join(other, NULL) == 0 && last == SIGRTMIN && value == 1000 && signal(SIGRTMIN, SIG_DFL) != SIG_ERR);
	ended_well(child);
	full.sa_flags = SA_SIGINFO | (int)SA_RESETHAND;
	check(sigaction(SIGUSR1, &full, NULL) == 0 && raise(SIGUSR1) == 0);
	check(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == SIG_DFL && close(p.client) == 0);
}

static volatile sig_atomic_t counts[2];

static void counted(int n)
{
	counts[n == SIGUSR2]++;
}

static timer_t every(int n, long us)
{
	struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = n };
	struct itimerspec often = { { 0, us * 1000 }, { 0, us * 1000 } };
	timer_t t;

	check(timer_create(CLOCK_MONOTONIC, &e, &t) == 0 && timer_settime(t, 0, &often, NULL) == 0);
	return t;
}

/* Two signals at once, and others that the program has blocked and that stay so: when all is over nothing more is blocked than before. */
static void two_at_once(void)
{
	struct sigaction action = { .sa_handler = counted, .sa_flags = SA_RESTART };
	struct pair p = pair_open();
	sigset_t blocked, was, now;
	timer_t one, two;
	pid_t child;

	counts[0] = counts[1] = 0;
	check(sigemptyset(&blocked) == 0 && sigaddset(&blocked, SIGRTMIN) == 0 && sigaddset(&blocked, SIGTRAP) == 0);
	check(pthread_sigmask(SIG_BLOCK, &blocked, &was) == 0 && raise(SIGRTMIN) == 0 && raise(SIGTRAP) == 0);
	child = write_in_child(p);
	check(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
	one = every(SIGUSR1, 300);
	two = every(SIGUSR2, 300);
	read_much(p.client);
	while (counts[0] < 10 || counts[1] < 10)
		usleep(1000);
	check(timer_delete(one) == 0 && timer_delete(two) == 0 && pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
	check(!sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2) && sigismember(&now, SIGRTMIN) && sigismember(&now, SIGTRAP));
	check(signal(SIGRTMIN, SIG_IGN) != SIG_ERR && signal(SIGTRAP, SIG_IGN) != SIG_ERR && pthread_sigmask(SIG_SETMASK, &was, NULL) == 0);
	check(signal(SIGUSR1, SIG_DFL) == counted && signal(SIGUSR2, SIG_DFL) == counted && close(p.client) == 0);
	check(signal(SIGRTMIN, SIG_DFL) == SIG_IGN && signal(SIGTRAP, SIG_DFL) == SIG_IGN && signal(SIGUSR1, SIG_ERR) == SIG_ERR && errno == EINVAL);
	ended_well(child);
}

void test_handlers(void)
{
	RUN(writes_while_it_waits_to_read);
	RUN(reads_while_it_waits_in_epoll);
	RUN(writes_while_it_reads);
	RUN(reads_while_it_writes);
	RUN(writes_while_it_writes);
	RUN(ends_while_it_reads);
	RUN(looks_while_it_reads);
	RUN(closes_while_it_reads);
	RUN(shuts_while_it_writes);
	RUN(cancelled_in_a_write);
	RUN(handlers_as_they_are_set);
	RUN(two_at_once);
}
