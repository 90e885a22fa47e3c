/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes per second from one process to another: a ring of 1 MiB, or as asked, against a Unix stream socket and TCP loopback, 64,000 bytes a send.
 * Every round runs all of them one after the other, because the machine's speed changes between rounds more than they differ.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cbench.h"

enum { MESSAGE = 64000, BACKWARD_RING = 16 << 10 };
enum transport { ISMFS, UNIX, TCP, BARE_RING, TRANSPORTS };
enum placement { TWO_CPUS, ONE_CPU, FREE, PLACEMENTS };

static const char *const transport_names[] = { "ismfs", "unix", "tcp", "bare_ring" };
static const char *const placement_names[] = { "two_cpus", "one_cpu", "free" };

/* One end: a socket (conn NULL), or a connection with its DMBs. */
struct end {
	int fd;
	struct ismfs_conn *conn;
	struct ismfs_dmb own, peer;
};

/* ---- placement ---- */

static int nth_cpu(const cpu_set_t *allowed, int n)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, allowed) && n-- == 0)
			return cpu;
	}
	return -1;
}

/* Process 0 sends, process 1 receives. */
static void place(enum placement placement, int process, const cpu_set_t *allowed)
{
	cpu_set_t one;

	if (placement == FREE)
		return;
	CPU_ZERO(&one);
	CPU_SET(nth_cpu(allowed, placement == TWO_CPUS ? process : 0), &one);
	must(sched_setaffinity(0, sizeof(one), &one) == 0, "sched_setaffinity");
}

/* ---- ends ---- */

static void tell_and_learn(int control, const struct ismfs_dmb *own, uint64_t *token)
{
	must(write(control, &own->token, sizeof(*token)) == (ssize_t)sizeof(*token), "tell a token");
	must(read(control, token, sizeof(*token)) == (ssize_t)sizeof(*token), "learn a token");
}

static void open_ismfs(const struct bench *bench, struct end *end, int control, size_t size)
{
	uint64_t token;

	must_not_fail(ismfs_dmb_register(&bench->dev, size, &end->own), "register a DMB");
	tell_and_learn(control, &end->own, &token);
	must_not_fail(ismfs_dmb_attach(&bench->dev, token, 0, &end->peer), "attach to a DMB");
	must_not_fail(ismfs_conn_open(&bench->dev, &end->own, &end->peer, NULL, 0, &end->conn), "connection");
}

static void close_end(struct end *end)
{
	if (end->conn == NULL) {
		close(end->fd);
		return;
	}
	ismfs_conn_close(end->conn);
	ismfs_dmb_detach(&end->peer);
	ismfs_dmb_unregister(&end->own);
}

static ssize_t end_send(struct end *end, const void *data, size_t n)
{
	ssize_t sent;

	if (end->conn != NULL)
		return ismfs_conn_send(end->conn, data, n, -1);
	sent = send(end->fd, data, n, MSG_NOSIGNAL);
	return sent < 0 ? -errno : sent;
}

static ssize_t end_receive(struct end *end, void *data, size_t n)
{
	ssize_t received;

	if (end->conn != NULL)
		return ismfs_conn_recv(end->conn, data, n, -1);
	received = recv(end->fd, data, n, 0);
	return received < 0 ? -errno : received;
}

static void tcp_pair(int fds[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	must(listener >= 0 && bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0, "listen");
	must(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	must(fds[0] >= 0 && connect(fds[0], (struct sockaddr *)&address, size) == 0, "connect");
	fds[1] = accept(listener, NULL, NULL);
	must(fds[1] >= 0, "accept");
	close(listener);
}

static void socket_pair(enum transport transport, int fds[2])
{
	if (transport == UNIX)
		must(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "socketpair");
	else if (transport == TCP)
		tcp_pair(fds);
}

/* ---- one run ---- */

static void receive_all(struct end *end, size_t bytes)
{
	static char data[MESSAGE];

	while (bytes > 0) {
		ssize_t n = end_receive(end, data, sizeof(data));

		must_not_fail(n > 0 ? 0 : (n < 0 ? n : -EPIPE), "receive");
		bytes -= (size_t)n;
	}
}

static void send_all(struct end *end, size_t bytes)
{
	static char data[MESSAGE];

	memset(data, 'x', sizeof(data));
	while (bytes > 0) {
		ssize_t n = end_send(end, data, bytes < sizeof(data) ? bytes : sizeof(data));

		must_not_fail(n, "send");
		bytes -= (size_t)n;
	}
}

static void receiver(const struct bench *bench, enum transport transport, int fd, int control)
{
	struct end end = { .fd = fd };

	if (transport == ISMFS)
		open_ismfs(bench, &end, control, bench->ring);
	must(write(control, "r", 1) == 1, "ready");
	receive_all(&end, bench->bytes);
	must(write(control, "d", 1) == 1, "done");
	close_end(&end);
}

/* From the first send until the receiver has it all, in MB/s. */
static double sender(const struct bench *bench, enum transport transport, int fd, int control)
{
	struct end end = { .fd = fd };
	double started, took;
	char byte;

	if (transport == ISMFS)
		open_ismfs(bench, &end, control, BACKWARD_RING);
	must(read(control, &byte, 1) == 1, "the receiver");
	started = seconds();
	send_all(&end, bench->bytes);
	must(read(control, &byte, 1) == 1, "the receiver");
	took = seconds() - started;
	close_end(&end);
	return (double)bench->bytes / took / 1e6;
}

static double run(const struct bench *bench, enum transport transport, enum placement placement)
{
	int fds[2] = { -1, -1 }, control[2], status;
	cpu_set_t allowed;
	double rate;
	pid_t child;

	must(sched_getaffinity(0, sizeof(allowed), &allowed) == 0, "sched_getaffinity");
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, control) == 0, "socketpair");
	socket_pair(transport, fds);
	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		close(control[0]);
		close(fds[0]);
		place(placement, 1, &allowed);
		receiver(bench, transport, fds[1], control[1]);
		_exit(0);
	}
	close(control[1]);
	close(fds[1]);
	place(placement, 0, &allowed);
	rate = sender(bench, transport, fds[0], control[0]);
	must(sched_setaffinity(0, sizeof(allowed), &allowed) == 0, "sched_setaffinity");
	close(control[0]);
	must(waitpid(child, &status, 0) == child && status == 0, "the receiver");
	return rate;
}

