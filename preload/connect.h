/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_CONNECT_H
#define PRELOAD_CONNECT_H

#include <stdatomic.h>
#include <stdbool.h>

/* TCP proper: a mark on an MPTCP socket would land on none of its subflows. */
bool is_tcp(int fd);

/*
 * Takes on the listeners that socket activation has passed (sd_listen_fds(3)), as the program begins: it may forget the environment, or
 * accept in a child.
 */
void listeners_passed(void);

/* A socket of this process may be one of TCP Fast Open (control.c). */
extern atomic_bool fast_open_asked;

#endif
