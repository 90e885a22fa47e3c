/* SPDX-License-Identifier: Apache-2.0 */
/* sendfile and splice: from files and pipes into a connection, and from a connection into a pipe. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io.h"
#include "device.h"
#include "handshake.h"
#include "real.h"
#include "syscall.h"
#include "table.h"

enum { PIECE = 64 << 10 };

/* ---- sendfile ---- */

/* From a place of a file; how many bytes were sent, or -errno. What was read and not sent is read again. */
static ssize_t send_from(struct sock *s, int out, int in, off_t at, size_t n)
{
	char *piece = malloc(n < PIECE ? n : PIECE);
	size_t done = 0;
	ssize_t result = 0;

	if (piece == NULL)
		return -ENOMEM;
	while (done < n) {
		size_t want = n - done < PIECE ? n - done : PIECE;
		ssize_t got = pread(in, piece, want, at + (off_t)done);
		struct iovec iov = { piece, (size_t)got };

		result = got < 0 ? -errno : 0;
		if (got <= 0)
			break;
		result = io_write(s, out, &iov, 1, 0);
		if (result > 0)
			done += (size_t)result;
		if (result < got)
			break;
	}
	free(piece);
	return done > 0 || result > 0 ? (ssize_t)done : result;
}

static ssize_t send_file(struct sock *s, int out, int in, off_t *offset, size_t n)
{
	off_t at = offset != NULL ? *offset : lseek(in, 0, SEEK_CUR);
	ssize_t sent;

	if (at < 0)
		return -errno;
	if (n == 0)
		return 0;
	sent = send_from(s, out, in, at, n);
	if (sent <= 0)
		return sent;
	if (offset != NULL)
		*offset = at + sent;
	else
		(void)lseek(in, at + sent, SEEK_SET);
	count_one(s->stream.procs, COUNT_SENDPAGE);
	return sent;
}

/* The connection of a descriptor, settled, with a reference; NULL: the kernel's, or *error. */
static struct sock *connection(int fd, enum side side, int *error)
{
	struct sock *s = table_moves(fd) ? table_get(fd, false) : NULL;

	*error = 0;
	if (s == NULL)
		return NULL;
	if (sock_kind(s) != SOCK_LISTENER)
		*error = io_ready(s, fd, side, 0);
	if (sock_kind(s) == SOCK_SMC && *error == 0)
		return s;
	sock_put(s);
	if (*error == -EPIPE)
		io_broken_pipe(0);
	if (*error == IO_PLAIN)
		*error = 0;
	return NULL;
}

EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t n)
{
	int error;
	struct sock *s = connection(out, WRITER, &error);
	ssize_t sent;

	if (error != 0)
		return error == IO_END ? 0 : io_result(error);
	if (s == NULL)
		return real()->sendfile(out, in, offset, n);
	sent = send_file(s, out, in, offset, n);
	sock_put(s);
	return io_result(sent);
}

EXPORT ssize_t sendfile64(int out, int in, off64_t *offset, size_t n)
{
	return sendfile(out, in, (off_t *)offset, n);
}

/* ---- splice ---- */

static bool is_pipe(int fd)
{
	return real()->fcntl(fd, F_GETPIPE_SZ) >= 0;
}

/*
 * What the pipe takes or has at once. A read or write would wait for that, and a write for the rest, too, if the pipe is a blocking one;
 * splice waits for the first byte alone, and not at all if it is told so: who splices empties the pipe itself.
 */
static ssize_t through_pipe(long call, int pipe, struct iovec *iov, unsigned int flags)
{
	struct pollfd side = { pipe, call == SYS_preadv2 ? POLLIN : POLLOUT, 0 };

	for (;;) {
		long moved = kernel_call(call, (long[6]){ pipe, (long)iov, 1, -1, -1, RWF_NOWAIT });

		if (moved >= 0)
			return moved;
		if (errno != EAGAIN || (flags & SPLICE_F_NONBLOCK) || (real()->fcntl(pipe, F_GETFL) & O_NONBLOCK))
			return -errno;
		if (real()->poll(&side, 1, -1) < 0)
			return -errno;
	}
}

/* Into a pipe: as much as it takes, which is then read. */
static ssize_t splice_out(struct sock *s, int fd, int pipe, size_t n, unsigned int flags)
{
	char *piece = malloc(PIECE);
	struct iovec iov = { piece, n < PIECE ? n : PIECE };
	ssize_t got;

	if (piece == NULL)
		return -ENOMEM;
	got = io_read(s, fd, &iov, 1, MSG_PEEK);
	if (got > 0) {
		iov.iov_len = (size_t)got;
		got = through_pipe(SYS_pwritev2, pipe, &iov, flags);
		iov.iov_len = got > 0 ? (size_t)got : 0;
		if (got > 0)
			(void)stream_read(&s->stream, &iov, 1, 0, false);
	}
	free(piece);
	return got;
}

/* How many bytes can be written, waited for as the socket waits; 0: none ever; negative: what the call fails with. */
static ssize_t wait_for_space(struct sock *s, int fd)
{
	int64_t deadline = 0;

	while (stream_takes(&s->stream)) {
		size_t space = s->stream.tx_len - stream_unread_by_peer(&s->stream);
		int err;

		if (space > 0)
			return (ssize_t)space;
		err = io_wait_for_room(s, fd, &deadline);
		if (err != 0)
			return err;
	}
	return 0;
}

/* From a pipe: no more than there is space for, since what is taken out of it cannot be put back. */
static ssize_t splice_in(struct sock *s, int fd, int pipe, size_t n, unsigned int flags)
{
	ssize_t space = wait_for_space(s, fd), got;
	struct iovec iov;

	if (space <= 0)
		return space < 0 ? space : io_refuse(s, 0, 0);
	iov.iov_len = n < PIECE ? n : PIECE;
	if (iov.iov_len > (size_t)space)
		iov.iov_len = (size_t)space;
	iov.iov_base = malloc(iov.iov_len);
	if (iov.iov_base == NULL)
		return -ENOMEM;
	got = through_pipe(SYS_preadv2, pipe, &iov, flags);
	if (got > 0) {
		iov.iov_len = (size_t)got;
		got = io_write_all(s, fd, iov);
	}
	free(iov.iov_base);
	return got;
}

EXPORT ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned int flags)
{
	int error; /* SPLICE_F_NONBLOCK is for the pipe; a socket waits as its own mode says */
	struct sock *s = connection(in, READER, &error);
	ssize_t moved;

	if (s != NULL) {
		moved = is_pipe(out) ? splice_out(s, in, out, n, flags) : -EINVAL;
	} else if (error == 0 && (s = connection(out, WRITER, &error)) != NULL) {
		moved = is_pipe(in) ? splice_in(s, out, in, n, flags) : -EINVAL;
	} else {
		if (error == 0)
			return real()->splice(in, in_at, out, out_at, n, flags);
		return error == IO_END ? 0 : io_result(error);
	}
	if (moved > 0)
		count_one(s->stream.procs, COUNT_SPLICE);
	sock_put(s);
	return io_result(moved);
}
