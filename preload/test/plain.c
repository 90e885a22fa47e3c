/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that are on TCP from the beginning, of which the library keeps a note: under smc_run conns has one line of each. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* The SMC option of a socket (docs/bpf.md), -1: there is none. */
enum { OPTION_LEVEL = 286, OPTION_NAME = 0x49534d01, OPTION_SIZE = 8 };

static int option_of(int fd)
{
	unsigned char value[OPTION_SIZE];
	socklen_t size = sizeof(value);

	return getsockopt(fd, OPTION_LEVEL, OPTION_NAME, value, &size) == 0 ? value[0] : -1;
}

/* Nobody is promised SMC by it: its clients find a server that is on TCP. */
static int listen_plain(void)
{
	static const unsigned char nothing[OPTION_SIZE];
	int l = listen_any();

	(void)setsockopt(l, OPTION_LEVEL, OPTION_NAME, nothing, sizeof(nothing));
	return l;
}

/* A connection whose server is known to be on TCP, after some others. */
static struct pair plain_open(int listener)
{
	for (int n = 0;; n++) {
		struct pair p = { .client = connect_to(listener), .server = accept_one(listener) };

		if (n == 12)
			return p;
		pair_close(p);
	}
}

static int lines_of(int fd)
{
	struct stat st;

	check(fstat(fd, &st) == 0);
	return lines_of_socket(st.st_ino);
}

static void listed(int fd)
{
	check(getenv("LD_PRELOAD") == NULL || lines_of(fd) == 1);
}

static void unlisted(int fd)
{
	check(getenv("LD_PRELOAD") == NULL || lines_of(fd) == 0);
}

static void one_after_the_other(void)
{
	int l = listen_plain();

	for (int n = 0; n < 100; n++) {
		struct pair p = plain_open(l);

		if (n % 25 == 0) {
			listed(p.client);
			listed(p.server);
		}
		pair_close(p);
	}
	check(close(l) == 0);
}

/* What was listed of a number holds for nothing that is there later. */
static void listener_has(int option)
{
	int l = listen_any();

	check(option_of(l) == option && close(l) == 0);
}

#ifdef SANITIZED
enum { FORKS = 200 };
#else
enum { FORKS = 1500 };
#endif

static atomic_bool forks_on;

static void *fork_often(void *nothing)
{
	for (int n = 0; n < FORKS; n++) {
		pid_t child = fork();

		check(child >= 0);
		if (child == 0)
			_exit(0);
		ended_well(child);
	}
	atomic_store(&forks_on, false);
	return nothing;
}

static void closed_beside_fork(void)
{
	int l = listen_plain(), marked = listen_any(), option = option_of(marked);
	pthread_t forks;

	pair_close(plain_open(l));
	atomic_store(&forks_on, true);
	check(pthread_create(&forks, NULL, fork_often, NULL) == 0);
	while (atomic_load(&forks_on)) {
		struct pair p = plain_open(l);

		for (int n = 0; n < 3; n++) {
			check(close(p.client) == 0);
			listener_has(option);
			p.client = connect_to(l);
			check(close(p.server) == 0);
			p.server = accept_one(l);
		}
		pair_close(p);
	}
	check(pthread_join(forks, NULL) == 0 && close(marked) == 0 && close(l) == 0);
}

static void closed_by_child_of_vfork(void)
{
	int l = listen_plain(), copy, status;
	struct pair p = plain_open(l);
	pid_t child = vfork();

	check(child >= 0);
	if (child == 0) {
		(void)close(p.client);
		(void)close(p.server);
		execlp("true", "true", NULL);
		_exit(1);
	}
	check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	copy = dup(p.client);
	check(copy >= 0 && close(p.client) == 0);
	listed(copy);
	check(close(copy) == 0 && close(p.server) == 0 && close(l) == 0);
}

