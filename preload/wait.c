/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "epoll.h"
#include "real.h"
#include "sock.h"
#include "wait.h"

/* How long a sleep lasts before the peer's life is looked after. */
static const int64_t tick_ns = INT64_C(1000000000);

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
	if (!others && s->items == NULL)
		stream_announce(&s->stream, side, ISMFS_AWAKE);
	lock_release(&s->watching);
	if (others)
		stream_rouse(&s->stream);
	if (s->items != NULL)
		epoll_news(s);
}

bool wait_announce(struct sock *s, enum side side, uint8_t how, short wanted)
{
	stream_announce(&s->stream, side, how);
	stream_settle_cursor(&s->stream);
	return (stream_ready(&s->stream) & wanted) == 0;
}

bool signal_interrupts(void)
{
	struct sigaction action;

	for (int n = 1; n < NSIG; n++) {
		if (sigaction(n, NULL, &action) != 0 || action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)
			continue;
		if (!(action.sa_flags & SA_RESTART))
			return true;
	}
	return false;
}

/* ---- spinning ---- */

enum { SPIN_LEAST = 4, SPIN_FIRST = 64, SPIN_MOST = 1024 };

static bool may_spin;

/* CPU time that is rationed is missing later when it was spun away. */
static bool has_quota(void)
{
	char quota[32] = "";
	FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");

	if (f == NULL)
		return false;
	if (fgets(quota, sizeof(quota), f) == NULL)
		quota[0] = '\0';
	fclose(f);
	return quota[0] >= '0' && quota[0] <= '9';
}

void wait_prepare(void)
{
	cpu_set_t cpus;

	may_spin = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) > 1 && !has_quota();
}

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

bool wait_spin(struct sock *s, short wanted)
{
	if (!may_spin)
		return false;
	if (s->spins == 0)
		s->spins = SPIN_FIRST;
	for (unsigned int i = 0; i < s->spins; i++) {
		cpu_relax();
		if (stream_ready(&s->stream) & wanted)
			return true;
	}
	return false;
}

/* A sleep that was over soon should have been a spin, so the next wait spins for long; after a longer one it is halved. */
static void learn(struct sock *s, int64_t slept)
{
	enum { SHORT_NS = 60000 };

	if (!may_spin)
		return;
	if (slept < SHORT_NS)
		s->spins = SPIN_MOST;
	else if (s->spins > SPIN_LEAST)
		s->spins /= 2;
}

/* ---- sleeping ---- */

static int sleep_on_futex(struct sock *s, enum side side, int64_t until)
{
	_Atomic uint32_t *sequence = stream_sequence(&s->stream);
	uint32_t before = atomic_load(sequence);
	struct timespec left;

	if (!wait_announce(s, side, ISMFS_SLEEPS_ON_FUTEX, wants[side]))
		return 0;
	left = time_left(until);
	return syscall(SYS_futex, sequence, FUTEX_WAIT, before, &left, NULL, 0) != 0 ? errno : 0;
}

/* Where the peer cannot wake a futex. */
static int sleep_on_bell(struct sock *s, int fd, enum side side, int64_t until)
{
	struct pollfd fds[2] = { { .fd = s->stream.own_bell, .events = POLLIN }, { .fd = fd, .events = POLLIN | POLLRDHUP } };
	char rung[4096];
	struct timespec left;

	(void)!real()->read(s->stream.own_bell, rung, sizeof(rung));
	if (!wait_announce(s, side, ISMFS_SLEEPS_ON_BELL, wants[side]))
		return 0;
	left = time_left(until);
	return real()->ppoll(fds, s->shared->stream.tcp_ended ? 1 : 2, &left, NULL) < 0 ? errno : 0;
}

int wait_side(struct sock *s, int fd, enum side side, int64_t deadline)
{
	int saved = errno, result = 0;

	stream_settle_cursor(&s->stream);
	if (wait_spin(s, wants[side]))
		return 0;
	wait_enter(s, side);
	while (!(stream_ready(&s->stream) & wants[side])) {
		int64_t now = now_ns(), until = now + tick_ns < deadline ? now + tick_ns : deadline;
		int err;

		if (now >= deadline) {
			result = -EAGAIN;
			break;
		}
		err = s->stream.separated ? sleep_on_bell(s, fd, side, until) : sleep_on_futex(s, side, until);
		learn(s, now_ns() - now);
		if (err == EINTR && signal_interrupts()) {
			result = -EINTR;
			break;
		}
		if (!(stream_ready(&s->stream) & wants[side]))
			sock_check(s, fd);
	}
	wait_leave(s, side);
	errno = saved;
	return result;
}
