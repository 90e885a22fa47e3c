/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of descriptors, fork and exec. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void copies(void)
{
	struct pair p = pair_open();
	int a = dup(p.client), b = fcntl(p.client, F_DUPFD_CLOEXEC, 100), c = dup2(p.client, 77), d = dup3(p.client, 78, O_CLOEXEC);
	char byte;

	check(a >= 0 && b >= 100 && c == 77 && d == 78);
	check(close(p.client) == 0 && close(a) == 0 && close(b) == 0);
	write_all(c, "x", 1);
	read_all(p.server, &byte, 1);
	write_all(p.server, "y", 1);
	check(close(c) == 0);
	read_all(d, &byte, 1);
	check(byte == 'y' && recv(p.server, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(close(d) == 0 && read(p.server, &byte, 1) == 0 && close(p.server) == 0);
}

static int copy_by_dup(int fd)
{
	return dup(fd);
}

static int copy_by_fcntl(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 100);
}

static int copy_by_dup2(int fd)
{
	return dup2(fd, 77);
}

static int copy_by_dup3(int fd)
{
	return dup3(fd, 78, O_CLOEXEC);
}

static int (*const copiers[])(int fd) = { copy_by_dup, copy_by_fcntl, copy_by_dup2, copy_by_dup3 };
enum { COPIERS = sizeof(copiers) / sizeof(copiers[0]) };

/* One number of a connection goes, the other one goes on. */
static void goes_on(int listener, int first, int second)
{
	struct pair p = { .client = second, .server = accept_one(listener) };
	char b[2];

	write_all(first, "x", 1);
	read_all(p.server, b, 1);
	check(close(first) == 0);
	write_all(p.server, "yz", 2);
	read_all(second, b, 2);
	check(memcmp(b, "yz", 2) == 0);
	write_all(second, "x", 1);
	read_all(p.server, b, 1);
	check(close(second) == 0 && read(p.server, b, 1) == 0 && close(p.server) == 0 && close(listener) == 0);
}

/* Whichever of the two connects. */
static void copied_before_connect(void)
{
	for (int i = 0; i < 2 * COPIERS; i++) {
		int listener = listen_any(), first = socket(family, SOCK_STREAM, 0), second = copiers[i / 2](first);

		check(first >= 0 && second >= 0);
		check(connect_socket(i % 2 == 0 ? first : second, listener) == 0);
		goes_on(listener, first, second);
	}
}

/* The copy waits for the end of the connect, and has been in a set since before. */
static void copied_before_connect_that_does_not_wait(void)
{
	int listener = listen_any(), first = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), second = dup(first), set = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLOUT, .data.u32 = 7 }, got;

	check(first >= 0 && second >= 0 && set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, second, &event) == 0);
	check(connect_socket(first, listener) == 0 || errno == EINPROGRESS);
	check(epoll_wait(set, &got, 1, -1) == 1 && got.events == EPOLLOUT && got.data.u32 == 7 && close(set) == 0);
	set_nonblocking(second, 0);
	goes_on(listener, first, second);
}

/* One that was refused tries again. */
static void copied_before_connects(void)
{
	int listener = listen_any(), first = socket(family, SOCK_STREAM, 0), second;
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);

	check(first >= 0 && getsockname(listener, (struct sockaddr *)&a, &size) == 0 && close(listener) == 0);
	check(connect(first, (struct sockaddr *)&a, size) == -1 && errno == ECONNREFUSED);
	second = dup(first);
	check(second >= 0 && connect(second, (struct sockaddr *)&a, size) == -1 && errno == ECONNREFUSED);
	listener = listen_any();
	check(connect_socket(first, listener) == 0);
	goes_on(listener, first, second);
}

static void copied_before_listen(void)
{
	for (int i = 0; i < COPIERS; i++) {
		int first = bound_any(), second = copiers[i](first), client, server;
		char byte;

		check(second >= 0 && listen(first, 1) == 0 && close(first) == 0);
		client = connect_to(second);
		server = accept_one(second);
		write_all(client, "x", 1);
		read_all(server, &byte, 1);
		check(close(client) == 0 && read(server, &byte, 1) == 0 && close(server) == 0 && close(second) == 0);
	}
}

