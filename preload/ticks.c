/* SPDX-License-Identifier: Apache-2.0 */
#include "ticks.h"

static const int64_t again_ns = INT64_C(2000000);

struct span ticks_span(uint64_t before, int64_t now)
{
	enum { MOST_IN_NS = 16 };
	static _Thread_local int64_t since;
	static _Thread_local uint64_t since_after, more;

	if (now - since >= again_ns) {
		uint64_t gone = before - since_after; /* no more than in that time, if the thread has had to wait in between */

		more = since != 0 && gone / MOST_IN_NS < (uint64_t)(now - since) ? (uint64_t)((double)gone / (double)(now - since) * (double)again_ns) : 0;
		since = now;
		since_after = ticks();
	}
	return (struct span){ before, more };
}
