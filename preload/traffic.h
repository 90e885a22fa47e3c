/* SPDX-License-Identifier: Apache-2.0 */
/* What the connections of late have carried, in this process and its kin. */
#ifndef PRELOAD_TRAFFIC_H
#define PRELOAD_TRAFFIC_H

#include <stdbool.h>
#include <stdint.h>

/* A connection has ended that has received so many bytes. */
void traffic_ended(uint64_t received);

/* Connections come and go, each with little: a large ring would cost more than it carries. */
bool traffic_is_light(void);

#endif
