/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting: a short spin, then the futex of my DMB or my bell, and a look at the peer's life (docs/dmb-format.md 1.4, 1.6). */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/stat.h>

#include "internal.h"

/* At least once a second the device is asked whether the peer lives. The stress test makes it long: the look would hide a lost wake-up. */
#ifndef LOOK_EVERY
#define LOOK_EVERY INT64_C(1000000000)
#endif

/*
 * Rounds of looking before a sleep, at most some 20 us: less than a sleep and a wake-up on another CPU cost together. A sleep that was
 * over this soon should have been a spin, so the next wait spins for long; after a longer one the rounds are halved. So a stream of
 * messages does not sleep, and a connection that waits long soon does not spin.
 */
enum { SPIN_LEAST = 8, SPIN_FIRST = 64, SPIN_MOST = 1024, SHORT_SLEEP_NS = 60000 };

/* With one CPU spinning only delays the peer. Asked once: a program that pins itself does so before it connects. */
static bool has_two_cpus(void)
{
	cpu_set_t cpus;

	return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) > 1;
}

void wait_setup(struct ismfs_conn *conn)
{
	unsigned int first = has_two_cpus() ? SPIN_FIRST : 0;

	conn->spin[READER] = conn->spin[WRITER] = first;
	conn->looked[READER] = conn->looked[WRITER] = now_ns();
}

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static bool spin(struct ismfs_conn *conn, enum side side)
{
	for (unsigned int i = 0; i < conn->spin[side]; i++) {
		cpu_relax();
		if (conn_ready(conn, side))
			return true;
	}
	return false;
}

/* Learn from a sleep how long to spin before the next one. 0 rounds are for ever: there is one CPU. */
static void learn(struct ismfs_conn *conn, enum side side, int64_t slept)
{
	unsigned int *rounds = &conn->spin[side];

	if (*rounds == 0)
		return;
	if (slept < SHORT_SLEEP_NS)
		*rounds = SPIN_MOST;
	else if (*rounds > SPIN_LEAST)
		*rounds /= 2;
}

/*
 * Ask the device. The peer's DMB had two references when I attached; mine has them once the peer came. A failing fstat says nothing:
 * the daemon is dead, and what is mapped goes on working.
 */
static void look_at_peer(struct ismfs_conn *conn, enum side side)
{
	struct stat own, peer;

	conn->looked[side] = now_ns();
	if (fstat(conn->peer->fd, &peer) != 0 || fstat(conn->own->fd, &own) != 0)
		return;
	if (own.st_nlink >= 2)
		atomic_store(&conn->peer_met, true);
	if (own.st_nlink == 0 || peer.st_nlink == 0)
		conn_fail(conn, ECONNABORTED);
	else if (peer.st_nlink < 2 || (own.st_nlink < 2 && atomic_load(&conn->peer_met)))
		conn_fail(conn, ECONNRESET);
}

/* What ends a sleep: work for this thread, or a peer that wants the cursor which I hold back. */
static bool has_news(struct ismfs_conn *conn, enum side side)
{
	return conn_ready(conn, side) || holds_back_cursor(conn);
}

static void sleep_on_futex(struct ismfs_conn *conn, enum side side, int64_t until)
{
	_Atomic uint32_t *seq = (_Atomic uint32_t *)(void *)(conn->own->map + ISMFS_OFF_SEQ);
	uint32_t before = atomic_load_explicit(seq, memory_order_acquire);

	announce(conn, side, ISMFS_SLEEPS_ON_FUTEX);
	if (!has_news(conn, side))
		futex_sleep(seq, before, until, true);
	announce(conn, side, ISMFS_AWAKE);
}

static void sleep_on_bell(struct ismfs_conn *conn, enum side side, int64_t until)
{
	struct bell_turn turn = bell_arm(&conn->bell);

	announce(conn, side, ISMFS_SLEEPS_ON_BELL);
	if (!has_news(conn, side))
		bell_sleep(&conn->bell, turn, until);
	announce(conn, side, ISMFS_AWAKE);
	bell_disarm(&conn->bell, turn);
}

static void sleep_once(struct ismfs_conn *conn, enum side side, int64_t deadline)
{
	int64_t until = conn->looked[side] + LOOK_EVERY, started = now_ns();

	if (until > deadline)
		until = deadline;
	if (conn->sleeps_on == ISMFS_SLEEPS_ON_FUTEX)
		sleep_on_futex(conn, side, until);
	else
		sleep_on_bell(conn, side, until);
	learn(conn, side, now_ns() - started);
}

/* The device's wake-up at the peer's death is lost on whoever is awake then, so a look is due before a sleep as well as after. */
static void look_if_due(struct ismfs_conn *conn, enum side side)
{
	if (now_ns() - conn->looked[side] >= LOOK_EVERY)
		look_at_peer(conn, side);
}

int wait_ready(struct ismfs_conn *conn, enum side side, int64_t deadline)
{
	for (;;) {
		if (conn_ready(conn, side))
			return 0;
		if (holds_back_cursor(conn))
			publish_consumer(conn);
		if (deadline != 0 && spin(conn, side))
			return 0;
		look_if_due(conn, side);
		if (conn_ready(conn, side))
			return 0;
		if (deadline != FOREVER && now_ns() >= deadline)
			return -EAGAIN;
		sleep_once(conn, side, deadline);
		if (!has_news(conn, side))
			look_at_peer(conn, side);
	}
}
