/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes between a connection and a file or a pipe. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

enum { FILE_SIZE = 300000 };

static void *drain(void *fd)
{
	char *b = malloc(FILE_SIZE);

	read_all(*(int *)fd, b, FILE_SIZE);
	return b;
}

static void files(void)
{
	struct pair p = pair_open();
	char name[] = "/tmp/smc-run-test-XXXXXX", *b = malloc(FILE_SIZE);
	int fd = mkstemp(name), pipes[2];
	void *got;
	pthread_t reader;
	off_t at = 0;

	check(fd >= 0 && unlink(name) == 0 && pipe(pipes) == 0);
	for (int i = 0; i < FILE_SIZE; i++)
		b[i] = (char)(i * 7 + i / 251);
	check(write(fd, b, FILE_SIZE) == FILE_SIZE && lseek(fd, 0, SEEK_SET) == 0);

	check(pthread_create(&reader, NULL, drain, &p.server) == 0);
	while (at < FILE_SIZE)
		check(wrote(sendfile(p.client, fd, &at, (size_t)(FILE_SIZE - at))) > 0);
	check(lseek(fd, 0, SEEK_CUR) == 0);
	check(pthread_join(reader, &got) == 0 && memcmp(got, b, FILE_SIZE) == 0);
	free(got);

	check(pthread_create(&reader, NULL, drain, &p.server) == 0);
	for (ssize_t n = 0; n < FILE_SIZE;) {
		ssize_t one = wrote(sendfile(p.client, fd, NULL, 100000));

		check(one > 0);
		n += one;
	}
	check(lseek(fd, 0, SEEK_CUR) == FILE_SIZE && sendfile(p.client, fd, NULL, 1) == 0);
	check(pthread_join(reader, &got) == 0 && memcmp(got, b, FILE_SIZE) == 0);
	free(got);

	check(write(pipes[1], "through", 7) == 7);
	check(wrote(splice(pipes[0], NULL, p.client, NULL, 100, 0)) == 7);
	check(splice(p.server, NULL, pipes[1], NULL, 100, 0) == 7);
	check(read(pipes[0], b, 100) == 7 && memcmp(b, "through", 7) == 0);
	check(fcntl(p.server, F_SETFL, O_NONBLOCK) == 0);
	check(splice(p.server, NULL, pipes[1], NULL, 100, SPLICE_F_NONBLOCK) == -1 && errno == EAGAIN);
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0 && close(fd) == 0);
	free(b);
	pair_close(p);
}

static void *splice_and_receive(void *fds)
{
	const int *fd = fds;
	ssize_t n = wrote(splice(fd[0], NULL, fd[1], NULL, 100, 0));

	wants(fd[1], "back");
	return (void *)(n + recv(fd[1], &(char){ 0 }, 1, 0));
}

/* The smallest stack that a thread can have, and nothing below it; a sanitizer's frames do not fit there. */
static void on_a_small_stack(void)
{
#ifdef SANITIZED
	enum { STACK = 1 << 20 };
#else
	enum { STACK = 16384 };
#endif
	struct pair p = pair_open();
	int pipes[2], fds[2];
	pthread_attr_t small;
	pthread_t thread;
	void *n;

	check(pipe(pipes) == 0 && write(pipes[1], "through", 7) == 7);
	fds[0] = pipes[0], fds[1] = p.client;
	write_all(p.server, "back!", 5);
	check(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, STACK) == 0 && pthread_attr_setguardsize(&small, 1 << 20) == 0);
	check(pthread_create(&thread, &small, splice_and_receive, fds) == 0 && pthread_join(thread, &n) == 0 && n == (void *)8);
	wants(p.server, "through");
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0);
	pair_close(p);
}

