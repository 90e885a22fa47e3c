/* SPDX-License-Identifier: Apache-2.0 */
/* Calls before the server's program has answered, or the client's: bytes wait for nobody. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* A client's part of most connections here, and a server's. */
static void asks(int fd)
{
	says(fd, "hello");
	wants(fd, "reply");
}

static void replies(int fd)
{
	wants(fd, "hello");
	says(fd, "reply");
}

/* ---- writes ---- */

/* Two that both connect and write before they accept. */
static void both_write_first(void)
{
	int listener[2] = { listen_any(), listen_any() };
	pid_t child[2];

	for (int i = 0; i < 2; i++) {
		child[i] = fork();
		check(child[i] >= 0);
		if (child[i] == 0) {
			int to = connect_to(listener[1 - i]), from;

			says(to, "hello");
			from = accept_one(listener[i]);
			replies(from);
			wants(to, "reply");
			_exit(0);
		}
	}
	for (int i = 0; i < 2; i++) {
		ended_well(child[i]);
		check(close(listener[i]) == 0);
	}
}

static int is_readable(int fd)
{
	struct pollfd in = { .fd = fd, .events = POLLIN };
	int n = poll(&in, 1, 0);

	check(n == 0 || (n == 1 && in.revents == POLLIN));
	return n;
}

/* What stands before the server's first byte is nothing to the program, however it looks. */
static void sees(int fd, const char *text)
{
	struct epoll_event event = { .events = EPOLLIN }, got;
	int set = epoll_create1(0), n = -1, wanted = (int)strlen(text);
	char b[16];

	check(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	check(is_readable(fd) == (wanted > 0) && epoll_wait(set, &got, 1, 0) == (wanted > 0));
	check(ioctl(fd, FIONREAD, &n) == 0 && n == wanted);
	if (wanted > 0)
		check(recv(fd, b, sizeof(b), MSG_PEEK) == wanted && memcmp(b, text, (size_t)wanted) == 0);
	else
		check(recv(fd, b, sizeof(b), MSG_PEEK | MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(close(set) == 0);
}

/* The server is this very thread. */
static void write_before_accept(void)
{
	int listener = listen_any(), client = connect_to(listener), server;

	says(client, "hel");
	says(client, "lo");
	sees(client, "");
	server = accept_one(listener);
	sees(server, "hello");
	wants(server, "hello");
	sees(client, "");
	says(server, "reply");
	sees(client, "reply");
	wants(client, "reply");
	says(client, "more");
	wants(server, "more");
	check(close(client) == 0);
	wants_end(server);
	check(close(server) == 0 && close(listener) == 0);
}

/* The server's answer comes after the end of what the client has to say. */
static void half_close_before_accept(void)
{
	int listener = listen_any(), client = connect_to(listener), server;

	says(client, "hello");
	check(shutdown(client, SHUT_WR) == 0);
	server = accept_one(listener);
	wants(server, "hello");
	wants_end(server);
	says(server, "reply");
	check(close(server) == 0);
	wants(client, "reply");
	wants_end(client);
	check(close(client) == 0 && close(listener) == 0);
}

static void server_speaks_first(void)
{
	int listener = listen_any(), client = connect_to(listener), server = accept_one(listener);

	says(server, "banner");
	wants(client, "banner");
	check(close(client) == 0 && close(server) == 0 && close(listener) == 0);
}

/* ---- without waiting ---- */

static int connect_without_waiting(int listener)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), error = -1;
	socklen_t size = sizeof(error);
	struct pollfd out = { .fd = fd, .events = POLLOUT };

	check(fd >= 0 && (connect_socket(fd, listener) == 0 || errno == EINPROGRESS));
	check(poll(&out, 1, -1) == 1);
	check(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0);
	return fd;
}

static void writable_by_poll(int fd)
{
	struct pollfd out = { .fd = fd, .events = POLLIN | POLLOUT };

	check(poll(&out, 1, -1) == 1 && out.revents == POLLOUT);
}

static void writable_by_select(int fd)
{
	fd_set out;

	FD_ZERO(&out);
	FD_SET(fd, &out);
	check(select(fd + 1, NULL, &out, NULL, NULL) == 1);
}

static void writable_by_epoll(int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT }, got;
	int set = epoll_create1(0);

	check(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	check(epoll_wait(set, &got, 1, -1) == 1 && got.events == EPOLLOUT && close(set) == 0);
}

static void writable_by_edge(int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET }, got;
	int set = epoll_create1(0);

	check(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	check(epoll_wait(set, &got, 1, -1) == 1 && got.events == EPOLLOUT && close(set) == 0);
}

static void writable_by_and_by(int fd)
{
	(void)fd;
	check(usleep(1000) == 0);
}

/* The last one asks nobody. */
static void (*const ways[])(int fd) = { writable_by_poll, writable_by_select, writable_by_epoll, writable_by_edge, writable_by_and_by };
enum { WAYS = sizeof(ways) / sizeof(ways[0]), ASKING = WAYS - 1 };

/* The server is this very thread. Where a connect has ended well there is room for a write. */
static void writable_is_written(void)
{
	for (int i = 0; i < 2 * ASKING; i++) {
		int listener = listen_any(), client = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), error = -1, server;
		socklen_t size = sizeof(error);

		check(client >= 0 && (connect_socket(client, listener) == 0 || errno == EINPROGRESS));
		ways[i / 2](client);
		if (i % 2 == 1)
			check(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0);
		says(client, "hello");
		server = accept_one(listener);
		replies(server);
		set_nonblocking(client, 0);
		wants(client, "reply");
		check(close(client) == 0 && close(server) == 0 && close(listener) == 0);
	}
}

