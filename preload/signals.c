/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "../clients/c/lock.h"
#include "real.h"
#include "signals.h"
#include "sock.h"
#include "syscall.h"

typedef void handler_of(int n);
typedef void full_handler_of(int n, siginfo_t *info, void *context);

/* As the kernel has them: signal n is bit n - 1. */
typedef uint64_t mask;
enum { SIGNALS = 64 };

static _Atomic(handler_of *) handlers[SIGNALS + 1];
static _Atomic int flags_of[SIGNALS + 1]; /* as the program has set them */
_Thread_local volatile struct signals signals_seen;
static _Thread_local mask mask_before; /* while signals are put off */

bool signal_is_fault(int n)
{
	return n == SIGSEGV || n == SIGBUS || n == SIGILL || n == SIGFPE || n == SIGTRAP || n == SIGABRT || n == SIGSYS;
}

/* ---- putting off ---- */

static mask bit(int n)
{
	return n >= 1 && n <= SIGNALS ? UINT64_C(1) << (n - 1) : 0;
}

/* All but faults, and those from 32 on that the C library has for itself. */
static mask put_off_mask(void)
{
	mask all = ~UINT64_C(0);

	for (int n = 1; n < SIGRTMIN; n++)
		if (signal_is_fault(n) || n >= 32)
			all &= ~bit(n);
	return all;
}

static void set_mask(const mask *m, mask *was)
{
	(void)kernel_call(SYS_rt_sigprocmask, (long[6]){ SIG_SETMASK, (long)m, (long)was, sizeof(*m) });
}

void lock_puts_off_no_more(void)
{
	int saved = errno;

	lock_puts_off = false;
	set_mask(&mask_before, NULL);
	errno = saved;
}

/* One with SA_RESETHAND has been set back before it has run. */
static void set_again(int n, full_handler_of *own)
{
	struct sigaction action;

	if (real()->sigaction(n, NULL, &action) != 0 || !(action.sa_flags & (int)SA_RESETHAND) || action.sa_handler != SIG_DFL)
		return;
	action.sa_sigaction = own;
	(void)real()->sigaction(n, &action, NULL);
}

static void on_signal(int n, siginfo_t *info, void *context);

/*
 * The mask is the interrupted thread's from the handler's return on. The kernel's is smaller than the C library's. Of two signals that come
 * at once the second one's handler interrupts the first one's at its beginning, where the first one is blocked, which it was not before.
 */
static bool put_off(int n, siginfo_t *info, ucontext_t *context)
{
	mask before, meanwhile, all;
	int saved = errno;
	bool queued;

	memcpy(&before, &context->uc_sigmask, sizeof(before));
	all = put_off_mask() | before | bit(n);
	set_mask(&all, &meanwhile);
	queued = kernel_call(SYS_rt_tgsigqueueinfo, (long[6]){ getpid(), kernel_call(SYS_gettid, (long[6]){ 0 }), n, (long)info }) == 0;
	if (queued) {
		set_again(n, on_signal);
		memcpy(&context->uc_sigmask, &all, sizeof(all));
		mask_before = lock_puts_off ? mask_before & before : before;
		lock_puts_off = true;
	} else {
		set_mask(&meanwhile, NULL);
	}
	errno = saved;
	return queued;
}

/* Where it cannot be queued it runs as one that is not seen. */
static void on_signal(int n, siginfo_t *info, void *context)
{
	full_handler_of *handler = (full_handler_of *)(void *)atomic_load(&handlers[n]);

	if (lock_count > 0 && put_off(n, info, context))
		return;
	signals_seen.all++;
	signals_seen.ending += !(atomic_load(&flags_of[n]) & SA_RESTART);
	handler(n, info, context);
}

/* ---- ending a wait ---- */

/* Faults do not end a wait, and many runtimes have handlers for them. */
static bool any_unseen_ends(void)
{
	struct sigaction action;

	for (int n = 1; n < NSIG; n++) {
		if (signal_is_fault(n) || real()->sigaction(n, NULL, &action) != 0 || action.sa_handler == SIG_DFL ||
		    action.sa_handler == SIG_IGN || action.sa_sigaction == on_signal)
			continue;
		if (!(action.sa_flags & SA_RESTART))
			return true;
	}
	return false;
}

