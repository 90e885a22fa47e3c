/* SPDX-License-Identifier: Apache-2.0 */
/* Children that the C library starts, with a connection that has been accepted and not used, or with one that has been. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

/* ---- the programs ---- */

int echo(int fd)
{
	char b[64];
	ssize_t n;

	while ((n = read(fd, b, sizeof(b))) > 0)
		check(write(fd, b, (size_t)n) == n);
	return n != 0;
}

int ended(int fd)
{
	char b;

	check(read(fd, &b, 1) == 0 && send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	return 0;
}

int half(int fd)
{
	says(fd, "hel");
	return 0;
}

/* ---- how they are started ---- */

static char self[256];

/* For what it finds it needs no device. */
static void by_spawn(char *what, int fd)
{
	char number[12], library[512], *arguments[] = { "test", what, number, NULL }, *environment[] = { library, "ISMFS_MOUNT=off", NULL };
	pid_t child;

	snprintf(number, sizeof(number), "%d", fd);
	snprintf(library, sizeof(library), "LD_PRELOAD=%s", getenv("LD_PRELOAD"));
	check(posix_spawn(&child, self, NULL, NULL, arguments, environment) == 0);
	ended_well(child);
}

/* As inetd would: its standard input, output and error are a connection that it does not inherit else. */
static void by_spawnp(char *what, int fd)
{
	char *arguments[] = { strcmp(what, "echo") == 0 ? "cat" : self, NULL, NULL, NULL };
	posix_spawn_file_actions_t actions;
	pid_t child;

	if (strcmp(what, "echo") != 0) {
		arguments[1] = what;
		arguments[2] = "1";
	}
	check(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && posix_spawn_file_actions_init(&actions) == 0);
	for (int i = 0; i < 3; i++)
		check(posix_spawn_file_actions_adddup2(&actions, fd, i) == 0);
	check(posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ) == 0);
	check(posix_spawn_file_actions_destroy(&actions) == 0);
	ended_well(child);
}

static void by_system(char *what, int fd)
{
	char line[512];

	snprintf(line, sizeof(line), "'%s' %s %d", self, what, fd);
	check(system(line) == 0);
}

static void by_popen(char *what, int fd)
{
	char line[512];
	FILE *f;

	snprintf(line, sizeof(line), "'%s' %s %d", self, what, fd);
	f = popen(line, "w");
	check(f != NULL && pclose(f) == 0);
}

/* As language runtimes do. What the child does with its descriptors is not its parent's, and neither is an exec that fails. */
static void by_vfork(char *what, int fd)
{
	char *arguments[] = { self, what, "1", NULL }, *nothing[] = { NULL };
	pid_t child;
	int between[2];

	check(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
	child = vfork();
	if (child == 0) {
		if (dup(fd) >= 0 && dup2(fd, 0) == 0 && dup2(fd, 1) == 1 && close(fd) == 0 && execve("/does/not/exist", arguments, nothing) == -1)
			execve(self, arguments, nothing);
		_exit(1);
	}
	ended_well(child);
	check(pipe(between) == 0 && write(between[1], "x", 1) == 1); /* one of them has the number that the child had */
	wants(between[0], "x");
	check(close(between[0]) == 0 && close(between[1]) == 0);
}

/* Where its parent has it. */
static void by_plain_vfork(char *what, int fd)
{
	char number[12], *arguments[] = { self, what, number, NULL }, *nothing[] = { NULL };
	pid_t child;

	snprintf(number, sizeof(number), "%d", fd);
	child = vfork();
	if (child == 0) {
		execve(self, arguments, nothing);
		_exit(1);
	}
	ended_well(child);
}

typedef void (*starter)(char *what, int fd);
static const starter starters[] = { by_spawn, by_spawnp, by_system, by_popen, by_vfork, by_plain_vfork };
enum { STARTERS = sizeof(starters) / sizeof(starters[0]) };

/* ---- what they inherit ---- */

/* Nobody has used it: it is TCP. */
static void accepted(starter start)
{
	int listener = listen_any(), fd;
	pid_t client = start_client(listener);

	fd = accept(listener, NULL, NULL);
	check(fd >= 0);
	start("echo", fd);
	check(close(fd) == 0 && close(listener) == 0);
	ended_well(client);
}

/* In SMC-D mode: the child finds its end, either side of it, and the two here go on. */
static void agreed(starter start)
{
	struct pair p = pair_open();
	char b;

	start("ended", p.server);
	start("ended", p.client);
	for (int i = 0; i < 100; i++) {
		write_all(p.client, "x", 1);
		read_all(p.server, &b, 1);
		write_all(p.server, "y", 1);
		read_all(p.client, &b, 1);
	}
	check(recv(p.server, &b, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(recv(p.client, &b, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	pair_close(p);
}

/* A number that is a connection's here is another thing's there. */
static void number_of_another(void)
{
	struct pair p = pair_open();
	char number[12], *arguments[] = { self, "echo", number, NULL };
	int over[2];
	pid_t child;
	char b;

	snprintf(number, sizeof(number), "%d", p.client);
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, over) == 0);
	child = vfork();
	if (child == 0) {
		if (dup2(over[1], p.client) == p.client)
			execv(self, arguments);
		_exit(1);
	}
	check(close(over[1]) == 0);
	says(over[0], "hello");
	wants(over[0], "hello");
	check(close(over[0]) == 0);
	ended_well(child);
	write_all(p.client, "x", 1);
	read_all(p.server, &b, 1);
	pair_close(p);
}

/* One that was handed on goes on for its parent, too, be it in a set. */
static void shared_with_child(void)
{
	char number[12], *arguments[] = { self, "half", number, NULL };
	int listener = listen_any(), fd, set = epoll_create1(EPOLL_CLOEXEC);
	pid_t client = start_client(listener), child;
	struct epoll_event e = { .events = EPOLLIN };

	fd = accept_one(listener);
	check(set >= 0 && fd >= 0);
	snprintf(number, sizeof(number), "%d", fd);
	child = vfork();
	if (child == 0) {
		execv(self, arguments);
		_exit(1);
	}
	ended_well(child);
	check(epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0 && epoll_wait(set, &e, 1, 5000) == 1);
	wants(fd, "hello");
	says(fd, "lo");
	check(epoll_wait(set, &e, 1, 5000) == 1);
	wants_end(fd);
	check(close(fd) == 0 && close(listener) == 0 && close(set) == 0);
	ended_well(client);
}

/* First those for which this must not have been a client. */
void test_spawn(void)
{
	check(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	for (int i = 0; i < STARTERS; i++) {
		fprintf(stderr, "accepted, %d\n", i);
		accepted(starters[i]);
	}
	RUN(shared_with_child);
	for (int i = 0; i < STARTERS; i++) {
		fprintf(stderr, "agreed, %d\n", i);
		agreed(starters[i]);
	}
	RUN(number_of_another);
}
