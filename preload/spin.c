/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "spin.h"

enum { LEAST = 4, FIRST = 64, MOST = 512, SHORT_NS = 60000, MOST_MISSES = 4, FIRST_REST = 256, MOST_REST = 8192 };

static bool may_spin;

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
	may_spin = sysconf(_SC_NPROCESSORS_ONLN) > 1 && !has_quota();
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
