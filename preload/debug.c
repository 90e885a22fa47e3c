/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../clients/c/smc.h"
#include "debug.h"
#include "real.h"

HOT_DATA bool debugging;
static uint64_t buffer; /* 0: nobody says */
static char *mount;
HOT_DATA static bool off;

void debug_line(const char *format, ...)
{
	char line[512];
	va_list arguments;
	int n, saved = errno, at = snprintf(line, sizeof(line), "libsmc-preload[%d]: ", (int)getpid());

	va_start(arguments, format);
	n = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, format, arguments);
	va_end(arguments);
	n = at + n < (int)sizeof(line) - 2 ? at + n : (int)sizeof(line) - 2;
	line[n] = '\n';
	/* An inherited connection that is shut down here: no SIGPIPE by this. */
	if (real()->send(2, line, (size_t)n + 1, MSG_NOSIGNAL) < 0 && errno == ENOTSOCK)
		(void)!real()->write(2, line, (size_t)n + 1);
	errno = saved;
}

/* A number, with k, K, m or M for its powers of 1024. 0: none. */
static uint64_t parse_size(const char *text)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	if (end == text || n == 0 || n > INT32_MAX)
		return 0;
	if (*end == 'k' || *end == 'K')
		n <<= 10, end++;
	else if (*end == 'm' || *end == 'M')
		n <<= 20, end++;
	return *end == '\0' ? n : 0;
}

void environment_setup(void)
{
	const char *value = getenv("SMC_DEBUG");
	uint64_t n;

	if (getenv("ISMFS_MOUNT") != NULL)
		mount = strdup(getenv("ISMFS_MOUNT"));
	off = mount != NULL && strcmp(mount, "off") == 0;
	debugging = value != NULL && *value != '\0' && strcmp(value, "0") != 0;
	value = getenv("SMC_RCVBUF");
	if (value == NULL || *value == '\0')
		return;
	n = parse_size(value);
	if (n != 0)
		buffer = n;
	else
		debug("SMC_RCVBUF=%s is not a size: want bytes, or a number with k or m", value);
}

const char *environment_mount(void)
{
	return mount;
}

HOT bool environment_off(void)
{
	return off;
}

uint8_t environment_buffer(int asked)
{
	uint64_t size = asked > 0 ? (uint64_t)asked : buffer;

	return size != 0 ? smc_compress_buffer(size) : ANY_BUFFER;
}
