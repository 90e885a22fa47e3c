/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that a program and its forked children share, for what they must agree on. */
#ifndef PRELOAD_ARENA_H
#define PRELOAD_ARENA_H

struct shared;

/* Zeroed. NULL: no memory. */
struct shared *arena_take(void);

/* By whichever process is the last to have it. */
void arena_free(struct shared *s);

/* A child takes new ones from memory of its own. */
void arena_forked(void);

#endif
