/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "../clients/c/procs.h"
#include "buffer.h"
#include "connect.h"
#include "debug.h"
#include "plain.h"
#include "real.h"
#include "settle.h"
#include "sock.h"
#include "table.h"

/* A number keeps its line, so not all that there is room for may become such. */
enum { NUMBERS = 4096 };

/* What all lines here say. */
#define LINE [SLOT_KIND] = 1, [SLOT_MODE] = 1, [SLOT_STATE] = SMC_ACTIVE

HOT_DATA struct plain_again plain_again;
HOT_DATA static struct device *_Atomic listing; /* that the lines are on */
static struct lock renewing, publishing;
static _Atomic uint64_t turns; /* how often plain_not_again was called */

void plain_forked(void)
{
	atomic_store(&listing, NULL);
	plain_not_again();
	renewing.word = publishing.word = 0;
}

/* A number's line as the program before an exec has left it. */
static void adopt(struct ismfs_procs *procs, uint32_t line)
{
	unsigned char b[SLOT_SIZE];
	uint32_t number, none = 0;

	slot_read(procs, line, b);
	memcpy(&number, b + SLOT_DESCRIPTOR, 4);
	if (b[SLOT_KIND] != 1 || number == 0)
		return;
	if (number > NUMBERS || !atomic_compare_exchange_strong(&table[number - 1].line, &none, line))
		slot_free(procs, line);
	else
		table_reach_to((int)number - 1);
}

/*
 * NULL in between, so that who has got a line on the device before takes it back, or it is seen here. In a child of fork each page that is
 * looked at is one more to be found, and each that is written one to be copied.
 */
static void renew(struct device *d)
{
	lock_take(&renewing);
	if (atomic_load(&listing) != d) {
		atomic_store(&listing, NULL);
		plain_not_again();
		for (int fd = 0, end = table_end(); fd < NUMBERS && fd < end; fd++)
			if (atomic_load(&table[fd].line) != 0)
				atomic_store(&table[fd].line, 0);
		slots_found(d->procs, adopt);
		atomic_store(&listing, d);
	}
	lock_release(&renewing);
}

/* The line of a number; 0: there is no room. */
static HOT uint32_t line_of(int fd, struct device *d)
{
	_Atomic uint32_t *at = &table[fd].line;
	uint32_t line, none = 0;

	if (atomic_load_explicit(&listing, memory_order_acquire) != d)
		renew(d);
	line = atomic_load_explicit(at, memory_order_relaxed);
	if (line != 0)
		return line;
	if (!process_is_ours())
		return 0;
	table_reach_to(fd);
	line = slot_take(d->procs);
	if (line == 0 || !atomic_compare_exchange_strong(at, &none, line)) {
		slot_free(d->procs, line);
		return 0;
	}
	if (atomic_load(&listing) == d)
		return line;
	none = line;
	(void)atomic_compare_exchange_strong(at, &none, 0);
	return 0;
}

/* ---- the same once more ---- */

struct plain_before plain_before(void)
{
	uint64_t n = atomic_load(&turns), before = ticks();

	return (struct plain_before){ .span = ticks_span(before, now_ns()), .turns = n };
}

void plain_not_again(void)
{
	atomic_fetch_add(&turns, 1);
	atomic_store(&plain_again.holds.ticks, 0);
}

void plain_again_to(const union address *peer, struct device *d, const struct plain_before *before)
{
	uint64_t to;

	if (before->span.ticks == 0 || peer->any.sa_family != AF_INET || debugging || atomic_load(&tcp_only_asked) || !lock_try(&publishing))
		return;
	atomic_store(&plain_again.holds.ticks, 0);
	memcpy(&to, &peer->four, sizeof(to));
	atomic_store(&plain_again.lines, d->procs->map);
	atomic_store(&plain_again.counter, fallback_counter(d->procs, true, SMC_DECL_PEERNOSMC));
	atomic_store(&plain_again.to, to);
	span_put(&plain_again.holds, before->span);
	if (atomic_load(&turns) != before->turns) /* by another thread, since */
		atomic_store(&plain_again.holds.ticks, 0);
	lock_release(&publishing);
}

/* ---- lines ---- */

