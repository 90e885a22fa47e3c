/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of IPv4 and of IPv6 that meet each other, and the addresses that they see. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

static const struct in6_addr mapped_loopback = { { { [10] = 0xFF, [11] = 0xFF, [12] = 127, [15] = 1 } } };

/* On every address of IPv6, and of IPv4 unless only_six. */
static int listen_six(int only_six, in_port_t *port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT };
	socklen_t size = sizeof(a);
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	check(fd >= 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_six, sizeof(only_six)) == 0);
	check(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 8) == 0);
	check(getsockname(fd, (struct sockaddr *)&a, &size) == 0 && size == sizeof(a));
	*port = a.sin6_port;
	return fd;
}

static int listen_four(in_port_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	check(fd >= 0 && bind(fd, (struct sockaddr *)&a, size) == 0 && listen(fd, 8) == 0);
	check(getsockname(fd, (struct sockaddr *)&a, &size) == 0);
	*port = a.sin_port;
	return fd;
}

static int connect_four(in_port_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	check(fd >= 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	check(errno == ECONNREFUSED && close(fd) == 0);
	return -1;
}

static int connect_six(in_port_t port, struct in6_addr to)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = to };
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	check(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

/* A socket of IPv6 sees this address and port at its own end, or at the peer's. */
static void sees(int fd, int (*name)(int, struct sockaddr *, socklen_t *), struct in6_addr address, in_port_t port)
{
	struct sockaddr_in6 a;
	socklen_t size = sizeof(a);

	check(name(fd, (struct sockaddr *)&a, &size) == 0 && size == sizeof(a) && a.sin6_family == AF_INET6);
	check(memcmp(&a.sin6_addr, &address, sizeof(address)) == 0 && a.sin6_port == port);
}

static in_port_t port_of(int fd)
{
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);

	check(getsockname(fd, (struct sockaddr *)&a, &size) == 0);
	return a.ss_family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port : ((struct sockaddr_in6 *)&a)->sin6_port;
}

/* A connection that was just made carries bytes both ways, and closes. */
static void talk(int client, int server)
{
	char b[4];

	write_all(client, "ping", 4);
	read_all(server, b, 4);
	check(memcmp(b, "ping", 4) == 0);
	write_all(server, "pong", 4);
	read_all(client, b, 4);
	check(memcmp(b, "pong", 4) == 0);
	check(close(client) == 0 && read(server, b, 1) == 0 && close(server) == 0);
}

static void listens_for_both(void)
{
	in_port_t port;
	int listener = listen_six(0, &port), client = connect_four(port), server;
	struct sockaddr_in6 from;
	socklen_t size = sizeof(from);

	server = accept(listener, (struct sockaddr *)&from, &size);
	check(server >= 0 && size == sizeof(from) && from.sin6_family == AF_INET6);
	check(memcmp(&from.sin6_addr, &mapped_loopback, sizeof(mapped_loopback)) == 0 && from.sin6_port == port_of(client));
	sees(server, getsockname, mapped_loopback, port);
	sees(server, getpeername, mapped_loopback, port_of(client));
	talk(client, server);

	client = connect_six(port, mapped_loopback);
	server = accept_one(listener);
	sees(client, getpeername, mapped_loopback, port);
	sees(server, getpeername, mapped_loopback, port_of(client));
	talk(client, server);

	client = connect_six(port, in6addr_loopback);
	server = accept_one(listener);
	sees(client, getpeername, in6addr_loopback, port);
	sees(server, getpeername, in6addr_loopback, port_of(client));
	talk(client, server);
	check(close(listener) == 0);
}

static void listens_for_six_alone(void)
{
	in_port_t port;
	int listener = listen_six(1, &port), client = connect_six(port, in6addr_loopback);

	check(connect_four(port) < 0);
	talk(client, accept_one(listener));
	check(close(listener) == 0);
}

/* A client of IPv6 at a server that knows nothing of it. */
static void comes_as_four(void)
{
	in_port_t port;
	int listener = listen_four(&port), client = connect_six(port, mapped_loopback), server;
	struct sockaddr_in from;
	socklen_t size = sizeof(from);

	server = accept(listener, (struct sockaddr *)&from, &size);
	check(server >= 0 && size == sizeof(from) && from.sin_family == AF_INET && from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	check(from.sin_port == port_of(client));
	sees(client, getpeername, mapped_loopback, port);
	talk(client, server);
	check(close(listener) == 0);
}

void test_families(void)
{
	RUN(listens_for_both);
	RUN(listens_for_six_alone);
	RUN(comes_as_four);
}
