/* SPDX-License-Identifier: Apache-2.0 */
/* What cannot go through shared buffers: it stays TCP if nobody has agreed on more yet, else it is refused. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

pid_t start_client(int listener)
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
		fd = take_passed(over[1]);
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

/* A byte that goes past the library is nobody's, and ends the connection. */
static void slipped(void)
{
	struct pair p = pair_open();
	struct iocb write = { .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = (__u32)p.client, .aio_buf = (__u64)(uintptr_t)"slip", .aio_nbytes = 4 };
	struct iocb *writes[] = { &write };
	aio_context_t context = 0;
	char b[8];

	check(syscall(SYS_io_setup, 1, &context) == 0 && syscall(SYS_io_submit, context, 1, writes) == 1);
	check(read(p.server, b, sizeof(b)) == -1 && errno == EPROTO);
	check(read(p.server, b, sizeof(b)) <= 0 && send(p.server, "x", 1, MSG_NOSIGNAL) == -1);
	check(read(p.client, b, sizeof(b)) <= 0);
	check(syscall(SYS_io_destroy, context) == 0);
	pair_close(p);
}

enum { COPIES = 300, FAR = 1024 };

/* What an exec'ed program finds of connections in SMC-D mode: a socket that is shut down, or nothing, and never their TCP. */
int inherited(int fd)
{
	int value = 0, n = 0;
	socklen_t size = sizeof(value);
	char b;

	check(recv(fd, &b, 1, MSG_DONTWAIT) == 0 && send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	for (fd = 3; fd < FAR; fd++) {
		check(getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &size) != 0 || value != IPPROTO_TCP);
		n += fcntl(fd, F_GETFD) >= 0;
	}
	check(n > 0 && n < COPIES);
	return 0;
}

/* By each exec in turn, with more descriptors than are disguised. */
static void exec_as(int how, int fd)
{
	char number[12], *arguments[] = { "test", "inherited", number, NULL }, *nothing[] = { NULL };
	const char *self = "/proc/self/exe";

	snprintf(number, sizeof(number), "%d", fd);
	for (int i = 0; i < COPIES; i++)
		check(dup(fd) >= 0);
	if (how == 0)
		execve(self, arguments, nothing);
	else if (how == 1)
		execveat(AT_FDCWD, self, arguments, nothing, 0);
	else if (how == 2)
		fexecve(open(self, O_RDONLY | O_CLOEXEC), arguments, nothing);
	_exit(1);
}

static void agreed_for_exec(void)
{
	for (int how = 0; how < 3; how++) {
		struct pair p = pair_open();
		pid_t child = fork();
		char b;

		check(child >= 0);
		if (child == 0)
			exec_as(how, p.server);
		ended_well(child);
		write_all(p.client, "x", 1);
		read_all(p.server, &b, 1);
		pair_close(p);
	}
}

/* The parent has it still, where the exec fails. */
static void failed_exec(void)
{
	struct pair p = pair_open();
	char b;

	check(execveat(AT_FDCWD, "/does/not/exist", (char *[]){ NULL }, environ, 0) == -1 && errno == ENOENT);
	write_all(p.client, "x", 1);
	read_all(p.server, &b, 1);
	pair_close(p);
}

