/* SPDX-License-Identifier: Apache-2.0 */
/* connect that does not wait; poll, select and epoll. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static int so_error(int fd)
{
	int error = -1;
	socklen_t size = sizeof(error);

	check(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0);
	return error;
}

/* The same thread has to accept, so the client is connected before the server has it. */
static void nonblocking_connect(void)
{
	int listener = listen_any(), server, client = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);
	struct pollfd p = { .fd = client, .events = POLLOUT };
	char b[4];

	check(getsockname(listener, (struct sockaddr *)&a, &size) == 0);
	check(connect(client, (struct sockaddr *)&a, size) == -1 && errno == EINPROGRESS);
	check(poll(&p, 1, 5000) == 1 && p.revents == POLLOUT && so_error(client) == 0);
	check(connect(client, (struct sockaddr *)&a, size) == 0);
	check(connect(client, (struct sockaddr *)&a, size) == -1 && errno == EISCONN);
	check(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
	server = accept(listener, NULL, NULL);
	check(server >= 0 && accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
	check(connect(server, (struct sockaddr *)&a, size) == -1 && errno == EISCONN);
	check(poll(&p, 1, 5000) == 1 && p.revents == POLLOUT);
	check(wrote(write(client, "ping", 4)) == 4);
	read_all(server, b, 4);
	size = sizeof(a);
	check(getpeername(client, (struct sockaddr *)&a, &size) == 0 && a.ss_family == family);
	check(close(listener) == 0 && close(client) == 0 && close(server) == 0);
}

static void refused(void)
{
	int listener = listen_any(), client;
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);
	struct pollfd p;

	check(getsockname(listener, (struct sockaddr *)&a, &size) == 0 && close(listener) == 0);
	client = socket(family, SOCK_STREAM, 0);
	check(connect(client, (struct sockaddr *)&a, size) == -1 && errno == ECONNREFUSED);
	check(close(client) == 0);
	client = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (connect(client, (struct sockaddr *)&a, size) == -1 && errno == EINPROGRESS) {
		p = (struct pollfd){ .fd = client, .events = POLLOUT };
		check(poll(&p, 1, 5000) == 1 && (p.revents & POLLERR) && so_error(client) == ECONNREFUSED);
	}
	check(close(client) == 0);
}

static void polled(void)
{
	struct pair p = pair_open();
	int pipes[2];
	char b[8];

	check(pipe(pipes) == 0);
	struct pollfd f[3] = { { .fd = p.server, .events = POLLIN }, { .fd = pipes[0], .events = POLLIN }, { .fd = -1 } };

	check(poll(f, 3, 0) == 0 && poll(f, 3, 50) == 0);
	write_all(p.client, "a", 1);
	check(poll(f, 3, 5000) == 1 && f[0].revents == POLLIN && f[1].revents == 0);
	check(write(pipes[1], "b", 1) == 1);
	check(poll(f, 3, 5000) == 2 && f[1].revents == POLLIN);
	read_all(p.server, b, 1);
	check(poll(f, 3, 5000) == 1 && f[0].revents == 0 && f[1].revents == POLLIN);
	f[0].events = POLLIN | POLLOUT | POLLRDHUP;
	check(poll(f, 1, 5000) == 1 && f[0].revents == POLLOUT);
	check(shutdown(p.client, SHUT_WR) == 0);
	check(poll(f, 1, 5000) == 1 && (f[0].revents & (POLLIN | POLLRDHUP)) == (POLLIN | POLLRDHUP) && !(f[0].revents & POLLHUP));
	check(close(p.client) == 0 && close(p.server) == 0 && close(pipes[0]) == 0 && close(pipes[1]) == 0);
}

/* More than lie on the stack. */
static void selected_many(void)
{
	enum { MANY = 200 };
	struct pair p = pair_open();
	struct timeval none = { 0 };
	int copies[MANY];
	fd_set in, out;

	FD_ZERO(&in);
	FD_ZERO(&out);
	for (int i = 0; i < MANY; i++) {
		copies[i] = dup(p.client);
		check(copies[i] >= 0 && copies[i] < FD_SETSIZE);
		FD_SET(copies[i], &in);
		FD_SET(copies[i], &out);
	}
	check(select(copies[MANY - 1] + 1, &in, &out, NULL, &none) == MANY);
	for (int i = 0; i < MANY; i++)
		check(FD_ISSET(copies[i], &out) && !FD_ISSET(copies[i], &in) && close(copies[i]) == 0);
	pair_close(p);
}

