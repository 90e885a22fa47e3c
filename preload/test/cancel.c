/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that is cancelled while it waits for a connection: a program of one file, for musl. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLS = 4 };

static int client, listener, set;

static void *wait_in(void *call)
{
	struct pollfd one = { client, POLLIN, 0 };
	struct epoll_event event;
	char b;

	switch (*(int *)call) {
	case 0: (void)!read(client, &b, 1); break;
	case 1: (void)poll(&one, 1, -1); break;
	case 2: (void)epoll_wait(set, &event, 1, -1); break;
	default: (void)accept(listener, NULL, NULL);
	}
	return NULL;
}

/* Whether it ends as cancelled. */
static int cancelled(int call)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct epoll_event event = { .events = EPOLLIN };
	socklen_t size = sizeof(at);
	pthread_t thread;
	void *result;
	char b;
	int server;

	listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&at, size) != 0 || listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)&at, &size) != 0)
		return 0;
	client = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(client, (struct sockaddr *)&at, size) != 0 || (server = accept(listener, NULL, NULL)) < 0)
		return 0;
	if (write(client, "x", 1) != 1 || read(server, &b, 1) != 1 || write(server, "y", 1) != 1 || read(client, &b, 1) != 1)
		return 0;
	set = epoll_create1(0);
	if (epoll_ctl(set, EPOLL_CTL_ADD, client, &event) != 0 || pthread_create(&thread, NULL, wait_in, &call) != 0)
		return 0;
	usleep(200000);
	return pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED;
}

int main(void)
{
	for (int call = 0; call < CALLS; call++) {
		pid_t child = fork();
		int status = 1;

		if (child == 0) {
			alarm(10);
			_exit(!cancelled(call));
		}
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
			printf("call %d is not cancelled (status %x)\n", call, status);
			return 1;
		}
	}
	return 0;
}
