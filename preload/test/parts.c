/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the library by themselves, at moments that no program can choose: this one has the library's objects in it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../clients/c/procs.h"
#include "../../clients/c/smc.h"
#include "../epoll_set.h"
#include "../message.h"
#include "../plain.h"
#include "../real.h"
#include "../servers.h"
#include "../sock.h"
#include "check.h"

static const uint64_t long_time = UINT64_C(1) << 40;

void check_failed(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
	exit(1);
}

void run(const char *name, void (*test)(void))
{
	fprintf(stderr, "%s\n", name);
	test();
}

static void wait_ticks(uint64_t from, uint64_t n)
{
	while (ticks() - from < n)
		;
}

/* ---- devices, which find sockets by their descriptors ---- */

enum { BLOCK = 8192, HEAD_DOES = 32 };

static struct device *device_new(void)
{
	struct device *d = calloc(1, sizeof(*d));
	struct ismfs_procs *procs = calloc(1, sizeof(*procs));

	check(d != NULL && procs != NULL);
	procs->size = procs->populated = BLOCK;
	procs->map = aligned_alloc(4096, BLOCK);
	check(procs->map != NULL);
	memset(procs->map, 0, BLOCK);
	procs->map[HEAD_DOES] = 1;
	d->procs = procs;
	return d;
}

static const union address peer = { .four = { .sin_family = AF_INET, .sin_port = 0x1234, .sin_addr.s_addr = 0x0100007f } };

static bool list(int fd, struct device *d)
{
	return plain_list(fd, d, true, SMC_DECL_PEERNOSMC, &peer);
}

/* ---- the processor's clock ---- */

static void spans_end(void)
{
	struct shared_span s = { 0 };

	check(!span_holds(&s));
	span_put(&s, (struct span){ ticks(), long_time });
	check(span_holds(&s));
	span_put(&s, (struct span){ ticks() - 1000, 1000 });
	check(!span_holds(&s));
}

/* A machine that is moved, or has slept, can have an earlier time than before. */
static void spans_begin(void)
{
	struct shared_span s = { 0 };

	span_put(&s, (struct span){ ticks() + long_time, long_time });
	check(!span_holds(&s));
}

/* No span where the clock has gone on by more than any does, or back, which is the same. The kernel's is made up. */
static void *see_jumps(void *nothing)
{
	int64_t now = 1000000000;
	struct span s = ticks_span(ticks(), now);

	check(s.ticks == 0); /* of this thread's first time it cannot be told */
	wait_ticks(s.from, 65000000);
	s = ticks_span(ticks(), now += 2000000);
	check(s.ticks == 0);
	wait_ticks(s.from, 1000000);
	check(ticks_span(ticks(), now + 1000000000).ticks != 0);
	return nothing;
}

