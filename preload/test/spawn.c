/* SPDX-License-Identifier: Apache-2.0 */
/* Children that the C library starts, with a connection that has been accepted and not used, or with one that has been. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

typedef void (*starter)(char *what, int fd);
static const starter starters[] = { by_spawn, by_spawnp, by_system, by_popen };
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

/* First those for which this must not have been a client. */
void test_spawn(void)
{
	check(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	for (int i = 0; i < STARTERS; i++) {
		fprintf(stderr, "accepted, %d\n", i);
		accepted(starters[i]);
	}
	for (int i = 0; i < STARTERS; i++) {
		fprintf(stderr, "agreed, %d\n", i);
		agreed(starters[i]);
	}
}
