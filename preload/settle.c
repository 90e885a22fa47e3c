/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "debug.h"
#include "declined.h"
#include "device.h"
#include "settle.h"

HOT void tell_fallback(struct device *d, bool client, int fd, uint32_t reason, uint32_t diagnosis)
{
	if (d != NULL)
		count_fallback(d->procs, client, reason);
	debug("%s fd %d: TCP: %s%s%s", client ? "client" : "server", fd, smc_decline_name(reason), diagnosis ? ", the peer says " : "",
	      diagnosis ? smc_decline_name(diagnosis) : "");
}

void note_fallback(struct sock *s, int fd, uint32_t reason, uint32_t diagnosis)
{
	s->shared->reason = reason;
	s->shared->diagnosis = diagnosis;
	tell_fallback(s->device, s->shared->client, fd, reason, diagnosis);
}

void become_plain(struct sock *s, int fd)
{
	atomic_store_explicit(&s->shared->kind, SOCK_PLAIN, memory_order_release);
	declined_shut(s, fd);
	sock_settled(s, fd);
}

void settle_plain(struct sock *s, int fd, uint32_t reason, uint32_t diagnosis)
{
	note_fallback(s, fd, reason, diagnosis);
	become_plain(s, fd);
}

void settle_failed(struct sock *s, int fd, int error)
{
	struct shared *sh = s->shared;

	atomic_store(&sh->error, error);
	atomic_store_explicit(&sh->kind, SOCK_FAILED, memory_order_release);
	if (s->device != NULL)
		count_handshake_error(s->device->procs, sh->client);
	if (!s->ended)
		tcp_reset(fd);
	debug("%s fd %d: the handshake failed: %s", sh->client ? "client" : "server", fd, strerror(error));
	sock_settled(s, fd);
}

void settle_smc(struct sock *s, int fd)
{
	lock_take(&ends_lock);
	if (!s->ended && link_open(&s->link, s->device, s) == 0)
		holders_claim(s);
	lock_release(&ends_lock);
	if (sock_kind(s) != SOCK_SMC) {
		link_abandon(&s->link, false);
		settle_failed(s, fd, ECONNABORTED);
		return;
	}
	declined_shut(s, fd);
	debug("%s fd %d: SMC-D, token %016llx, peer token %016llx", s->shared->client ? "client" : "server", fd,
	      (unsigned long long)link_token(&s->link), (unsigned long long)link_peer_token(&s->link));
	sock_settled(s, fd);
}
