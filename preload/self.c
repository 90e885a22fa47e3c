/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE

#include "handshake.h"
#include "self.h"
#include "sock.h"
#include "table.h"

static _Atomic int clients;

void self_waits(struct sock *s)
{
	if (!atomic_exchange(&s->waits_for_server, true))
		atomic_fetch_add(&clients, 1);
}

void self_waits_no_more(struct sock *s)
{
	if (atomic_exchange(&s->waits_for_server, false))
		atomic_fetch_sub(&clients, 1);
}

void self_forked(void)
{
	atomic_store(&clients, 0);
}

bool self_has_clients(void)
{
	return atomic_load_explicit(&clients, memory_order_relaxed) > 0;
}

void self_drive(void)
{
	for (int fd = 0, end = table_end(); fd < end; fd++) {
		struct sock *s = table_moves(fd) ? table_get(fd, false) : NULL;

		if (s == NULL)
			continue;
		if (s->shared->client && sock_kind(s) == SOCK_HANDSHAKE)
			(void)handshake_drive(s, fd);
		sock_put(s);
	}
}
