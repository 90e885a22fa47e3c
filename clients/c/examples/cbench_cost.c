/* SPDX-License-Identifier: Apache-2.0 */
/* What one call costs: register, unregister, attach, detach, pwrite. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cbench.h"

enum { CALLS = 300, WARM_UP = 20, PWRITES_A_SAMPLE = 100 };

static void add(struct samples *s, double started, double per)
{
	s->value[s->n++] = (seconds() - started) * 1e6 / per;
}

static void named(const char *what, size_t size, struct samples *s)
{
	char name[64];

	snprintf(name, sizeof(name), size < 1024 ? "%s_%zu" : "%s_%zuK", what, size < 1024 ? size : size / 1024);
	print_samples(name, "us", s);
}

static void cost_of_registering(const struct bench *bench, size_t size)
{
	struct samples reg = { 0 }, unreg = { 0 };

	for (int i = 0; i < WARM_UP + CALLS; i++) {
		struct ismfs_dmb dmb;
		double started = seconds();

		if (i == WARM_UP)
			reg.n = unreg.n = 0;
		must_not_fail(ismfs_dmb_register(&bench->dev, size, &dmb), "register a DMB");
		add(&reg, started, 1);
		started = seconds();
		ismfs_dmb_unregister(&dmb);
		add(&unreg, started, 1);
	}
	named("register_populate_map", size, &reg);
	named("unregister", size, &unreg);
}

/* What the attaching process is timed at. */
enum step { OPEN, ATTACH, DETACH, STEPS };

/* The device's share of attaching: the open alone. */
static void open_only(const struct bench *bench, uint64_t token, struct samples steps[STEPS])
{
	char path[32] = "dmbs/";
	double started;
	int fd;

	ismfs_token_format(token, path + 5);
	started = seconds();
	fd = openat(bench->dev.dir, path, O_RDWR | O_CLOEXEC);
	add(&steps[OPEN], started, 1);
	must(fd >= 0, "open a DMB");
	close(fd);
}

/* All of it: open, fstat, map, populate. */
static void attach_and_detach(const struct bench *bench, uint64_t token, struct samples steps[STEPS])
{
	struct ismfs_dmb dmb;
	double started = seconds();

	must_not_fail(ismfs_dmb_attach(&bench->dev, token, 0, &dmb), "attach to a DMB");
	add(&steps[ATTACH], started, 1);
	started = seconds();
	ismfs_dmb_detach(&dmb);
	add(&steps[DETACH], started, 1);
}

/* The peer: takes a token, opens or attaches to its DMB, and answers with a byte. A DMB takes one peer, so it does them in turn. */
static void attach_all(const struct bench *bench, int tokens, int answers, struct samples steps[STEPS])
{
	uint64_t token;

	for (int i = 0; read(tokens, &token, sizeof(token)) == (ssize_t)sizeof(token); i++) {
		if (i % 2 == 0)
			open_only(bench, token, steps);
		else
			attach_and_detach(bench, token, steps);
		must(write(answers, "", 1) == 1, "answer");
	}
}

static void register_all(const struct bench *bench, size_t size, int tokens, int answers, struct samples steps[STEPS])
{
	for (int i = 0; i < 2 * (WARM_UP + CALLS); i++) {
		struct ismfs_dmb dmb;
		char byte;

		for (int s = 0; i == 2 * WARM_UP && s < STEPS; s++)
			steps[s].n = 0;
		must_not_fail(ismfs_dmb_register(&bench->dev, size, &dmb), "register a DMB");
		must(write(tokens, &dmb.token, sizeof(dmb.token)) == (ssize_t)sizeof(dmb.token), "tell a token");
		must(read(answers, &byte, 1) == 1, "the attaching process");
		ismfs_dmb_unregister(&dmb);
	}
}

/* Another process has to attach: an owner's own second open is another case. */
static void cost_of_attaching(const struct bench *bench, size_t size)
{
	struct samples *steps = mmap(NULL, STEPS * sizeof(*steps), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int tokens[2], answers[2];
	pid_t child;

	must(steps != MAP_FAILED && pipe(tokens) == 0 && pipe(answers) == 0, "set-up");
	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		close(tokens[1]);
		attach_all(bench, tokens[0], answers[1], steps);
		_exit(0);
	}
	close(tokens[0]);
	close(answers[1]);
	register_all(bench, size, tokens[1], answers[0], steps);
	close(tokens[1]);
	close(answers[0]);
	waitpid(child, NULL, 0);
	named("attach_open", size, &steps[OPEN]);
	named("attach_map_populate", size, &steps[ATTACH]);
	named("detach", size, &steps[DETACH]);
	munmap(steps, STEPS * sizeof(*steps));
}

static void cost_of_pwrite(const struct bench *bench, size_t bytes)
{
	struct samples s = { 0 };
	struct ismfs_dmb dmb;
	char *data = calloc(1, bytes);

	must(data != NULL, "memory");
	must_not_fail(ismfs_dmb_register(&bench->dev, (size_t)1 << 20, &dmb), "register a DMB");
	for (int i = 0; i < CALLS; i++) {
		double started = seconds();

		for (int n = 0; n < PWRITES_A_SAMPLE; n++)
			must(pwrite(dmb.fd, data, bytes, ISMFS_HEADER) == (ssize_t)bytes, "pwrite");
		add(&s, started, PWRITES_A_SAMPLE);
	}
	ismfs_dmb_unregister(&dmb);
	free(data);
	named("pwrite", bytes, &s);
}

void bench_cost(const struct bench *bench)
{
	static const size_t sizes[] = { 64 << 10, 1 << 20 };

	for (size_t i = 0; i < 2; i++) {
		cost_of_registering(bench, sizes[i]);
		cost_of_attaching(bench, sizes[i]);
	}
	cost_of_pwrite(bench, 64);
	cost_of_pwrite(bench, 64 << 10);
}
