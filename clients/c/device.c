/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a mount and reading its knobs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s != '\0'; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] != '\0' && s[3] != '\0') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* "id parent major:minor root POINT options [tags] - TYPE source ...": is it ours? device identifies the file system. */
static bool parse_mount(char *line, char **point, unsigned long *device)
{
	unsigned int major, minor;
	int start, end;

	if (strstr(line, " - fuse.ismfs ") == NULL)
		return false;
	if (sscanf(line, "%*d %*d %u:%u %*s %n%*s%n", &major, &minor, &start, &end) != 2)
		return false;
	line[end] = '\0';
	*point = line + start;
	*device = (unsigned long)major << 32 | minor;
	return true;
}

/* The only mount; a second mount point of the same file system (a bind mount) is no second mount. */
static int find_mount(char **found)
{
	FILE *info = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *point;
	size_t room = 0;
	unsigned long device, first = 0;
	int err = -ENOENT;

	*found = NULL;
	if (info == NULL)
		return -errno;
	while (getline(&line, &room, info) > 0) {
		if (!parse_mount(line, &point, &device))
			continue;
		if (*found != NULL) {
			if (device == first)
				continue;
			err = -ENOTUNIQ;
			break;
		}
		first = device;
		unescape(point);
		*found = strdup(point);
		if (*found == NULL) {
			err = -ENOMEM;
			break;
		}
		err = 0;
	}
	free(line);
	fclose(info);
	if (err != 0) {
		free(*found);
		*found = NULL;
	}
	return err;
}

static int open_device_dir(const char *mount)
{
	char *path;
	int fd, err;

	if (asprintf(&path, "%s/" ISMFS_DEVICE_PATH, mount) < 0)
		return -ENOMEM;
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	err = -errno;
	free(path);
	return fd < 0 ? err : fd;
}

int device_knob(const struct ismfs_device *dev, const char *name)
{
	char text[128], *end;
	ssize_t n;
	long value;
	int err, fd = openat(dev->dir, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	err = -errno;
	close(fd);
	if (n < 0)
		return err;
	text[n] = '\0';
	value = strtol(text, &end, 10);
	return end == text || value < 0 || value > 1 ? -EPROTO : (int)value;
}

int ismfs_device_refresh(struct ismfs_device *dev)
{
	int type = device_knob(dev, "dmb_type");

	if (type < 0)
		return type;
	dev->dmb_type = type;
	return 0;
}

int ismfs_device_open(struct ismfs_device *dev, const char *mount)
{
	char *found = NULL;
	int err;

	dev->dir = -1;
	if (mount == NULL)
		mount = getenv("ISMFS_MOUNT");
	if (mount == NULL) {
		err = find_mount(&found);
		if (err != 0)
			return err;
		mount = found;
	}
	dev->dir = open_device_dir(mount);
	free(found);
	if (dev->dir < 0)
		return dev->dir;
	err = ismfs_device_refresh(dev);
	if (err != 0)
		ismfs_device_close(dev);
	return err;
}

void ismfs_device_close(struct ismfs_device *dev)
{
	if (dev->dir >= 0)
		close(dev->dir);
	dev->dir = -1;
}