static void write_without_waiting(void)
{
	for (int i = 0; i < WAYS; i++) {
		int listener = listen_any(), client = connect_without_waiting(listener), server;
		ssize_t put;

		while ((put = write(client, "hello", 5)) == -1 && errno == EAGAIN)
			ways[i](client);
		check(put == 5);
		server = accept_one(listener);
		wants(server, "hello");
		sees(client, "");
		says(server, "reply");
		set_nonblocking(client, 0);
		wants(client, "reply");
		check(close(client) == 0 && close(server) == 0 && close(listener) == 0);
	}
}

/* ---- other processes ---- */

/* A thread that accepts, and answers in a child. The client is its parent's, in another thread. */
static void *serve_by_child(void *listener)
{
	int fd = accept_one(*(int *)listener);
	pid_t child = fork();

	check(child >= 0);
	if (child == 0) {
		replies(fd);
		_exit(0);
	}
	check(close(fd) == 0);
	ended_well(child);
	return NULL;
}

static void served_by_child(void)
{
	for (int i = 0; i < 10; i++) {
		int listener = listen_any(), client;
		pthread_t server;

		check(pthread_create(&server, NULL, serve_by_child, &listener) == 0);
		client = connect_to(listener);
		check(usleep(i * 1000) == 0);
		asks(client);
		wants_end(client);
		check(pthread_join(server, NULL) == 0 && close(client) == 0 && close(listener) == 0);
	}
}

/* To look is to answer. The client has not written. */
static void answers(int fd)
{
	check(usleep(50000) == 0); /* the client's connect waits no longer */
	check(!is_readable(fd));
}

/*
 * A server that answers and then forks, before its client's program comes to the first byte: the child takes the client's Confirm. The
 * parent serves every other connection, and so is attached to DMBs of the client's that come again; children live on when theirs are over.
 */
static void fork_after_answer(int polls)
{
	enum { CONNECTIONS = 8 };
	int listener = listen_any(), go[2], end[2], fd;
	pid_t client, children[CONNECTIONS];

	check(pipe(go) == 0 && pipe(end) == 0);
	client = fork();
	check(client >= 0);
	if (client == 0) {
		int first = connect_to(listener); /* its DMB is in use all the time */

		asks(first);
		for (int i = 0; i < CONNECTIONS; i++) {
			fd = connect_to(listener);
			wants(go[0], "go");
			asks(fd);
			if (polls) { /* which looks at TCP, too, whose end may be a little later */
				struct pollfd in = { .fd = fd, .events = POLLIN };

				check(poll(&in, 1, -1) == 1 && usleep(20000) == 0 && is_readable(fd));
			}
			wants_end(fd);
			check(close(fd) == 0);
		}
		_exit(0);
	}
	fd = accept_one(listener);
	replies(fd);
	for (int i = 0; i < CONNECTIONS; i++) {
		int served = accept_one(listener);

		answers(served);
		if (i % 2 == 0) {
			children[i] = fork();
			check(children[i] >= 0);
		}
		if (i % 2 == 0 && children[i] == 0) {
			check(close(end[1]) == 0); /* it ends with its parent */
			replies(served);
			check(close(served) == 0);
			wants(end[0], "end");
			_exit(0);
		}
		says(go[1], "go");
		if (i % 2 != 0)
			replies(served);
		check(close(served) == 0);
	}
	ended_well(client);
	wants_end(fd);
	for (int i = 0; i < CONNECTIONS; i += 2)
		says(end[1], "end");
	for (int i = 0; i < CONNECTIONS; i += 2)
		ended_well(children[i]);
	check(close(fd) == 0 && close(listener) == 0);
	check(close(go[0]) == 0 && close(go[1]) == 0 && close(end[0]) == 0 && close(end[1]) == 0);
}

