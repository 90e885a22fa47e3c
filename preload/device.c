/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "../clients/c/procs.h"
#include "device.h"
#include "debug.h"
#include "real.h"
#include "table.h"
#include "ticks.h"

/* Room for 8,176 slots, of which only those used take memory. */
enum { BLOCK_SIZE = 1 << 20 };

static const int64_t look_again = INT64_C(1000000000);
/* From one look at the mount point to the next; with what plain.c adds, 10 ms. */
static const int64_t look_pause = INT64_C(8000000);

struct lock device_lock;
HOT_DATA static struct device *_Atomic current;
HOT_DATA static _Atomic int64_t looked; /* at the mount point */
HOT_DATA static struct shared_span no_look;
static int64_t not_before; /* under the lock: no look for a device earlier */
static struct device *parents; /* what a child of fork begins with */

void device_forked(void)
{
	parents = atomic_exchange(&current, NULL);
	not_before = 0;
}

static int read_file(const struct ismfs_device *dev, const char *name, char *text, size_t room)
{
	int fd = openat(dev->dir, name, O_RDONLY | O_CLOEXEC), err;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, room - 1);
	err = n < 0 ? -errno : 0;
	real()->close(fd);
	text[n < 0 ? 0 : n] = '\0';
	return err;
}

static int read_gid(const struct ismfs_device *dev, unsigned char gid[CLC_GID])
{
	char text[64];
	int err = read_file(dev, "gid", text, sizeof(text));

	return err == 0 ? clc_parse_gid(text, gid) : err;
}

/* ---- what is mounted where it was ---- */

/* The mount point of a device's directory, as this process sees it. */
static char *find_point(int dir)
{
	char link[32], path[PATH_MAX];
	ssize_t n, tail = sizeof("/" ISMFS_DEVICE_PATH) - 1;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = readlink(link, path, sizeof(path));
	return n > tail && n < PATH_MAX && memcmp(path + n - tail, "/" ISMFS_DEVICE_PATH, (size_t)tail) == 0 ? strndup(path, (size_t)(n - tail)) : NULL;
}

/* The file system at a path; the daemon is not asked. 0: it cannot be told. Older musl has no statx. */
static dev_t file_system(int dir, const char *path)
{
	struct statx st;

	if (path == NULL || syscall(SYS_statx, dir, path, AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) != 0)
		return 0;
	return makedev(st.stx_dev_major, st.stx_dev_minor);
}

/* The GID of the device that is at the mount point now. */
static int gid_there(const struct device *d, unsigned char gid[CLC_GID])
{
	struct ismfs_device there;
	int err = ismfs_device_open(&there, d->point);

	if (err != 0)
		return err;
	err = read_gid(&there, gid);
	real()->close(there.dir);
	return err;
}

/* Another file system is at the mount point than before: does the daemon answer, and no other one there? */
static void judge(struct device *d, dev_t at)
{
	unsigned char gid[CLC_GID];
	int err = read_gid(&d->dev, gid);

	if (err == -ENOTCONN || err == -ECONNABORTED)
		atomic_store(&d->dead, true);
	if (err != 0)
		return;
	err = gid_there(d, gid);
	if (err == 0 && memcmp(gid, d->gid, CLC_GID) != 0)
		atomic_store(&d->dead, true);
	else if (err == 0 || err == -ENOENT || err == -ENOTDIR || err == -EACCES) /* after a chroot nothing is there to see */
		d->at = at;
}

/* Now and then, by one thread: who has no connections hears nothing of its daemon. */
static void check_mount(struct device *d)
{
	uint64_t before = ticks();
	int64_t now = now_ns();
	dev_t at;

	if (now - atomic_load_explicit(&looked, memory_order_relaxed) < look_pause) {
		span_put(&no_look, ticks_span(before, now));
		return;
	}
	if (!lock_try(&device_lock))
		return;
	atomic_store_explicit(&looked, now, memory_order_relaxed);
	at = file_system(AT_FDCWD, d->point);
	if (at != 0 && at != d->at)
		judge(d, at);
	lock_release(&device_lock);
}

/* ---- */

/* What this process's parent had found out, if that is mounted still: a server may fork for each connection. Shared with inherited connections. */
static bool take_parents(struct device *d)
{
	const struct device *p = parents;

	parents = NULL;
	if (p == NULL || atomic_load(&p->dead) || p->at == 0 || file_system(AT_FDCWD, p->point) != p->at)
		return false;
	d->dev = p->dev;
	d->point = p->point;
	d->at = p->at;
	memcpy(d->gid, p->gid, CLC_GID);
	return true;
}

static int find(struct device *d)
{
	int err = ismfs_device_open(&d->dev, environment_mount());

	if (err != 0)
		return err;
	d->dev.dir = hidden_take(d->dev.dir);
	d->point = find_point(d->dev.dir);
	d->at = file_system(d->dev.dir, "");
	err = read_gid(&d->dev, d->gid);
	if (err != 0) {
		hidden_close(d->dev.dir);
		free(d->point);
	}
	return err;
}

/* With the block for this process. A program may have closed what its parent had, past the library: then the device is looked for. */
static int open_with_block(struct device *d, bool parents)
{
	int err = parents ? 0 : find(d);

	if (err != 0)
		return err;
	err = procs_open_sized(&d->dev, BLOCK_SIZE, &d->procs);
	if (err == 0 || parents)
		return err;
	debug("the device's block for this process: %s", strerror(-err));
	hidden_close(d->dev.dir);
	free(d->point);
	return err;
}