static void selected(void)
{
	struct pair p = pair_open();
	struct timeval none = { 0, 0 }, long_time = { 5, 0 };
	fd_set in, out;
	char b;

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_SET(p.server, &in);
	check(select(p.server + 1, &in, NULL, NULL, &none) == 0 && !FD_ISSET(p.server, &in));
	write_all(p.client, "a", 1);
	FD_SET(p.server, &in);
	FD_SET(p.server, &out);
	check(select(p.server + 1, &in, &out, NULL, &long_time) >= 1 && FD_ISSET(p.server, &in));
	read_all(p.server, &b, 1);
	pair_close(p);
}

static void *write_soon(void *fd)
{
	usleep(100000);
	write_all(*(int *)fd, "s", 1);
	return NULL;
}

/* Sleeps that news end, for one descriptor and for several. */
static void waited_for(void)
{
	struct pair p = pair_open(), q = pair_open();
	struct pollfd f[2] = { { .fd = p.server, .events = POLLIN }, { .fd = q.server, .events = POLLIN } };
	pthread_t writer;
	char b;

	for (nfds_t n = 1; n <= 2; n++) {
		check(pthread_create(&writer, NULL, write_soon, n == 1 ? &p.client : &q.client) == 0);
		check(poll(f, n, 5000) == 1 && f[n - 1].revents == POLLIN);
		check(pthread_join(writer, NULL) == 0);
		read_all(f[n - 1].fd, &b, 1);
	}
	pair_close(p);
	pair_close(q);
}

/* ---- epoll ---- */

static int epoll_of(int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.u64 = 0x1234567800000000u + (unsigned int)fd };
	int set = epoll_create1(EPOLL_CLOEXEC);

	check(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0);
	check(epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == -1 && errno == EEXIST);
	return set;
}

/* The one event that is there within a time, 0 for none. */
static uint32_t event(int set, int timeout)
{
	struct epoll_event e[4];
	int n = epoll_wait(set, e, 4, timeout);

	check(n == 0 || (n == 1 && e[0].data.u64 >> 32 == 0x12345678));
	return n == 0 ? 0 : e[0].events;
}

static void level(void)
{
	struct pair p = pair_open();
	int set = epoll_of(p.server, EPOLLIN);
	char b[4];

	check(event(set, 0) == 0 && event(set, 50) == 0);
	write_all(p.client, "ab", 2);
	check(event(set, 5000) == EPOLLIN && event(set, 0) == EPOLLIN);
	read_all(p.server, b, 1);
	check(event(set, 0) == EPOLLIN);
	read_all(p.server, b, 1);
	check(event(set, 0) == 0);
	for (int i = 0; i < 100; i++) {
		write_all(p.client, "c", 1);
		check(event(set, 5000) == EPOLLIN);
		read_all(p.server, b, 1);
		check(event(set, 0) == 0);
	}
	check(epoll_ctl(set, EPOLL_CTL_MOD, p.server, &(struct epoll_event){ EPOLLIN | EPOLLOUT, { .u64 = 0x1234567800000000u } }) == 0);
	check(event(set, 0) == EPOLLOUT);
	check(shutdown(p.client, SHUT_WR) == 0 && event(set, 5000) == (EPOLLIN | EPOLLOUT));
	check(epoll_ctl(set, EPOLL_CTL_DEL, p.server, NULL) == 0 && event(set, 0) == 0);
	check(epoll_ctl(set, EPOLL_CTL_DEL, p.server, NULL) == -1 && errno == ENOENT);
	check(close(set) == 0);
	pair_close(p);
}

static void edges(void)
{
	struct pair p = pair_open();
	int set = epoll_of(p.server, EPOLLIN | EPOLLET);
	char b[4];

	check(event(set, 0) == 0);
	write_all(p.client, "a", 1);
	check(event(set, 5000) == EPOLLIN && event(set, 0) == 0);
	write_all(p.client, "b", 1);
	check(event(set, 5000) == EPOLLIN && event(set, 20) == 0);
	read_all(p.server, b, 2);
	check(event(set, 0) == 0);
	write_all(p.client, "c", 1);
	check(event(set, 5000) == EPOLLIN);
	check(close(set) == 0);
	pair_close(p);
}

