/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of ismfs-cbench share. Results are JSON objects, one a line, on standard output. */
#ifndef CBENCH_H
#define CBENCH_H

#include <stddef.h>

#include "ismfs.h"

enum { MAX_SAMPLES = 1000 };

struct samples {
	size_t n;
	double value[MAX_SAMPLES];
};

struct bench {
	struct ismfs_device dev;
	size_t rounds; /* of the bandwidth comparison */
	size_t bytes;  /* moved in each */
	size_t ring;   /* bytes of the receiver's DMB */
	bool by_pwrite; /* the bare ring, as in copy mode */
};

void bench_cost(const struct bench *bench);
double bench_bare_ring(size_t bytes, bool by_pwrite, void (*place)(int process));
void bench_rings(const struct bench *bench);
void bench_bandwidth(const struct bench *bench);
void bench_source(const struct bench *bench, bool through_dmb, const char *path);

double seconds(void);
/* {"name": ..., "unit": ..., "samples": n, "median": ..., "min": ..., "max": ...} */
void print_samples(const char *name, const char *unit, struct samples *samples);

/* Both exit with 1 and a message: must for errno, must_not_fail for a negative errno. */
void must(int ok, const char *what);
void must_not_fail(long negative_errno, const char *what);

#endif
