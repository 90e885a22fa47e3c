/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake (libsmc's connect.go and accept.go), a step at a time: whoever has to wait for it waits for TCP and calls again. */
#ifndef PRELOAD_HANDSHAKE_H
#define PRELOAD_HANDSHAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "../clients/c/stream.h"

struct sock;

/* Carry it on as far as it goes without waiting. Returns whether it is settled. */
bool handshake_drive(struct sock *s, int fd);

/*
 * What poll says of a connection that is not settled. A client whose server takes its time is connected all the same: it can be written to
 * until somebody has asked.
 */
short handshake_ready(struct sock *s, int fd, short events);

/* What to wait for on TCP, for who wants these events: POLLIN, POLLOUT. */
short handshake_awaits(const struct sock *s, short events);

/* Whether it has to be looked at by the clock. */
bool handshake_hurries(const struct sock *s);

/* TCP stands on a client's socket that was marked. */
void handshake_connected(struct sock *s, int fd);

/*
 * Settle on TCP what may be handed to somebody who knows nothing of SMC: a server's connection that has not been answered. Waits for the
 * client's Proposal, which is declined. Returns whether it is on TCP now.
 */
bool handshake_refuse(struct sock *s, int fd);

/* Before the last descriptor goes: a Confirm that is there counts. */
void handshake_last(struct sock *s, int fd);

/* Carry it on; whether a side can move bytes. */
bool handshake_lets(struct sock *s, int fd, enum side side);

/* Wait until a side can: 0, -EAGAIN at the deadline, -EINTR. */
int handshake_wait(struct sock *s, int fd, enum side side, int64_t deadline);

#endif