/*
 * The sender for a receiver in another language, which listens on a Unix socket: the bytes go through that socket, or, once the two have
 * told each other their tokens on it (8 bytes each, native order), through the receiver's DMB.
 */
void bench_source(const struct bench *bench, bool through_dmb, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct end end = { .fd = fd };
	char byte;

	must(strlen(path) < sizeof(address.sun_path), "path");
	strcpy(address.sun_path, path);
	must(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, path);
	if (through_dmb)
		open_ismfs(bench, &end, fd, BACKWARD_RING);
	send_all(&end, bench->bytes);
	must(read(fd, &byte, 1) >= 0, "the receiver"); /* it has all, or is gone */
	close_end(&end);
}

/* ---- all rounds ---- */

static cpu_set_t all_cpus;

static void place_on_two_cpus(int process)
{
	place(TWO_CPUS, process, &all_cpus);
}

static double run_bare_ring(const struct bench *bench)
{
	double rate;

	must(sched_getaffinity(0, sizeof(all_cpus), &all_cpus) == 0, "sched_getaffinity");
	rate = bench_bare_ring(bench->bytes, bench->by_pwrite, place_on_two_cpus);
	must(sched_setaffinity(0, sizeof(all_cpus), &all_cpus) == 0, "sched_setaffinity");
	return rate;
}

void bench_rings(const struct bench *bench)
{
	static struct samples rates;
	cpu_set_t allowed;

	must(sched_getaffinity(0, sizeof(allowed), &allowed) == 0, "sched_getaffinity");
	if (CPU_COUNT(&allowed) < 2) {
		fputs("ismfs-cbench: the bare ring needs two CPUs\n", stderr);
		exit(1);
	}
	for (size_t round = 0; round < bench->rounds; round++)
		rates.value[rates.n++] = run_bare_ring(bench);
	print_samples("bandwidth_two_cpus_bare_ring", "MB/s", &rates);
}

static void report(enum placement placement, struct samples rates[TRANSPORTS], struct samples ratios[TRANSPORTS])
{
	char name[64];

	for (int t = 0; t < TRANSPORTS && rates[t].n > 0; t++) {
		snprintf(name, sizeof(name), "bandwidth_%s_%s", placement_names[placement], transport_names[t]);
		print_samples(name, "MB/s", &rates[t]);
		if (t == UNIX)
			continue;
		snprintf(name, sizeof(name), "bandwidth_%s_%s_to_unix", placement_names[placement], transport_names[t]);
		print_samples(name, "ratio", &ratios[t]);
	}
}

static void compare(const struct bench *bench, enum placement placement)
{
	static struct samples rates[TRANSPORTS], ratios[TRANSPORTS];

	memset(rates, 0, sizeof(rates));
	memset(ratios, 0, sizeof(ratios));
	for (size_t round = 0; round < bench->rounds; round++) {
		for (int t = 0; t < BARE_RING; t++)
			rates[t].value[rates[t].n++] = run(bench, (enum transport)t, placement);
		if (placement == TWO_CPUS)
			rates[BARE_RING].value[rates[BARE_RING].n++] = run_bare_ring(bench);
		for (int t = 0; t < TRANSPORTS && rates[t].n > 0; t++)
			ratios[t].value[ratios[t].n++] = rates[t].value[round] / rates[UNIX].value[round];
	}
	report(placement, rates, ratios);
}

void bench_bandwidth(const struct bench *bench)
{
	cpu_set_t allowed;

	must(sched_getaffinity(0, sizeof(allowed), &allowed) == 0, "sched_getaffinity");
	for (int p = 0; p < PLACEMENTS; p++) {
		if (p == TWO_CPUS && CPU_COUNT(&allowed) < 2) {
			fputs("ismfs-cbench: two_cpus left out: this process may use one CPU only\n", stderr);
			continue;
		}
		compare(bench, (enum placement)p);
	}
}
