/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lost wake-ups, against a fake mount: both ways at once, two threads in each of two processes, messages of all sizes through the
 * smallest rings, so that everybody sleeps and wakes all the time. This program's library does not look by itself every second, so a
 * wake-up that got lost runs into the timeout and fails the test.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake.h"

enum { STRESS_BYTES = 16 << 20, STRESS_TIMEOUT_MS = 30000 };

static void *stress_send(void *arg)
{
	unsigned char data[3000];
	size_t sent = 0;
	unsigned int seed = 1;

	while (sent < STRESS_BYTES) {
		size_t n = 1 + (size_t)rand_r(&seed) % sizeof(data);

		if (n > STRESS_BYTES - sent)
			n = STRESS_BYTES - sent;
		for (size_t i = 0; i < n; i++)
			data[i] = pattern(sent + i);
		CHECK(ismfs_conn_send(arg, data, n, STRESS_TIMEOUT_MS) == (ssize_t)n);
		sent += n;
	}
	CHECK(ismfs_conn_shutdown(arg) == 0);
	return NULL;
}

static void stress_receive(struct ismfs_conn *conn)
{
	unsigned char data[1000];
	size_t received = 0;
	ssize_t n;

	while ((n = ismfs_conn_recv(conn, data, sizeof(data), STRESS_TIMEOUT_MS)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			CHECK(data[i] == pattern(received + (size_t)i));
		received += (size_t)n;
	}
	CHECK(n == 0 && received == STRESS_BYTES);
}

static void stress_end(struct ismfs_conn *conn)
{
	pthread_t sender;

	CHECK(pthread_create(&sender, NULL, stress_send, conn) == 0);
	stress_receive(conn);
	pthread_join(sender, NULL);
}

static void test_stress(struct fake *fake, bool separated, unsigned int flags)
{
	struct fake_pair pair;
	pid_t child;
	int status;

	fake_connect(fake, ISMFS_MIN_SIZE, separated, flags, &pair);
	child = fork();
	if (child == 0) {
		stress_end(pair.conn[0]);
		_exit(0);
	}
	stress_end(pair.conn[1]);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	fake_disconnect(&pair);
}

int main(void)
{
	struct fake fake;

	alarm(120);
	fake_open(&fake);
	test_stress(&fake, false, 0);
	test_stress(&fake, false, ISMFS_USE_BELL);
	test_stress(&fake, true, ISMFS_USE_BELL);
	fake_close(&fake);
	puts("ok");
	return 0;
}