static void oneshot(void)
{
	struct pair p = pair_open();
	int set = epoll_of(p.server, EPOLLIN | EPOLLONESHOT);

	write_all(p.client, "a", 1);
	check(event(set, 5000) == EPOLLIN && event(set, 0) == 0);
	write_all(p.client, "b", 1);
	check(event(set, 20) == 0);
	check(epoll_ctl(set, EPOLL_CTL_MOD, p.server, &(struct epoll_event){ EPOLLIN | EPOLLONESHOT, { .u64 = 0x1234567800000000u } }) == 0);
	check(event(set, 5000) == EPOLLIN && event(set, 0) == 0);
	check(close(set) == 0 && close(p.client) == 0 && close(p.server) == 0);
}

/* A writer that has met a full ring is told of space, in either form. */
static void space(uint32_t form)
{
	struct pair p = pair_open();
	int set = epoll_of(p.client, EPOLLOUT | form);
	static char b[1 << 16];
	size_t sent = 0, got = 0;
	ssize_t n;

	check(event(set, 0) == EPOLLOUT);
	check(fcntl(p.client, F_SETFL, O_NONBLOCK) == 0 && fcntl(p.server, F_SETFL, O_NONBLOCK) == 0);
	while ((n = wrote(write(p.client, b, sizeof(b)))) > 0)
		sent += (size_t)n;
	check(event(set, 0) == 0);
	while (got < sent)
		if ((n = read(p.server, b, sizeof(b))) > 0)
			got += (size_t)n;
	check(event(set, 5000) == EPOLLOUT);
	check(close(set) == 0);
	pair_close(p);
}

static void space_level(void)
{
	space(0);
}

static void space_edge(void)
{
	space(EPOLLET);
}

static void epoll_sleeps(void)
{
	struct pair p = pair_open();
	int set = epoll_of(p.server, EPOLLIN);
	pthread_t writer;
	char b;

	for (int i = 0; i < 3; i++) {
		check(pthread_create(&writer, NULL, write_soon, &p.client) == 0);
		check(event(set, 5000) == EPOLLIN);
		check(pthread_join(writer, NULL) == 0);
		read_all(p.server, &b, 1);
	}
	check(close(p.client) == 0 && (event(set, 5000) & EPOLLIN));
	check(close(p.server) == 0 && event(set, 0) == 0 && close(set) == 0);
}

/* ---- sets that others look at, and that change while somebody waits ---- */

/* No more than one, though there be more. */
static void *wait_for_event(void *set)
{
	struct epoll_event e = { 0 };

	check(epoll_wait(*(int *)set, &e, 1, 5000) == 1);
	return (void *)(uintptr_t)e.events;
}

/* A thread waits in a set that has nothing; another one adds a connection, on which something comes. */
static void added_meanwhile(void)
{
	struct pair p = pair_open();
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = 0x1234567800000000u };
	int set = epoll_create1(EPOLL_CLOEXEC);
	pthread_t waiter;
	void *result;

	check(set >= 0 && pthread_create(&waiter, NULL, wait_for_event, &set) == 0);
	usleep(100000);
	check(epoll_ctl(set, EPOLL_CTL_ADD, p.server, &e) == 0);
	usleep(100000);
	write_all(p.client, "a", 1);
	check(pthread_join(waiter, &result) == 0 && (uintptr_t)result == EPOLLIN);
	check(close(set) == 0);
	pair_close(p);
}

/* Several threads wait in one set: what one leaves another one gets. */
static void shared_set(void)
{
	enum { PAIRS = 4 };
	struct pair p[PAIRS];
	int set = epoll_create1(EPOLL_CLOEXEC);
	pthread_t waiter[PAIRS];
	void *result;

	for (int i = 0; i < PAIRS; i++) {
		struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = 0x1234567800000000u };

		p[i] = pair_open();
		check(epoll_ctl(set, EPOLL_CTL_ADD, p[i].server, &e) == 0);
		check(pthread_create(&waiter[i], NULL, wait_for_event, &set) == 0);
	}
	usleep(100000);
	for (int i = 0; i < PAIRS; i++)
		write_all(p[i].client, "a", 1);
	for (int i = 0; i < PAIRS; i++)
		check(pthread_join(waiter[i], &result) == 0 && (uintptr_t)result == EPOLLIN);
	for (int i = 0; i < PAIRS; i++)
		check(close(p[i].client) == 0 && close(p[i].server) == 0);
	check(close(set) == 0);
}