static void in_new_thread(void *(*f)(void *nothing))
{
	pthread_t thread;

	check(pthread_create(&thread, NULL, f, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

static void spans_of_clocks_that_jump(void)
{
	in_new_thread(see_jumps);
}

/* A thread that has to wait where it asks the clocks has no longer spans by that. */
static void *see_waits(void *nothing)
{
	enum { SHORT = 100000, LONG = 20000000 };
	int64_t now = 1000000000;
	uint64_t first = ticks(), before;
	struct span s;

	wait_ticks(first, LONG);
	(void)ticks_span(first, now);
	before = ticks();
	wait_ticks(before, SHORT);
	before = ticks();
	wait_ticks(before, LONG);
	s = ticks_span(before, now + 2000000);
	check(s.from == before && s.ticks <= before - first - LONG);
	return nothing;
}

static void spans_of_threads_that_wait(void)
{
	in_new_thread(see_waits);
}

/* ---- the same once more ---- */

static struct plain_before known(void)
{
	struct plain_before before = plain_before();

	for (int n = 0; before.span.ticks == 0 && n < 1000; n++) {
		usleep(3000);
		before = plain_before();
	}
	check(before.span.ticks != 0);
	return before;
}

static bool may_again(int fd)
{
	check(table_note(fd, NOTE_FRESH));
	return plain_may_again(fd, &peer.any, sizeof(peer.four));
}

static void again(void)
{
	struct device *d = device_new();
	struct plain_before before;

	check(list(70, d));
	check(!may_again(70));
	before = known();
	before.span.ticks = long_time;
	plain_again_to(&peer, d, &before);
	check(may_again(70) && !may_again(71));
	plain_not_again();
	check(!may_again(70));
	before.turns = plain_before().turns;
	plain_again_to(&peer, d, &before);
	check(may_again(70));
	servers_took_up(&peer);
	check(!may_again(70));
}

/* While the connection came about. */
static void not_again_since(void)
{
	struct device *d = device_new();
	struct plain_before before;

	check(list(70, d));
	before = known();
	before.span.ticks = long_time;
	plain_not_again();
	plain_again_to(&peer, d, &before);
	check(!may_again(70));
}

/* What a connect that takes long has found out before is not younger by that. */
static void not_again_later(void)
{
	struct device *d = device_new();
	struct plain_before before;

	check(list(70, d));
	before = known();
	wait_ticks(before.span.from, before.span.ticks);
	plain_again_to(&peer, d, &before);
	check(!may_again(70));
}

/* ---- lines ---- */

static void (*meanwhile)(void);

/* Other threads, when one has taken a slot. */
uint32_t __real_slot_take(struct ismfs_procs *procs);
uint32_t __wrap_slot_take(struct ismfs_procs *procs)
{
	uint32_t slot = __real_slot_take(procs);
	void (*f)(void) = meanwhile;

	meanwhile = NULL;
	if (f != NULL)
		f();
	return slot;
}

static struct device *next_device;

static void list_on_next(void)
{
	check(list(72, next_device));
}

/* What was taken on the one before is no line of the next one. */
static void another_device_meanwhile(void)
{
	struct device *d = device_new();
	uint32_t number;

	next_device = device_new();
	check(list(70, d));
	meanwhile = list_on_next;
	check(!list(71, d) && table[70].line == 0 && table[71].line == 0);
	check(list(71, next_device) && table[71].line != table[72].line);
	memcpy(&number, next_device->procs->map + table[71].line + 76, 4);
	check(number == 71 + 1);
}

/* ---- closes that were not seen ---- */

/* The number that the next descriptor gets. */
static int next_number(void)
{
	int fd = dup(2);

	check(fd >= 0 && close(fd) == 0);
	return fd;
}

static int socket_at_sock(int type)
{
	int fd = next_number();
	struct sock *s = sock_new(SOCK_PLAIN, true);

	check(s != NULL);
	table_set(fd, s, true);
	sock_put(s);
	check(socket(AF_INET, type, 0) == fd && s->ended && atomic_load(&s->refs) == 0);
	return fd;
}

static int socket_at_note(int type, enum note note)
{
	int fd = next_number();

	check(table_note(fd, note) && socket(AF_INET, type, 0) == fd);
	return fd;
}

static void sockets_at_stale_numbers(void)
{
	int fd = socket_at_sock(SOCK_STREAM);

	check(table_noted(fd, NOTE_FRESH) && close(fd) == 0);
	fd = socket_at_sock(SOCK_DGRAM);
	check(table_noted(fd, NOTE_NONE) && close(fd) == 0);
	fd = socket_at_note(SOCK_DGRAM, NOTE_FRESH);
	check(table_noted(fd, NOTE_NONE) && close(fd) == 0);
	fd = socket_at_note(SOCK_STREAM, NOTE_TCP);
	check(table_noted(fd, NOTE_FRESH) && close(fd) == 0);
}

static void copies_at_stale_numbers(void)
{
	int fd = next_number();

	check(table_note(fd, NOTE_TCP) && dup(2) == fd && table_noted(fd, NOTE_NONE));
	check(table_note(fd, NOTE_TCP) && close(fd) == 0 && table_note(fd, NOTE_TCP));
	check(fcntl(2, F_DUPFD, 0) == fd && table_noted(fd, NOTE_NONE) && close(fd) == 0);
}

static void listen_at_stale_number(void)
{
	int fd = socket_at_note(SOCK_STREAM, NOTE_NONE);

	check(table_note(fd, NOTE_TCP) && listen(fd, 1) == 0 && !table_noted(fd, NOTE_TCP) && close(fd) == 0);
}

/* ---- other programs have it, too ---- */

static void run_true(void)
{
	int status;
	pid_t child = vfork();

	check(child >= 0);
	if (child == 0) {
		execlp("true", "true", NULL);
		_exit(1);
	}
	check(waitpid(child, &status, 0) == child && status == 0);
}

static void not_fresh_elsewhere(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), pair[2];

	check(fd >= 0 && table_noted(fd, NOTE_FRESH) && system(":") == 0 && table_noted(fd, NOTE_MADE));
	check(table_note(fd, NOTE_FRESH));
	run_true();
	check(table_noted(fd, NOTE_MADE) || table_noted(fd, NOTE_SHARED)); /* ThreadSanitizer makes a fork of vfork */
	check(table_note(fd, NOTE_FRESH));
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	check(pass(pair[0], fd) == 1 && table_noted(fd, NOTE_SHARED) && close(fd) == 0 && close(pair[0]) == 0 && close(pair[1]) == 0);
}

/* ---- sockets at several numbers ---- */

static void copies_of_what_is_no_connection_yet(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), other = socket(AF_INET, SOCK_STREAM, 0);
	int copies[] = { dup(fd), fcntl(fd, F_DUPFD, 100), dup2(fd, 90), dup3(fd, 91, O_CLOEXEC), dup(90) }, n = sizeof(copies) / sizeof(copies[0]);
	int others = dup(other);
	struct sock *s = sock_new(SOCK_PLAIN, true);

	check(fd >= 0 && s != NULL && table_noted(fd, NOTE_COPIED) && table_noted(others, NOTE_COPIED));
	sock_place(s, copies[0], true);
	check(atomic_load(&s->fds) == (uint32_t)n + 1 && table_sock(fd) == s && table_noted(other, NOTE_COPIED) && table_noted(others, NOTE_COPIED));
	check(close(fd) == 0);
	for (int i = 0; i < n; i++)
		check(table_sock(copies[i]) == s && !s->ended && close(copies[i]) == 0);
	check(s->ended && close(other) == 0 && close(others) == 0);
	sock_put(s);
}

static void forks_of_what_is_no_connection_yet(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), copy = dup(fd), alone, status;
	pid_t child = fork();

	check(fd >= 0 && copy >= 0 && child >= 0 && table_noted(fd, NOTE_SHARED) && table_noted(copy, NOTE_SHARED));
	alone = dup(copy);
	check(table_noted(alone, NOTE_SHARED));
	if (child == 0)
		_exit(0);
	check(waitpid(child, &status, 0) == child && status == 0 && close(fd) == 0 && close(copy) == 0 && close(alone) == 0);
}

