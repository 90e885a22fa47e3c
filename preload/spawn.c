/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children that the C library starts: no exec is seen. Like before an exec, a connection that the child may inherit and that nobody has answered yet
 * becomes TCP; one in SMC-D mode is marked, for the library in the child to see (inherit.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>

#include "inherit.h"
#include "plain.h"
#include "real.h"
#include "sock.h"
#include "table.h"

/* all: also what is close-on-exec, since file actions can hand it over by dup2. */
static void before_spawn(bool all)
{
	int saved = errno;

	for (int fd = 0, end = table_end(); fd < end; fd++) {
		struct sock *s = table_moves(fd) && (all || inherit_stays(fd)) ? table_get(fd, false) : NULL;

		plain_not_fresh(fd);
		if (s == NULL)
			continue;
		inherit_prepare(s, fd);
		sock_put(s);
	}
	errno = saved;
}

EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
		       char *const arguments[], char *const environment[])
{
	before_spawn(actions != NULL);
	return real()->posix_spawn(pid, path, actions, attributes, arguments, environment);
}

EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
			char *const arguments[], char *const environment[])
{
	before_spawn(actions != NULL);
	return real()->posix_spawnp(pid, file, actions, attributes, arguments, environment);
}

EXPORT int system(const char *line)
{
	if (line != NULL)
		before_spawn(false);
	return real()->system(line);
}

EXPORT FILE *popen(const char *line, const char *mode)
{
	before_spawn(false);
	return real()->popen(line, mode);
}
