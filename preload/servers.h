/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers that have just said, time and again, that they speak no SMC. A program that connects for each request is answered the same by the
 * same server every time, and every question costs (docs/smc_run.md, Cost): so it is not put for a moment. Who comes to speak SMC meanwhile
 * is plain TCP to this program for that moment; who is restarted for it refuses a connect, or lets one fail, and that counts at once.
 *
 * Hints: threads may change them at once, and what one of them notes can be lost.
 */
#ifndef PRELOAD_SERVERS_H
#define PRELOAD_SERVERS_H

#include <stdbool.h>

#include "address.h"

/* Whether a server need not be asked now. */
bool servers_plain(const union address *a);

/* One was asked and has said that it is on TCP, or something else; or could not be asked. */
void servers_said_plain(const union address *a);
void servers_said_other(const union address *a);

#endif