/* dup2 onto a connection closes it. */
static void replaced(void)
{
	struct pair p = pair_open();
	char byte;

	check(dup2(2, p.client) == p.client);
	check(read(p.server, &byte, 1) == 0);
	pair_close(p);
}

static void wait_for(pid_t child)
{
	int status = -1;

	check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A server that forks for each client: the child talks, the parent closes its copy at once. */
static void forked(void)
{
	struct pair p = pair_open();
	char b[8] = "";
	pid_t child = fork();

	check(child >= 0);
	if (child == 0) {
		check(close(p.client) == 0);
		read_all(p.server, b, 4);
		write_all(p.server, "from", 4);
		_exit(0);
	}
	check(close(p.server) == 0);
	check(recv(p.client, b, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	write_all(p.client, "talk", 4);
	read_all(p.client, b, 4);
	check(memcmp(b, "from", 4) == 0);
	check(read(p.client, b, 1) == 0);
	wait_for(child);
	check(close(p.client) == 0);
}

/* A child that only has copies, and goes: as Redis saves in the background. */
static void child_comes_and_goes(void)
{
	pid_t child = fork();

	check(child >= 0);
	if (child == 0)
		_exit(0);
	wait_for(child);
}

static void child_goes(void)
{
	struct pair p = pair_open();
	char byte;

	child_comes_and_goes();
	write_all(p.client, "x", 1);
	read_all(p.server, &byte, 1);
	write_all(p.server, "x", 1);
	read_all(p.client, &byte, 1);
	check(close(p.client) == 0 && read(p.server, &byte, 1) == 0 && close(p.server) == 0);
}

static void *write_soon(void *fd)
{
	usleep(100000);
	write_all(*(int *)fd, "s", 1);
	return NULL;
}

/* Sleeps in poll before a fork and after it, in both processes. */
static void child_polls(void)
{
	struct pair p = pair_open(), q = pair_open();
	struct pollfd f[2] = { { .fd = p.server, .events = POLLIN }, { .fd = q.server, .events = POLLIN } };
	pthread_t writer;
	char byte;
	pid_t child;

	check(poll(f, 2, 20) == 0);
	child = fork();
	check(child >= 0);
	if (child == 0) {
		check(close(p.client) == 0 && close(q.client) == 0);
		check(poll(f, 2, 5000) == 1 && f[1].revents == POLLIN);
		read_all(q.server, &byte, 1);
		_exit(0);
	}
	usleep(100000);
	write_all(q.client, "x", 1);
	wait_for(child);
	check(poll(f, 2, 20) == 0);
	check(pthread_create(&writer, NULL, write_soon, &p.client) == 0);
	check(poll(f, 2, 5000) == 1 && f[0].revents == POLLIN);
	check(pthread_join(writer, NULL) == 0);
	read_all(p.server, &byte, 1);
	pair_close(p);
	pair_close(q);
}

/* The server's end in a set, of which somebody waits to hear what comes later. */
static void hear_in(int set, struct pair p)
{
	struct epoll_event e;
	pthread_t writer;
	char byte;

	for (int i = 0; i < 2; i++) {
		check(pthread_create(&writer, NULL, write_soon, &p.client) == 0);
		check(epoll_wait(set, &e, 1, 20000) == 1 && e.events == EPOLLIN);
		check(pthread_join(writer, NULL) == 0);
		read_all(p.server, &byte, 1);
	}
}

static int set_with(int fd)
{
	struct epoll_event e = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC);

	check(set >= 0 && epoll_wait(set, &e, 1, 0) == 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0 && epoll_wait(set, &e, 1, 10) == 0);
	return set;
}

/* A child closes what it has of a set, one by one, or ends: its parent goes on hearing. */
static void set_of_parent(void)
{
	for (int way = 0; way < 3; way++) {
		struct pair p = pair_open();
		int set = set_with(p.server);
		pid_t child = fork();

		check(child >= 0);
		if (child == 0) {
			check(way < 1 || close(p.server) == 0);
			check(way < 2 || close(set) == 0);
			_exit(0);
		}
		wait_for(child);
		hear_in(set, p);
		check(close(set) == 0);
		pair_close(p);
	}
}

static void *wait_in_set(void *set)
{
	struct epoll_event e;

	check(epoll_wait(*(int *)set, &e, 1, 1500) == 0);
	return NULL;
}

/* Two sets hear by one bell. One of them has lost its connections since a fork, and somebody waits in it first. */
static void set_beside_another(void)
{
	struct pair p = pair_open(), q = pair_open();
	int set = set_with(p.server), other = set_with(q.server);
	pthread_t first;

	child_comes_and_goes();
	pair_close(p);
	check(pthread_create(&first, NULL, wait_in_set, &set) == 0);
	usleep(100000);
	hear_in(other, q);
	check(pthread_join(first, NULL) == 0 && close(set) == 0 && close(other) == 0);
	pair_close(q);
}

/* As daemons begin: the parent ends, and the child goes on with the set. */
static void set_of_child(void)
{
	struct pair p = pair_open();
	int set = set_with(p.server), done[2], gone[2];
	char byte = 0;
	pid_t parent;

	check(pipe(done) == 0 && pipe(gone) == 0);
	parent = fork();
	check(parent >= 0);
	if (parent == 0) {
		pid_t child = fork();

		check(child >= 0);
		if (child > 0)
			_exit(0);
		check(close(gone[1]) == 0 && read(gone[0], &byte, 1) == 0);
		hear_in(set, p);
		check(write(done[1], "d", 1) == 1);
		_exit(0);
	}
	check(close(done[1]) == 0 && close(gone[1]) == 0);
	wait_for(parent);
	check(read(done[0], &byte, 1) == 1 && byte == 'd' && read(done[0], &byte, 1) == 0);
	check(close(done[0]) == 0 && close(gone[0]) == 0 && close(set) == 0);
	pair_close(p);
}

static void *wait_for_first(void *set)
{
	struct epoll_event e;

	check(epoll_wait(*(int *)set, &e, 1, 10000) == 1 && e.events == EPOLLIN);
	return NULL;
}

/*
 * A thread waits in a set before there is anything in it, and is what the kernel tells of the first connection's bytes: the call that adds
 * them wakes it, but it has the CPU only when another one has taken that.
 */
static void waited_for_before_it_is_added(void)
{
	struct pair p = pair_open();
	struct sched_param none = { 0 };
	struct epoll_event e = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC), cpu = sched_getcpu();
	pid_t child = fork();
	cpu_set_t one;
	pthread_t thread;

	check(set >= 0 && cpu >= 0 && child >= 0);
	if (child == 0) {
		CPU_ZERO(&one);
		CPU_SET((size_t)cpu, &one);
		check(sched_setaffinity(0, sizeof(one), &one) == 0);
		check(pthread_create(&thread, NULL, wait_for_first, &set) == 0);
		check(pthread_setschedparam(thread, SCHED_IDLE, &none) == 0);
		usleep(100000);
		check(epoll_ctl(set, EPOLL_CTL_ADD, p.server, &e) == 0);
		check(epoll_wait(set, &e, 1, 0) == 0);
		usleep(100000);
		check(wrote(write(p.client, "b", 1)) == 1 && pthread_join(thread, NULL) == 0);
		wants(p.server, "b");
		_exit(0);
	}
	check(close(set) == 0);
	wait_for(child);
	pair_close(p);
}

/* Both have it, both write and read. What they write fits the ring: nobody reads before both have begun. */
static void both_talk(void)
{
	struct pair p = pair_open();
	enum { EACH = 50000 };
	char b[64];
	long got = 0;
	ssize_t n;
	pid_t child = fork();

	check(child >= 0);
	for (int i = 0; i < EACH / 50; i++)
		if (child == 0) {
			memset(b, 'c', 50);
			write_all(p.client, b, 50);
		} else if (i < 100) {
			memset(b, 'p', 50);
			write_all(p.client, b, 50);
		}
	if (child == 0)
		_exit(0);
	check(close(p.client) == 0);
	while ((n = read(p.server, b, sizeof(b))) > 0)
		got += n;
	check(n == 0 && got == EACH + 5000);
	wait_for(child);
	check(close(p.server) == 0);
}

/* A child is the last one that has a connection, and closes it before the other end does, or after. What comes next finds all in order. */
static void left_to_child(void)
{
	for (int first = 0; first < 2; first++) {
		struct pair p = pair_open();
		char byte;
		pid_t child = fork();

		check(child >= 0);
		if (child == 0) {
			check(close(p.server) == 0 && (first || read(p.client, &byte, 1) == 0) && close(p.client) == 0);
			_exit(0);
		}
		check(close(p.client) == 0 && (!first || read(p.server, &byte, 1) == 0) && close(p.server) == 0);
		for (int i = 0; i < 3; i++)
			pair_close(pair_open());
		wait_for(child);
		for (int i = 0; i < 3; i++)
			pair_close(pair_open());
	}
}

/* Children that are killed before they have run at all: they share the CPU, and are scheduled after who makes them. */
static void killed_at_once(void)
{
	const struct sched_param first = { .sched_priority = 1 }, others = { 0 };
	cpu_set_t all, one;
	pid_t children[8];

	check(sched_getaffinity(0, sizeof(all), &all) == 0);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	check(sched_setaffinity(0, sizeof(one), &one) == 0);
	for (int client = 0; client < 2; client++) {
		struct pair p = pair_open();
		int first_end = client ? p.client : p.server, second_end = client ? p.server : p.client;
		struct stat st;

		check(fstat(first_end, &st) == 0);
		(void)sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first); /* without the privilege they may run */
		for (int i = 0; i < 8; i++) {
			children[i] = fork();
			check(children[i] >= 0);
			if (children[i] == 0)
				for (;;)
					pause();
			check(kill(children[i], SIGKILL) == 0);
		}
		check(sched_setscheduler(0, SCHED_OTHER, &others) == 0);
		/* Of some nothing is left, of some a zombie. */
		for (int i = 0; i < 8; i++)
			check(i % 2 == 0 ? waitpid(children[i], NULL, 0) == children[i] :
					   waitid(P_PID, (id_t)children[i], &(siginfo_t){ 0 }, WEXITED | WNOWAIT) == 0);
		check(close(first_end) == 0);
		check(getenv("LD_PRELOAD") == NULL || lines_of_socket(st.st_ino) == 0);
		wants_end(second_end);
		check(close(second_end) == 0);
		for (int i = 1; i < 8; i += 2)
			check(waitpid(children[i], NULL, 0) == children[i]);
	}
	check(sched_setaffinity(0, sizeof(all), &all) == 0);
}

