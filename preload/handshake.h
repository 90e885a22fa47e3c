/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake (libsmc's connect.go and accept.go), a step at a time: whoever has to wait for it waits for TCP and calls again. */
#ifndef PRELOAD_HANDSHAKE_H
#define PRELOAD_HANDSHAKE_H

#include <stdbool.h>
#include <stdint.h>

struct sock;

/* Carry it on as far as it goes without waiting. Returns whether it is settled. */
bool handshake_drive(struct sock *s, int fd);

/*
 * What poll says of a connection that is not settled. A client whose server takes its time is connected all the same: it can be written to
 * until somebody has asked.
 */
short handshake_ready(const struct sock *s);

/* What to wait for on TCP: POLLIN or POLLOUT. */
short handshake_awaits(const struct sock *s);

/* TCP stands on a client's socket that was marked. */
void handshake_connected(struct sock *s, int fd);

/* Whether this process has been a client. */
bool handshake_has_proposed(void);

/*
 * Settle on TCP what may be handed to somebody who knows nothing of SMC: a server's connection that has not been answered. Waits for the
 * client's Proposal, which is declined. Returns whether it is on TCP now.
 */
bool handshake_refuse(struct sock *s, int fd);

/* Settle on TCP, and count why. */
void settle_plain(struct sock *s, int fd, uint32_t reason, uint32_t diagnosis);

/* Wait until it is settled: 0, -EAGAIN at the deadline, -EINTR. */
int handshake_wait(struct sock *s, int fd, int64_t deadline);

#endif
