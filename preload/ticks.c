/* SPDX-License-Identifier: Apache-2.0 */
#include "ticks.h"

static const int64_t again_ns = INT64_C(2000000);

struct span ticks_span(int64_t now)
{
	enum { MOST_IN_NS = 16 };
	static _Thread_local int64_t since;
	static _Thread_local uint64_t since_at, more;
	uint64_t at = ticks();

	if (now - since >= again_ns) {
		uint64_t gone = at - since_at;

		more = since != 0 && gone / MOST_IN_NS < (uint64_t)(now - since) ? (uint64_t)((double)gone / (double)(now - since) * (double)again_ns) : 0;
		since = now;
		since_at = at;
	}
	return (struct span){ at, more };
}