/* A handler ends the call with what was sent, where else it would go on. */
static void interrupted_in_the_middle(void)
{
	enum { MUCH = 16 << 20 };
	struct sigaction action = { .sa_handler = count_signal, .sa_flags = SA_RESTART }, old;
	struct pair p = pair_open();
	char name[] = "/tmp/smc-run-test-XXXXXX", *b = malloc(MUCH);
	int fd = mkstemp(name);
	pthread_t self = pthread_self(), other;
	ssize_t n;

	check(fd >= 0 && unlink(name) == 0 && ftruncate(fd, MUCH) == 0);
	check(sigaction(SIGUSR1, &action, &old) == 0);
	check(pthread_create(&other, NULL, signal_again, &self) == 0);
	n = wrote(sendfile(p.client, fd, NULL, MUCH));
	check(n > 0 && n < MUCH && lseek(fd, 0, SEEK_CUR) == n);
	check(pthread_join(other, NULL) == 0 && sigaction(SIGUSR1, &old, NULL) == 0);
	read_all(p.server, b, (size_t)n);
	check(close(fd) == 0);
	free(b);
	pair_close(p);
}

/* What sendfile refuses, it refuses with the kernel's errors: by EINVAL programs know that they have to copy. */
static void not_a_file(void)
{
	struct pair p = pair_open();
	int pipes[2], directory = open("/", O_RDONLY), file = open("/proc/self/exe", O_RDONLY);
	off_t before = -1;

	check(pipe(pipes) == 0 && directory >= 0 && file >= 0);
	check(sendfile(p.client, pipes[0], NULL, 10) == -1 && errno == EINVAL);
	check(sendfile(p.client, directory, NULL, 10) == -1 && errno == EINVAL);
	check(sendfile(p.client, p.server, NULL, 10) == -1 && errno == EINVAL);
	check(sendfile(p.client, file, &before, 10) == -1 && errno == EINVAL && before == -1);
	check(sendfile(p.client, -1, NULL, 10) == -1 && errno == EBADF);
	check(sendfile(p.client, file, NULL, (size_t)-1) == -1 && errno == EINVAL);
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0 && close(directory) == 0 && close(file) == 0);
	pair_close(p);
}

/* A pipe that is nearly full, and one that is empty, both blocking: with SPLICE_F_NONBLOCK nobody waits for who would empty or fill it. */
static void splice_never_waits(void)
{
	enum { BEFORE = 60000, SENT = 20000 };
	struct pair p = pair_open();
	char *b = malloc(BEFORE + SENT), *got = malloc(BEFORE);
	ssize_t moved, at = 0;
	int pipes[2];

	for (int i = 0; i < BEFORE + SENT; i++)
		b[i] = (char)(i * 7 + i / 251);
	check(pipe(pipes) == 0);
	check(splice(pipes[0], NULL, p.client, NULL, 100, SPLICE_F_NONBLOCK) == -1 && errno == EAGAIN);
	check(write(pipes[1], b, BEFORE) == BEFORE);
	check(wrote(write(p.client, b + BEFORE, SENT)) == SENT);
	check(splice(p.server, NULL, p.client, NULL, 100, 0) == -1 && errno == EINVAL);
	check(fcntl(p.server, F_SETFL, O_NONBLOCK) == 0);
	while (at < BEFORE + SENT) {
		while (splice(p.server, NULL, pipes[1], NULL, SENT, SPLICE_F_NONBLOCK) > 0)
			;
		check(errno == EAGAIN);
		moved = read(pipes[0], got, BEFORE);
		check(moved > 0 && memcmp(got, b + at, (size_t)moved) == 0);
		at += moved;
	}
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0);
	free(b);
	free(got);
	pair_close(p);
}

