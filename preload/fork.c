/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes. A child of fork has its parent's connections: each counts who has it, and only the last one closes. A child of vfork has its
 * parent's memory and must not touch what is there.
 */
#define _GNU_SOURCE
#include <unistd.h>

#include "arena.h"
#include "accept.h"
#include "debug.h"
#include "device.h"
#include "epoll.h"
#include "group.h"
#include "handshake.h"
#include "inherit.h"
#include "io.h"
#include "link.h"
#include "plain.h"
#include "poll_set.h"
#include "real.h"
#include "self.h"
#include "sock.h"
#include "table.h"
#include "spin.h"

HOT_DATA static pid_t process;

HOT bool process_is_ours(void)
{
	return getpid() == process;
}

bool process_is_borrowed(void)
{
	return process != 0 && !process_is_ours();
}

/* Once for each socket, however many descriptors it has. */
static void each_socket(void (*f)(struct sock *s, int fd))
{
	for (int fd = 0, end = table_end(); fd < end; fd++) {
		struct sock *s = table_has(fd) ? table_get(fd, true) : NULL;

		if (s == NULL)
			continue;
		f(s, fd);
		sock_put(s);
	}
}

static uint32_t forks; /* under ends_lock */
static _Thread_local uint32_t held_before;

/* The child's place among its kin, which needs one only if there are sockets. */
static _Thread_local unsigned int child;
static _Thread_local uint32_t child_turn;
static _Thread_local bool child_expected;

static void expect_child(void)
{
	child = kin_expect();
	if (child == 0) {
		each_socket(holders_bury);
		child = kin_expect();
	}
	child_turn = kin_turn(child);
	child_expected = true;
}

static void hold(struct sock *s, int fd)
{
	(void)fd;
	if (s->forks == forks)
		return;
	s->forks = forks;
	if (!child_expected)
		expect_child();
	holders_expect(s, child);
	lock_take(&s->listing);
}

static void let_go(struct sock *s, int fd)
{
	(void)fd;
	if (s->forks != forks)
		return;
	s->forks = 0;
	lock_release(&s->listing);
}

/* Other threads of the parent's may have held locks and references. */
static void renew(struct sock *s)
{
	s->listing.word = s->watching.word = 0;
	s->waiters[READER] = s->waiters[WRITER] = 0;
	s->held = s->forks == forks;
	s->place = child;
	s->fds = s->refs = 0;
	s->waits_for_server = false;
	link_renew(&s->link);
	if (s->link.group != NULL && s->link.group->page != NULL && page_forked(s->link.group->page, s->link.own_bit, s))
		s->refs++;
	s->refs += items_forked(s);
}

/* Makes anew what each has to count of references: one for each descriptor, and what the page and epoll sets have. */
static void renew_all(void)
{
	int end = table_end();

	for (int fd = 0; fd < end; fd++)
		if (table_has(fd))
			table_sock(fd)->fds = 0;
	for (int fd = 0; fd < end; fd++) {
		struct sock *s = table_has(fd) ? table_sock(fd) : NULL;

		if (s == NULL)
			continue;
		if (s->fds == 0)
			renew(s);
		s->fds++;
		s->refs++;
	}
}

static void await_all(void)
{
	for (int fd = 0, end = table_end(); fd < end; fd++) {
		struct sock *s = table_has(fd) ? table_sock(fd) : NULL;

		if (s != NULL && sock_kind(s) == SOCK_HANDSHAKE && !s->shared->client)
			link_await(&s->link);
	}
}

/* ---- fork ---- */

static void before_fork(void)
{
	plain_keep_all();
	held_before = lock_count;
	lock_take(&ends_lock);
	forks++;
	child = 0;
	child_expected = false;
	each_socket(hold);
	lock_take(&link_lock);
	lock_take(&device_lock);
	lock_take(&free_lock);
	epoll_before_fork();
	lock_take(&hidden_lock);
}

static void in_parent(void)
{
	lock_release(&hidden_lock);
	epoll_in_parent();
	lock_release(&free_lock);
	lock_release(&device_lock);
	lock_release(&link_lock);
	each_socket(let_go);
	lock_release(&ends_lock);
}

static void in_child(void)
{
	lock_forget_thread();
	process = getpid();
	free_lock.word = device_lock.word = link_lock.word = ends_lock.word = hidden_lock.word = 0;
	kin_come(child);
	device_forked();
	epoll_forked();
	await_all();
	link_forked();
	arena_forked();
	plain_forked();
	self_forked();
	renew_all();
	epoll_count_pages();
	poll_set_forked();
	lock_count = held_before + 1; /* signals that came meanwhile */
	lock_count_off();
}

/* What this process has answered, it takes the Confirm of if it is there: then the DMB that the client offers can be kept for the next ones. */
static void take_confirm(struct sock *s, int fd)
{
	if (sock_kind(s) == SOCK_HANDSHAKE && !s->shared->client && s->shared->awaits == CLC_CONFIRM)
		(void)handshake_lets(s, fd, READER);
}

/* One that fails has counted a child all the same. */
EXPORT pid_t fork(void)
{
	pid_t pid;

	each_socket(take_confirm);
	pid = real()->fork();
	if (pid < 0)
		kin_missed(child);
	else if (pid > 0)
		kin_born(child, child_turn, pid);
	return pid;
}

/* ---- exit ---- */

/*
 * From a signal's handler whose thread is in the middle of something, nothing is closed: what it has locked it will not release. The kernel
 * closes, and peers and the device see to the rest, as when a process is killed.
 */
static void close_all(void)
{
	if (process == 0 || !process_is_ours() || lock_count > 0)
		return;
	for (int fd = 0, end = table_end(); fd < end; fd++)
		if (table_has(fd))
			sock_drop(fd);
}

EXPORT void _exit(int status)
{
	close_all();
	real()->_exit(status);
	__builtin_unreachable();
}

EXPORT void _Exit(int status)
{
	_exit(status);
}

/* What the C library flushes later would find no connection. */
__attribute__((destructor)) static void at_exit(void)
{
	streams_flush();
	close_all();
}

__attribute__((constructor)) static void set_up(void)
{
	real_find();
	process = getpid();
	environment_setup();
	inherit_look();
	spin_prepare();
	real_at_fork(before_fork, in_parent, in_child);
	listeners_passed();
}
