/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A test program is an ordinary socket program: it has to pass over TCP as it does under smc_run. It prints how many bytes it has written
 * over its connections, which is what xfer_bytes has to grow by under smc_run, and not at all without.
 */
#ifndef CHECK_H
#define CHECK_H

#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

/* Ends the program with a message unless the condition holds. */
#define check(condition)                                              \
	do {                                                          \
		if (!(condition))                                     \
			check_failed(__FILE__, __LINE__, #condition); \
	} while (0)

void check_failed(const char *file, int line, const char *what) __attribute__((noreturn));

/* A connection to oneself: listen, connect and accept in one thread, and a byte each way. */
struct pair {
	int client, server;
};
struct pair pair_open(void);
void pair_close(struct pair p);

/* Of all sockets: AF_INET, or AF_INET6 for a program that is told so. */
extern int family;

/* A socket with a free port of loopback, and one that listens there. */
int bound_any(void);
int listen_any(void);

/* Connects a socket to a listener, as connect returns; and a new one. */
int connect_socket(int fd, int listener);
int connect_to(int listener);

/* Counts what a write has returned, and returns it. */
ssize_t wrote(ssize_t n);

/* Writes and reads all of it, or fails. */
void write_all(int fd, const void *b, size_t n);
void read_all(int fd, void *b, size_t n);

/* The same of a text, which is not counted: it may go through TCP. And of the end. */
void says(int fd, const char *text);
void wants(int fd, const char *text);
void wants_end(int fd);

int accept_one(int listener);
void set_nonblocking(int fd, int on);

/* Passes a descriptor over a Unix socket, as sendmsg returns; takes the other end's. */
ssize_t pass(int over, int fd);
int take_passed(int over);

/* How many lines conns has of a socket. */
int lines_of_socket(ino_t inode);

/* A child's end. */
void ended_well(pid_t child);

/* A handler that counts; and a thread that signals another one (a pthread_t *) with SIGUSR1 again and again for a while. */
extern volatile sig_atomic_t signals;
void count_signal(int n);
void *signal_again(void *thread);

/* Runs a test and says so. */
void run(const char *name, void (*test)(void));
#define RUN(test) run(#test, test)

void test_calls(void);
void test_races(void);
void test_closed(void);
void test_families(void);
void test_files(void);
void test_forms(void);
void test_events(void);
void test_waits(void);
void test_signals(void);
void test_processes(void);

/*
 * A client in a process of its own, which wants "hello" back and then the end: whoever has been a client itself answers in accept, so that
 * nothing accepted is unused.
 */
pid_t start_client(int listener);
/* Calls that come before the other side has answered: ends, and the rest; a client that comes late. */
void test_ends(void);
void test_early(void);
void test_late(void);
/* Connections on TCP. */
void test_plain(void);

/* What signal handlers do with a connection that is in use. How much a peer gets that ends so is open. */
void test_handlers(void);

/* What the library refuses, or leaves to TCP: for a program under smc_run alone. */
void test_apart(void);
void test_spawn(void);

/* Programs for these: those that another one starts, one that passes its listener, and the one that takes it. */
int inherited(int fd);
int echo(int fd);
int ended(int fd);
int half(int fd);
int hand_over(void);
int serve_taken(int over);

#endif
