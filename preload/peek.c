/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for more than there is already, which stays where it is: MSG_PEEK with MSG_WAITALL. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>

#include "../clients/c/cursor.h"
#include "io.h"
#include "wait.h"

/* The end has come, or the peer waits for space that only reading would make. */
static bool is_all(struct sock *s)
{
	uint8_t flags = word_unpack(stream_words(&s->stream).consumer).producer_flags;

	return (stream_ready(&s->stream) & POLLRDHUP) || (flags & ISMFS_WRITE_BLOCKED);
}

/* 0: there is more than a size. The end is looked for first: bytes that came before it are seen with it. */
static int look(struct sock *s, size_t have, int64_t deadline, int64_t *now)
{
	bool all = is_all(s);

	if (stream_readable(&s->stream) > have)
		return 0;
	*now = now_ns();
	return all || *now >= deadline ? -EAGAIN : 1;
}

static int sleep_on_bell(struct sock *s, int fd, size_t have, int64_t until)
{
	struct timespec left;

	wait_empty_bell(s);
	stream_announce(&s->stream, READER, ISMFS_SLEEPS_ON_BELL);
	if (stream_readable(&s->stream) > have || is_all(s))
		return 0;
	left = time_left(until);
	return wait_on_bell(s, fd, &left);
}

int io_wait_for_more(struct sock *s, int fd, size_t have, const struct patience *p)
{
	int64_t now = 0;
	int result, saved = errno, err = 0;

	stream_settle_cursor(&s->stream);
	wait_enter(s, READER);
	while ((result = look(s, have, p->deadline, &now)) > 0) {
		if (signals_end(p->since, true, err)) {
			result = -EINTR;
			break;
		}
		err = sleep_on_bell(s, fd, have, now + WAIT_TICK_NS < p->deadline ? now + WAIT_TICK_NS : p->deadline);
		sock_check(s, fd);
	}
	wait_leave(s, READER);
	errno = saved;
	return result;
}
