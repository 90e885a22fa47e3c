/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program runs through whose connections are short and on TCP lies together in the library, in few pages: between two of its calls the
 * kernel has had the caches, and each page costs more than what is done in it.
 */
#ifndef ISMFS_HOT_H
#define ISMFS_HOT_H

#define HOT __attribute__((hot))
#define APART __attribute__((noinline))
#define OWN_PAGE __attribute__((aligned(4096))) /* the first of those that client connections run through */

/* Variables that it looks at, in the page of the table's first entries (table.h). */
#define HOT_DATA __attribute__((section(".data")))

#endif