static struct device *device_open(int *err)
{
	struct device *d = calloc(1, sizeof(*d));

	if (d == NULL) {
		*err = -ENOMEM;
		return NULL;
	}
	if (!take_parents(d) || (*err = open_with_block(d, true)) != 0)
		*err = open_with_block(d, false);
	if (*err != 0) {
		free(d);
		return NULL;
	}
	d->procs->fd = hidden_take(d->procs->fd);
	d->process = getpid();
	return d;
}

static void say_none(int err)
{
	const char *mount = environment_mount();

	if (mount != NULL)
		debug("no device at ISMFS_MOUNT=%s: %s (ismfs doctor says more)", mount, strerror(err));
	else if (err == ENOTUNIQ)
		debug("no device: there are several mounts: ISMFS_MOUNT=DIR says which");
	else if (err == ENOENT)
		debug("no device: no ismfs is mounted (as root: ismfs mount DIR)");
	else
		debug("no device: %s (ismfs doctor says more)", strerror(err));
}

APART static struct device *look(void)
{
	struct device *d = atomic_load_explicit(&current, memory_order_acquire);
	int saved = errno, err;

	if (d != NULL)
		check_mount(d);
	errno = saved;
	if (d != NULL && !atomic_load_explicit(&d->dead, memory_order_relaxed))
		return d;
	if (lock_is_mine(&device_lock)) /* a signal's handler that is not seen (signals.h) */
		return NULL;
	lock_take(&device_lock);
	d = atomic_load(&current);
	if (d == NULL || atomic_load(&d->dead)) {
		d = NULL;
		if (!environment_off() && now_ns() >= not_before) {
			d = device_open(&err);
			if (d != NULL) {
				atomic_store_explicit(&current, d, memory_order_release);
			} else {
				say_none(-err);
				not_before = now_ns() + look_again;
			}
		}
	}
	lock_release(&device_lock);
	errno = saved;
	return d;
}

HOT struct device *device_current(void)
{
	struct device *d = atomic_load_explicit(&current, memory_order_acquire);

	if (d != NULL && span_holds(&no_look) && !atomic_load_explicit(&d->dead, memory_order_relaxed))
		return d;
	return look();
}

/* One EID a line, padded with blanks. */
static void parse_eids(const char *text, struct clc_local *local)
{
	local->eids = 0;
	while (*text != '\0' && local->eids < CLC_MAX_EIDS) {
		size_t n = strcspn(text, "\n");

		if (n > 0) {
			unsigned char *eid = local->eid[local->eids++];

			memset(eid, ' ', CLC_EID);
			memcpy(eid, text, n < CLC_EID ? n : CLC_EID);
		}
		text += n + (text[n] == '\n');
	}
}

int device_local(struct device *d, struct clc_local *local)
{
	uint32_t word = atomic_load(procs_word(d->procs)); /* before reading: a change in between is read again */
	char text[512];
	int err = 0;

	lock_take(&d->eids_lock);
	if (!d->has_eids || d->eids_at != word) {
		err = read_file(&d->dev, "ueid", text, sizeof(text));
		if (err == 0) {
			memcpy(d->local.gid, d->gid, CLC_GID);
			parse_eids(text, &d->local);
			d->has_eids = true;
			d->eids_at = word;
		}
	}
	*local = d->local;
	lock_release(&d->eids_lock);
	if (err != 0)
		debug("the device's user EIDs: %s", strerror(-err));
	local->active = procs_state(d->procs) == 1 && !atomic_load(&d->dead);
	return device_noted(d, err);
}

int device_noted(struct device *d, int error)
{
	if (error == -ENOTCONN || error == -ECONNABORTED)
		atomic_store(&d->dead, true);
	return error;
}

static const int64_t lives_ns = INT64_C(100000000);

void device_answered(struct device *d)
{
	atomic_store_explicit(&d->answered, now_ns(), memory_order_relaxed);
}

bool device_answered_lately(const struct device *d)
{
	return now_ns() - atomic_load_explicit(&d->answered, memory_order_relaxed) < lives_ns;
}

/* ---- the SMC option: 8 bytes, a verb or an answer and the device's tag, the last seven bytes of its GID ---- */

enum { SMCOPT_LEVEL = 286, SMCOPT_NAME = 0x49534d01, SMCOPT_SIZE = 8, SMCOPT_MARK = 1 };

static HOT int put_option(int fd, const unsigned char value[SMCOPT_SIZE])
{
	return real()->setsockopt(fd, SMCOPT_LEVEL, SMCOPT_NAME, value, SMCOPT_SIZE) != 0 ? -errno : 0;
}

int smcopt_mark(int fd, const struct device *d)
{
	unsigned char value[SMCOPT_SIZE] = { SMCOPT_MARK };

	memcpy(value + 1, d->gid + CLC_GID - 7, 7);
	return put_option(fd, value);
}

int smcopt_unmark(int fd)
{
	static const unsigned char value[SMCOPT_SIZE];

	return put_option(fd, value);
}

HOT int smcopt_ask(int fd)
{
	unsigned char value[SMCOPT_SIZE];
	socklen_t size = sizeof(value);

	if (real()->getsockopt(fd, SMCOPT_LEVEL, SMCOPT_NAME, value, &size) != 0)
		return -errno;
	return value[0] >= SMCOPT_PLAIN && value[0] <= SMCOPT_LISTENER ? value[0] : -EPROTO;
}