/* ---- epoll sets ---- */

static void sets_of_what_was_closed_unseen(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	int set = epoll_create1(0), other = epoll_create1(0), fd = socket(AF_INET, SOCK_STREAM, 0), again, size = 40000;

	check(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) == 0);
	check(real()->close(fd) == 0);
	again = socket(AF_INET, SOCK_STREAM, 0);
	check(again == fd && buffer_asked(fd) == 0 && epoll_ctl(other, EPOLL_CTL_ADD, fd, &event) == 0 && table_noted(fd, NOTE_FRESH));
	check(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0 && table_noted(fd, NOTE_SHARED));
	check(close(fd) == 0 && close(set) == 0 && close(other) == 0);
}

static void sets_of_what_was_made_unseen(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	int set = epoll_create1(0), other = epoll_create1(0), fd = real()->socket(AF_INET, SOCK_STREAM, 0);

	check(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0 && table_noted(fd, NOTE_NONE));
	check(epoll_ctl(other, EPOLL_CTL_ADD, fd, &event) == 0 && table_noted(fd, NOTE_SHARED));
	check(close(fd) == 0 && table_noted(fd, NOTE_NONE) && close(set) == 0 && close(other) == 0);
}

/* ---- a device that goes ---- */

static bool promised;

/* What the SYN-ACK has said. */
int __real_smcopt_ask(int fd);
int __wrap_smcopt_ask(int fd)
{
	return promised ? SMCOPT_SMC : __real_smcopt_ask(fd);
}

