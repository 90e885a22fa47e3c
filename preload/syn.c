/* SPDX-License-Identifier: Apache-2.0 */
/* The SYN that an accepted connection began with. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "real.h"
#include "syn.h"

enum {
	SYN_MAX = 512, /* two headers are at most 60 bytes each, but for IPv6's extensions */
	IPV4_MIN = 20,
	IPV6_HEADER = 40,
	TCP_MIN = 20,
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_EXPERIMENTAL = 254,
	MAGIC_END = 6, /* kind, length, magic */
};

static const unsigned char magic[] = { 0xe2, 0xd4, 0xc3, 0xd9 };

/* Where the TCP header begins, 0 if that does not follow the IP header at once. */
static size_t tcp_at(const unsigned char *syn, size_t size)
{
	size_t at = 0;

	if (size >= IPV4_MIN && syn[0] >> 4 == 4 && syn[9] == IPPROTO_TCP)
		at = (size_t)(syn[0] & 15) * 4;
	else if (size >= IPV6_HEADER && syn[0] >> 4 == 6 && syn[6] == IPPROTO_TCP)
		at = IPV6_HEADER;
	return at >= IPV4_MIN && at <= size ? at : 0;
}

/* Whether no option has the magic, whoever's it is. */
static bool no_magic(const unsigned char *option, size_t size)
{
	while (size > 0 && option[0] != OPTION_END) {
		size_t n = 1;

		if (option[0] != OPTION_NOP) {
			if (size < 2 || option[1] < 2 || option[1] > size)
				return false;
			n = option[1];
		}
		if (option[0] == OPTION_EXPERIMENTAL && n >= MAGIC_END && memcmp(option + 2, magic, sizeof(magic)) == 0)
			return false;
		option += n;
		size -= n;
	}
	return true;
}

bool syn_silent(int fd)
{
	unsigned char syn[SYN_MAX];
	socklen_t size = sizeof(syn);
	size_t tcp, end;

	if (real()->getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, syn, &size) != 0)
		return false;
	tcp = tcp_at(syn, size);
	if (tcp == 0 || size - tcp < TCP_MIN)
		return false;
	end = (size_t)(syn[tcp + 12] >> 4) * 4;
	return end >= TCP_MIN && end <= size - tcp && no_magic(syn + tcp + TCP_MIN, end - TCP_MIN);
}
