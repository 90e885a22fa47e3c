/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "transfer.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RENDEZVOUS_SECONDS = 30, RENDEZVOUS_POLL_MS = 2 };

void fail(const char *what, int negative_errno)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(-negative_errno));
	exit(1);
}

static void usage(void)
{
	fprintf(stderr,
		"usage: %s --rendezvous PATH [--mount DIR] [--size N[K|M]] [--counted|--uncounted] [--bell] [--quiet] FILE\n",
		program_invocation_short_name);
	exit(2);
}

static size_t parse_size(const char *text)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	if (*end == 'K' || *end == 'M')
		n <<= *end++ == 'K' ? 10 : 20;
	if (end == text || *end != '\0' || n == 0)
		usage();
	return n;
}

struct options parse_options(int argc, char **argv, size_t default_size)
{
	static const struct option names[] = {
		{ "rendezvous", required_argument, NULL, 'r' }, { "mount", required_argument, NULL, 'm' },
		{ "size", required_argument, NULL, 's' },	{ "counted", no_argument, NULL, 'c' },
		{ "uncounted", no_argument, NULL, 'u' },	{ "bell", no_argument, NULL, 'b' },
		{ "quiet", no_argument, NULL, 'q' },		{ NULL, 0, NULL, 0 },
	};
	struct options o = { .size = default_size, .counted = true };
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 'r': o.rendezvous = optarg; break;
		case 'm': o.mount = optarg; break;
		case 's': o.size = parse_size(optarg); break;
		case 'c': o.counted = true; break;
		case 'u': o.counted = false; break;
		case 'b': o.bell = true; break;
		case 'q': o.quiet = true; break;
		default: usage();
		}
	}
	if (optind != argc - 1 || o.rendezvous == NULL)
		usage();
	o.file = argv[optind];
	return o;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static char *joined(const char *a, const char *b, const char *c)
{
	char *s;

	if (asprintf(&s, "%s%s%s", a, b, c) < 0)
		fail("memory", -ENOMEM);
	return s;
}

/* A token is the right to write into the DMB: nobody else may read the file. */
static void tell(const struct options *o, const char *mine, const struct ismfs_dmb *own)
{
	char token[ISMFS_TOKEN_TEXT], *path = joined(o->rendezvous, ".", mine), *draft = joined(path, ".tmp", "");
	mode_t mask = umask(077);
	FILE *f = fopen(draft, "we");

	umask(mask);
	if (f == NULL)
		fail(draft, -errno);
	ismfs_token_format(own->token, token);
	fprintf(f, "%s %zu\n", token, own->size);
	if (fclose(f) != 0 || rename(draft, path) != 0)
		fail(path, -errno);
	free(path);
	free(draft);
}

static FILE *await(const char *path)
{
	const struct timespec pause = { 0, RENDEZVOUS_POLL_MS * 1000000L };
	double until = seconds() + RENDEZVOUS_SECONDS;
	FILE *f;

	while ((f = fopen(path, "re")) == NULL) {
		if (errno != ENOENT)
			fail(path, -errno);
		if (seconds() > until)
			fail(path, -ETIMEDOUT);
		nanosleep(&pause, NULL);
	}
	return f;
}

static void learn(const struct options *o, const char *theirs, uint64_t *token, size_t *size)
{
	char text[ISMFS_TOKEN_TEXT], *path = joined(o->rendezvous, ".", theirs);
	FILE *f = await(path);

	if (fscanf(f, "%16s %zu", text, size) != 2 || ismfs_token_parse(text, token) != 0)
		fail(path, -EPROTO);
	fclose(f);
	unlink(path);
	free(path);
}

void transfer_open(struct transfer *t, const struct options *o, const char *mine, const char *theirs)
{
	uint64_t token;
	size_t size;
	int err;

	memset(t, 0, sizeof(*t));
	if ((err = ismfs_device_open(&t->dev, o->mount)) != 0)
		fail("device", err);
	if (o->counted && (err = ismfs_procs_open(&t->dev, &t->procs)) != 0)
		fail("procs/self", err);
	if ((err = ismfs_dmb_register(&t->dev, o->size, &t->own)) != 0)
		fail("register a DMB", err);
	tell(o, mine, &t->own);
	learn(o, theirs, &token, &size);
	if ((err = ismfs_dmb_attach(&t->dev, token, size, &t->peer)) != 0)
		fail("attach to the peer's DMB", err);
	err = ismfs_conn_open(&t->dev, &t->own, &t->peer, t->procs, o->bell ? ISMFS_USE_BELL : 0, &t->conn);
	if (err != 0)
		fail("connection", err);
	t->started = seconds();
}

void transfer_close(struct transfer *t, const struct options *o, unsigned long long bytes)
{
	double took = seconds() - t->started;

	ismfs_conn_close(t->conn);
	ismfs_dmb_detach(&t->peer);
	ismfs_dmb_unregister(&t->own);
	ismfs_procs_close(t->procs);
	ismfs_device_close(&t->dev);
	if (!o->quiet)
		fprintf(stderr, "%llu bytes in %.3f s, %.1f MB/s\n", bytes, took, (double)bytes / took / 1e6);
}
