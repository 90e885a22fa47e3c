/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_SYN_H
#define PRELOAD_SYN_H

#include <stdbool.h>

/*
 * Whether an accepted connection began with a SYN that announced no SMC, which the kernel keeps for marked listeners: then its client was
 * promised nothing, though the programs cannot tell any more. It can be asked once. False: it did, or it cannot be told.
 */
bool syn_silent(int fd);

#endif
