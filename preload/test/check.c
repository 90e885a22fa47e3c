/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* Shared, since forked children write, too. */
static _Atomic long long *bytes;

void check_failed(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: not so: %s (errno %d, %s)\n", file, line, what, errno, strerror(errno));
	exit(1);
}

ssize_t wrote(ssize_t n)
{
	if (n > 0)
		atomic_fetch_add(bytes, n);
	return n;
}

void write_all(int fd, const void *b, size_t n)
{
	while (n > 0) {
		ssize_t put = wrote(write(fd, b, n));

		check(put > 0);
		b = (const char *)b + put;
		n -= (size_t)put;
	}
}

void read_all(int fd, void *b, size_t n)
{
	while (n > 0) {
		ssize_t got = read(fd, b, n);

		check(got > 0);
		b = (char *)b + got;
		n -= (size_t)got;
	}
}

int family = AF_INET;

int bound_any(void)
{
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check(fd >= 0);
	if (family == AF_INET)
		check(bind(fd, (struct sockaddr *)&four, sizeof(four)) == 0);
	else
		check(bind(fd, (struct sockaddr *)&six, sizeof(six)) == 0);
	return fd;
}

int listen_any(void)
{
	int fd = bound_any();

	check(listen(fd, 64) == 0);
	return fd;
}

int connect_socket(int fd, int listener)
{
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);

	check(getsockname(listener, (struct sockaddr *)&a, &size) == 0);
	return connect(fd, (struct sockaddr *)&a, size);
}

int connect_to(int listener)
{
	int fd = socket(family, SOCK_STREAM, 0);

	check(fd >= 0 && connect_socket(fd, listener) == 0);
	return fd;
}

/* It is field 19. */
int lines_of_socket(ino_t inode)
{
	char path[PATH_MAX], line[1024];
	int n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/devices/loopback-ism/conns", getenv("ISMFS_MOUNT"));
	f = fopen(path, "r");
	check(f != NULL);
	while (fgets(line, sizeof(line), f) != NULL) {
		char *rest = line, *field = NULL;

		for (int i = 0; i < 19; i++)
			field = strsep(&rest, " \n");
		n += field != NULL && strtoull(field, NULL, 10) == inode;
	}
	check(fclose(f) == 0);
	return n;
}

volatile sig_atomic_t signals;

void count_signal(int n)
{
	(void)n;
	signals++;
}

void *signal_again(void *thread)
{
	for (int i = 0; i < 20; i++) {
		usleep(20000);
		pthread_kill(*(pthread_t *)thread, SIGUSR1);
	}
	return NULL;
}

void ended_well(pid_t child)
{
	int status = -1;

	check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int accept_one(int listener)
{
	int fd = accept(listener, NULL, NULL);

	check(fd >= 0);
	return fd;
}

void wants(int fd, const char *text)
{
	char b[16];

	read_all(fd, b, strlen(text));
	check(memcmp(b, text, strlen(text)) == 0);
}

void wants_end(int fd)
{
	char b;

	check(read(fd, &b, 1) == 0);
}

void says(int fd, const char *text)
{
	check(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

void set_nonblocking(int fd, int on)
{
	check(ioctl(fd, FIONBIO, &on) == 0);
}

struct pair pair_open(void)
{
	int listener = listen_any();
	struct pair p;
	char byte = 'x';

	p.client = connect_to(listener);
	p.server = accept4(listener, NULL, NULL, 0);
	check(p.server >= 0);
	check(close(listener) == 0);
	write_all(p.client, &byte, 1);
	read_all(p.server, &byte, 1);
	write_all(p.server, &byte, 1);
	read_all(p.client, &byte, 1);
	return p;
}

void pair_close(struct pair p)
{
	check(close(p.client) == 0);
	check(close(p.server) == 0);
}

void run(const char *name, void (*test)(void))
{
	fprintf(stderr, "%s\n", name);
	test();
}

int main(int argc, char **argv)
{
	bytes = mmap(NULL, sizeof(*bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(bytes != MAP_FAILED);
	if (argc > 2 && strcmp(argv[1], "inherited") == 0)
		return inherited(atoi(argv[2]));
	if (argc > 2 && strcmp(argv[1], "echo") == 0)
		return echo(atoi(argv[2]));
	if (argc > 2 && strcmp(argv[1], "ended") == 0)
		return ended(atoi(argv[2]));
	if (argc > 2 && strcmp(argv[1], "half") == 0)
		return half(atoi(argv[2]));
	if (argc > 2 && strcmp(argv[1], "taken") == 0)
		return serve_taken(atoi(argv[2]));
	if (argc > 1 && strcmp(argv[1], "hand-over") == 0)
		return hand_over();
	if (argc > 1 && strcmp(argv[1], "apart") == 0) {
		test_apart();
	} else if (argc > 1 && strcmp(argv[1], "spawn") == 0) {
		test_spawn();
	} else if (argc > 1 && strcmp(argv[1], "early") == 0) {
		test_ends();
		test_early();
	} else if (argc > 1 && strcmp(argv[1], "handlers") == 0) {
		test_handlers();
	} else if (argc > 1 && strcmp(argv[1], "late") == 0) {
		test_late();
	} else if (argc > 1 && strcmp(argv[1], "plain") == 0) {
		test_plain();
	} else {
		if (argc > 1 && strcmp(argv[1], "six") == 0)
			family = AF_INET6;
		test_calls();
		test_races();
		test_closed();
		test_families();
		test_files();
		test_forms();
		test_events();
		test_waits();
		test_signals();
		test_processes();
	}
	printf("bytes %lld\n", atomic_load(bytes));
	return 0;
}
