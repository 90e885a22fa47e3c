/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>

#include "../clients/c/hot.h"
#include "address.h"

enum { SIX_WITHOUT_SCOPE = 24 }; /* SIN6_LEN_RFC2133 */

HOT union address address_of(const struct sockaddr *a, size_t size)
{
	union address copy = { 0 };

	if (size < sizeof(a->sa_family))
		return copy;
	if (a->sa_family == AF_INET && size >= sizeof(copy.four))
		memcpy(&copy.four, a, sizeof(copy.four));
	else if (a->sa_family == AF_INET6 && size >= SIX_WITHOUT_SCOPE)
		memcpy(&copy.six, a, size < sizeof(copy.six) ? size : sizeof(copy.six));
	return copy;
}

/* The last four bytes are zero in all that stand for none, and in few others. */
union address address_connected(const struct sockaddr *to, size_t size)
{
	static const unsigned char none[4];
	union address a = address_of(to, size);
	const void *end = a.any.sa_family == AF_INET ? (const void *)&a.four.sin_addr : (const void *)&a.six.sin6_addr.s6_addr[12];

	return memcmp(end, none, sizeof(none)) != 0 ? a : (union address){ 0 };
}

HOT bool address_is_four(const union address *a)
{
	return a->any.sa_family != AF_INET6 || IN6_IS_ADDR_V4MAPPED(&a->six.sin6_addr);
}

HOT void address_put(unsigned char *slot, size_t at, size_t port_at, const union address *a, bool six)
{
	static const unsigned char mapped[12] = { [10] = 0xFF, [11] = 0xFF };
	uint16_t port = 0;

	if (a->any.sa_family == AF_INET) {
		port = ntohs(a->four.sin_port);
		if (six)
			memcpy(slot + at, mapped, 12);
		memcpy(slot + at + (six ? 12 : 0), &a->four.sin_addr, 4);
	} else if (a->any.sa_family == AF_INET6) {
		port = ntohs(a->six.sin6_port);
		memcpy(slot + at, a->six.sin6_addr.s6_addr + (six ? 0 : 12), six ? 16 : 4);
	}
	memcpy(slot + port_at, &port, 2);
}
