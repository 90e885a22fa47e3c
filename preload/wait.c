/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "epoll.h"
#include "real.h"
#include "sock.h"
#include "wait.h"

static const short wants[SIDES] = { POLLIN | POLLERR | POLLHUP, POLLOUT | POLLERR | POLLHUP };

void wait_enter(struct sock *s, enum side side)
{
	lock_take(&s->watching);
	s->waiters[side]++;
	lock_release(&s->watching);
}

/* An announcement stays while others wait: at worst the peer signals in vain. */
void wait_leave(struct sock *s, enum side side)
{
	bool others;

	lock_take(&s->watching);
	others = --s->waiters[side] > 0;
	if (!others && s->registered == 0)
		stream_announce(&s->stream, side, ISMFS_AWAKE);
	lock_release(&s->watching);
	if (others)
		stream_rouse(&s->stream);
	if (s->registered > 0)
		epoll_news(s);
}

bool wait_announce(struct sock *s, enum side side, uint8_t how, short wanted)
{
	stream_announce(&s->stream, side, how);
	stream_settle_cursor(&s->stream);
	return (stream_ready(&s->stream) & wanted) == 0;
}

/* ---- spinning ---- */

static bool give_way(struct spinning *sp, int64_t now, bool (*there)(void *), void *what)
{
	unsigned int yields = spin_yields(sp, now);

	if (yields == 0)
		return false;
	while (yields-- > 0) {
		int64_t began = now;
		bool stolen;

		sched_yield();
		now = now_ns();
		stolen = spin_stolen(began, now);
		if (there(what)) {
			spin_met(sp);
			return true;
		}
		if (stolen)
			break;
	}
	spin_missed(sp);
	return false;
}

static bool look(struct spinning *sp, bool (*there)(void *), void *what)
{
	for (unsigned int i = spin_rounds(sp); i > 0; i--) {
		spin_pause();
		if (there(what)) {
			spin_met(sp);
			return true;
		}
	}
	return false;
}

bool wait_look(struct sock *s, struct spinning *sp, int64_t now, bool (*there)(void *), void *what, bool *watched)
{
	bool may = procs_may_look(s->stream.procs), one_cpu = may && link_shares_cpu(&s->link, now);

	*watched = may && !one_cpu;
	return may && (one_cpu ? give_way(sp, now, there, what) : look(sp, there, what));
}

/* ---- sleeping ---- */

static int sleep_on_futex(struct sock *s, enum side side, const struct timespec *left)
{
	_Atomic uint32_t *sequence = stream_sequence(&s->stream);
	uint32_t before = atomic_load(sequence);

	if (!wait_announce(s, side, ISMFS_SLEEPS_ON_FUTEX, wants[side]))
		return 0;
	return syscall(SYS_futex, sequence, FUTEX_WAIT, before, left, NULL, 0) != 0 ? errno : 0;
}

void wait_empty_bell(struct sock *s)
{
	char rung[4096];

	(void)!real()->read(s->stream.own_bell, rung, sizeof(rung));
}

int wait_on_bell(struct sock *s, int fd, const struct timespec *left)
{
	struct pollfd fds[2] = { { .fd = s->stream.own_bell, .events = POLLIN }, { .fd = fd, .events = POLLIN | POLLRDHUP } };

	return real()->ppoll(fds, s->shared->stream.tcp_ended ? 1 : 2, left, NULL) < 0 ? errno : 0;
}

/*
 * Where the peer cannot wake a futex there is one bell for all who wait, in whichever process, and whoever empties it may swallow what was
 * meant for another one. So one listens, and the others sleep until that one listens no longer: then each looks again, and announces anew.
 */
static _Thread_local const struct sock *listens_to; /* a handler of this thread's may come to wait, too */

static void listen_no_more(struct shared *sh)
{
	atomic_store(&sh->bell_listens, 0);
	atomic_fetch_add(&sh->bell_told, 1);
	if (atomic_load(&sh->bell_others) > 0)
		(void)syscall(SYS_futex, &sh->bell_told, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* One that was killed as it listened tells nobody: it would have by the next tick. */
static int sleep_beside(struct sock *s, enum side side, uint32_t told, const struct timespec *left)
{
	struct shared *sh = s->shared;
	int err = 0;

	atomic_fetch_add(&sh->bell_others, 1);
	if (wait_announce(s, side, ISMFS_SLEEPS_ON_BELL, wants[side]))
		err = syscall(SYS_futex, &sh->bell_told, FUTEX_WAIT, told, left, NULL, 0) != 0 ? errno : 0;
	atomic_fetch_sub(&sh->bell_others, 1);
	if (err == ETIMEDOUT && left->tv_sec >= WAIT_TICK_NS / INT64_C(1000000000))
		listen_no_more(sh);
	return err;
}

static int sleep_on_bell(struct sock *s, int fd, enum side side, const struct timespec *left)
{
	struct shared *sh = s->shared;
	const struct sock *before = listens_to;
	uint32_t told = atomic_load(&sh->bell_told), nobody = 0;
	int err = 0;

	if (before != s && !atomic_compare_exchange_strong(&sh->bell_listens, &nobody, 1))
		return sleep_beside(s, side, told, left);
	listens_to = s;
	wait_empty_bell(s);
	if (wait_announce(s, side, ISMFS_SLEEPS_ON_BELL, wants[side]))
		err = wait_on_bell(s, fd, left);
	listens_to = before;
	if (before != s)
		listen_no_more(sh);
	return err;
}

static bool can_read(void *s)
{
	return (stream_ready(&((struct sock *)s)->stream) & wants[READER]) != 0;
}

static bool can_write(void *s)
{
	return (stream_ready(&((struct sock *)s)->stream) & wants[WRITER]) != 0;
}

int wait_side(struct sock *s, int fd, enum side side, const struct patience *p)
{
	int saved = errno, result = 0, err = 0;
	int64_t began = now_ns();
	bool watched;

	stream_settle_cursor(&s->stream);
	if (wait_look(s, &s->spinning, began, side == READER ? can_read : can_write, s, &watched))
		return 0;
	wait_enter(s, side);
	while (!(stream_ready(&s->stream) & wants[side])) {
		int64_t now = now_ns(), ns = now + WAIT_TICK_NS < p->deadline ? WAIT_TICK_NS : p->deadline - now;
		struct timespec left = { ns / INT64_C(1000000000), ns % INT64_C(1000000000) };

		if (signals_end(p->since, p->begun || p->deadline != FOREVER, err)) {
			result = -EINTR;
			break;
		}
		if (now >= p->deadline) {
			result = -EAGAIN;
			break;
		}
		err = s->stream.separated ? sleep_on_bell(s, fd, side, &left) : sleep_on_futex(s, side, &left);
		if (watched)
			spin_slept(&s->spinning, now_ns() - now);
		if (!(stream_ready(&s->stream) & wants[side]))
			sock_check(s, fd);
	}
	wait_leave(s, side);
	errno = saved;
	return result;
}
