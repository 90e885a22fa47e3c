/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's own functions, behind the ones of the same name that this library puts in front of them. */
#ifndef PRELOAD_REAL_H
#define PRELOAD_REAL_H

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "../clients/c/hot.h"

struct mmsghdr;
struct io_uring;
struct io_uring_params;

#define SPAWN_ARGUMENTS \
	(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const[], char *const[])

#define REAL_FUNCTIONS(X)                                                                              \
	X(int, close, (int))                                                                           \
	X(int, socket, (int, int, int))                                                                \
	X(int, connect, (int, const struct sockaddr *, socklen_t))                                     \
	X(int, accept4, (int, struct sockaddr *, socklen_t *, int))                                    \
	X(ssize_t, read, (int, void *, size_t))                                                        \
	X(ssize_t, write, (int, const void *, size_t))                                                 \
	X(int, setsockopt, (int, int, int, const void *, socklen_t))                                   \
	X(int, close_range, (unsigned int, unsigned int, int))                                         \
	X(int, listen, (int, int))                                                                     \
	X(int, accept, (int, struct sockaddr *, socklen_t *))                                          \
	X(int, shutdown, (int, int))                                                                   \
	X(int, getsockopt, (int, int, int, void *, socklen_t *))                                       \
	X(ssize_t, readv, (int, const struct iovec *, int))                                            \
	X(ssize_t, writev, (int, const struct iovec *, int))                                           \
	X(ssize_t, preadv2, (int, const struct iovec *, int, off_t, int))                              \
	X(ssize_t, pwritev2, (int, const struct iovec *, int, off_t, int))                             \
	X(ssize_t, recv, (int, void *, size_t, int))                                                   \
	X(ssize_t, send, (int, const void *, size_t, int))                                             \
	X(ssize_t, recvfrom, (int, void *, size_t, int, struct sockaddr *, socklen_t *))               \
	X(ssize_t, sendto, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))       \
	X(ssize_t, recvmsg, (int, struct msghdr *, int))                                               \
	X(ssize_t, sendmsg, (int, const struct msghdr *, int))                                         \
	X(int, recvmmsg, (int, struct mmsghdr *, unsigned int, int, struct timespec *))                \
	X(int, sendmmsg, (int, struct mmsghdr *, unsigned int, int))                                   \
	X(ssize_t, sendfile, (int, int, off_t *, size_t))                                              \
	X(ssize_t, splice, (int, off_t *, int, off_t *, size_t, unsigned int))                         \
	X(int, dup, (int))                                                                             \
	X(int, dup2, (int, int))                                                                       \
	X(int, dup3, (int, int, int))                                                                  \
	X(int, fcntl, (int, int, ...))                                                                 \
	X(int, ioctl, (int, unsigned long, ...))                                                       \
	X(int, poll, (struct pollfd *, nfds_t, int))                                                   \
	X(int, ppoll, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))            \
	X(int, select, (int, fd_set *, fd_set *, fd_set *, struct timeval *))                          \
	X(int, pselect, (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *)) \
	X(int, epoll_create, (int))                                                                    \
	X(int, epoll_create1, (int))                                                                   \
	X(int, epoll_ctl, (int, int, int, struct epoll_event *))                                       \
	X(int, epoll_wait, (int, struct epoll_event *, int, int))                                      \
	X(int, epoll_pwait, (int, struct epoll_event *, int, int, const sigset_t *))                   \
	X(int, epoll_pwait2, (int, struct epoll_event *, int, const struct timespec *, const sigset_t *)) \
	X(int, execve, (const char *, char *const[], char *const[]))                                   \
	X(int, execvpe, (const char *, char *const[], char *const[]))                                  \
	X(int, fexecve, (int, char *const[], char *const[]))                                           \
	X(int, execveat, (int, const char *, char *const[], char *const[], int))                       \
	X(int, posix_spawn, SPAWN_ARGUMENTS)                                                           \
	X(int, posix_spawnp, SPAWN_ARGUMENTS)                                                          \
	X(int, system, (const char *))                                                                 \
	X(FILE *, popen, (const char *, const char *))                                                 \
	X(FILE *, fdopen, (int, const char *))                                                         \
	X(int, vdprintf, (int, const char *, va_list))                                                 \
	X(int, __vdprintf_chk, (int, int, const char *, va_list))                                      \
	X(int, io_uring_queue_init, (unsigned int, struct io_uring *, unsigned int))                   \
	X(int, io_uring_queue_init_params, (unsigned int, struct io_uring *, struct io_uring_params *)) \
	X(int, io_uring_setup, (unsigned int, struct io_uring_params *))                               \
	X(int, sigaction, (int, const struct sigaction *, struct sigaction *))                         \
	X(pid_t, fork, (void))                                                                         \
	X(void, _exit, (int))

/* The first ones share a line of the cache with what is asked before each call. */
struct real {
	bool found;
#define REAL_MEMBER(type, name, arguments) type(*name) arguments;
	REAL_FUNCTIONS(REAL_MEMBER)
#undef REAL_MEMBER
};

extern struct real real_functions;
void real_find(void);

/* pthread_atfork. */
void real_at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void));

static inline bool real_found(void)
{
	return real_functions.found;
}

/* A constructor of another library can call before this one's has run. */
static inline const struct real *real(void)
{
	if (__builtin_expect(!real_found(), 0))
		real_find();
	return &real_functions;
}

/* What this library puts in front. */
#define EXPORT __attribute__((visibility("default")))

#endif