/* Whether a set is readable within a time, by the set that it is in or by poll. */
static bool readable(int outer, int set, int timeout)
{
	struct pollfd p = { .fd = set, .events = POLLIN };
	struct epoll_event e;

	return outer >= 0 ? epoll_wait(outer, &e, 1, timeout) == 1 : poll(&p, 1, timeout) == 1;
}

/* A set that is in another one, or polled, shows what its connections have, as long as they have it. */
static void looked_at_from_outside(bool nested)
{
	struct pair p = pair_open();
	struct epoll_event e = { .events = EPOLLIN };
	int set = epoll_of(p.server, EPOLLIN), outer = nested ? epoll_create1(EPOLL_CLOEXEC) : -1;
	pthread_t writer;
	char b;

	check(!nested || (outer >= 0 && epoll_ctl(outer, EPOLL_CTL_ADD, set, &e) == 0));
	check(event(set, 0) == 0 && !readable(outer, set, 50));
	for (int i = 0; i < 3; i++) {
		check(pthread_create(&writer, NULL, write_soon, &p.client) == 0);
		check(readable(outer, set, 5000));
		check(pthread_join(writer, NULL) == 0);
		check(event(set, 0) == EPOLLIN && readable(outer, set, 0) && event(set, 0) == EPOLLIN && readable(outer, set, 5000));
		read_all(p.server, &b, 1);
		check(event(set, 0) == 0 && !readable(outer, set, 50));
	}
	check(close(set) == 0 && (!nested || close(outer) == 0));
	pair_close(p);
}

static void nested_set(void)
{
	looked_at_from_outside(true);
}

static void polled_set(void)
{
	looked_at_from_outside(false);
}

/* Event loops that register by a copy of the set's descriptor (mio, and so tokio): one set, by whichever number, also when the first one is closed. */
static void set_copied(void)
{
	for (int way = 0; way < 4; way++) {
		struct pair p = pair_open();
		int set = epoll_create1(EPOLL_CLOEXEC), copy = way < 2 ? fcntl(set, F_DUPFD_CLOEXEC, 3) : dup(set);
		int add = way % 2 ? set : copy, wait = way % 2 ? copy : set;
		struct epoll_event event = { .events = EPOLLIN, .data.u64 = 5 }, got;
		char byte;

		check(set >= 0 && copy >= 0 && epoll_ctl(add, EPOLL_CTL_ADD, p.server, &event) == 0);
		check(epoll_ctl(wait, EPOLL_CTL_ADD, p.server, &event) == -1 && errno == EEXIST);
		check(epoll_wait(wait, &got, 1, 0) == 0);
		write_all(p.client, "x", 1);
		check(epoll_wait(wait, &got, 1, 5000) == 1 && got.events == EPOLLIN && got.data.u64 == 5);
		check(close(set) == 0);
		check(epoll_wait(copy, &got, 1, 5000) == 1 && got.events == EPOLLIN && got.data.u64 == 5);
		read_all(p.server, &byte, 1);
		check(epoll_wait(copy, &got, 1, 0) == 0);
		write_all(p.client, "y", 1);
		check(epoll_wait(copy, &got, 1, 5000) == 1 && epoll_ctl(copy, EPOLL_CTL_DEL, p.server, NULL) == 0);
		check(epoll_wait(copy, &got, 1, 0) == 0);
		read_all(p.server, &byte, 1);
		check(close(copy) == 0);
		pair_close(p);
	}
}

