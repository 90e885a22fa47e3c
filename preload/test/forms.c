/* SPDX-License-Identifier: Apache-2.0 */
/* The rarer forms of the calls that read, write and accept, and their flags. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static const struct timeval a_tenth = { 0, 100000 };

/* preadv2 and pwritev2 at the place -1 are readv and writev. */
static void without_place(void)
{
	struct pair p = pair_open();
	char a[3] = "", b[3] = "";
	struct iovec out[2] = { { "abc", 3 }, { "def", 3 } }, in[2] = { { a, 3 }, { b, 3 } };

	check(wrote(pwritev2(p.client, out, 2, -1, 0)) == 6);
	check(preadv2(p.server, in, 2, -1, 0) == 6 && memcmp(a, "abc", 3) == 0 && memcmp(b, "def", 3) == 0);
	check(preadv2(p.server, in, 2, 0, 0) == -1 && errno == ESPIPE);
	check(pwritev2(p.client, out, 2, 0, 0) == -1 && errno == ESPIPE);
	check(fcntl(p.server, F_SETFL, O_NONBLOCK) == 0);
	check(preadv2(p.server, in, 2, -1, 0) == -1 && errno == EAGAIN);
	pair_close(p);
}

static void *write_two(void *fd)
{
	usleep(100000);
	write_all(*(int *)fd, "cd", 2);
	return NULL;
}

