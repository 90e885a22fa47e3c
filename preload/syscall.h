/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_SYSCALL_H
#define PRELOAD_SYSCALL_H

/* The kernel itself, as syscall(2) without this library in front of it: allocators use that before anything can be looked up. */
long kernel_call(long number, const long a[6]);

#endif