/* A connection that the library knows nothing of. */
static struct pair connect_past_the_library(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(a);
	int listener = real()->socket(AF_INET, SOCK_STREAM, 0);
	struct pair p = { .client = real()->socket(AF_INET, SOCK_STREAM, 0) };

	check(listener >= 0 && p.client >= 0 && bind(listener, (struct sockaddr *)&a, size) == 0 && real()->listen(listener, 1) == 0);
	check(getsockname(listener, (struct sockaddr *)&a, &size) == 0 && real()->connect(p.client, (struct sockaddr *)&a, size) == 0);
	p.server = real()->accept4(listener, NULL, NULL, 0);
	check(p.server >= 0 && real()->close(listener) == 0);
	return p;
}

/* Between the mark, by which the server is promised SMC, and the first look at a connect that does not wait. The server hears why. */
static void no_device_since_connect_began(void)
{
	struct pair p = connect_past_the_library();
	struct pollfd out = { .fd = p.client, .events = POLLOUT };
	struct sock *s = sock_new(SOCK_CONNECTING, true);
	uint32_t code = 0;

	check(s != NULL);
	s->device = NULL;
	table_set(p.client, s, false);
	promised = true;
	check(poll(&out, 1, -1) == 1 && out.revents == POLLOUT);
	promised = false;
	check(sock_kind(s) == SOCK_PLAIN && s->shared->reason == SMC_DECL_NOSMCDEV);
	check(message_take_decline(p.server, &code) == 1 && code == SMC_DECL_NOSMCDEV);
	check(write(p.client, "x", 1) == 1 && message_unread(p.server) == 1);
	sock_put(s);
	check(close(p.client) == 0 && close(p.server) == 0);
}

/* ---- pages ---- */

/* Of numbers that the program has never had. Each page of the table is one to be found, in each child of fork. */
static void lines_of_few(void)
{
	enum { PAGE = 4096, PAGES = 4 };
	uintptr_t from = ((uintptr_t)&table[2048] + PAGE - 1) / PAGE * PAGE;
	unsigned char found[PAGES] = { 0 };

	(void)madvise((void *)from, PAGES * PAGE, MADV_NOHUGEPAGE); /* EINVAL: the kernel has none */
	check(madvise((void *)from, PAGES * PAGE, MADV_DONTNEED) == 0);
	check(list(70, device_new()));
	check(mincore((void *)from, PAGES * PAGE, found) == 0);
	for (int i = 0; i < PAGES; i++)
		check(!(found[i] & 1));
}

int main(void)
{
	RUN(lines_of_few);
	RUN(another_device_meanwhile);
	RUN(sockets_at_stale_numbers);
	RUN(copies_at_stale_numbers);
	RUN(listen_at_stale_number);
	RUN(not_fresh_elsewhere);
	RUN(copies_of_what_is_no_connection_yet);
	RUN(forks_of_what_is_no_connection_yet);
	RUN(sets_of_what_was_closed_unseen);
	RUN(sets_of_what_was_made_unseen);
	RUN(no_device_since_connect_began);
	if (ticks() == 0) /* no such clock: nothing is the same once more */
		return 0;
	RUN(spans_end);
	RUN(spans_begin);
	RUN(again);
	RUN(not_again_since);
	RUN(not_again_later);
	RUN(spans_of_clocks_that_jump);
	RUN(spans_of_threads_that_wait);
	return 0;
}