HOT bool plain_list(int fd, struct device *d, bool client, uint32_t reason, const union address *peer)
{
	unsigned char b[SLOT_SIZE] = { LINE, [SLOT_ROLE] = client ? ROLE_CLIENT : ROLE_SERVER };
	uint32_t line, number = (uint32_t)fd + 1;
	bool six = !address_is_four(peer);

	if ((unsigned int)fd >= NUMBERS || !address_known(peer) || !procs_finds(d->procs) || atomic_load_explicit(&d->dead, memory_order_relaxed))
		return false;
	line = line_of(fd, d);
	if (line == 0)
		return false;
	b[SLOT_FAMILY] = six ? 6 : 4;
	address_put(b, SLOT_PEER, SLOT_PEER_PORT, peer, six);
	memcpy(b + SLOT_REASON, &reason, 4);
	memcpy(b + SLOT_DESCRIPTOR, &number, 4);
	if (!slot_says(d->procs, line, b)) {
		if (!process_is_ours()) /* its parent's lines, of other descriptors */
			return false;
		slot_write(d->procs, line, b);
	}
	if (!table_note(fd, NOTE_TCP))
		return false;
	tell_fallback(d, client, fd, reason, 0);
	return true;
}

/* The line stays the number's, but says nothing of it: no process has the descriptor that is named. */
static void unlist(int fd)
{
	static const uint32_t nowhere = UINT32_C(1) << 31;
	unsigned char b[SLOT_SIZE] = { LINE, [SLOT_ROLE] = ROLE_SERVER, [SLOT_FAMILY] = 4 };
	struct device *d;

	memcpy(b + SLOT_DESCRIPTOR, &nowhere, 4);
	lock_take(&renewing);
	d = atomic_load(&listing);
	if (d != NULL)
		slot_write(d->procs, atomic_load(&table[fd].line), b);
	lock_release(&renewing);
}

void plain_unknown(int fd)
{
	bool listed;

	if ((unsigned int)fd >= TABLE_SIZE)
		return;
	listed = atomic_load_explicit(&table[fd].line, memory_order_relaxed) != 0;
	if ((!listed && table_noted(fd, NOTE_NONE)) || !process_is_ours())
		return;
	if (!table_note(fd, NOTE_NONE))
		sock_stale(fd, NOTE_NONE);
	if (listed)
		unlist(fd);
}

/* Not one whose close was not seen. */
static bool is_connection(int fd)
{
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);

	return getpeername(fd, (struct sockaddr *)&a, &size) == 0 && is_tcp(fd);
}

static void describe(struct sock *s, int fd, struct device *d, uint32_t line)
{
	unsigned char b[SLOT_SIZE];

	slot_read(d->procs, line, b);
	s->shared->client = b[SLOT_ROLE] == ROLE_CLIENT;
	memcpy(&s->shared->reason, b + SLOT_REASON, 4);
	sock_describe(s, fd);
}

/* Under the lock that whoever closes the number has to take once a sock is there: what is described is what was noted, and is there still. */
static void keep(int fd, struct device *d, uint32_t line)
{
	struct sock *s = sock_new(SOCK_PLAIN, true);
	uintptr_t entry = (uintptr_t)s | TABLE_PLAIN;
	bool kept;

	if (s == NULL)
		return;
	lock_take(&ends_lock);
	kept = table_swap(fd, NOTE_TCP, entry);
	if (kept && s->device == d && is_connection(fd)) {
		describe(s, fd, d, line);
	} else if (kept) {
		(void)table_swap(fd, entry, NOTE_NONE);
		kept = false;
	}
	lock_release(&ends_lock);
	if (kept)
		sock_put(s);
	else
		sock_discard(s);
}

bool plain_spread(int fd, enum note note)
{
	uintptr_t was = (unsigned int)fd < TABLE_SIZE ? table_entry(fd) : NOTE_NONE;

	while (was == NOTE_FRESH || was == NOTE_MADE || was == NOTE_COPIED)
		if (atomic_compare_exchange_weak(&table[fd].sock, &was, note))
			return true;
	return was == NOTE_SHARED;
}

void plain_keep(int fd)
{
	struct device *d = atomic_load(&listing);
	int saved = errno;
	uint32_t line;

	if (table_noted(fd, NOTE_TCP)) {
		line = atomic_load(&table[fd].line);
		if (d != NULL && line != 0 && d == device_current())
			keep(fd, d, line);
		else
			(void)table_swap(fd, NOTE_TCP, NOTE_NONE);
	}
	errno = saved;
}

void plain_keep_all(void)
{
	for (int fd = 0, end = table_end(); fd < end; fd++)
		if (!plain_spread(fd, NOTE_SHARED))
			plain_keep(fd);
}
