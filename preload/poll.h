/* SPDX-License-Identifier: Apache-2.0 */
/* poll as select uses it. */
#ifndef PRELOAD_POLL_H
#define PRELOAD_POLL_H

#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>

/* One descriptor at least is in the table. */
int poll_connections(struct pollfd *fds, nfds_t n, int64_t deadline, const sigset_t *mask);

/* FOREVER for none. */
int64_t poll_deadline(const struct timespec *timeout);

#endif
