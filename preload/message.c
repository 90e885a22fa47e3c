/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "message.h"
#include "real.h"

/* 0: a part of one is there; -EAGAIN: nothing is. */
static int take(int fd, unsigned char b[CLC_MAX], struct clc_header *h)
{
	ssize_t n = real()->recv(fd, b, CLC_MAX, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if (n == 0)
		return -ENODATA;
	if (n < CLC_HEADER)
		return 0;
	if (clc_parse_header(b, h) != 0)
		return -EPROTO;
	if (n < h->length)
		return 0;
	return real()->recv(fd, b, h->length, MSG_DONTWAIT) == h->length ? h->length : -EPROTO;
}

/* A peer that closes in the middle of one leaves a part that stays. */
int message_next(int fd, unsigned char b[CLC_MAX], struct clc_header *h)
{
	int n = take(fd, b, h);

	if (n == 0 && message_ended(fd)) {
		n = take(fd, b, h); /* the rest may have come before the end did */
		return n == 0 ? -ECONNRESET : n;
	}
	return n == -EAGAIN ? 0 : n;
}

/* It was sent by one call and is short, so all of it is there or nothing. */
int message_take_decline(int fd, uint32_t *code)
{
	unsigned char b[CLC_MAX];
	struct clc_header h;
	bool out_of_sync;
	ssize_t n = real()->recv(fd, b, sizeof(b), MSG_PEEK | MSG_DONTWAIT);

	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if (n == 0)
		return -ENODATA;
	if (n < CLC_HEADER || clc_parse_header(b, &h) != 0 || h.type != CLC_DECLINE || h.length > n ||
	    clc_parse_decline(b, h.length, code, &out_of_sync) != 0)
		return 0;
	return real()->recv(fd, b, h.length, MSG_DONTWAIT) == h.length ? 1 : -EPROTO;
}

bool message_ended(int fd)
{
	struct pollfd end = { .fd = fd, .events = POLLRDHUP };

	return real()->poll(&end, 1, 0) > 0 && (end.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

int message_unread(int fd)
{
	int n = 0;

	(void)real()->ioctl(fd, FIONREAD, &n);
	return n;
}

bool message_send(int fd, const unsigned char *b, size_t n)
{
	return real()->send(fd, b, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

bool message_send_decline(int fd, uint32_t code)
{
	unsigned char b[CLC_MAX];

	return message_send(fd, b, clc_put_decline(b, code));
}
