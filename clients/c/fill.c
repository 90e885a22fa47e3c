/* SPDX-License-Identifier: Apache-2.0 */
/* Filling a ring. dmb/fill_amd64.go does the same, and has the figures. */
#include <string.h>

#include "internal.h"

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#include <cpuid.h>

enum { FILL_LEAST = 2 << 10, LINE = 64, PAGE_MASK = (4 << 10) - 1, ERMS = 1 << 9 };

/* Enhanced REP MOVSB. Asked once: under a hypervisor the question takes microseconds. */
static bool has_erms(void)
{
	static _Atomic int known; /* 1: it has, -1: it has not */
	unsigned int a, b = 0, c, d;

	if (atomic_load_explicit(&known, memory_order_relaxed) == 0)
		atomic_store_explicit(&known, __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & ERMS) ? 1 : -1, memory_order_relaxed);
	return atomic_load_explicit(&known, memory_order_relaxed) > 0;
}

/* The C library's memcpy takes it, too, or not: that depends on its version, the CPU and the size (glibc's tunable x86_rep_movsb_threshold). */
void ring_fill(unsigned char *to, const unsigned char *from, size_t n)
{
	size_t head;

	if (n < FILL_LEAST || (((uintptr_t)to - (uintptr_t)from) & PAGE_MASK) < LINE || !has_erms()) {
		memcpy(to, from, n);
		return;
	}
	head = -(uintptr_t)to & (LINE - 1);
	memcpy(to, from, head);
	to += head;
	from += head;
	n -= head;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

#else

void ring_fill(unsigned char *to, const unsigned char *from, size_t n)
{
	memcpy(to, from, n);
}

#endif
