/* SPDX-License-Identifier: Apache-2.0 */
/* What one call costs: register, unregister, attach, detach, pwrite. */
#define _GNU_SOURCE
#include <errno.h>
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

/* The peer: attaches to and detaches from each DMB whose token comes, and answers with a byte. */
static void attach_all(const struct bench *bench, int tokens, int answers, struct samples *attach, struct samples *detach)
{
	uint64_t token;

	while (read(tokens, &token, sizeof(token)) == (ssize_t)sizeof(token)) {
		struct ismfs_dmb dmb;
		double started = seconds();

		must_not_fail(ismfs_dmb_attach(&bench->dev, token, 0, &dmb), "attach to a DMB");
		add(attach, started, 1);
		started = seconds();
		ismfs_dmb_detach(&dmb);
		add(detach, started, 1);
		must(write(answers, "", 1) == 1, "answer");
	}
}

static void register_all(const struct bench *bench, size_t size, int tokens, int answers, struct samples *both)
{
	for (int i = 0; i < WARM_UP + CALLS; i++) {
		struct ismfs_dmb dmb;
		char byte;

		if (i == WARM_UP)
			both[0].n = both[1].n = 0;
		must_not_fail(ismfs_dmb_register(&bench->dev, size, &dmb), "register a DMB");
		must(write(tokens, &dmb.token, sizeof(dmb.token)) == (ssize_t)sizeof(dmb.token), "tell a token");
		must(read(answers, &byte, 1) == 1, "the attaching process");
		ismfs_dmb_unregister(&dmb);
	}
}

/* Another process has to attach: an owner's own second open is another case. */
static void cost_of_attaching(const struct bench *bench, size_t size)
{
	struct samples *both = mmap(NULL, 2 * sizeof(*both), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int tokens[2], answers[2];
	pid_t child;

	must(both != MAP_FAILED && pipe(tokens) == 0 && pipe(answers) == 0, "set-up");
	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		close(tokens[1]);
		attach_all(bench, tokens[0], answers[1], &both[0], &both[1]);
		_exit(0);
	}
	close(tokens[0]);
	close(answers[1]);
	register_all(bench, size, tokens[1], answers[0], both);
	close(tokens[1]);
	close(answers[0]);
	waitpid(child, NULL, 0);
	named("attach_map_populate", size, &both[0]);
	named("detach", size, &both[1]);
	munmap(both, 2 * sizeof(*both));
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