/* What a splice could not write stays in the pipe, whether it may not wait, has waited for too long, or was interrupted. */
static void splice_takes_nothing_in_vain(void)
{
	struct sigaction action = { .sa_handler = count_signal }, old;
	struct timeval limit = { 0, 50000 }, none = { 0 };
	struct pair p = pair_open();
	pthread_t self = pthread_self(), other;
	char *b = calloc(1, FILE_SIZE);
	long long filled = 0;
	int pipes[2], held;
	ssize_t n;

	check(pipe(pipes) == 0 && write(pipes[1], "piped", 5) == 5);
	check(setsockopt(p.client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0);
	while ((n = wrote(write(p.client, b, FILE_SIZE))) > 0)
		filled += n;
	check(errno == EAGAIN);
	check(splice(pipes[0], NULL, p.client, NULL, 100, 0) == -1 && errno == EAGAIN);
	check(setsockopt(p.client, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none)) == 0);
	check(sigaction(SIGUSR1, &action, &old) == 0);
	check(pthread_create(&other, NULL, signal_again, &self) == 0);
	check(splice(pipes[0], NULL, p.client, NULL, 100, 0) == -1 && errno == EINTR);
	check(pthread_join(other, NULL) == 0 && sigaction(SIGUSR1, &old, NULL) == 0);
	check(fcntl(p.client, F_SETFL, O_NONBLOCK) == 0);
	check(splice(pipes[0], NULL, p.client, NULL, 100, 0) == -1 && errno == EAGAIN);
	check(ioctl(pipes[0], FIONREAD, &held) == 0 && held == 5);
	check(fcntl(p.client, F_SETFL, 0) == 0);
	while (filled > 0) {
		n = read(p.server, b, filled < FILE_SIZE ? (size_t)filled : FILE_SIZE);
		check(n > 0);
		filled -= n;
	}
	check(wrote(splice(pipes[0], NULL, p.client, NULL, 100, 0)) == 5);
	wants(p.server, "piped");
	check(close(pipes[0]) == 0 && close(pipes[1]) == 0);
	free(b);
	pair_close(p);
}

struct pipe_of_thread {
	pthread_t thread;
	int pipes[2];
	char taken[4096];
};

/* Signals whoever waits for the pipe, and then gives it a word, or makes room. */
static void *signal_and_put(void *of)
{
	struct pipe_of_thread *p = of;

	usleep(100000);
	check(pthread_kill(p->thread, SIGUSR1) == 0);
	usleep(50000);
	check(write(p->pipes[1], "later", 5) == 5);
	return NULL;
}

static void *signal_and_take(void *of)
{
	struct pipe_of_thread *p = of;

	usleep(100000);
	check(pthread_kill(p->thread, SIGUSR1) == 0);
	usleep(50000);
	check(read(p->pipes[0], p->taken, sizeof(p->taken)) == sizeof(p->taken));
	return NULL;
}

/* A splice that waits for its pipe goes on after a handler with SA_RESTART, and ends by another one. */
static void splice_resumes(int flags)
{
	struct sigaction action = { .sa_handler = count_signal, .sa_flags = flags }, old;
	struct pipe_of_thread o = { .thread = pthread_self() };
	struct pair p = pair_open();
	int before = signals, resumes = flags & SA_RESTART;
	pthread_t other;
	ssize_t n;

	check(pipe(o.pipes) == 0 && sigaction(SIGUSR1, &action, &old) == 0);
	check(pthread_create(&other, NULL, signal_and_put, &o) == 0);
	n = splice(o.pipes[0], NULL, p.client, NULL, 100, 0);
	check(resumes ? wrote(n) == 5 : n == -1 && errno == EINTR);
	check(pthread_join(other, NULL) == 0 && signals == before + 1);
	if (!resumes)
		check(wrote(splice(o.pipes[0], NULL, p.client, NULL, 100, 0)) == 5);

	check(fcntl(o.pipes[1], F_SETFL, O_NONBLOCK) == 0);
	while (write(o.pipes[1], o.taken, sizeof(o.taken)) > 0)
		;
	check(errno == EAGAIN && fcntl(o.pipes[1], F_SETFL, 0) == 0);
	check(pthread_create(&other, NULL, signal_and_take, &o) == 0);
	n = splice(p.server, NULL, o.pipes[1], NULL, 100, 0);
	check(resumes ? n == 5 : n == -1 && errno == EINTR);
	check(pthread_join(other, NULL) == 0 && signals == before + 2);
	if (!resumes)
		wants(p.server, "later");
	check(sigaction(SIGUSR1, &old, NULL) == 0 && close(o.pipes[0]) == 0 && close(o.pipes[1]) == 0);
	pair_close(p);
}

static void splice_interrupted(void)
{
	splice_resumes(SA_RESTART);
	splice_resumes(0);
}

void test_files(void)
{
	RUN(splice_interrupted);
	RUN(on_a_small_stack);
	RUN(not_a_file);
	RUN(files);
	RUN(interrupted_in_the_middle);
	RUN(splice_never_waits);
	RUN(splice_takes_nothing_in_vain);
}
