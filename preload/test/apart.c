/* SPDX-License-Identifier: Apache-2.0 */
/* What cannot go through shared buffers: it stays TCP if nobody has agreed on more yet, else it is refused. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void ended_well(pid_t child)
{
	int status = -1;

	check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A client in a process of its own: whoever has been a client itself answers in accept. */
static pid_t start_client(int listener)
{
	pid_t child = fork();
	char b[5] = "";
	int fd;

	check(child >= 0);
	if (child != 0)
		return child;
	fd = connect_to(listener);
	check(write(fd, "hello", 5) == 5);
	read_all(fd, b, 5);
	check(memcmp(b, "hello", 5) == 0 && shutdown(fd, SHUT_WR) == 0 && read(fd, b, 1) == 0);
	_exit(0);
}

/* As inetd does: the program for each client has it as its standard input and output, and knows nothing of SMC. */
static void accepted_for_exec(void)
{
	int listener = listen_any(), fd;
	pid_t client = start_client(listener), server = fork();

	check(server >= 0);
	if (server == 0) {
		fd = accept(listener, NULL, NULL);
		check(fd >= 0 && dup2(fd, 0) == 0 && dup2(fd, 1) == 1 && close(fd) == 0);
		execlp("env", "env", "-u", "LD_PRELOAD", "cat", NULL);
		_exit(1);
	}
	ended_well(client);
	ended_well(server);
	check(close(listener) == 0);
}

static ssize_t pass(int over, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { "f", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };

	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(over, &m, 0);
}

static int take(int over)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char b;
	struct iovec iov = { &b, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int fd = -1;

	check(recvmsg(over, &m, 0) == 1 && control.header.cmsg_type == SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

/* One process accepts, another one serves. */
static void accepted_to_pass(void)
{
	int listener = listen_any(), over[2], fd;
	pid_t client = start_client(listener), server;
	char b[5];

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, over) == 0);
	server = fork();
	check(server >= 0);
	if (server == 0) {
		fd = take(over[1]);
		read_all(fd, b, 5);
		check(write(fd, b, 5) == 5);
		_exit(0);
	}
	fd = accept(listener, NULL, NULL);
	check(fd >= 0 && pass(over[0], fd) == 1 && close(fd) == 0);
	ended_well(client);
	ended_well(server);
	check(close(listener) == 0 && close(over[0]) == 0 && close(over[1]) == 0);
}

/* One that is in SMC-D mode cannot be passed, and goes on. */
static void agreed_to_pass(void)
{
	struct pair p = pair_open();
	int over[2];
	char b;

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, over) == 0);
	check(pass(over[0], p.client) == -1 && errno == EOPNOTSUPP);
	check(pass(over[0], p.server) == -1 && errno == EOPNOTSUPP);
	check(pass(over[0], over[0]) == 1);
	write_all(p.client, "x", 1);
	read_all(p.server, &b, 1);
	check(close(over[0]) == 0 && close(over[1]) == 0);
	pair_close(p);
}

/* What a child has answered is the child's alone, and the parent may close its descriptor late. */
static void answered_by_child(void)
{
	int listener = listen_any(), fd;
	pid_t client = start_client(listener), server;
	char b[5];

	fd = accept(listener, NULL, NULL);
	check(fd >= 0);
	server = fork();
	check(server >= 0);
	if (server == 0) {
		read_all(fd, b, 5);
		check(write(fd, b, 5) == 5 && read(fd, b, 1) == 0 && close(fd) == 0);
		_exit(0);
	}
	ended_well(server);
	ended_well(client);
	check(read(fd, b, 1) == -1 && errno == ECONNRESET);
	check(shutdown(fd, SHUT_RDWR) == -1 && errno == ENOTCONN);
	check(close(fd) == 0 && close(listener) == 0);
}

static void rings(void)
{
	char parameters[512] = { 0 };

	check(syscall(SYS_io_uring_setup, 4, parameters) == -1 && errno == ENOSYS);
	check(syscall(SYS_getpid) == getpid());
}

void test_apart(void)
{
	RUN(accepted_for_exec);
	RUN(accepted_to_pass);
	RUN(answered_by_child);
	RUN(agreed_to_pass);
	RUN(rings);
}
