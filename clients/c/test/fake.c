/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "fake.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void check(bool ok, const char *what, const char *file, int line)
{
	if (ok)
		return;
	fprintf(stderr, "%s:%d: not true: %s\n", file, line, what);
	abort();
}

unsigned char pattern(size_t i)
{
	return (unsigned char)(i * 31 + i / 251);
}

static void make_file(struct fake *fake, const char *name, const char *text)
{
	int fd = openat(fake->dev.dir, name, O_WRONLY | O_CREAT, 0600);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

void fake_open(struct fake *fake)
{
	static const char *const dirs[] = { "/devices", "/devices/loopback-ism", "/devices/loopback-ism/dmbs",
					    "/devices/loopback-ism/bells", "/devices/loopback-ism/procs",
					    "/devices/loopback-ism/references" };
	char path[128];

	strcpy(fake->root, "/dev/shm/ismfs-test-XXXXXX");
	CHECK(mkdtemp(fake->root) != NULL);
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", fake->root, dirs[i]);
		CHECK(mkdir(path, 0700) == 0);
	}
	snprintf(path, sizeof(path), "%s/devices/loopback-ism", fake->root);
	fake->dev.dir = open(path, O_PATH | O_DIRECTORY);
	make_file(fake, "dmb_type", "0: Physically contiguous buffer\n");
	make_file(fake, "dmb_copy", "0: sndbuf and DMB merged\n");
	CHECK(symlinkat("7", fake->dev.dir, "procs/self") == 0);
	ismfs_device_close(&fake->dev);
	CHECK(ismfs_device_open(&fake->dev, fake->root) == 0);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

void fake_close(struct fake *fake)
{
	ismfs_device_close(&fake->dev);
	CHECK(nftw(fake->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

static void path_of(const char *dir, const struct ismfs_dmb *dmb, char path[64])
{
	char token[ISMFS_TOKEN_TEXT];

	ismfs_token_format(dmb->token, token);
	snprintf(path, 64, "%s/%s", dir, token);
}

void fake_register(struct fake *fake, size_t size, struct ismfs_dmb *dmb)
{
	char bell[64];

	CHECK(ismfs_dmb_register(&fake->dev, size, dmb) == 0);
	path_of("bells", dmb, bell);
	CHECK(mkfifoat(fake->dev.dir, bell, 0600) == 0);
}

void fake_attach(struct fake *fake, const struct ismfs_dmb *theirs, struct ismfs_dmb *dmb)
{
	char from[64], to[64];

	CHECK(ismfs_dmb_attach(&fake->dev, theirs->token, theirs->size, dmb) == 0);
	path_of("dmbs", theirs, from);
	path_of("references", theirs, to);
	CHECK(linkat(fake->dev.dir, from, fake->dev.dir, to, 0) == 0);
}

void fake_attach_separated(struct fake *fake, const struct ismfs_dmb *theirs, struct ismfs_dmb *dmb)
{
	char path[64];

	fake_attach(fake, theirs, dmb);
	munmap(dmb->map, dmb->size);
	close(dmb->fd);
	path_of("dmbs", theirs, path);
	dmb->map = NULL;
	dmb->separated = true;
	dmb->fd = openat(fake->dev.dir, path, O_WRONLY);
	CHECK(dmb->fd >= 0);
}

void fake_drop_reference(struct fake *fake, const struct ismfs_dmb *dmb)
{
	char path[64];

	path_of("references", dmb, path);
	CHECK(unlinkat(fake->dev.dir, path, 0) == 0);
}

void fake_connect(struct fake *fake, size_t size, bool separated, unsigned int flags, struct fake_pair *pair)
{
	for (int i = 0; i < 2; i++) {
		fake_register(fake, size, &pair->own[i]);
		pair->own[i].separated = separated;
	}
	for (int i = 0; i < 2; i++)
		(separated ? fake_attach_separated : fake_attach)(fake, &pair->own[1 - i], &pair->peer[i]);
	for (int i = 0; i < 2; i++)
		CHECK(ismfs_conn_open(&fake->dev, &pair->own[i], &pair->peer[i], NULL, flags, &pair->conn[i]) == 0);
}

void fake_disconnect(struct fake_pair *pair)
{
	for (int i = 0; i < 2; i++) {
		ismfs_conn_close(pair->conn[i]);
		ismfs_dmb_detach(&pair->peer[i]);
	}
	for (int i = 0; i < 2; i++)
		ismfs_dmb_unregister(&pair->own[i]);
}
