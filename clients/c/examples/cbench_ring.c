/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine can do at best: a ring of the same size and two cursors in shared memory, copied in and out, with both sides looking
 * without a pause. No protocol, no checks, no sleep: a ring that could be used cannot be faster. Only with a CPU for each side.
 * Copied in as a connection does it, by ring_fill, or by pwrite as in copy mode.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cbench.h"
#include "internal.h"

enum { MESSAGE = 64000, RING = 1 << 20 };

/* Each cursor on a page of its own, as in two DMBs. */
struct ring {
	_Alignas(4096) _Atomic size_t produced;
	_Alignas(4096) _Atomic size_t consumed;
	_Alignas(4096) char data[RING];
};

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void receive_from(struct ring *ring, size_t bytes)
{
	static char data[MESSAGE];
	size_t done = 0;

	while (done < bytes) {
		size_t there = atomic_load_explicit(&ring->produced, memory_order_acquire) - done;
		size_t n = least(least(there, MESSAGE), RING - done % RING);

		memcpy(data, ring->data + done % RING, n);
		done += n;
		if (n > 0)
			atomic_store_explicit(&ring->consumed, done, memory_order_release);
	}
}

static void put(struct ring *ring, int fd, size_t at, const char *data, size_t n)
{
	if (fd < 0)
		ring_fill((unsigned char *)ring->data + at, (const unsigned char *)data, n);
	else
		must(pwrite(fd, data, n, (off_t)(offsetof(struct ring, data) + at)) == (ssize_t)n, "pwrite");
}

static void send_to(struct ring *ring, int fd, size_t bytes)
{
	static char data[MESSAGE];
	size_t done = 0;

	memset(data, 'x', sizeof(data));
	while (done < bytes) {
		size_t space = RING - (done - atomic_load_explicit(&ring->consumed, memory_order_acquire));
		size_t n = least(least(bytes - done, MESSAGE), least(space, RING - done % RING));

		if (n > 0)
			put(ring, fd, done % RING, data, n);
		done += n;
		if (n > 0)
			atomic_store_explicit(&ring->produced, done, memory_order_release);
	}
	while (atomic_load(&ring->consumed) < bytes)
		;
}

/* place pins the calling process, number 0 or 1. */
double bench_bare_ring(size_t bytes, bool by_pwrite, void (*place)(int process))
{
	int fd = memfd_create("ring", MFD_CLOEXEC);
	struct ring *ring;
	double started, rate;
	pid_t child;

	must(fd >= 0 && ftruncate(fd, sizeof(*ring)) == 0, "memfd");
	ring = mmap(NULL, sizeof(*ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	must(ring != MAP_FAILED, "memory");
	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		place(1);
		receive_from(ring, bytes);
		_exit(0);
	}
	place(0);
	started = seconds();
	send_to(ring, by_pwrite ? fd : -1, bytes);
	rate = (double)bytes / (seconds() - started) / 1e6;
	waitpid(child, NULL, 0);
	munmap(ring, sizeof(*ring));
	close(fd);
	return rate;
}
