/* SPDX-License-Identifier: Apache-2.0 */
/* CLC messages on a connection's TCP, one at a time, without waiting: what follows one may be the program's. */
#ifndef PRELOAD_MESSAGE_H
#define PRELOAD_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "../clients/c/clc.h"

/* Takes exactly one, if all of it is there: its length; 0: not yet; -ENODATA: the end instead of one; or another negative errno. */
int message_next(int fd, unsigned char b[CLC_MAX], struct clc_header *h);

/* Takes a Decline if the very next bytes are one: 1; 0: they are something else; -EAGAIN: nothing; -ENODATA: the end; or another one. */
int message_take_decline(int fd, uint32_t *code);

/* Whether the peer has ended TCP; bytes can be there before the end. */
bool message_ended(int fd);

/* How many bytes are there. poll's POLLIN does not say: for a moment that is all it tells of a FIN that is just coming. */
int message_unread(int fd);

bool message_send(int fd, const unsigned char *b, size_t n);
bool message_send_decline(int fd, uint32_t code);

#endif
