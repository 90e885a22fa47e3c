/* SPDX-License-Identifier: Apache-2.0 */
/* ismfs-cbench: what DMBs cost and how fast they carry bytes, against sockets in the same run. */
#define _GNU_SOURCE
#include "cbench.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void print_samples(const char *name, const char *unit, struct samples *s)
{
	double median;

	qsort(s->value, s->n, sizeof(s->value[0]), compare);
	median = (s->value[(s->n - 1) / 2] + s->value[s->n / 2]) / 2;
	printf("{\"name\": \"%s\", \"unit\": \"%s\", \"samples\": %zu, \"median\": %.3f, \"min\": %.3f, \"max\": %.3f}\n", name,
	       unit, s->n, median, s->value[0], s->value[s->n - 1]);
	fflush(stdout);
}

void must_not_fail(long result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "ismfs-cbench: %s: %s\n", what, strerror((int)-result));
	exit(1);
}

void must(int ok, const char *what)
{
	must_not_fail(ok ? 0 : -errno, what);
}

/* Register n DMBs and keep them, so that somebody else can look at the daemon's memory. */
static void hold(const struct bench *bench, size_t n, size_t size)
{
	struct ismfs_dmb *dmbs = calloc(n, sizeof(*dmbs));
	struct rlimit files;

	must(dmbs != NULL, "memory");
	must(getrlimit(RLIMIT_NOFILE, &files) == 0, "RLIMIT_NOFILE");
	files.rlim_cur = files.rlim_max;
	must(setrlimit(RLIMIT_NOFILE, &files) == 0, "RLIMIT_NOFILE");
	for (size_t i = 0; i < n; i++)
		must_not_fail(ismfs_dmb_register(&bench->dev, size, &dmbs[i]), "register a DMB");
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	for (size_t i = 0; i < n; i++)
		ismfs_dmb_unregister(&dmbs[i]);
	free(dmbs);
}

static void usage(void)
{
	fputs("usage: ismfs-cbench [--mount DIR] cost\n"
	      "       ismfs-cbench [--mount DIR] [--rounds N] [--mib N] [--ring MIB] bandwidth\n"
	      "       ismfs-cbench [--rounds N] [--mib N] ring|ring-copy     (the bare ring alone, by memcpy or pwrite; needs no mount)\n"
	      "       ismfs-cbench [--mount DIR] hold COUNT BYTES     (prints ready, ends with standard input)\n"
	      "       ismfs-cbench [--mount DIR] [--mib N] source dmb|unix SOCKET     (sends to a receiver in another language)\n",
	      stderr);
	exit(2);
}

static size_t number(const char *text)
{
	char *end;
	size_t n = strtoul(text, &end, 10);

	if (end == text || *end != '\0' || n == 0)
		usage();
	return n;
}

int main(int argc, char **argv)
{
	static const struct option names[] = { { "mount", required_argument, NULL, 'm' },
					       { "rounds", required_argument, NULL, 'r' },
					       { "mib", required_argument, NULL, 'b' },
					       { "ring", required_argument, NULL, 'g' },
					       { NULL, 0, NULL, 0 } };
	struct bench bench = { .rounds = 7, .bytes = (size_t)256 << 20, .ring = (size_t)1 << 20 };
	const char *mount = NULL, *what;
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 'm': mount = optarg; break;
		case 'r': bench.rounds = number(optarg); break;
		case 'b': bench.bytes = number(optarg) << 20; break;
		case 'g': bench.ring = number(optarg) << 20; break;
		default: usage();
		}
	}
	if (optind == argc || bench.rounds > MAX_SAMPLES)
		usage();
	what = argv[optind++];
	bench.by_pwrite = strcmp(what, "ring-copy") == 0;
	if ((bench.by_pwrite || strcmp(what, "ring") == 0) && optind == argc) {
		bench_rings(&bench);
		return 0;
	}
	must_not_fail(ismfs_device_open(&bench.dev, mount), "device");
	if (strcmp(what, "cost") == 0 && optind == argc)
		bench_cost(&bench);
	else if (strcmp(what, "bandwidth") == 0 && optind == argc)
		bench_bandwidth(&bench);
	else if (strcmp(what, "hold") == 0 && optind == argc - 2)
		hold(&bench, number(argv[optind]), number(argv[optind + 1]));
	else if (strcmp(what, "source") == 0 && optind == argc - 2)
		bench_source(&bench, strcmp(argv[optind], "dmb") == 0, argv[optind + 1]);
	else
		usage();
	ismfs_device_close(&bench.dev);
	return 0;
}