enum { CLOSED = 40 };

static void *close_some(void *pairs)
{
	for (int i = 0; i < CLOSED; i++) {
		check(close(((struct pair *)pairs)[i].client) == 0);
		usleep(200);
	}
	return NULL;
}

/* One thread closes, another one forks: a connection ends with the last process that has it, and a child may have it or not. */
static void closed_while_forking(void)
{
	struct pair pairs[CLOSED];
	pthread_t closer;
	char byte;

	for (int i = 0; i < CLOSED; i++)
		pairs[i] = pair_open();
	check(pthread_create(&closer, NULL, close_some, pairs) == 0);
	do {
		child_comes_and_goes();
	} while (pthread_tryjoin_np(closer, NULL) != 0);
	for (int i = 0; i < CLOSED; i++) {
		struct pollfd p = { .fd = pairs[i].server, .events = POLLIN };

		check(poll(&p, 1, 5000) == 1 && read(pairs[i].server, &byte, 1) == 0 && close(pairs[i].server) == 0);
	}
}

static _Atomic int over;

static void *add_and_delete(void *set)
{
	struct pair p = pair_open();
	struct epoll_event e = { .events = EPOLLIN };

	while (!over)
		check(epoll_ctl(*(int *)set, EPOLL_CTL_ADD, p.client, &e) == 0 && epoll_ctl(*(int *)set, EPOLL_CTL_DEL, p.client, NULL) == 0);
	pair_close(p);
	return NULL;
}

