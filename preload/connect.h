/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_CONNECT_H
#define PRELOAD_CONNECT_H

#include <stdbool.h>

/* TCP proper: a mark on an MPTCP socket would land on none of its subflows. */
bool is_tcp(int fd);

#endif