static void forked_after_answer(void)
{
	for (int polls = 0; polls < 2; polls++)
		fork_after_answer(polls);
}

/* The parent has served another one of the client's connections, which came and went, before the client's program comes to the first byte. */
static void forked_before_others(void)
{
	int listener = listen_any(), go[2], first, served, fd;
	pid_t client, child;

	check(pipe(go) == 0);
	client = fork();
	check(client >= 0);
	if (client == 0) {
		int late;

		first = connect_to(listener);
		asks(first);
		late = connect_to(listener);
		wants(go[0], "go");
		fd = connect_to(listener);
		asks(fd);
		wants_end(fd);
		check(close(fd) == 0 && usleep(20000) == 0);
		asks(late);
		_exit(0);
	}
	first = accept_one(listener);
	replies(first);
	fd = accept_one(listener);
	answers(fd);
	child = fork();
	check(child >= 0);
	if (child == 0) {
		replies(fd);
		_exit(0);
	}
	says(go[1], "go");
	served = accept_one(listener);
	replies(served);
	check(close(served) == 0);
	ended_well(child);
	ended_well(client);
	wants_end(first);
	check(close(first) == 0 && close(fd) == 0 && close(listener) == 0 && close(go[0]) == 0 && close(go[1]) == 0);
}

/* A child answers; its parent, which has the connection, too, forks again and waits, when the client's last message of the handshake is there. */
static void answered_by_child(void)
{
	int listener = listen_any(), told[2], go[2], fd;
	pid_t client = start_client(listener), child, other;

	check(pipe(told) == 0 && pipe(go) == 0);
	fd = accept_one(listener);
	child = fork();
	check(child >= 0);
	if (child == 0) {
		check(close(go[1]) == 0 && usleep(10000) == 0);
		(void)is_readable(fd);
		says(told[1], "told");
		wants(go[0], "go");
		wants(fd, "hello");
		says(fd, "hello");
		_exit(0);
	}
	wants(told[0], "told");
	check(usleep(10000) == 0);
	other = fork();
	check(other >= 0);
	if (other == 0)
		_exit(0);
	ended_well(other);
	says(go[1], "go");
	ended_well(child);
	check(close(fd) == 0);
	ended_well(client);
	check(close(listener) == 0 && close(told[0]) == 0 && close(told[1]) == 0 && close(go[0]) == 0 && close(go[1]) == 0);
}

/* A child has the socket, too, before it is a connection, and is alone with it in the end. */
static void forked_before_connect(void)
{
	int listener = listen_any(), fd = socket(family, SOCK_STREAM, 0), start[2], server;
	pid_t child;

	check(fd >= 0 && pipe(start) == 0);
	child = fork();
	check(child >= 0);
	if (child == 0) {
		wants(start[0], "go");
		asks(fd);
		_exit(0);
	}
	check(connect_socket(fd, listener) == 0);
	server = accept_one(listener);
	says(fd, "first");
	wants(server, "first");
	check(close(fd) == 0);
	says(start[1], "go");
	replies(server);
	ended_well(child);
	wants_end(server);
	check(close(server) == 0 && close(listener) == 0 && close(start[0]) == 0 && close(start[1]) == 0);
}

/* On a blocking socket: nobody tries again. */
static void write_once(void)
{
	int listener = listen_any(), client = connect_to(listener), server;

	check(send(client, "hello", 5, MSG_DONTWAIT) == 5);
	server = accept_one(listener);
	replies(server);
	wants(client, "reply");
	check(close(client) == 0 && close(server) == 0 && close(listener) == 0);
}

void test_early(void)
{
	RUN(both_write_first);
	RUN(write_before_accept);
	RUN(half_close_before_accept);
	RUN(server_speaks_first);
	RUN(writable_is_written);
	RUN(write_without_waiting);
	RUN(served_by_child);
	RUN(forked_after_answer);
	RUN(forked_before_others);
	RUN(answered_by_child);
	RUN(forked_before_connect);
	RUN(write_once);
}

/* Longer than a server waits that answers in the background: the client's program has other things to do. */
void test_late(void)
{
	int listener = listen_any(), fd;
	pid_t client = fork();

	check(client >= 0);
	if (client == 0) {
		fd = connect_to(listener);
		sleep(7);
		asks(fd);
		_exit(0);
	}
	check(usleep(100000) == 0); /* the client's connect waits no longer */
	fd = accept_one(listener);
	replies(fd);
	ended_well(client);
	check(close(fd) == 0 && close(listener) == 0);
}