/* One thread is in the middle of a set while another one forks: the child can use the set. */
static void forked_beside_epoll(void)
{
	struct pair p = pair_open();
	struct epoll_event e = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC);
	pthread_t other;

	over = 0;
	check(set >= 0 && pthread_create(&other, NULL, add_and_delete, &set) == 0);
	for (int i = 0; i < 1000; i++) {
		pid_t child = fork();

		check(child >= 0);
		if (child == 0) {
			alarm(10);
			check(epoll_ctl(set, EPOLL_CTL_ADD, p.client, &e) == 0 && epoll_ctl(set, EPOLL_CTL_DEL, p.client, NULL) == 0);
			_exit(0);
		}
		wait_for(child);
	}
	over = 1;
	check(pthread_join(other, NULL) == 0 && close(set) == 0);
	pair_close(p);
}

/* A shared listener: each connection is one child's. */
static void prefork(void)
{
	enum { CHILDREN = 3, CLIENTS = 30 };
	int listener = listen_any(), clients[CLIENTS];
	pid_t child[CHILDREN];
	char byte;

	for (int i = 0; i < CHILDREN; i++) {
		child[i] = fork();
		check(child[i] >= 0);
		for (int fd; child[i] == 0;) {
			fd = accept(listener, NULL, NULL);
			check(fd >= 0);
			if (read(fd, &byte, 1) != 1)
				_exit(1);
			write_all(fd, &byte, 1);
			check(close(fd) == 0);
			if (byte == 'q')
				_exit(0);
		}
	}
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = connect_to(listener);
		write_all(clients[i], i < CLIENTS - CHILDREN ? "w" : "q", 1);
		read_all(clients[i], &byte, 1);
		check(read(clients[i], &byte, 1) == 0);
	}
	for (int i = 0; i < CLIENTS; i++)
		check(close(clients[i]) == 0);
	for (int i = 0; i < CHILDREN; i++)
		wait_for(child[i]);
	check(close(listener) == 0);
}

