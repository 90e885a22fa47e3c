/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of TCP sockets. */
#ifndef PRELOAD_ADDRESS_H
#define PRELOAD_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* All zero, and so of no family: not known. */
union address {
	struct sockaddr any;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
};

/* One that the program or the kernel has given, size bytes of it; not known if it is cut short. */
union address address_of(const struct sockaddr *a, size_t size);

/* The same of what a connect is told: its peer's, unless the kernel puts another in place of none (0.0.0.0, ::). */
union address address_connected(const struct sockaddr *to, size_t size);

static inline bool address_known(const union address *a)
{
	return a->any.sa_family != AF_UNSPEC;
}

/* Whether it is IPv4, also as IPv6 writes it, or not known. */
bool address_is_four(const union address *a);

/* Into a slot of the procs block: the address at one place, its port at another. six: as IPv6 writes it. */
void address_put(unsigned char *slot, size_t at, size_t port_at, const union address *a, bool six);

#endif