bool signals_end(struct signals since, bool limited, int err)
{
	struct signals now = signals_now();

	if (now.ending != since.ending || (limited && (now.all != since.all || err == EINTR)))
		return true;
	return err == EINTR && any_unseen_ends();
}

/* ---- setting ---- */

/* SIG_DFL and its like are small numbers, or SIG_ERR. */
static bool is_handler(handler_of *h)
{
	return (uintptr_t)h > 15 && h != SIG_ERR;
}

/* A child of vfork has its parent's memory, where what the parent's signals do must stay. */
static bool is_ours(int n, handler_of *h)
{
	return is_handler(h) && n >= 1 && n <= SIGNALS && !signal_is_fault(n) && !process_is_borrowed();
}

/* What the kernel is told in the place of a program's action. */
static void to_kernel(int n, struct sigaction *action)
{
	if (!is_ours(n, action->sa_handler))
		return;
	atomic_store(&handlers[n], action->sa_handler);
	atomic_store(&flags_of[n], action->sa_flags);
	action->sa_sigaction = on_signal;
	action->sa_flags |= SA_SIGINFO;
}

EXPORT int sigaction(int n, const struct sigaction *action, struct sigaction *old)
{
	bool known = n >= 1 && n <= SIGNALS, took_info = known && (atomic_load(&flags_of[n]) & SA_SIGINFO);
	handler_of *was = known ? atomic_load(&handlers[n]) : NULL;
	struct sigaction own;
	int result;

	if (action != NULL) {
		own = *action;
		to_kernel(n, &own);
		action = &own;
	}
	result = real()->sigaction(n, action, old);
	if (result == 0 && old != NULL && old->sa_sigaction == on_signal) {
		old->sa_handler = was;
		old->sa_flags &= took_info ? ~0 : ~SA_SIGINFO;
	}
	return result;
}

EXPORT int __sigaction(int n, const struct sigaction *action, struct sigaction *old)
{
	return sigaction(n, action, old);
}

/* ---- the older ways ---- */

static _Atomic mask interrupting; /* siginterrupt */

static handler_of *set(int n, handler_of *h, int flags)
{
	struct sigaction action = { .sa_handler = h, .sa_flags = flags }, old;

	if (h == SIG_ERR) {
		errno = EINVAL;
		return SIG_ERR;
	}
	return sigaction(n, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

EXPORT handler_of *signal(int n, handler_of *h)
{
	return set(n, h, atomic_load(&interrupting) & bit(n) ? 0 : SA_RESTART);
}

EXPORT handler_of *bsd_signal(int n, handler_of *h)
{
	return signal(n, h);
}

EXPORT handler_of *ssignal(int n, handler_of *h)
{
	return signal(n, h);
}

EXPORT handler_of *sysv_signal(int n, handler_of *h)
{
	return set(n, h, (int)SA_RESETHAND | SA_NODEFER);
}

EXPORT handler_of *__sysv_signal(int n, handler_of *h)
{
	return sysv_signal(n, h);
}

EXPORT int siginterrupt(int n, int on)
{
	struct sigaction action;

	if (sigaction(n, NULL, &action) != 0)
		return -1;
	if (on)
		atomic_fetch_or(&interrupting, bit(n));
	else
		atomic_fetch_and(&interrupting, ~bit(n));
	action.sa_flags = on ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
	return sigaction(n, &action, NULL);
}

EXPORT handler_of *sigset(int n, handler_of *h)
{
	struct sigaction action;
	sigset_t one, before;
	bool holds = h == (handler_of *)2; /* SIG_HOLD, which needs another macro to be seen */

	sigemptyset(&one);
	if (sigaddset(&one, n) != 0 || sigaction(n, NULL, &action) != 0 || (!holds && set(n, h, 0) == SIG_ERR) ||
	    pthread_sigmask(holds ? SIG_BLOCK : SIG_UNBLOCK, &one, &before) != 0)
		return SIG_ERR;
	return sigismember(&before, n) ? (handler_of *)2 : action.sa_handler;
}
