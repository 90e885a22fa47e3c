/* SPDX-License-Identifier: Apache-2.0 */
/* DMBs as files: names, registration, attachment, memory (docs/dmb-format.md 1.3, 1.5). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define HUGE_PAGE ((size_t)2 << 20)
#define DMB_PATH_ROOM (sizeof("dmbs/") + ISMFS_TOKEN_TEXT)

void ismfs_token_format(uint64_t token, char text[ISMFS_TOKEN_TEXT])
{
	snprintf(text, ISMFS_TOKEN_TEXT, "%016llx", (unsigned long long)token);
}

int ismfs_token_parse(const char *text, uint64_t *token)
{
	uint64_t value = 0;

	if (strlen(text) != ISMFS_TOKEN_TEXT - 1)
		return -EINVAL;
	for (; *text != '\0'; text++) {
		const char *digits = "0123456789abcdef", *digit = strchr(digits, *text);

		if (digit == NULL)
			return -EINVAL;
		value = value << 4 | (uint64_t)(digit - digits);
	}
	if (value == 0)
		return -EINVAL;
	*token = value;
	return 0;
}

static void dmb_path(uint64_t token, char path[DMB_PATH_ROOM])
{
	char text[ISMFS_TOKEN_TEXT];

	ismfs_token_format(token, text);
	snprintf(path, DMB_PATH_ROOM, "dmbs/%s", text);
}

/* A place for size bytes at a multiple of align: reserve more, and give back what is before and behind. */
static unsigned char *reserve_aligned(size_t size, size_t align)
{
	unsigned char *base = mmap(NULL, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t before;

	if (base == MAP_FAILED)
		return NULL;
	before = (align - (uintptr_t)base % align) % align;
	if (before > 0)
		munmap(base, before);
	munmap(base + before + size, align - before);
	return base + before;
}

static int populate(void *map, size_t size, int how)
{
	while (madvise(map, size, how) != 0) {
		if (errno != EINTR && errno != EAGAIN)
			return errno == EFAULT ? -ENOMEM : -errno;
	}
	return 0;
}

/* Map without touching: what advice the memory gets has to be said before it is populated. */
static int map_only(int fd, size_t size, size_t align, unsigned char **map)
{
	unsigned char *place = NULL, *mapped;

	if (align > 0) {
		place = reserve_aligned(size, align);
		if (place == NULL)
			return -errno;
	}
	mapped = mmap(place, size, PROT_READ | PROT_WRITE, MAP_SHARED | (place != NULL ? MAP_FIXED : 0), fd, 0);
	if (mapped == MAP_FAILED) {
		int err = -errno;

		if (place != NULL)
			munmap(place, size);
		return err;
	}
	*map = mapped;
	return 0;
}

/*
 * The pages are there, unless somebody punched them out. Reading brings them in as writing does, and writable, since shared memory
 * tracks no first write; but it maps 16 at a time, so it takes a third of the time.
 */
int map_shared(int fd, size_t size, size_t align, unsigned char **map)
{
	int err = map_only(fd, size, align, map);

	if (err != 0)
		return err;
	err = populate(*map, size, MADV_POPULATE_READ);
	if (err != 0)
		munmap(*map, size);
	return err;
}

int map_first(int fd, size_t size, size_t first, unsigned char **map)
{
	int err = map_only(fd, size, 0, map);

	if (err != 0)
		return err;
	err = populate(*map, first, MADV_POPULATE_WRITE);
	if (err != 0) {
		munmap(*map, size);
		*map = NULL;
	}
	return err;
}

int populate_more(unsigned char *at, size_t size)
{
	return populate(at, size, MADV_POPULATE_WRITE);
}

/*
 * The kernel gives a page of some size only to a mapping that has room for it at a multiple of that size, and of itself it aligns no mapping of
 * a file of the device. 0: below 1 MiB nothing is gained that would make up for the calls.
 */
static size_t alignment_for(size_t size)
{
	return size >= HUGE_PAGE ? HUGE_PAGE : size >= HUGE_PAGE / 2 ? HUGE_PAGE / 2 : 0;
}

/* Huge pages are a wish (a kernel may be built without them): only populating can fail. */
static int map_registered(int fd, size_t size, int dmb_type, unsigned char **map)
{
	bool contiguous = dmb_type == 0;
	int err = map_only(fd, size, contiguous ? alignment_for(size) : 0, map);

	if (err != 0)
		return err;
	(void)madvise(*map, size, contiguous ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	err = populate(*map, size, MADV_POPULATE_WRITE);
	if (err != 0) {
		munmap(*map, size);
		return err;
	}
	if (contiguous && size >= HUGE_PAGE)
		(void)madvise(*map, size, MADV_COLLAPSE);
	return 0;
}

/* Create under a token that nobody has; *token is set. */
static int create_dmb(const struct ismfs_device *dev, uint64_t *token)
{
	char path[DMB_PATH_ROOM];
	int fd;

	do {
		do {
			if (getrandom(token, sizeof(*token), 0) != (ssize_t)sizeof(*token))
				return -EIO;
		} while (*token == 0);
		dmb_path(*token, path);
		fd = openat(dev->dir, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	} while (fd < 0 && errno == EEXIST);
	return fd < 0 ? -errno : fd;
}

int ismfs_dmb_register(const struct ismfs_device *dev, size_t size, struct ismfs_dmb *dmb)
{
	int err;

	memset(dmb, 0, sizeof(*dmb));
	dmb->fd = -1;
	if (size < ISMFS_MIN_SIZE || size % ISMFS_MIN_SIZE != 0 || size > UINT32_MAX / 2)
		return -EINVAL;
	dmb->fd = create_dmb(dev, &dmb->token);
	if (dmb->fd < 0)
		return dmb->fd;
	dmb->size = size;
	err = ftruncate(dmb->fd, (off_t)size) != 0 ? -errno : map_registered(dmb->fd, size, dev->dmb_type, &dmb->map);
	if (err != 0)
		ismfs_dmb_unregister(dmb);
	return err;
}

/* The permissions that a DMB shows: in copy mode others may only write. Without an answer from the device it is taken for separated. */
bool dmb_is_separated(const struct ismfs_dmb *dmb)
{
	struct stat st;

	if (dmb->separated || fstat(dmb->fd, &st) != 0)
		return true;
	return (st.st_mode & (S_IROTH | S_IWOTH)) == S_IWOTH;
}

/* O_RDWR is refused in copy mode: that is how a peer learns the mode. */
static int open_for_writing(const struct ismfs_device *dev, uint64_t token, bool *mappable)
{
	char path[DMB_PATH_ROOM];
	int fd;

	dmb_path(token, path);
	fd = openat(dev->dir, path, O_RDWR | O_CLOEXEC);
	*mappable = fd >= 0;
	if (fd < 0 && errno == EACCES)
		fd = openat(dev->dir, path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int check_size(int fd, size_t told, size_t *size, struct stat *st)
{
	if (fstat(fd, st) != 0)
		return -errno;
	if (st->st_size < ISMFS_MIN_SIZE || st->st_size > UINT32_MAX / 2)
		return -EMSGSIZE;
	*size = (size_t)st->st_size;
	return told != 0 && told != *size ? -EMSGSIZE : 0;
}

int ismfs_dmb_attach(const struct ismfs_device *dev, uint64_t token, size_t size, struct ismfs_dmb *dmb)
{
	struct stat st;

	return dmb_attach(dev, token, size, dmb, &st);
}

int dmb_attach(const struct ismfs_device *dev, uint64_t token, size_t size, struct ismfs_dmb *dmb, struct stat *st)
{
	bool mappable;
	int err;

	memset(dmb, 0, sizeof(*dmb));
	dmb->token = token;
	dmb->fd = open_for_writing(dev, token, &mappable);
	if (dmb->fd < 0)
		return dmb->fd;
	dmb->separated = !mappable;
	err = check_size(dmb->fd, size, &dmb->size, st);
	if (err == 0 && mappable)
		err = map_shared(dmb->fd, dmb->size, alignment_for(dmb->size), &dmb->map);
	if (err != 0)
		ismfs_dmb_detach(dmb);
	return err;
}

int pwrite_all(int fd, const void *from, size_t n, size_t offset)
{
	const char *at = from;

	while (n > 0) {
		ssize_t written = pwrite(fd, at, n, (off_t)offset);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? -errno : -EIO;
		at += written;
		offset += (size_t)written;
		n -= (size_t)written;
	}
	return 0;
}

static void release(struct ismfs_dmb *dmb)
{
	if (dmb->map != NULL)
		munmap(dmb->map, dmb->size);
	if (dmb->fd >= 0)
		close(dmb->fd);
	dmb->map = NULL;
	dmb->fd = -1;
}

void ismfs_dmb_unregister(struct ismfs_dmb *dmb)
{
	release(dmb);
}

void ismfs_dmb_detach(struct ismfs_dmb *dmb)
{
	release(dmb);
}
