/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll sets with connections in them. The kernel's set keeps the program's other descriptors with the program's data, and of a connection
 * in SMC-D mode what the library listens to: TCP, for its end, and the bell of the DMB or of the link group's page; their data is marked.
 *
 * A connection in a set is an item. It is a candidate when it has to be looked at: when it is new, when the peer has signalled, and, if it
 * is level-triggered, as long as it was ready when it was looked at last. What was looked at and not ready is announced to the peer and
 * costs nothing until that signals.
 */
#ifndef PRELOAD_EPOLL_H
#define PRELOAD_EPOLL_H

#include <stdbool.h>

struct sock;

/* The peer, or another thread, says that the connection may have something: its items become candidates. */
void epoll_news(struct sock *s);

/* In a signal's handler: whether its thread is in the middle of what epoll_news takes. */
bool epoll_is_mine(struct sock *s);

/* The handshake is settled. */
void epoll_settled(struct sock *s);

/* A descriptor goes. */
void epoll_forget(struct sock *s, int fd);

/* A descriptor that may be in a set already has become a connection. */
void epoll_adopt(struct sock *s, int fd);

/* A set's own descriptor comes (if it is one, and none of an error; it is returned), is copied (if it is one of a set), goes. */
int epoll_made(int fd);
void epoll_copied(int from, int to);
void epoll_closed(int fd);

/* A descriptor is polled, or put into a set. If it is a set with connections, it has to be readable as the kernel's are. */
void epoll_nested(int fd);

/* Whether anything is kept of a descriptor: it is a set, or in one. */
bool epoll_knows(int fd);

/*
 * Around a fork, so that the child finds the sets whole: other threads are in the middle of none, nor of what is under a socket's listing,
 * which is taken before.
 */
void epoll_before_fork(void);
void epoll_in_parent(void);
void epoll_forked(void);
/* In the child, after the pages of groups and sockets have been renewed. */
void epoll_count_pages(void);
/* In a child of fork: how many references a socket's registrations have. */
unsigned int items_forked(struct sock *s);

#endif
