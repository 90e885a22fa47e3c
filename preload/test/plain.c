/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that are on TCP from the beginning, of which the library keeps a note: under smc_run conns has one line of each. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* How many lines conns has of a socket, which is field 19. */
static int lines_of(int fd)
{
	char path[PATH_MAX], line[1024];
	struct stat st;
	int n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/devices/loopback-ism/conns", getenv("ISMFS_MOUNT"));
	f = fopen(path, "r");
	check(f != NULL && fstat(fd, &st) == 0);
	while (fgets(line, sizeof(line), f) != NULL) {
		char *rest = line, *field = NULL;

		for (int i = 0; i < 19; i++)
			field = strsep(&rest, " \n");
		n += field != NULL && strtoull(field, NULL, 10) == st.st_ino;
	}
	check(fclose(f) == 0);
	return n;
}

static void listed(int fd)
{
	check(getenv("LD_PRELOAD") == NULL || lines_of(fd) == 1);
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

void test_plain(void)
{
	RUN(one_after_the_other);
	RUN(closed_by_child_of_vfork);
	RUN(closed_by_stdio);
	RUN(closed_beside_fork);
}
