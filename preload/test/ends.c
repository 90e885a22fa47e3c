/* SPDX-License-Identifier: Apache-2.0 */
/* Ends before the other side has answered: each is seen, in order, and nothing that was said before is lost. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void server_closes(void)
{
	int listener = listen_any();
	pid_t client = fork();

	check(client >= 0);
	if (client == 0) {
		wants_end(connect_to(listener));
		_exit(0);
	}
	check(close(accept_one(listener)) == 0);
	ended_well(client);
	check(close(listener) == 0);
}

static void client_closes(void)
{
	for (int killed = 0; killed < 2; killed++) {
		int listener = listen_any(), fd;
		pid_t client = fork();

		check(client >= 0);
		if (client == 0) {
			fd = connect_to(listener);
			check(killed ? raise(SIGKILL) == 0 : close(fd) == 0);
			_exit(0);
		}
		check(waitpid(client, NULL, 0) == client);
		fd = accept_one(listener);
		wants_end(fd);
		wants_end(fd);
		check(close(fd) == 0 && close(listener) == 0);
	}
}

/* A program that leaves its bytes and goes, whenever the server comes. */
static void fire_and_forget(void)
{
	int listener = listen_any(), fd;
	pid_t client = fork();

	check(client >= 0);
	if (client == 0) {
		fd = connect_to(listener);
		says(fd, "hello");
		check(close(fd) == 0);
		_exit(0);
	}
	ended_well(client);
	fd = accept_one(listener);
	wants(fd, "hello");
	wants_end(fd);
	check(close(fd) == 0 && close(listener) == 0);
}

static void server_shuts_first(void)
{
	for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
		int listener = listen_any(), fd;
		pid_t client = fork();

		check(client >= 0);
		if (client == 0) {
			fd = connect_to(listener);
			wants_end(fd);
			says(fd, "data");
			check(close(fd) == 0);
			_exit(0);
		}
		fd = accept_one(listener);
		set_nonblocking(fd, nonblocking);
		check(shutdown(fd, SHUT_WR) == 0);
		check(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
		set_nonblocking(fd, 0);
		wants(fd, "data");
		wants_end(fd);
		ended_well(client);
		check(close(fd) == 0 && close(listener) == 0);
	}
}

static void client_shuts_first(void)
{
	for (int nonblocking = 0; nonblocking < 2; nonblocking++)
		for (int how = SHUT_WR; how <= SHUT_RDWR; how++) {
			int listener = listen_any(), client = connect_to(listener), server;

			set_nonblocking(client, nonblocking);
			check(shutdown(client, how) == 0);
			check(send(client, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
			if (how == SHUT_RDWR)
				wants_end(client);
			server = accept_one(listener);
			wants_end(server);
			if (how == SHUT_WR) {
				says(server, "reply");
				set_nonblocking(client, 0);
				wants(client, "reply");
			}
			check(close(server) == 0 && close(client) == 0 && close(listener) == 0);
		}
}

/* A socket that is taken off its connection, and connects again. */
static void connects_again(void)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int listener = listen_any(), client = connect_to(listener), server = accept_one(listener);
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);
	char b;

	check(getsockname(listener, (struct sockaddr *)&a, &size) == 0);
	says(client, "one");
	wants(server, "one");
	check(connect(client, &none, sizeof(none)) == 0);
	check(read(server, &b, 1) == -1 && errno == ECONNRESET && close(server) == 0);
	check(send(client, "x", 1, MSG_NOSIGNAL) == -1);
	check(connect(client, (struct sockaddr *)&a, sizeof(a)) == 0);
	server = accept_one(listener);
	says(client, "two");
	wants(server, "two");
	check(close(client) == 0);
	wants_end(server);
	check(close(server) == 0 && close(listener) == 0);
}

void test_ends(void)
{
	RUN(server_closes);
	RUN(client_closes);
	RUN(fire_and_forget);
	RUN(server_shuts_first);
	RUN(client_shuts_first);
	RUN(connects_again);
}
