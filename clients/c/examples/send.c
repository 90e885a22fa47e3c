/* SPDX-License-Identifier: Apache-2.0 */
/* ismfs-send: pass a file to ismfs-recv (or clients/python/examples/recv.py) through DMBs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "transfer.h"

enum { OWN_SIZE = 16 << 10, BUFFER = 256 << 10 }; /* nothing but the cursor comes back: a small DMB will do */

static unsigned long long send_all(struct ismfs_conn *conn, int fd)
{
	static char buffer[BUFFER];
	unsigned long long sent = 0;
	ssize_t n, err;

	while ((n = read(fd, buffer, sizeof(buffer))) > 0) {
		for (ssize_t done = 0; done < n; done += err) {
			err = ismfs_conn_send(conn, buffer + done, (size_t)(n - done), -1);
			if (err < 0)
				fail("send", (int)err);
		}
		sent += (unsigned long long)n;
	}
	if (n < 0)
		fail("read", -errno);
	return sent;
}

int main(int argc, char **argv)
{
	struct options options = parse_options(argc, argv, OWN_SIZE);
	struct transfer t;
	unsigned long long sent;
	ssize_t end;
	char byte;
	int err, fd = strcmp(options.file, "-") == 0 ? STDIN_FILENO : open(options.file, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail(options.file, -errno);
	transfer_open(&t, &options, "send", "recv");
	sent = send_all(t.conn, fd);
	if ((err = ismfs_conn_shutdown(t.conn)) != 0)
		fail("shutdown", err);
	/* The receiver closes when it has everything. */
	if ((end = ismfs_conn_recv(t.conn, &byte, 1, -1)) != 0)
		fail("the receiver did not confirm", end < 0 ? (int)end : -EPROTO);
	transfer_close(&t, &options, sent);
	return 0;
}
