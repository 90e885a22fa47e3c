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
	struct patience patience = patience_new();

	if (piece == NULL)
		return -ENOMEM;
	while (done < n) {
		size_t want = n - done < PIECE ? n - done : PIECE;
		ssize_t got = pread(in, piece, want, at + (off_t)done);
		struct iovec iov = { piece, (size_t)got };

		result = got < 0 ? -errno : 0;
		if (got <= 0)
			break;
		result = io_write(s, out, &iov, 1, 0, &patience);
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

	if (at < 0) /* EINVAL is what programs copy by themselves after: of a pipe, too */
		return offset != NULL || errno == ESPIPE ? -EINVAL : -errno;
	if ((ssize_t)n <= 0)
		return n == 0 ? 0 : -EINVAL;
	sent = send_from(s, out, in, at, n);
	if (sent == -EISDIR)
		return -EINVAL;
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

/* A pipe that a call of splice moves bytes to or from, and what it has said. */
struct pipe_end {
	int fd;
	short wanted; /* POLLIN, POLLOUT */
	bool waits, asked;
	ssize_t moved;
};

static struct pipe_end pipe_end(int fd, short wanted, unsigned int flags)
{
	bool waits = !(flags & SPLICE_F_NONBLOCK) && !(real()->fcntl(fd, F_GETFL) & O_NONBLOCK);

	return (struct pipe_end){ .fd = fd, .wanted = wanted, .waits = waits };
}

/*
 * What the pipe takes or has at once. A read or write would wait for that, and a write for the rest, too, if the pipe is a blocking one;
 * splice waits for the first byte alone, and not at all if it is told so: who splices empties the pipe itself.
 */
static ssize_t move(void *end, const struct iovec *iov, int n)
{
	struct pipe_end *e = end;
	long call = e->wanted == POLLIN ? SYS_preadv2 : SYS_pwritev2;

	e->asked = true;
	e->moved = kernel_call(call, (long[6]){ e->fd, (long)iov, n, -1, -1, RWF_NOWAIT });
	if (e->moved < 0)
		e->moved = -errno;
	return e->moved;
}

/* After it has moved nothing: 0 when it can, or what the call fails with. The kernel resumes splice after a handler with SA_RESTART, but not poll. */
static int wait_for_pipe(struct pipe_end *e, const struct patience *p)
{
	struct pollfd side = { e->fd, e->wanted, 0 };
	int err = 0;

	e->asked = false;
	if (e->moved != -EAGAIN || !e->waits)
		return (int)e->moved;
	while (!signals_end(p->since, false, err)) {
		if (real()->poll(&side, 1, -1) >= 0)
			return 0;
		err = errno;
		if (err != EINTR)
			return -err;
	}
	return -EINTR;
}

/* Into a pipe: as much as it takes, which is then read. */
static ssize_t splice_out(struct sock *s, int fd, int pipe, size_t n, unsigned int flags)
{
	struct pipe_end to = pipe_end(pipe, POLLOUT, flags);
	struct iovec first = { &(char){ 0 }, 1 };
	struct patience patience = patience_new();

	for (;;) {
		ssize_t got = io_read(s, fd, &first, 1, MSG_PEEK, &patience);

		if (got <= 0)
			return got;
		patience.begun = false; /* so far it has only looked */
		got = stream_drain(&s->stream, n < PIECE ? n : PIECE, move, &to);
		if (got > 0)
			return got;
		if (to.asked && (got = wait_for_pipe(&to, &patience)) != 0)
			return got;
	}
}

/* Like the first write to a peer that has closed: what the pipe has is taken and lost, or nothing, with the error. */
APART static ssize_t splice_away(struct sock *s, size_t n, struct pipe_end *from, const struct patience *p)
{
	char waste[4096];
	struct iovec iov = { waste, n < sizeof(waste) ? n : sizeof(waste) };
	ssize_t got = 0;

	if (!stream_takes(&s->stream))
		return io_refuse(s, 0, 0);
	while (move(from, &iov, 1) < 0)
		if ((got = wait_for_pipe(from, p)) != 0)
			return got;
	return from->moved > 0 ? io_refuse(s, (size_t)from->moved, 0) : 0;
}

/* From a pipe: no more than there is space for, since what is taken out of it cannot be put back. */
static ssize_t splice_in(struct sock *s, int fd, int pipe, size_t n, unsigned int flags)
{
	struct pipe_end from = pipe_end(pipe, POLLIN, flags);
	struct patience patience = patience_new();

	for (;;) {
		ssize_t put = stream_fill(&s->stream, n < PIECE ? n : PIECE, move, &from);

		if (put > 0 || (from.asked && from.moved == 0))
			return put;
		if (from.asked && from.moved < 0)
			put = wait_for_pipe(&from, &patience);
		else if (put == -EAGAIN || put == -EBUSY)
			put = io_wait_to_write(s, fd, put, 0, &patience);
		else
			return splice_away(s, n, &from, &patience);
		if (put != 0)
			return put;
	}
}

EXPORT ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned int flags)
{
	int error; /* SPLICE_F_NONBLOCK is for the pipe; a socket waits as its own mode says */
	struct sock *s = connection(in, READER, &error);
	ssize_t moved;

	if (s != NULL) {
		moved = n == 0 ? 0 : is_pipe(out) ? splice_out(s, in, out, n, flags) : -EINVAL;
	} else if (error == 0 && (s = connection(out, WRITER, &error)) != NULL) {
		moved = n == 0 ? 0 : is_pipe(in) ? splice_in(s, out, in, n, flags) : -EINVAL;
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
