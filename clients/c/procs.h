/* SPDX-License-Identifier: Apache-2.0 */
/* What procs.c and slots.c share. */
#ifndef ISMFS_PROCS_H
#define ISMFS_PROCS_H

#include "internal.h"

struct ismfs_procs {
	unsigned char *map;
	size_t size;
	_Atomic size_t populated; /* bytes from the start */
	_Atomic size_t hint; /* where a free slot may be */
	int fd;
	bool found; /* with its size, from an opener before: in this program, or in the one that has executed it */
};

#endif
