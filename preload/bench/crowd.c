/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server and a client with many connections between them, each process in one loop: crowd HOW CONNECTIONS OUTSTANDING MS [SERVER-CPU
 * CLIENT-CPU]. HOW is poll, select, epoll, or mixed: poll with a pipe beside in which nothing comes; OUTSTANDING is on how many connections a message of 100 bytes is under way. Prints round trips
 * per second, and how often each process slept in 1000 of them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1000, SIZE = 100 };

static int fds[MOST], count, set, silent[2];
static bool ready[MOST];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void run_on(const char *cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(atoi(cpu), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0)
		fail("sched_setaffinity");
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* ---- the ways to wait; each marks what is ready ---- */

static void by_poll(void)
{
	static struct pollfd p[MOST + 1];
	nfds_t n = (nfds_t)count;

	for (int i = 0; i < count; i++)
		p[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
	if (silent[1] > 0)
		p[n++] = (struct pollfd){ .fd = silent[0], .events = POLLIN };
	if (poll(p, n, -1) <= 0)
		fail("poll");
	for (int i = 0; i < count; i++)
		ready[i] = p[i].revents != 0;
}

static void by_select(void)
{
	fd_set in;
	int top = 0;

	FD_ZERO(&in);
	for (int i = 0; i < count; i++) {
		FD_SET(fds[i], &in);
		top = fds[i] > top ? fds[i] : top;
	}
	if (select(top + 1, &in, NULL, NULL, NULL) <= 0)
		fail("select");
	for (int i = 0; i < count; i++)
		ready[i] = FD_ISSET(fds[i], &in);
}

static void by_epoll(void)
{
	struct epoll_event e[64];
	int n;

	for (int i = 0; set == 0 && i < count; i++) {
		static int made;
		struct epoll_event one = { .events = EPOLLIN, .data.u32 = (uint32_t)i };

		made = made == 0 ? epoll_create1(0) : made;
		if (epoll_ctl(made, EPOLL_CTL_ADD, fds[i], &one) != 0)
			fail("epoll_ctl");
		if (i == count - 1)
			set = made;
	}
	n = epoll_wait(set, e, 64, -1);
	if (n <= 0)
		fail("epoll_wait");
	memset(ready, 0, sizeof(ready));
	while (n > 0)
		ready[e[--n].data.u32] = true;
}

/* ---- both sides ---- */

/* Answers what has come until the time is up or the peer has closed; returns how many messages that were. */
static long answer(void (*wait_any)(void), int64_t until)
{
	char b[SIZE];
	long n = 0;

	for (;;) {
		wait_any();
		for (int i = 0; i < count; i++) {
			if (!ready[i])
				continue;
			if (read(fds[i], b, SIZE) != SIZE || write(fds[i], b, SIZE) != SIZE)
				return n; /* the client has closed */
			n++;
		}
		if (now_ms() >= until)
			return n;
	}
}

static long sleeps(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_nvcsw;
}

static void serve(int listener, void (*wait_any)(void))
{
	long before, n;

	for (int i = 0; i < count; i++)
		if ((fds[i] = accept(listener, NULL, NULL)) < 0)
			fail("accept");
	before = sleeps();
	n = answer(wait_any, INT64_MAX);
	printf("the server slept %.0f times in 1000 round trips\n", 1000.0 * (double)(sleeps() - before) / (double)n);
	exit(0);
}

static void talk(const struct sockaddr_in *to, void (*wait_any)(void), int outstanding, int ms)
{
	char b[SIZE] = { 0 };
	long before, n;
	int64_t began;

	for (int i = 0; i < count; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		if (fds[i] < 0 || connect(fds[i], (const struct sockaddr *)to, sizeof(*to)) != 0)
			fail("connect");
	}
	usleep(100000); /* the server has accepted them all */
	before = sleeps();
	began = now_ms();
	for (int i = 0; i < outstanding; i++)
		if (write(fds[i * (count / outstanding)], b, SIZE) != SIZE)
			fail("write");
	n = answer(wait_any, began + ms);
	printf("%.0f round trips a second; the client slept %.0f times in 1000\n", 1000.0 * (double)n / (double)(now_ms() - began),
	       1000.0 * (double)(sleeps() - before) / (double)n);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), outstanding = argc > 3 ? atoi(argv[3]) : 0;
	void (*wait_any)(void);
	socklen_t size = sizeof(a);
	pid_t server;

	count = argc > 2 ? atoi(argv[2]) : 0;
	if ((argc != 5 && argc != 7) || count < 1 || count > MOST || outstanding < 1 || outstanding > count) {
		fprintf(stderr, "usage: crowd poll|select|epoll|mixed CONNECTIONS OUTSTANDING MS [SERVER-CPU CLIENT-CPU]\n");
		return 2;
	}
	wait_any = strcmp(argv[1], "select") == 0 ? by_select : strcmp(argv[1], "epoll") == 0 ? by_epoll : by_poll;
	if (strcmp(argv[1], "mixed") == 0 && pipe(silent) != 0)
		fail("pipe");
	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(listener, MOST) != 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &size) != 0)
		fail("listen");
	signal(SIGPIPE, SIG_IGN);
	server = fork();
	if (server < 0)
		fail("fork");
	if (server == 0) {
		if (argc == 7)
			run_on(argv[5]);
		serve(listener, wait_any);
	}
	close(listener);
	if (argc == 7)
		run_on(argv[6]);
	talk(&a, wait_any, outstanding, atoi(argv[4]));
	for (int i = 0; i < count; i++)
		close(fds[i]);
	waitpid(server, NULL, 0);
	return 0;
}
