/* SPDX-License-Identifier: Apache-2.0 */
/* What the stream's source files share. */
#ifndef ISMFS_STREAM_INTERNAL_H
#define ISMFS_STREAM_INTERNAL_H

#include "stream.h"

/* ---- stream.c ---- */

/* Under reading. Bytes that are there, 0 at the end, or an error; less than wanted only if that is all. */
ssize_t readable(struct stream *s, size_t wanted);
/* Moves the cursor. Returns whether it was published: the peer's writer is to be signalled then, which note_read does, at the end of a call. */
bool advance(struct stream *s, uint32_t n);
void note_read(struct stream *s, size_t n, bool published);

/* Under writing. */
uint32_t free_space(const struct stream *s);
void publish_written(struct stream *s, uint32_t n);
bool is_anothers_turn(struct stream *s);

/* ---- stream_words.c ---- */

uint64_t load_own(const struct stream *s, size_t offset);
void put_type(struct stream *s);
int put_bytes(struct stream *s, const unsigned char *from, size_t n, uint32_t at); /* round the ring's end */
/* These two leave the signal to the caller: whoever is awake sees every piece, whoever sleeps is woken once for all of them. */
void publish_producer_word(struct stream *s); /* under writing */
void publish_cursor(struct stream *s);        /* under reading or writing, or neither */
void set_write_blocked(struct stream *s, bool blocked);                           /* under writing */
void write_consumer_word(struct stream *s);                                       /* under lock */
void signal_side(struct stream *s, enum side side);

/* ---- stream_end.c ---- */

/* Take the peer's consumer word if it has changed. */
void stream_accept(struct stream *s);
void stream_accept_locked(struct stream *s);
void stream_fail(struct stream *s, int error);
/* What is to be told. */
void stream_note_error(struct stream *s, int error);

/* ---- counting: what is counted when is the kernel's (SMC_STAT_… in smc_rx.c and smc_tx.c) ---- */

void count_full_read(struct stream *s, size_t have, size_t room);
void count_write(struct stream *s, size_t size, ssize_t done);

#endif