/* fork and exec of something else does not end a connection, nor keep it. */
static void forked_exec(void)
{
	struct pair p = pair_open();
	char byte;
	pid_t child = fork();

	check(fcntl(p.client, F_SETFD, FD_CLOEXEC) == 0 && child >= 0);
	if (child == 0) {
		(void)fcntl(p.client, F_SETFD, FD_CLOEXEC);
		(void)fcntl(p.server, F_SETFD, FD_CLOEXEC);
		execl("/does/not/exist", "x", NULL);
		check(execveat(AT_FDCWD, "/does/not/exist", (char *[]){ NULL }, environ, 0) == -1 && errno == ENOENT);
		execlp("true", "true", NULL);
		_exit(1);
	}
	wait_for(child);
	check(system("true") == 0);
	write_all(p.client, "x", 1);
	read_all(p.server, &byte, 1);
	check(close(p.client) == 0 && read(p.server, &byte, 1) == 0 && close(p.server) == 0);
}

/* A daemon closes all that it does not know. What it opens then works. */
static void closed_all(void)
{
	struct pair p = pair_open();
	struct rlimit limit;
	pid_t child = fork();

	check(getrlimit(RLIMIT_NOFILE, &limit) == 0 && child >= 0);
	if (child == 0) {
		for (int fd = 3; fd < 1024; fd++)
			close(fd);
		check(close_range(3, ~0u, 0) == 0);
		closefrom(3);
		pair_close(pair_open());
		_exit(0);
	}
	wait_for(child);
	pair_close(p);
}

/* The same past the library: the program has its own way to the kernel. */
static void closed_unseen(void)
{
	int (*close_unseen)(int fd);
	void *libc = dlopen("libc.so.6", RTLD_LAZY), *found;
	pid_t child;

	check(libc != NULL && (found = dlsym(libc, "close")) != NULL);
	memcpy(&close_unseen, &found, sizeof(close_unseen));
	pair_close(pair_open());
	child = fork();
	check(child >= 0);
	if (child == 0) {
		DIR *fds = opendir("/proc/self/fd");
		struct dirent *e;

		check(fds != NULL);
		while ((e = readdir(fds)) != NULL)
			if (atoi(e->d_name) > 2 && atoi(e->d_name) != dirfd(fds))
				close_unseen(atoi(e->d_name));
		check(closedir(fds) == 0);
		pair_close(pair_open());
		_exit(0);
	}
	wait_for(child);
}

