/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection for each request: connect PORT serves, connect PORT CONNECTIONS makes so many to it, one after the other, each with a request and
 * a reply of 14 bytes, and prints how many microseconds one takes. The client closes by a reset, or it would soon run out of ports.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 14 };

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

static void request(const struct sockaddr_in *to)
{
	struct linger reset = { 1, 0 };
	char b[SIZE] = "";
	int fd = new_socket();

	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) != 0)
		fail("connect");
	if (write(fd, b, sizeof(b)) != SIZE || read(fd, b, sizeof(b)) != SIZE)
		fail("a reply");
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timespec from, until;
	long n;

	if (argc != 2 && argc != 3) {
		fprintf(stderr, "usage: connect PORT [CONNECTIONS]\n");
		return 2;
	}
	a.sin_port = htons((uint16_t)atoi(argv[1]));
	if (argc == 2)
		serve(&a);
	n = atol(argv[2]);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long i = 0; i < n; i++)
		request(&a);
	clock_gettime(CLOCK_MONOTONIC, &until);
	printf("%.2f\n", ((double)(until.tv_sec - from.tv_sec) * 1e9 + (double)(until.tv_nsec - from.tv_nsec)) / 1e3 / (double)n);
	return 0;
}