/* The C library closes it itself. */
static void closed_by_stdio(void)
{
	int l = listen_plain(), marked = listen_any(), option = option_of(marked);
	struct pair p = plain_open(l);
	FILE *f = fdopen(p.client, "r+");
	pid_t child;

	check(f != NULL && fclose(f) == 0);
	child = fork();
	check(child >= 0);
	if (child == 0)
		_exit(0);
	ended_well(child);
	listener_has(option); /* at its number */
	check(close(p.server) == 0 && close(marked) == 0 && close(l) == 0);
}

/* And what fork has kept of it. */
static void kept_and_closed_by_stdio(void)
{
	int l = listen_plain(), marked = listen_any(), option = option_of(marked);
	struct pair p = plain_open(l);
	FILE *f = fdopen(p.client, "r+");
	pid_t child = fork();

	check(f != NULL && child >= 0);
	if (child == 0)
		_exit(0);
	ended_well(child);
	check(fclose(f) == 0);
	listener_has(option);
	check(close(p.server) == 0 && close(marked) == 0 && close(l) == 0);
}

static int bound(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	check(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

/* A socket comes to its number, and is no connection. */
static void copied_to_listen(void)
{
	int l = listen_plain(), marked = listen_any(), option = option_of(marked), own = bound(), copy;
	struct pair p = plain_open(l);
	FILE *f = fdopen(p.client, "r+");

	check(f != NULL && fclose(f) == 0);
	copy = dup(own);
	check(copy == p.client && listen(copy, 1) == 0 && option_of(copy) == option);
	check(close(copy) == 0 && close(own) == 0 && close(p.server) == 0 && close(marked) == 0 && close(l) == 0);
}

/* Two numbers that have lines, the lower one first, which are the next that the process gets. */
static struct pair numbers_with_lines(int listener)
{
	struct pair p = plain_open(listener);

	check(p.client < p.server);
	pair_close(p);
	return p;
}

/* A descriptor that comes over a Unix socket is one of which the library knows nothing. */
static void of_unknown_listener(void)
{
	int l = listen_plain(), over[2], unknown, client, server;
	struct pair p;

	check(socketpair(AF_UNIX, SOCK_STREAM, 0, over) == 0 && pass(over[0], l) == 1);
	unknown = take_passed(over[1]);
	p = numbers_with_lines(l);
	client = connect_to(l);
	server = accept(unknown, NULL, NULL);
	check(client == p.client && server == p.server);
	listed(client);
	unlisted(server);
	check(close(server) == 0 && close(client) == 0);
	client = connect_to(l);
	server = accept_one(l);
	check(client == p.client && server == p.server);
	listed(client);
	listed(server);
	check(close(server) == 0 && close(client) == 0 && close(unknown) == 0 && close(l) == 0 && close(over[0]) == 0 && close(over[1]) == 0);
}

static void passed_to_its_number(void)
{
	int l = listen_plain(), over[2], fd, copy;
	struct pair p, of;

	check(socketpair(AF_UNIX, SOCK_STREAM, 0, over) == 0);
	p = plain_open(l);
	of = numbers_with_lines(l);
	check(pass(over[0], p.client) == 1 && close(p.client) == 0);
	fd = take_passed(over[1]);
	check(fd == p.client);
	unlisted(fd);
	copy = dup(fd);
	check(copy == of.client);
	unlisted(copy);
	check(close(copy) == 0);
	copy = fcntl(fd, F_DUPFD, of.server);
	check(copy == of.server);
	unlisted(copy);
	check(close(copy) == 0 && close(fd) == 0 && close(p.server) == 0 && close(l) == 0 && close(over[0]) == 0 && close(over[1]) == 0);
}

/* One that is in an epoll set before it connects stays there as it is, whether the server was known to be on TCP or not. */
static void connected_in_a_set(void)
{
	int l = listen_plain(), set = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 42 };

	check(set >= 0);
	for (int n = 0; n < 12; n++) {
		int client = socket(family, SOCK_STREAM, 0), server;

		check(client >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, client, &event) == 0 && connect_socket(client, l) == 0);
		server = accept_one(l);
		check(write(server, "x", 1) == 1);
		event = (struct epoll_event){ 0 };
		check(epoll_wait(set, &event, 1, 10000) == 1 && event.events == EPOLLIN && event.data.u64 == 42);
		check(close(client) == 0 && close(server) == 0);
		check(epoll_wait(set, &event, 1, 0) == 0);
		event = (struct epoll_event){ .events = EPOLLIN, .data.u64 = 42 };
	}
	check(close(set) == 0 && close(l) == 0);
}

