/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "spin.h"

enum { LEAST = 4, FIRST = 64, MOST = 512, SHORT_NS = 60000, MOST_MISSES = 4, FIRST_REST = 256, MOST_REST = 8192 };

/* As libsmc in Go: see its spin.go and cpus.go. */
enum { MOST_YIELDS = 4, FIRST_GAP = 16, MOST_GAP = 1024, STOLEN_NS = 500000, AGAIN_NS = 20000000 };
static const int64_t second_ns = INT64_C(1000000000), least_busy_ns = 50000000, most_busy_ns = INT64_C(2000000000);

static bool may_spin, rationed;
static _Atomic int64_t place_until, stolen_last, busy_until, busy_for;
static _Atomic uint32_t place;

/* CPU time that is spun away is missing later. */
static bool has_quota(void)
{
	char quota[32] = "";
	FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");

	if (f == NULL)
		return false;
	if (fgets(quota, sizeof(quota), f) == NULL)
		quota[0] = '\0';
	fclose(f);
	return quota[0] >= '0' && quota[0] <= '9';
}

void spin_prepare(void)
{
	rationed = has_quota();
	may_spin = sysconf(_SC_NPROCESSORS_ONLN) > 1 && !rationed;
}

unsigned int spin_rounds(struct spinning *s)
{
	unsigned int rest = s->rest;

	if (!may_spin)
		return 0;
	if (rest > 0) {
		s->rest = rest - 1;
		return 0;
	}
	return s->rounds == 0 ? FIRST : s->rounds;
}

void spin_met(struct spinning *s)
{
	if (s->misses != 0)
		s->misses = 0;
	if (s->penalty != 0)
		s->penalty = 0;
}

void spin_slept(struct spinning *s, int64_t ns)
{
	unsigned int rounds = s->rounds == 0 ? FIRST : s->rounds;

	if (!may_spin || s->rest > 0)
		return;
	if (ns >= SHORT_NS) {
		s->rounds = rounds / 2 > LEAST ? rounds / 2 : LEAST;
		return;
	}
	s->rounds = MOST;
	if (rounds < MOST || ++s->misses < MOST_MISSES)
		return;
	s->misses = 0;
	s->penalty = s->penalty == 0 ? FIRST_REST : s->penalty < MOST_REST ? s->penalty * 2 : MOST_REST;
	s->rest = s->penalty;
}

/* ---- one CPU for both ---- */

uint32_t spin_place(int64_t now)
{
	cpu_set_t set;
	uint32_t one = 0;

	if (now < atomic_load_explicit(&place_until, memory_order_relaxed))
		return atomic_load_explicit(&place, memory_order_relaxed);
	atomic_store(&place_until, now + second_ns);
	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) == 1)
		while (!CPU_ISSET(one++, &set)) {
		}
	atomic_store(&place, one);
	return one;
}

unsigned int spin_yields(struct spinning *s, int64_t now)
{
	unsigned int rest = s->rest;

	if (rationed || now < atomic_load(&busy_until))
		return 0;
	if (rest > 0) {
		s->rest = rest - 1;
		return 0;
	}
	return MOST_YIELDS;
}

void spin_missed(struct spinning *s)
{
	s->penalty = s->penalty == 0 ? FIRST_GAP : s->penalty < MOST_GAP ? s->penalty * 2 : MOST_GAP;
	s->rest = s->penalty;
}

bool spin_stolen(int64_t began, int64_t now)
{
	int64_t last, busy;

	if (now - began <= STOLEN_NS)
		return false;
	last = atomic_exchange(&stolen_last, now);
	/* Once may be the hypervisor or the kernel; or several threads speak of the same time. */
	if (last == 0 || now - last > AGAIN_NS || began < last || now < atomic_load(&busy_until))
		return true;
	busy = 2 * atomic_load(&busy_for);
	if (busy == 0 || now - atomic_load(&busy_until) > most_busy_ns)
		busy = least_busy_ns;
	else if (busy > most_busy_ns)
		busy = most_busy_ns;
	atomic_store(&busy_for, busy);
	atomic_store(&busy_until, now + busy);
	return true;
}