/* Urgent data is neither sent nor received. */
static void urgent(void)
{
	struct pair p = pair_open();
	struct iovec iov = { "u", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	char b;

	check(send(p.client, "u", 1, MSG_OOB) == -1 && errno == EOPNOTSUPP);
	check(sendto(p.client, "u", 1, MSG_OOB, NULL, 0) == -1 && errno == EOPNOTSUPP);
	check(sendmsg(p.client, &m, MSG_OOB) == -1 && errno == EOPNOTSUPP);
	check(recv(p.server, &b, 1, MSG_OOB) == -1 && errno == EOPNOTSUPP);
	write_all(p.client, "x", 1);
	read_all(p.server, &b, 1);
	pair_close(p);
}

/* TCP would wait for ever: the peer has no space for what is waited for. */
static void peeked_past_the_ring(void)
{
	enum { MUCH = 4 << 20 };
	struct pair p = pair_open();
	char *b = calloc(1, MUCH);
	ssize_t n, sent = 0;

	check(b != NULL && fcntl(p.client, F_SETFL, O_NONBLOCK) == 0);
	while ((n = wrote(write(p.client, b, MUCH))) > 0)
		sent += n;
	check(recv(p.server, b, MUCH, MSG_PEEK | MSG_WAITALL) == sent);
	read_all(p.server, b, (size_t)sent);
	free(b);
	pair_close(p);
}

/* ---- a listener that another program takes over ---- */

/* The other program: it takes the listener, and serves one client. */
int serve_taken(int over)
{
	int listener = take_passed(over), fd = accept(listener, NULL, NULL);
	char b[5];

	check(fd >= 0);
	read_all(fd, b, 5);
	check(write(fd, b, 5) == 5 && read(fd, b, 1) == 0 && close(fd) == 0 && close(listener) == 0);
	return 0;
}

/* The listener goes over a Unix socket to another program under smc_run, whose client meets it in SMC-D mode. */
int hand_over(void)
{
	int listener = listen_any(), over[2];
	char number[12];
	pid_t server, client;

	check(socketpair(AF_UNIX, SOCK_STREAM, 0, over) == 0);
	snprintf(number, sizeof(number), "%d", over[1]);
	server = fork();
	check(server >= 0);
	if (server == 0) {
		execl("/proc/self/exe", "test", "taken", number, NULL);
		_exit(1);
	}
	check(pass(over[0], listener) == 1);
	client = start_client(listener);
	ended_well(client);
	ended_well(server);
	check(close(listener) == 0 && close(over[0]) == 0 && close(over[1]) == 0);
	return 0;
}

/* Peeks begin where reading does. */
static void peeked_at_a_place(void)
{
	struct pair p = pair_open();
	int none = -1, first = 0;

	check(setsockopt(p.server, SOL_SOCKET, SO_PEEK_OFF, &none, sizeof(none)) == 0);
	check(setsockopt(p.server, SOL_SOCKET, SO_PEEK_OFF, &first, sizeof(first)) == -1 && errno == EOPNOTSUPP);
	pair_close(p);
}

/* What comes before a message that is refused is sent. */
static void agreed_to_pass_in_a_batch(void)
{
	struct pair p = pair_open();
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec iov = { "f", 1 };
	struct mmsghdr m[2] = { { .msg_hdr = { .msg_iov = &iov, .msg_iovlen = 1 } }, { .msg_hdr = { .msg_iov = &iov, .msg_iovlen = 1 } } };
	int over[2];

	memcpy(CMSG_DATA(&control.header), &p.client, sizeof(p.client));
	m[1].msg_hdr.msg_control = &control;
	m[1].msg_hdr.msg_controllen = sizeof(control);
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, over) == 0);
	check(sendmmsg(over[0], m, 2, 0) == 1 && m[0].msg_len == 1);
	check(sendmmsg(over[0], m + 1, 1, 0) == -1 && errno == EOPNOTSUPP);
	wants(over[1], "f");
	check(recv(over[1], &(char){ 0 }, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(close(over[0]) == 0 && close(over[1]) == 0);
	pair_close(p);
}

void test_apart(void)
{
	RUN(accepted_for_exec);
	RUN(accepted_to_pass);
	RUN(answered_by_child);
	RUN(agreed_to_pass);
	RUN(rings);
	RUN(slipped);
	RUN(agreed_for_exec);
	RUN(failed_exec);
	RUN(urgent);
	RUN(peeked_past_the_ring);
	RUN(peeked_at_a_place);
	RUN(agreed_to_pass_in_a_batch);
}
