/* SPDX-License-Identifier: Apache-2.0 */
/* ismfs-recv: take a file from ismfs-send (or clients/python/examples/send.py) through DMBs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "transfer.h"

enum { OWN_SIZE = 1 << 20, BUFFER = 256 << 10 };

static void write_all(int fd, const char *from, size_t n)
{
	while (n > 0) {
		ssize_t written = write(fd, from, n);

		if (written < 0)
			fail("write", -errno);
		from += written;
		n -= (size_t)written;
	}
}

static unsigned long long receive_all(struct ismfs_conn *conn, int fd)
{
	static char buffer[BUFFER];
	unsigned long long received = 0;
	ssize_t n;

	while ((n = ismfs_conn_recv(conn, buffer, sizeof(buffer), -1)) > 0) {
		write_all(fd, buffer, (size_t)n);
		received += (unsigned long long)n;
	}
	if (n < 0)
		fail("receive", (int)n);
	return received;
}

int main(int argc, char **argv)
{
	struct options options = parse_options(argc, argv, OWN_SIZE);
	struct transfer t;
	unsigned long long received;
	int fd = strcmp(options.file, "-") == 0 ? STDOUT_FILENO :
						  open(options.file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0)
		fail(options.file, -errno);
	transfer_open(&t, &options, "recv", "send");
	received = receive_all(t.conn, fd);
	if (fd != STDOUT_FILENO && close(fd) != 0)
		fail(options.file, -errno);
	transfer_close(&t, &options, received);
	return 0;
}
