/* SPDX-License-Identifier: Apache-2.0 */
/* stdio on a connection: the C library's own streams move their bytes by calls that nobody sees, so such a stream is made of this library's. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "connect.h"
#include "io.h"
#include "real.h"
#include "table.h"

static int fd_of(void *cookie)
{
	return (int)(intptr_t)cookie;
}

static ssize_t stream_in(void *cookie, char *b, size_t n)
{
	return read(fd_of(cookie), b, n);
}

/* 0 is the error, not -1. */
static ssize_t stream_out(void *cookie, const char *b, size_t n)
{
	ssize_t put = write(fd_of(cookie), b, n);

	return put > 0 ? put : 0;
}

static int stream_seek(void *cookie, off64_t *at, int whence)
{
	(void)cookie;
	(void)at;
	(void)whence;
	errno = ESPIPE;
	return -1;
}

static int stream_end(void *cookie)
{
	return close(fd_of(cookie));
}

/* glibc's fileno then tells the descriptor; in musl a stream of this kind has none. */
static FILE *tell_number(FILE *f, int fd)
{
#ifdef __GLIBC__
	extern const char *gnu_get_libc_version(void) __attribute__((weak));

	if (f != NULL && gnu_get_libc_version != NULL)
		f->_fileno = fd;
#else
	(void)fd;
#endif
	return f;
}

static atomic_bool any_stream;

void streams_flush(void)
{
	if (atomic_load(&any_stream))
		(void)fflush(NULL);
}

/* Also of a socket that may become a connection. */
EXPORT FILE *fdopen(int fd, const char *mode)
{
	static const cookie_io_functions_t functions = { stream_in, stream_out, stream_seek, stream_end };

	if (!table_moves(fd) && (table_has(fd) || table_noted(fd, NOTE_TCP) || !is_tcp(fd)))
		return real()->fdopen(fd, mode);
	atomic_store(&any_stream, true);
	return tell_number(fopencookie((void *)(intptr_t)fd, mode, functions), fd);
}

static int print(int fd, const char *format, va_list arguments)
{
	char *text;
	int n = vasprintf(&text, format, arguments);

	if (n < 0)
		return n;
	for (int done = 0; done < n;) {
		ssize_t put = write(fd, text + done, (size_t)(n - done));

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0) {
			n = -1;
			break;
		}
		done += (int)put;
	}
	free(text);
	return n;
}

EXPORT int vdprintf(int fd, const char *format, va_list arguments)
{
	return table_moves(fd) ? print(fd, format, arguments) : real()->vdprintf(fd, format, arguments);
}

EXPORT int dprintf(int fd, const char *format, ...)
{
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vdprintf(fd, format, arguments);
	va_end(arguments);
	return n;
}

EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list arguments)
{
	return table_moves(fd) ? print(fd, format, arguments) : real()->__vdprintf_chk(fd, flag, format, arguments);
}

EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = __vdprintf_chk(fd, flag, format, arguments);
	va_end(arguments);
	return n;
}
