/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_ACCEPT_H
#define PRELOAD_ACCEPT_H

/*
 * Takes on the listeners that socket activation has passed (sd_listen_fds(3)), as the program begins: it may forget the environment, or
 * accept in a child.
 */
void listeners_passed(void);

#endif
