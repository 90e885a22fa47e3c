/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smc-run-mixed ROUNDS: a server and a client, fifty connections between them, and in each process threads that wait in every way there is,
 * several for the same connections. A byte that nobody wakes up for is one that the client waits for until the alarm.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CONNECTIONS = 50, PATIENCE_S = 60 };
enum way { POLL, PPOLL_AND_PIPE, SELECT, EPOLL, READ };

/* A thread: how it waits, and for which connections. */
struct worker {
	enum way way;
	int first, n;
	unsigned int seed;
	int set;
	int silent[2]; /* a pipe */
	bool done[CONNECTIONS], ready[CONNECTIONS];
};

static int fds[CONNECTIONS], rounds;
static _Atomic long sent;

static void fail(const char *what)
{
	fprintf(stderr, "smc-run-mixed: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- the ways to wait: each sets ready, which it may do in vain ---- */

static void by_poll(struct worker *w, bool with_pipe)
{
	struct pollfd p[CONNECTIONS + 1];
	nfds_t n = (nfds_t)w->n;

	for (int i = 0; i < w->n; i++)
		p[i] = (struct pollfd){ .fd = w->done[i] ? -1 : fds[w->first + i], .events = POLLIN };
	if (with_pipe)
		p[n++] = (struct pollfd){ .fd = w->silent[0], .events = POLLIN };
	if ((with_pipe ? ppoll(p, n, NULL, NULL) : poll(p, n, -1)) <= 0)
		fail("poll");
	for (int i = 0; i < w->n; i++)
		w->ready[i] = p[i].revents != 0;
}

static void by_select(struct worker *w)
{
	fd_set in;
	int top = -1;

	FD_ZERO(&in);
	for (int i = 0; i < w->n; i++) {
		int fd = fds[w->first + i];

		if (w->done[i])
			continue;
		FD_SET(fd, &in);
		top = fd > top ? fd : top;
	}
	if (select(top + 1, &in, NULL, NULL, NULL) <= 0)
		fail("select");
	for (int i = 0; i < w->n; i++)
		w->ready[i] = !w->done[i] && FD_ISSET(fds[w->first + i], &in);
}

static void by_epoll(struct worker *w)
{
	struct epoll_event e[8];
	int n = epoll_wait(w->set, e, 8, -1);

	if (n <= 0)
		fail("epoll_wait");
	for (int i = 0; i < w->n; i++)
		w->ready[i] = false;
	while (n > 0)
		w->ready[e[--n].data.u32] = true;
}

static void wait_any(struct worker *w)
{
	switch (w->way) {
	case POLL:
	case PPOLL_AND_PIPE:
		by_poll(w, w->way == PPOLL_AND_PIPE);
		break;
	case SELECT:
		by_select(w);
		break;
	case EPOLL:
		by_epoll(w);
		break;
	case READ:
		for (int i = 0; i < w->n; i++)
			w->ready[i] = !w->done[i];
		break;
	}
}

static void prepare(struct worker *w)
{
	if (pipe(w->silent) != 0 || (w->set = epoll_create1(0)) < 0)
		fail("pipe, epoll_create1");
	for (int i = 0; w->way == EPOLL && i < w->n; i++) {
		struct epoll_event e = { .events = EPOLLIN, .data.u32 = (uint32_t)i };

		if (epoll_ctl(w->set, EPOLL_CTL_ADD, fds[w->first + i], &e) != 0)
			fail("epoll_ctl");
	}
}

/* ---- the server: each byte comes back from whichever thread has got it ---- */

/* Returns whether the connection goes on. */
static bool echo(struct worker *w, int i)
{
	char b[64];
	int fd = fds[w->first + i];
	ssize_t n = recv(fd, b, sizeof(b), w->way == READ ? 0 : MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN)
		fail("recv");
	if (n > 0 && send(fd, b, (size_t)n, 0) != n)
		fail("send");
	return n != 0;
}

static void *serve(void *argument)
{
	struct worker *w = argument;
	int left = w->n;

	prepare(w);
	while (left > 0) {
		wait_any(w);
		for (int i = 0; i < w->n; i++) {
			if (!w->ready[i] || echo(w, i))
				continue;
			if (w->way == EPOLL && epoll_ctl(w->set, EPOLL_CTL_DEL, fds[w->first + i], NULL) != 0)
				fail("epoll_ctl");
			w->done[i] = true;
			left--;
		}
	}
	return NULL;
}

/* ---- the client ---- */

static void *talk(void *argument)
{
	struct worker *w = argument;
	char b[64] = { 0 };

	prepare(w);
	for (int round = 0; round < rounds; round++) {
		int owed[CONNECTIONS] = { 0 }, left = 0, most = 1 + rand_r(&w->seed) % w->n;

		if (rand_r(&w->seed) % 8 == 0)
			usleep(rand_r(&w->seed) % 300); /* the server sleeps */
		for (int i = 0; i < w->n && left < most; i++) {
			if (rand_r(&w->seed) % 2 == 0)
				continue;
			if (send(fds[w->first + i], b, 1, 0) != 1)
				fail("send");
			owed[i]++;
			left++;
		}
		atomic_fetch_add(&sent, left);
		while (left > 0) {
			wait_any(w);
			for (int i = 0; i < w->n; i++) {
				ssize_t n = w->ready[i] && owed[i] > 0 ? recv(fds[w->first + i], b, sizeof(b), 0) : 0;

				if (n < 0 || n > owed[i])
					fail("recv");
				owed[i] -= (int)n;
				left -= (int)n;
			}
		}
	}
	for (int i = 0; i < w->n; i++)
		close(fds[w->first + i]);
	return NULL;
}

/* ---- both ---- */

static struct worker servers[] = {
	{ .way = POLL, .first = 0, .n = 20 },
	{ .way = PPOLL_AND_PIPE, .first = 10, .n = 20 },
	{ .way = SELECT, .first = 25, .n = 25 },
	{ .way = SELECT, .first = 5, .n = 10 },
	{ .way = EPOLL, .first = 15, .n = 20 },
	{ .way = EPOLL, .first = 30, .n = 10 },
	{ .way = POLL, .first = 49, .n = 1 },
	{ .way = PPOLL_AND_PIPE, .first = 48, .n = 1 },
	{ .way = READ, .first = 2, .n = 1 },
	{ .way = READ, .first = 12, .n = 1 },
	{ .way = READ, .first = 32, .n = 1 },
	{ .way = READ, .first = 48, .n = 1 },
};
static struct worker clients[] = {
	{ .way = POLL, .first = 0, .n = 12, .seed = 1 },
	{ .way = SELECT, .first = 12, .n = 12, .seed = 2 },
	{ .way = EPOLL, .first = 24, .n = 10, .seed = 3 },
	{ .way = PPOLL_AND_PIPE, .first = 34, .n = 10, .seed = 4 },
	{ .way = READ, .first = 44, .n = 4, .seed = 5 },
	{ .way = PPOLL_AND_PIPE, .first = 48, .n = 1, .seed = 6 },
	{ .way = POLL, .first = 49, .n = 1, .seed = 7 },
};

static void run_all(struct worker *w, size_t n, void *(*run)(void *))
{
	pthread_t threads[16];

	for (size_t i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, run, &w[i]) != 0)
			fail("pthread_create");
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), status;
	socklen_t size = sizeof(a);
	pid_t server;

	rounds = argc == 2 ? atoi(argv[1]) : 0;
	if (rounds < 1) {
		fprintf(stderr, "usage: smc-run-mixed ROUNDS\n");
		return 2;
	}
	if (bind(listener, (struct sockaddr *)&a, size) != 0 || listen(listener, CONNECTIONS) != 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &size) != 0)
		fail("listen");
	server = fork();
	if (server < 0)
		fail("fork");
	alarm(PATIENCE_S);
	if (server == 0) {
		for (int i = 0; i < CONNECTIONS; i++)
			if ((fds[i] = accept(listener, NULL, NULL)) < 0)
				fail("accept");
		run_all(servers, sizeof(servers) / sizeof(servers[0]), serve);
		exit(0);
	}
	for (int i = 0; i < CONNECTIONS; i++)
		if ((fds[i] = socket(AF_INET, SOCK_STREAM, 0)) < 0 || connect(fds[i], (struct sockaddr *)&a, sizeof(a)) != 0)
			fail("connect");
	run_all(clients, sizeof(clients) / sizeof(clients[0]), talk);
	if (waitpid(server, &status, 0) != server || status != 0)
		fail("the server");
	printf("bytes %ld\n", 2 * atomic_load(&sent));
	return 0;
}