/* What a copy of the set's number changes before the connect is changed. */
static void changed_by_a_copy(void)
{
	int l = listen_any(), set = epoll_create1(EPOLL_CLOEXEC), copy = dup(set), client = socket(family, SOCK_STREAM, 0), server;
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = 1 };

	check(copy >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, client, &e) == 0);
	e = (struct epoll_event){ .events = EPOLLOUT, .data.u64 = 2 };
	check(epoll_ctl(copy, EPOLL_CTL_MOD, client, &e) == 0 && connect_socket(client, l) == 0);
	server = accept_one(l);
	write_all(client, "x", 1);
	wants(server, "x");
	check(epoll_wait(set, &e, 1, 5000) == 1 && e.events == EPOLLOUT && e.data.u64 == 2);
	check(close(client) == 0 && close(server) == 0 && close(set) == 0 && close(copy) == 0 && close(l) == 0);
}

static void asked_wrongly(void)
{
	struct pair p = pair_open();
	int set = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };

	check(epoll_ctl(set, EPOLL_CTL_ADD, p.server, &event) == 0 && epoll_ctl(set, EPOLL_CTL_ADD, p.server, &event) == -1 && errno == EEXIST);
	check(epoll_ctl(set, 17, p.server, &event) == -1 && errno == EINVAL);
	check(epoll_wait(set, &event, 0, 0) == -1 && errno == EINVAL);
	check(epoll_ctl(p.client, EPOLL_CTL_ADD, p.server, &event) == -1 && errno == EINVAL);
	write_all(p.client, "x", 1);
	check(epoll_wait(set, &event, 1, 10000) == 1);
	check(epoll_ctl(set, EPOLL_CTL_DEL, p.server, NULL) == 0 && epoll_ctl(set, EPOLL_CTL_DEL, p.server, NULL) == -1 && errno == ENOENT);
	check(close(set) == 0);
	pair_close(p);
}

/* The end is told once: a close after it sends nothing. */
static void ends_once(uint32_t events)
{
	struct pair p = pair_open();
	int set = epoll_of(p.server, events | EPOLLET);

	check(event(set, 0) == (events & EPOLLOUT));
	check(shutdown(p.client, SHUT_WR) == 0 && event(set, 5000) == events && event(set, 20) == 0);
	check(close(p.client) == 0 && event(set, 100) == 0);
	check(epoll_ctl(set, EPOLL_CTL_MOD, p.server, &(struct epoll_event){ events | EPOLLET, { .u64 = 0x1234567800000000u } }) == 0);
	check(event(set, 0) == events && event(set, 0) == 0);
	check(close(set) == 0 && close(p.server) == 0);
}

/* After the peer's end has been told there is news still: room to write. */
static void room_after_the_end(void)
{
	struct pair p = pair_open();
	int set = epoll_of(p.server, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	static char b[1 << 16];
	struct timeval soon = { 0, 100000 };
	ssize_t n;

	check(event(set, 5000) == EPOLLOUT && shutdown(p.client, SHUT_WR) == 0);
	check(event(set, 5000) == (EPOLLIN | EPOLLOUT | EPOLLRDHUP));
	check(setsockopt(p.server, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof(soon)) == 0);
	for (int turn = 0; turn < 2; turn++) { /* in the second one its wait ends beside what was told already */
		while (wrote(write(p.server, b, sizeof(b))) > 0)
			;
		check(errno == EAGAIN);
		while (event(set, 0) != 0)
			;
	}
	while ((n = recv(p.client, b, sizeof(b), MSG_DONTWAIT)) > 0)
		;
	check(n == -1 && errno == EAGAIN);
	check(event(set, 5000) & EPOLLOUT);
	check(close(set) == 0 && close(p.server) == 0 && close(p.client) == 0);
}

static void edge_of_the_end(void)
{
	ends_once(EPOLLIN);
	ends_once(EPOLLIN | EPOLLRDHUP);
	ends_once(EPOLLIN | EPOLLOUT | EPOLLRDHUP);
}

static int control(int set, int op, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events };

	return epoll_ctl(set, op, fd, &e) == 0 ? 0 : errno;
}

