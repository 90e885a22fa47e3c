/* SPDX-License-Identifier: Apache-2.0 */
/* Doorbells: one FIFO per DMB (docs/dmb-format.md 1.4). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "internal.h"

int bell_open(const struct ismfs_device *dev, uint64_t token)
{
	char text[ISMFS_TOKEN_TEXT], path[sizeof("bells/") + ISMFS_TOKEN_TEXT];
	int fd;

	ismfs_token_format(token, text);
	snprintf(path, sizeof(path), "bells/%s", text);
	fd = openat(dev->dir, path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* A full FIFO rings already. */
void bell_ring(int fd)
{
	ssize_t n;

	do {
		n = write(fd, "", 1);
	} while (n < 0 && errno == EINTR);
}

/* Once: a peer that rings without a pause could hold a loop here. What is left over ends the next sleep early. */
static bool empty(int fd)
{
	char bytes[4096];

	return read(fd, bytes, sizeof(bytes)) > 0;
}

static void pass_on(struct bell *bell)
{
	atomic_fetch_add(&bell->gen, 1);
	futex_wake_all(&bell->gen, false);
}

/* gen is read before the lead is tried, so a leader that leaves after a failed try is seen as a change of gen. */
struct bell_turn bell_arm(struct bell *bell)
{
	struct bell_turn turn;

	turn.gen = atomic_load(&bell->gen);
	turn.leads = !atomic_exchange(&bell->led, true);
	if (turn.leads && empty(bell->fd))
		pass_on(bell);
	return turn;
}

void bell_sleep(struct bell *bell, struct bell_turn turn, int64_t deadline)
{
	struct pollfd fifo = { .fd = bell->fd, .events = POLLIN, .revents = 0 };
	struct timespec left;

	if (!turn.leads) {
		futex_sleep(&bell->gen, turn.gen, deadline, false);
		return;
	}
	left = time_left(deadline);
	ppoll(&fifo, 1, &left, NULL);
}

void bell_disarm(struct bell *bell, struct bell_turn turn)
{
	if (!turn.leads)
		return;
	atomic_store(&bell->led, false);
	pass_on(bell);
}
