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

/*
 * A socket of this process may have an option under which it stays on TCP (control.c): Fast Open, whose SYN would wait for the first bytes, so
 * that what the server says would come too late; a place to peek at, which the messages of a handshake would be peeked at by, too.
 */
extern atomic_bool tcp_only_asked;

#endif
