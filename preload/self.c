/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE

#include "address.h"
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

bool self_serves(int client)
{
	union address server = { 0 };
	socklen_t size = sizeof(server);
	bool found = false;

	if (getpeername(client, &server.any, &size) != 0)
		return false;
	for (int fd = 0, end = table_end(); fd < end && !found; fd++) {
		struct sock *s = table_moves(fd) ? table_get(fd, false) : NULL;
		union address own = { 0 };

		if (s == NULL)
			continue;
		size = sizeof(own);
		found = sock_kind(s) == SOCK_LISTENER && getsockname(fd, &own.any, &size) == 0 &&
			own.four.sin_port == server.four.sin_port; /* which is where an IPv6 address has it, too */
		sock_put(s);
	}
	return found;
}
