/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "../clients/c/procs.h"
#include "connect.h"
#include "debug.h"
#include "plain.h"
#include "real.h"
#include "settle.h"
#include "sock.h"
#include "table.h"

/* Lines of numbers that are closed stay, so not all that there is room for may become such. */
enum { NUMBERS = 4096 };

HOT_DATA struct plain_again plain_again;
HOT_DATA static struct device *_Atomic listing; /* that the lines are on */
static struct lock renewing;

void plain_forked(void)
{
	atomic_store(&listing, NULL);
	plain_not_again();
	renewing.word = 0;
}

static void renew(struct device *d)
{
	lock_take(&renewing);
	if (atomic_load(&listing) != d) {
		plain_not_again();
		for (int fd = 0; fd < NUMBERS; fd++)
			atomic_store(&table[fd].line, 0);
		atomic_store_explicit(&listing, d, memory_order_release);
	}
	lock_release(&renewing);
}

/* The line of a number; 0: there is no room. */
static HOT uint32_t line_of(int fd, struct device *d)
{
	struct entry *e = &table[fd];
	uint32_t line;

	if (atomic_load_explicit(&listing, memory_order_acquire) != d)
		renew(d);
	line = atomic_load_explicit(&e->line, memory_order_relaxed);
	if (line == 0) {
		line = slot_take(d->procs);
		atomic_store_explicit(&e->line, line, memory_order_relaxed);
	}
	return line;
}

/* ---- the same once more ---- */

void plain_again_to(const union address *peer, struct device *d, int64_t now)
{
	uint64_t until = ticks_until(now), to;

	plain_not_again();
	if (until == 0 || peer->any.sa_family != AF_INET || debugging || atomic_load(&fast_open_asked))
		return;
	memcpy(&to, &peer->four, sizeof(to));
	plain_again.lines = d->procs->map;
	plain_again.counter = fallback_counter(d->procs, true, SMC_DECL_PEERNOSMC);
	atomic_store(&plain_again.to, to);
	atomic_store_explicit(&plain_again.until, until, memory_order_release);
}

/* ---- lines ---- */

HOT bool plain_list(int fd, struct device *d, bool client, uint32_t reason, const union address *peer)
{
	unsigned char b[SLOT_SIZE] = { [LINE_IS] = 1, [5] = client ? 1 : 2, [6] = 1, [7] = SMC_ACTIVE };
	uint32_t line, number = (uint32_t)fd + 1;
	bool six = !address_is_four(peer);

	if ((unsigned int)fd >= NUMBERS || !address_known(peer) || !procs_finds(d->procs) || atomic_load_explicit(&d->dead, memory_order_relaxed))
		return false;
	line = line_of(fd, d);
	if (line == 0)
		return false;
	b[LINE_FAMILY] = six ? 6 : 4;
	address_put(b, LINE_HOST, LINE_PORT, peer, six);
	memcpy(b + 68, &reason, 4);
	memcpy(b + 76, &number, 4);
	if (!slot_says(d->procs, line, b))
		slot_write(d->procs, line, b);
	table_note(fd, NOTE_TCP);
	tell_fallback(d, client, fd, reason, 0);
	return true;
}

static union address peer_of(const unsigned char *b)
{
	union address a = { 0 };
	uint16_t port;

	memcpy(&port, b + 12, 2);
	if (b[8] == 4) {
		a.four = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
		memcpy(&a.four.sin_addr, b + 32, 4);
	} else {
		a.six = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
		memcpy(&a.six.sin6_addr, b + 32, 16);
	}
	return a;
}

static void keep(int fd, struct device *d)
{
	unsigned char b[SLOT_SIZE];
	struct sock *s;

	slot_read(d->procs, table[fd].line, b);
	s = sock_new(SOCK_PLAIN, b[5] == 1);
	if (s == NULL)
		return;
	s->shared->peer = peer_of(b);
	memcpy(&s->shared->reason, b + 68, 4);
	table_set(fd, s, true);
	sock_describe(s, fd);
	sock_put(s);
}

void plain_keep(int fd)
{
	struct device *d = atomic_load(&listing);
	bool tcp = table_noted(fd, NOTE_TCP);
	int saved = errno;

	if (table_noted(fd, NOTE_NONE))
		return;
	table_note(fd, NOTE_NONE);
	if (tcp && d != NULL && table[fd].line != 0 && d == device_current())
		keep(fd, d);
	errno = saved;
}

void plain_keep_all(void)
{
	for (int fd = 0, end = table_end(); fd < end; fd++)
		plain_keep(fd);
}

void plain_forget(int fd)
{
	struct device *d = atomic_load_explicit(&listing, memory_order_relaxed);
	uint32_t line = atomic_load_explicit(&table[fd].line, memory_order_relaxed);

	if (!table_noted(fd, NOTE_NONE))
		table_note(fd, NOTE_NONE);
	if (line == 0)
		return;
	atomic_store_explicit(&table[fd].line, 0, memory_order_relaxed);
	if (d != NULL)
		slot_free(d->procs, line);
}