/* Each peek begins where the one before has ended, of a client, or of a listener's connection, that is told so before there is a connection. */
static void peeked_at_a_place(int client_has, int listener_has)
{
	int l = bound_any(), client = socket(family, SOCK_STREAM, 0), server, fd;
	char b[4];

	check(setsockopt(client, SOL_SOCKET, SO_PEEK_OFF, &client_has, sizeof(client_has)) == 0);
	check(setsockopt(l, SOL_SOCKET, SO_PEEK_OFF, &listener_has, sizeof(listener_has)) == 0);
	check(listen(l, 5) == 0 && connect_socket(client, l) == 0);
	server = accept_one(l);
	fd = client_has < 0 ? server : client;
	says(fd == client ? server : client, "abcd");
	check(recv(fd, b, 2, MSG_PEEK | MSG_WAITALL) == 2 && memcmp(b, "ab", 2) == 0);
	check(recv(fd, b, 2, MSG_PEEK | MSG_WAITALL) == 2 && memcmp(b, "cd", 2) == 0);
	check(recv(fd, b, 2, MSG_PEEK | MSG_DONTWAIT) == -1 && errno == EAGAIN);
	wants(fd, "abcd");
	listed(client);
	listed(server);
	check(close(client) == 0 && close(server) == 0 && close(l) == 0);
}

/* Which are not TCP's, whatever they have been told. */
static void datagrams(void)
{
	int fd = socket(family, SOCK_DGRAM, 0), to = bound_any(), first = 0;

	check(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &first, sizeof(first)) == 0 && connect_socket(fd, to) == 0);
	unlisted(fd);
	check(close(fd) == 0 && close(to) == 0);
}

static void peeked_at_places(void)
{
	peeked_at_a_place(0, -1);
	peeked_at_a_place(-1, 0);
}

/* Whoever of two looks for it is told, also when the first one has let go of it. */
static void connected_in_two_sets(void)
{
	for (int both = 0; both < 2; both++) {
		int l = listen_any(), first = epoll_create1(0), second = epoll_create1(0), client = socket(family, SOCK_STREAM, 0), server;
		struct epoll_event event = { .events = EPOLLIN, .data.u64 = 1 };

		check(epoll_ctl(first, EPOLL_CTL_ADD, client, &event) == 0);
		event.data.u64 = 2;
		check(epoll_ctl(second, EPOLL_CTL_ADD, client, &event) == 0);
		check(both || epoll_ctl(first, EPOLL_CTL_DEL, client, NULL) == 0);
		check(connect_socket(client, l) == 0);
		server = accept_one(l);
		says(server, "x");
		check(epoll_wait(second, &event, 1, 10000) == 1 && event.events == EPOLLIN && event.data.u64 == 2);
		check(epoll_wait(first, &event, 1, 0) == both && (!both || event.data.u64 == 1));
		check(epoll_ctl(second, 17, client, &event) == -1 && errno == EINVAL);
		wants(client, "x");
		check(close(client) == 0 && close(server) == 0 && close(first) == 0 && close(second) == 0 && close(l) == 0);
	}
}

void test_plain(void)
{
	RUN(one_after_the_other);
	RUN(closed_by_child_of_vfork);
	RUN(closed_by_stdio);
	RUN(kept_and_closed_by_stdio);
	RUN(copied_to_listen);
	RUN(of_unknown_listener);
	RUN(passed_to_its_number);
	RUN(connected_in_a_set);
	RUN(closed_beside_fork);
	RUN(peeked_at_places);
	RUN(datagrams);
	RUN(connected_in_two_sets);
}
