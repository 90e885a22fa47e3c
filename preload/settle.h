/* SPDX-License-Identifier: Apache-2.0 */
/* How a handshake ends: on TCP, in SMC-D mode, or without a connection. Under the handshake's lock, if others may carry it on. */
#ifndef PRELOAD_SETTLE_H
#define PRELOAD_SETTLE_H

#include <stdint.h>

struct sock;

/* On TCP, and count why; and its two halves. */
void settle_plain(struct sock *s, int fd, uint32_t reason, uint32_t diagnosis);
/* Counted, and said with SMC_DEBUG. */
void tell_fallback(struct device *d, bool client, int fd, uint32_t reason, uint32_t diagnosis);
void note_fallback(struct sock *s, int fd, uint32_t reason, uint32_t diagnosis);
void become_plain(struct sock *s, int fd);

/* In SMC-D mode, by the link that has come about, if nobody has closed meanwhile. */
void settle_smc(struct sock *s, int fd);

/* TCP is reset. */
void settle_failed(struct sock *s, int fd, int error);

#endif