static void several_messages(void)
{
	struct pair p = pair_open();
	char b[3][2];
	struct iovec in[3] = { { b[0], 2 }, { b[1], 2 }, { b[2], 2 } };
	struct mmsghdr m[3];
	struct timespec soon = { 0, 50000000 };
	pthread_t writer;

	memset(m, 0, sizeof(m));
	for (int i = 0; i < 3; i++) {
		m[i].msg_hdr.msg_iov = &in[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	check(recvmmsg(p.server, m, 3, MSG_DONTWAIT, NULL) == -1 && errno == EAGAIN);
	write_all(p.client, "abc", 3);
	check(recvmmsg(p.server, m, 3, MSG_WAITFORONE, NULL) == 2 && m[0].msg_len == 2 && m[1].msg_len == 1);
	check(memcmp(b[0], "ab", 2) == 0 && b[1][0] == 'c');

	write_all(p.client, "ab", 2); /* without the flag it waits for all */
	check(pthread_create(&writer, NULL, write_two, &p.client) == 0);
	check(recvmmsg(p.server, m, 2, 0, NULL) == 2 && memcmp(b[1], "cd", 2) == 0);
	check(pthread_join(writer, NULL) == 0);

	check(pthread_create(&writer, NULL, write_two, &p.client) == 0); /* the limit has passed when the first one is there */
	check(recvmmsg(p.server, m, 3, 0, &soon) == 1 && soon.tv_sec == 0 && soon.tv_nsec == 0);
	check(pthread_join(writer, NULL) == 0);
	pair_close(p);
}

static void limited_write(void)
{
	struct pair p = pair_open();
	static char b[1 << 16];
	struct timespec before, after;
	ssize_t n;

	check(fcntl(p.client, F_SETFL, O_NONBLOCK) == 0);
	while ((n = wrote(write(p.client, b, sizeof(b)))) > 0)
		;
	check(errno == EAGAIN && fcntl(p.client, F_SETFL, 0) == 0);
	check(setsockopt(p.client, SOL_SOCKET, SO_SNDTIMEO, &a_tenth, sizeof(a_tenth)) == 0);
	do {
		clock_gettime(CLOCK_MONOTONIC, &before);
		n = wrote(write(p.client, b, sizeof(b)));
		clock_gettime(CLOCK_MONOTONIC, &after);
	} while (n > 0);
	check(errno == EAGAIN);
	check((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 >= 95);
	check(close(p.server) == 0 && close(p.client) == 0);
}

/* What the peer's side has not acknowledged: soon nothing, though nobody has read. */
static void unacknowledged(void)
{
	struct pair p = pair_open();
	char b[4];
	int n = -1;

	write_all(p.client, "four", 4);
	for (int tries = 0; n != 0 && tries < 500; tries++) {
		check(ioctl(p.client, SIOCOUTQ, &n) == 0 && n >= 0 && n <= 4);
		usleep(1000);
	}
	check(n == 0 && ioctl(p.client, SIOCOUTQNSD, &n) == 0 && n == 0);
	read_all(p.server, b, 4);
	pair_close(p);
}

/* TCP throws away what is received so. */
static void thrown_away(void)
{
	struct pair p = pair_open();
	char b[8] = "zzzzzzz";

	write_all(p.client, "abcdef", 6);
	check(recv(p.server, b, 2, MSG_TRUNC) == 2 && b[0] == 'z');
	check(recv(p.server, NULL, 2, MSG_TRUNC) == 2);
	check(recv(p.server, b, 8, 0) == 2 && memcmp(b, "ef", 2) == 0);
	check(recv(p.server, b, 8, MSG_TRUNC | MSG_DONTWAIT) == -1 && errno == EAGAIN);
	pair_close(p);
}

static void accepted_with_flags(void)
{
	int listener = listen_any(), client = connect_to(listener), server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct pollfd in = { .fd = server, .events = POLLIN };
	char b;

	check(server >= 0 && (fcntl(server, F_GETFL) & O_NONBLOCK) && (fcntl(server, F_GETFD) & FD_CLOEXEC));
	check(read(server, &b, 1) == -1 && errno == EAGAIN);
	write_all(client, "x", 1);
	check(poll(&in, 1, 5000) == 1 && read(server, &b, 1) == 1 && b == 'x');
	check(read(server, &b, 1) == -1 && errno == EAGAIN);
	check(close(server) == 0 && close(client) == 0 && close(listener) == 0);
}

/* MSG_PEEK with MSG_WAITALL waits until all is there, or the end, or the limit. */
static void peeked_whole(void)
{
	struct pair p = pair_open();
	char b[8] = "";
	pthread_t writer;

	write_all(p.client, "ab", 2);
	check(recv(p.server, b, 4, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT) == 2);
	check(pthread_create(&writer, NULL, write_two, &p.client) == 0);
	check(recv(p.server, b, 4, MSG_PEEK | MSG_WAITALL) == 4 && memcmp(b, "abcd", 4) == 0);
	check(pthread_join(writer, NULL) == 0);
	check(setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &a_tenth, sizeof(a_tenth)) == 0);
	check(recv(p.server, b, 8, MSG_PEEK | MSG_WAITALL) == 4);
	check(setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0, 0 }, sizeof(struct timeval)) == 0);
	check(shutdown(p.client, SHUT_WR) == 0);
	check(recv(p.server, b, 8, MSG_PEEK | MSG_WAITALL) == 4 && memcmp(b, "abcd", 4) == 0);
	check(recv(p.server, b, 8, MSG_WAITALL) == 4 && recv(p.server, b, 8, MSG_PEEK | MSG_WAITALL) == 0);
	pair_close(p);
}

