/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection for each request: connect PORT serves, connect PORT CONNECTIONS makes so many to it, one after the other, each with a request and
 * a reply of 14 bytes, and prints how many microseconds one takes. The client closes by a reset, or it would soon run out of ports.
 *
 * connect PORT CONNECTIONS CALLS shows without smc_run what the system calls cost that the library makes beside: m the mark, a the question
 * after it, f fstat, n getsockname. For m, $ISMFS_MOUNT is the device, which somebody has to use.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 14, SMC_LEVEL = 286, SMC_NAME = 0x49534d01, GID = 16, TAG = 7 };

static unsigned char mark[1 + TAG] = { 1 };

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int new_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0)
		fail("socket");
	return fd;
}

static void serve(const struct sockaddr_in *at)
{
	int listener = new_socket(), one = 1;

	(void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (const struct sockaddr *)at, sizeof(*at)) != 0 || listen(listener, 128) != 0)
		fail("listen");
	for (;;) {
		char b[SIZE];
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			fail("accept");
		while (read(fd, b, sizeof(b)) == SIZE && write(fd, b, sizeof(b)) == SIZE)
			;
		close(fd);
	}
}

/* The end of the device's GID, which is a UUID's text. */
static void find_tag(void)
{
	const char *mount = getenv("ISMFS_MOUNT");
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/devices/loopback-ism/gid", mount != NULL ? mount : "");
	f = fopen(path, "re");
	if (f == NULL)
		fail(path);
	for (int i = 0; i < GID; i++) {
		unsigned int byte;

		if (fscanf(f, "%*[-]") == EOF || fscanf(f, "%2x", &byte) != 1)
			fail(path);
		if (i >= GID - TAG)
			mark[1 + i - (GID - TAG)] = (unsigned char)byte;
	}
	fclose(f);
}

/* As the library does once TCP stands. */
static void describe(int fd, const char *calls)
{
	struct sockaddr_storage name;
	unsigned char answer[1 + TAG];
	socklen_t size = sizeof(answer);
	struct stat st;

	if (strchr(calls, 'a') != NULL && getsockopt(fd, SMC_LEVEL, SMC_NAME, answer, &size) != 0 && strchr(calls, 'm') != NULL)
		fail("the question");
	if (strchr(calls, 'f') != NULL && fstat(fd, &st) != 0)
		fail("fstat");
	size = sizeof(name);
	if (strchr(calls, 'n') != NULL && getsockname(fd, (struct sockaddr *)&name, &size) != 0)
		fail("getsockname");
}

static void request(const struct sockaddr_in *to, const char *calls)
{
	struct linger reset = { 1, 0 };
	char b[SIZE] = "";
	int fd = new_socket();

	if (strchr(calls, 'm') != NULL && setsockopt(fd, SMC_LEVEL, SMC_NAME, mark, sizeof(mark)) != 0)
		fail("the mark");
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) != 0)
		fail("connect");
	describe(fd, calls);
	if (write(fd, b, sizeof(b)) != SIZE || read(fd, b, sizeof(b)) != SIZE)
		fail("a reply");
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const char *calls = argc == 4 ? argv[3] : "";
	struct timespec from, until;
	long n;

	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: connect PORT [CONNECTIONS [CALLS]]\n");
		return 2;
	}
	a.sin_port = htons((uint16_t)atoi(argv[1]));
	if (argc == 2)
		serve(&a);
	n = atol(argv[2]);
	if (strchr(calls, 'm') != NULL)
		find_tag();
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long i = 0; i < n; i++)
		request(&a, calls);
	clock_gettime(CLOCK_MONOTONIC, &until);
	printf("%.2f\n", ((double)(until.tv_sec - from.tv_sec) * 1e9 + (double)(until.tv_nsec - from.tv_nsec)) / 1e3 / (double)n);
	return 0;
}
