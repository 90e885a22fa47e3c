/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server and a client that exchange messages over a plain TCP socket, blocking: pingpong PORT MESSAGES SIZE [SERVER-CPU CLIENT-CPU].
 * Prints messages per second, each way counted once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void run_on(const char *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(atoi(cpu), &set);
	if (sched_setaffinity(0, sizeof(set), &set) != 0)
		fail("sched_setaffinity");
}

static void read_all(int fd, char *b, size_t n)
{
	while (n > 0) {
		ssize_t got = read(fd, b, n);

		if (got <= 0)
			fail("read");
		b += got;
		n -= (size_t)got;
	}
}

static void write_all(int fd, const char *b, size_t n)
{
	while (n > 0) {
		ssize_t put = write(fd, b, n);

		if (put <= 0)
			fail("write");
		b += put;
		n -= (size_t)put;
	}
}

static void serve(int listener, long messages, size_t size)
{
	char *b = malloc(size);
	int fd = accept(listener, NULL, NULL);

	if (fd < 0)
		fail("accept");
	for (long i = 0; i < messages; i++) {
		read_all(fd, b, size);
		write_all(fd, b, size);
	}
	close(fd);
	exit(0);
}

static void talk(const struct sockaddr_in *to, long messages, size_t size)
{
	char *b = calloc(1, size);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timespec from, until;
	double seconds;

	if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof(*to)) != 0)
		fail("connect");
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long i = 0; i < messages; i++) {
		write_all(fd, b, size);
		read_all(fd, b, size);
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	seconds = (double)(until.tv_sec - from.tv_sec) + (double)(until.tv_nsec - from.tv_nsec) / 1e9;
	printf("%.0f\n", (double)messages / seconds);
	close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), status, one = 1;
	long messages;
	size_t size;
	pid_t server;

	if (argc != 4 && argc != 6) {
		fprintf(stderr, "usage: pingpong PORT MESSAGES SIZE [SERVER-CPU CLIENT-CPU]\n");
		return 2;
	}
	a.sin_port = htons((uint16_t)atoi(argv[1]));
	messages = atol(argv[2]);
	size = (size_t)atol(argv[3]);
	(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(listener, 1) != 0)
		fail("listen");
	server = fork();
	if (server < 0)
		fail("fork");
	if (server == 0) {
		if (argc == 6)
			run_on(argv[4]);
		serve(listener, messages, size);
	}
	if (argc == 6)
		run_on(argv[5]);
	talk(&a, messages, size);
	waitpid(server, &status, 0);
	return status != 0;
}
