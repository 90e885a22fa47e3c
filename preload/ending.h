/* SPDX-License-Identifier: Apache-2.0 */
/* What link.c and ending.c share. Everything here is under link_lock. */
#ifndef PRELOAD_ENDING_H
#define PRELOAD_ENDING_H

#include "link.h"

/* Gives back the DMBs of connections whose end has come. */
void endings_sweep(int64_t now);

/* Gives back what a link holds. Whether each of its two DMBs is kept for the next connection. */
void link_finish(struct link *l, bool own, bool peers);

#endif
