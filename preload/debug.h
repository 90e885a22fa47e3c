/* SPDX-License-Identifier: Apache-2.0 */
/* What SMC_DEBUG shows on standard error, and the other variables of smc_run. */
#ifndef PRELOAD_DEBUG_H
#define PRELOAD_DEBUG_H

#include <stdbool.h>
#include <stdint.h>

extern bool debugging;
void debug_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define debug(...)                               \
	do {                                     \
		if (__builtin_expect(debugging, 0)) \
			debug_line(__VA_ARGS__); \
	} while (0)

/* Reads the environment, once. */
void environment_setup(void);

/* ISMFS_MOUNT as it was at the start (servers wipe their environment); NULL: not set. */
const char *environment_mount(void);
/* ISMFS_MOUNT=off: everything is the kernel's. */
bool environment_off(void);

/*
 * The size of a connection's own DMB for a program that asked for so many bytes, 0 if it did not; as the wire compresses it. ANY_BUFFER:
 * nobody says.
 */
enum { ANY_BUFFER = 0xFF };
uint8_t environment_buffer(int asked);

#endif