/* read of nothing gives nothing, recv of nothing waits until there is something. */
static void of_nothing(void)
{
	struct pair p = pair_open();
	char b[2];
	struct iovec empty[2] = { { b, 0 }, { NULL, 0 } };
	struct msghdr m = { .msg_iov = empty, .msg_iovlen = 2 }, none = { 0 };

	check(read(p.server, b, 0) == 0 && readv(p.server, empty, 2) == 0 && readv(p.server, empty, 0) == 0);
	check(recv(p.server, b, 0, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(recv(p.server, b, 0, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(recvmsg(p.server, &m, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(recvmsg(p.server, &none, MSG_TRUNC | MSG_DONTWAIT) == -1 && errno == EAGAIN);
	write_all(p.client, "ab", 2);
	check(recv(p.server, b, 0, 0) == 0 && recvmsg(p.server, &m, 0) == 0 && recvmsg(p.server, &none, MSG_WAITALL) == 0);
	check(recv(p.server, b, 0, MSG_PEEK) == 0 && recv(p.server, NULL, 0, MSG_TRUNC) == 0);
	wants(p.server, "ab");
	check(write(p.client, b, 0) == 0 && send(p.client, b, 0, 0) == 0 && writev(p.client, empty, 2) == 0);
	check(recv(p.server, b, 2, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(shutdown(p.client, SHUT_WR) == 0 && recv(p.server, b, 0, 0) == 0);
	pair_close(p);
}

/* No byte moves. */
static void not_a_list(void)
{
	enum { MORE = IOV_MAX + 1 };
	struct pair p = pair_open();
	static struct iovec many[MORE];
	char b[4] = "";
	struct iovec negative[2] = { { b, 2 }, { b, (size_t)-1 } };
	struct msghdr too_many = { .msg_iov = many, .msg_iovlen = MORE }, wrong = { .msg_iov = negative, .msg_iovlen = 2 };
	volatile int less = -1;

	for (int i = 0; i < MORE; i++)
		many[i] = (struct iovec){ b, 1 };
	write_all(p.client, "ab", 2);
	check(readv(p.server, many, less) == -1 && errno == EINVAL && writev(p.server, many, less) == -1 && errno == EINVAL);
	check(readv(p.server, many, MORE) == -1 && errno == EINVAL && writev(p.server, many, MORE) == -1 && errno == EINVAL);
	check(readv(p.server, negative, 2) == -1 && errno == EINVAL && writev(p.server, negative, 2) == -1 && errno == EINVAL);
	check(recvmsg(p.server, &too_many, 0) == -1 && errno == EMSGSIZE && sendmsg(p.server, &too_many, 0) == -1 && errno == EMSGSIZE);
	check(recvmsg(p.server, &wrong, 0) == -1 && errno == EINVAL && sendmsg(p.server, &wrong, 0) == -1 && errno == EINVAL);
	wants(p.server, "ab");
	check(recv(p.client, b, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	pair_close(p);
}

/* Where the compiler does not know a size, _FORTIFY_SOURCE checks it as the program runs. */
static void checked(void)
{
	struct pair p = pair_open();
	volatile size_t two = 2;
	struct pollfd in[2] = { { .fd = p.server, .events = POLLIN }, { .fd = -1 } };
	char b[4];

	check(poll(in, two, 20) == 0 && ppoll(in, two, &(struct timespec){ 0, 0 }, NULL) == 0);
	write_all(p.client, "abcdef", 6);
	check(poll(in, two, 5000) == 1 && ppoll(in, two, NULL, NULL) == 1);
	check(read(p.server, b, two) == 2 && memcmp(b, "ab", 2) == 0);
	check(recv(p.server, b, two, 0) == 2 && memcmp(b, "cd", 2) == 0);
	check(recvfrom(p.server, b, two, 0, NULL, NULL) == 2 && memcmp(b, "ef", 2) == 0);
	pair_close(p);
}

/* By their numbers: what is closed so is no connection any more when a file gets the descriptor. */
static void by_number(void)
{
	struct pair p = pair_open();
	int file, other = (int)syscall(SYS_dup, p.client);
	char b[6] = "";

	check(wrote(syscall(SYS_write, p.client, "first", 5)) == 5);
	check(syscall(SYS_read, p.server, b, 5L) == 5 && memcmp(b, "first", 5) == 0);
	check(syscall(SYS_close, p.client) == 0);
	file = memfd_create("file", MFD_CLOEXEC);
	check(file == p.client);
	check(write(file, "secret", 6) == 6 && lseek(file, 0, SEEK_END) == 6);
	check(recv(p.server, b, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	write_all(other, "last", 4);
	read_all(p.server, b, 4);
	check(syscall(SYS_close_range, (long)other, (long)other, 0L) == 0);
	check(read(p.server, b, 1) == 0);
	check(close(file) == 0 && close(p.server) == 0);
}

void test_forms(void)
{
	RUN(by_number);
	RUN(checked);
	RUN(without_place);
	RUN(several_messages);
	RUN(limited_write);
	RUN(unacknowledged);
	RUN(thrown_away);
	RUN(accepted_with_flags);
	RUN(peeked_whole);
	RUN(of_nothing);
	RUN(not_a_list);
}