static void exclusive(void)
{
	struct pair p = pair_open();
	int set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event *none = NULL;

	check(epoll_ctl(set, EPOLL_CTL_ADD, p.server, none) == -1 && errno == EFAULT);
	check(epoll_ctl(set, EPOLL_CTL_MOD, p.server, none) == -1 && errno == EFAULT);
	check(control(set, EPOLL_CTL_ADD, p.server, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT) == EINVAL);
	check(control(set, EPOLL_CTL_ADD, p.server, EPOLLIN | EPOLLEXCLUSIVE | EPOLLRDHUP) == EINVAL);
	check(control(set, EPOLL_CTL_ADD, p.server, EPOLLIN | EPOLLEXCLUSIVE) == 0);
	check(control(set, EPOLL_CTL_ADD, p.server, EPOLLIN) == EEXIST);
	check(control(set, EPOLL_CTL_MOD, p.server, EPOLLIN) == EINVAL);
	check(control(set, EPOLL_CTL_ADD, p.client, EPOLLIN) == 0);
	check(control(set, EPOLL_CTL_MOD, p.client, EPOLLIN | EPOLLEXCLUSIVE) == EINVAL);
	check(control(set, EPOLL_CTL_ADD, set, EPOLLIN) == EINVAL);
	check(close(set) == 0);
	pair_close(p);
}

/* A wait in a set without connections lasts as long as it is asked to. */
static void long_wait(void)
{
	int set = epoll_create1(EPOLL_CLOEXEC);
	struct timespec began, ended, wrong = { 2, 1000000000 };
	struct epoll_event e;

	check(set >= 0 && clock_gettime(CLOCK_MONOTONIC, &began) == 0);
	check(epoll_wait(set, &e, 1, 1100) == 0 && clock_gettime(CLOCK_MONOTONIC, &ended) == 0);
	check((ended.tv_sec - began.tv_sec) * 1000000000 + ended.tv_nsec - began.tv_nsec >= 1100000000);
	check(epoll_pwait2(set, &e, 1, &wrong, NULL) == -1 && errno == EINVAL);
	check(close(set) == 0);
}

struct pool {
	int set;
	sem_t came, done;
	pthread_t threads[3];
};

/* Takes a connection out, says so, and is busy until it is told that it is not. */
static void *be_busy(void *of)
{
	struct pool *pool = of;
	struct epoll_event e;

	check(epoll_wait(pool->set, &e, 1, -1) == 1);
	check(sem_post(&pool->came) == 0 && sem_wait(&pool->done) == 0);
	return NULL;
}

/* Threads that wait in a set before it has a connection: while one is busy with the first, the others have the next ones. */
static void pool_before_the_first(void)
{
	struct pair pairs[3];
	struct pool pool = { .set = epoll_create1(EPOLL_CLOEXEC) };
	struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT };
	struct timespec until;

	check(pool.set >= 0 && sem_init(&pool.came, 0, 0) == 0 && sem_init(&pool.done, 0, 0) == 0);
	for (int i = 0; i < 3; i++)
		check(pthread_create(&pool.threads[i], NULL, be_busy, &pool) == 0);
	usleep(100000);
	for (int i = 0; i < 3; i++) {
		pairs[i] = pair_open();
		check(epoll_ctl(pool.set, EPOLL_CTL_ADD, pairs[i].server, &e) == 0);
	}
	for (int i = 0; i < 3; i++) {
		write_all(pairs[i].client, "b", 1);
		check(clock_gettime(CLOCK_REALTIME, &until) == 0);
		until.tv_sec += 5;
		check(sem_timedwait(&pool.came, &until) == 0);
	}
	for (int i = 0; i < 3; i++)
		check(sem_post(&pool.done) == 0);
	for (int i = 0; i < 3; i++) {
		check(pthread_join(pool.threads[i], NULL) == 0);
		wants(pairs[i].server, "b");
		pair_close(pairs[i]);
	}
	check(close(pool.set) == 0);
}

void test_events(void)
{
	RUN(long_wait);
	RUN(pool_before_the_first);
	RUN(edge_of_the_end);
	RUN(room_after_the_end);
	RUN(exclusive);
	RUN(asked_wrongly);
	RUN(changed_by_a_copy);
	RUN(set_copied);
	RUN(nonblocking_connect);
	RUN(refused);
	RUN(polled);
	RUN(selected);
	RUN(selected_many);
	RUN(waited_for);
	RUN(level);
	RUN(edges);
	RUN(oneshot);
	RUN(space_level);
	RUN(space_edge);
	RUN(epoll_sleeps);
	RUN(added_meanwhile);
	RUN(shared_set);
	RUN(nested_set);
	RUN(polled_set);
}
