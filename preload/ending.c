/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that are over for this process, until their DMBs can go to the next ones. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>

#include "ending.h"
#include "group.h"
#include "real.h"
#include "sock.h"
#include "table.h"
#include "traffic.h"

/* What this process has closed, and the peer, or processes that have it by fork, perhaps not. */
struct ending {
	struct ending *next;
	struct link link; /* without a group: what is left is the line in conns */
	struct stream stream;
	struct shared *shared;
	struct device *device;
	unsigned int place; /* under which it is held */
	bool last;
	int tcp; /* shut down by this side, -1: not by this process */
	int64_t until;
	bool limited; /* one side was seen to have closed when until was set */
};
static struct ending *endings;
HOT_DATA atomic_bool has_endings;

/* How long the end of one side waits for the other's (tcp_fin_timeout, for the same state of TCP). */
static const int64_t close_ns = INT64_C(60000000000);

/* The peer's end of TCP: EOF is a FIN. */
static enum stream_end end_of_tcp(int fd)
{
	char byte;
	ssize_t n = real()->recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n == 0)
		return STREAM_OVER;
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? STREAM_ENDING : STREAM_LOST;
}

/* The peer's, after both ends have closed in order: OVER when it has come, LOST when nobody will see it. */
static enum stream_end fin_of(const struct ending *e)
{
	if (e->tcp >= 0)
		return end_of_tcp(e->tcp);
	switch (atomic_load(&e->shared->fin)) {
	case FIN_SEEN:
		return STREAM_OVER;
	case FIN_NOT_SEEN:
		return STREAM_LOST;
	}
	return STREAM_ENDING;
}

void link_shut(struct sock *s, int fd)
{
	int saved = errno;

	s->tcp = s->link.group->inherited ? -1 : hidden_copy(fd);
	if (s->link.peer->of_child)
		tcp_reset(fd); /* the peer is not to keep a DMB that nobody can be attached to again */
	else
		(void)real()->shutdown(fd, SHUT_WR);
	if (s->tcp < 0)
		atomic_store(&s->shared->fin, end_of_tcp(fd) == STREAM_OVER ? FIN_SEEN : FIN_NOT_SEEN);
	errno = saved;
}

/* As long as neither side has closed, a child has the connection: that may last, unless the peer is gone. */
static bool waits(struct ending *e, enum stream_end end, int64_t now)
{
	if (end == STREAM_OVER || end == STREAM_LOST || !group_usable(e->link.group))
		return false;
	if (now < e->until)
		return true;
	if (e->limited || !remote_has_owner(e->link.peer))
		return false;
	e->limited = end == STREAM_ENDING;
	e->until = now + close_ns;
	return true;
}

/* How far the end has come. A peer whose TCP has ended has said its last word before that, or never will: it was killed. */
static enum stream_end end_of(const struct ending *e, bool look)
{
	enum stream_end end = stream_end_of(&e->stream), tcp;

	if (end != STREAM_ENDING || !look || e->tcp < 0 || !atomic_load(&e->shared->stream.finished))
		return end;
	tcp = end_of_tcp(e->tcp);
	if (tcp != STREAM_OVER)
		return tcp;
	end = stream_end_of(&e->stream);
	return end == STREAM_ENDING ? STREAM_LOST : end;
}

/* The DMBs, which go to the next connection if all has ended in order. */
static void finish_link(struct ending *e, bool deserted, bool look, int64_t now)
{
	enum stream_end end = end_of(e, look), fin = end == STREAM_OVER ? fin_of(e) : end;

	if (!deserted && waits(e, fin, now))
		return;
	if (fin == STREAM_OVER)
		stream_reset_own(&e->stream);
	link_finish(&e->link, fin == STREAM_OVER, end == STREAM_OVER); /* before its FIN the peer may have part of the own ring lent */
	e->link.group = NULL;
	hidden_close(e->tcp);
}

/* Those that have it by fork may be killed, and the last one cannot say its last word; so may the peer. Each look is a system call. */
static bool may_look(int64_t now)
{
	static int64_t looked;

	if (now - looked < INT64_C(1000000000))
		return false;
	looked = now;
	return true;
}

void endings_sweep(int64_t now)
{
	bool look = endings != NULL && may_look(now);

	for (struct ending **at = &endings; *at != NULL;) {
		struct ending *e = *at;
		bool deserted = look && !e->last && holders_deserted(e->shared);

		if (e->link.group != NULL)
			finish_link(e, deserted && !atomic_load(&e->shared->stream.finished), look, now);
		if (e->link.group != NULL || !(e->last || deserted)) {
			at = &e->next;
			continue;
		}
		*at = e->next;
		shared_undescribe(e->shared, e->device);
		holders_leave(e->shared, e->place, e->last);
		free(e);
	}
	atomic_store(&has_endings, endings != NULL);
}

void link_sweep(void)
{
	int64_t now;

	if (!link_busy())
		return;
	now = now_ns();
	lock_take(&link_lock);
	endings_sweep(now);
	groups_sweep(now);
	lock_release(&link_lock);
}

void link_forked(void)
{
	for (struct ending *e = endings; e != NULL; e = e->next) {
		if (e->link.group == NULL)
			continue;
		hidden_close(e->tcp);
		buffer_close(e->link.own);
		remote_leave(e->link.peer);
		e->link.group->users--;
	}
	endings = NULL;
	atomic_store(&has_endings, false);
	groups_forked();
}

/* A child leaves the DMBs to the process that has made the connection. */
void link_end(struct sock *s)
{
	struct link *l = &s->link;
	struct group *g = l->group;
	struct ending *e;

	if (s->last)
		traffic_ended(atomic_load(&s->shared->stream.bytes_read));
	lock_take(&link_lock);
	e = g->inherited ? NULL : calloc(1, sizeof(*e));
	if (e != NULL) {
		*e = (struct ending){
			.next = endings, .link = *l, .stream = s->stream, .shared = s->shared, .device = s->device, .place = s->place,
			.last = s->last, .tcp = s->tcp, .until = now_ns() + close_ns, .limited = s->last,
		};
		endings = e;
		atomic_store(&has_endings, true);
		endings_sweep(now_ns());
	} else {
		hidden_close(s->tcp);
		link_finish(l, false, false);
		if (s->held)
			holders_leave(s->shared, s->place, s->last);
	}
	lock_release(&link_lock);
}

/* A line in the block of another process is that one's. */
bool link_left(const struct sock *s)
{
	const struct shared *sh = s->shared;
	struct ending *e;

	if (s->device == NULL || sh->slot == 0 || sh->described != s->device->process || s->device->process != getpid())
		return false;
	e = calloc(1, sizeof(*e));
	if (e == NULL)
		return false;
	*e = (struct ending){ .shared = s->shared, .device = s->device, .place = s->place, .tcp = -1 };
	lock_take(&link_lock);
	e->next = endings;
	endings = e;
	atomic_store(&has_endings, true);
	lock_release(&link_lock);
	return true;
}