/* ---- what a child has that is forked while another thread waits ---- */

static void *echo_bytes(void *fd)
{
	char b;

	while (read(*(int *)fd, &b, 1) == 1)
		write_all(*(int *)fd, &b, 1);
	return NULL;
}

struct loop {
	int fd, set;
	atomic_bool over;
};

static void *ping_in_epoll(void *loop)
{
	struct loop *l = loop;
	struct epoll_event e;
	char b = 'p';

	while (!atomic_load(&l->over)) {
		write_all(l->fd, &b, 1);
		check(epoll_wait(l->set, &e, 1, -1) == 1);
		read_all(l->fd, &b, 1);
	}
	return NULL;
}

/* How many files a child has when it has closed all that it knows. */
static int files_of_child(const struct pair *p, int set)
{
	pid_t child = fork();
	int status = -1;

	check(child >= 0);
	if (child == 0) {
		DIR *fds;
		int n = 0;

		check(close(p->client) == 0 && close(p->server) == 0 && close(set) == 0);
		fds = opendir("/proc/self/fd");
		check(fds != NULL);
		while (readdir(fds) != NULL)
			n++;
		_exit(n < 250 ? n : 250);
	}
	check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) < 250);
	return WEXITSTATUS(status);
}

static void forked_while_another_waits(void)
{
	struct pair p = pair_open();
	struct loop loop = { .fd = p.client, .set = epoll_create1(EPOLL_CLOEXEC) };
	struct epoll_event e = { .events = EPOLLIN };
	pthread_t pinger, echoer;
	int before;

	check(loop.set >= 0 && epoll_ctl(loop.set, EPOLL_CTL_ADD, p.client, &e) == 0);
	check(files_of_child(&p, loop.set) > 0); /* what the library makes for the first child */
	before = files_of_child(&p, loop.set);
	check(pthread_create(&echoer, NULL, echo_bytes, &p.server) == 0 && pthread_create(&pinger, NULL, ping_in_epoll, &loop) == 0);
	for (int i = 0; i < 200; i++)
		check(files_of_child(&p, loop.set) == before);
	atomic_store(&loop.over, true);
	check(pthread_join(pinger, NULL) == 0 && shutdown(p.client, SHUT_WR) == 0 && pthread_join(echoer, NULL) == 0);
	check(close(loop.set) == 0);
	pair_close(p);
}

/* The highest number that a program with these limits gets, with a connection to itself. */
static int highest(rlim_t soft, rlim_t hard)
{
	struct rlimit limit = { soft, hard };
	struct pair p;
	int top = 0;

	check(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	p = pair_open();
	for (int fd; (fd = dup(0)) >= 0;)
		top = fd;
	check(errno == EMFILE);
	write_all(p.client, "x", 1);
	check(close(p.client) == 0);
	return top;
}

/* Its limit is the program's: select's sets hold what it gets, and little of it goes to others. */
static void few_descriptors(void)
{
	struct rlimit limit;

	check(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	for (int equal = 0; equal <= 1; equal++) {
		pid_t child = fork();

		check(child >= 0);
		if (child == 0) {
			int top = highest(equal ? 1024 : 128, equal ? 1024 : limit.rlim_max);

			check(equal ? top >= 511 && top <= 1023 : top == 127);
			_exit(0);
		}
		wait_for(child);
	}
}

void test_processes(void)
{
	RUN(few_descriptors);
	RUN(copies);
	RUN(copied_before_connect);
	RUN(copied_before_connect_that_does_not_wait);
	RUN(copied_before_connects);
	RUN(copied_before_listen);
	RUN(replaced);
	RUN(forked);
	RUN(child_goes);
	RUN(child_polls);
	RUN(set_of_parent);
	RUN(set_of_child);
	RUN(set_beside_another);
	RUN(waited_for_before_it_is_added);
	RUN(both_talk);
	RUN(left_to_child);
	RUN(killed_at_once);
	RUN(closed_while_forking);
	RUN(forked_beside_epoll);
	RUN(prefork);
	RUN(forked_exec);
	RUN(closed_all);
	RUN(closed_unseen);
	RUN(forked_while_another_waits);
}
