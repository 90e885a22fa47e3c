/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../clients/c/lock.h"
#include "kin.h"
#include "real.h"
#include "table.h"

enum state { FREE, EXPECTED, LOCKED, GONE };

struct kin {
	struct lock lock; /* who takes a place */
	_Atomic uint64_t word;
	struct {
		_Atomic uint32_t state, named;
		_Atomic uint32_t turn; /* one more each time that it is taken */
	} place[KIN];
};

static struct kin *_Atomic kin; /* NULL: there was no fork with sockets yet */
static int file;
static unsigned int self;
static _Atomic uint64_t born[KIN]; /* this process's children: turn of the place and process id */

unsigned int kin_self(void)
{
	return self;
}

static bool set_up(void)
{
	int fd = (int)syscall(SYS_memfd_create, "ismfs-kin", MFD_CLOEXEC);
	struct kin *map;

	if (fd < 0)
		return false;
	map = ftruncate(fd, sizeof(*map)) == 0 ? mmap(NULL, sizeof(*map), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
	if (map == MAP_FAILED) {
		real()->close(fd);
		return false;
	}
	file = hidden_take(fd);
	kin = map;
	return true;
}

static bool lock_byte(unsigned int place, int command, struct flock *l)
{
	*l = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = place, .l_len = 1 };
	return real()->fcntl(file, command, l) == 0;
}

uint32_t kin_turn(unsigned int place)
{
	return place != 0 ? atomic_load(&kin->place[place].turn) : 0;
}

void kin_born(unsigned int place, uint32_t turn, pid_t pid)
{
	if (place != 0)
		atomic_store(&born[place], (uint64_t)turn << 32 | (uint32_t)pid);
}

/* Whether this process's child that is expected there has ended. Who waits for the child still finds it. */
static bool stillborn(unsigned int place)
{
	uint64_t child = atomic_load(&born[place]);
	siginfo_t info = { 0 };
	int saved = errno;
	bool dead;

	if ((uint32_t)child == 0 || child >> 32 != kin_turn(place))
		return false;
	dead = waitid(P_PID, (id_t)(uint32_t)child, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ? errno == ECHILD : info.si_pid != 0;
	errno = saved;
	return dead;
}

/* The dead stay so: they are asked for once. */
bool kin_lives(unsigned int place)
{
	uint32_t state = atomic_load(&kin->place[place].state);
	struct flock l;

	if (place == self || (state == EXPECTED && !stillborn(place)))
		return true;
	if (state == LOCKED && (!lock_byte(place, F_GETLK, &l) || l.l_type != F_UNLCK))
		return true;
	atomic_store(&kin->place[place].state, GONE);
	return false;
}

_Atomic uint64_t *kin_word(void)
{
	static _Atomic uint64_t own;

	return kin != NULL ? &kin->word : &own;
}

void kin_named(unsigned int place, int more)
{
	atomic_fetch_add(&kin->place[place].named, (uint32_t)more);
}

/* ---- places ---- */

static unsigned int find_free(void)
{
	for (unsigned int i = 1; i < KIN; i++)
		if (atomic_load(&kin->place[i].state) == FREE)
			return i;
	return 0;
}

static void free_dead(void)
{
	for (unsigned int i = 1; i < KIN; i++)
		if (atomic_load(&kin->place[i].named) == 0 && !kin_lives(i))
			atomic_store(&kin->place[i].state, FREE);
}

static unsigned int take(void)
{
	unsigned int place;

	lock_take(&kin->lock);
	place = find_free();
	if (place == 0) {
		free_dead();
		place = find_free();
	}
	if (place != 0) {
		atomic_fetch_add(&kin->place[place].turn, 1);
		atomic_store(&kin->place[place].state, EXPECTED);
	}
	lock_release(&kin->lock);
	return place;
}

void kin_come(unsigned int place)
{
	struct flock l;

	self = place;
	for (unsigned int i = 1; i < KIN; i++)
		if (atomic_load_explicit(&born[i], memory_order_relaxed) != 0) /* the parent's */
			atomic_store_explicit(&born[i], 0, memory_order_relaxed);
	if (place != 0 && lock_byte(place, F_SETLK, &l))
		atomic_store(&kin->place[place].state, LOCKED);
}

void kin_missed(unsigned int place)
{
	if (place != 0)
		atomic_store(&kin->place[place].state, GONE);
}

unsigned int kin_expect(void)
{
	if (kin == NULL && !set_up())
		return 0;
	if (self == 0)
		kin_come(take());
	return take();
}
