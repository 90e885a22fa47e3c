/* SPDX-License-Identifier: Apache-2.0 */
/* The procs block: 65 counters of 64 bits from offset 64, in the order of smcd stats (docs/dmb-format.md 3.2). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "procs.h"
#include "smc.h"

#define BLOCK_SIZE 4096
#define COUNTERS 64 /* offset of number 0 */
#define ERRORS 584     /* handshakes that failed as client; as server, 8 behind */
#define FALLBACKS 640  /* 16 for each reason: as server, as client */

/* Numbers of counters; the histograms have BUCKETS sizes each, up to 8 KiB, 16 KiB, ... 1 MiB, and above. */
enum { BUCKETS = 9 };
enum {
	SMC_USR_TX_BUF = 18,
	SMC_USR_RX_BUF = 27,
	SMC_RX_BYTES = 59,
	SMC_TX_BYTES = 60,
	SMC_RX_CNT = 61,
	SMC_TX_CNT = 62,
};


static void count(struct ismfs_procs *procs, unsigned int number, uint64_t n)
{
	_Atomic uint64_t *counter = (_Atomic uint64_t *)(void *)(procs->map + COUNTERS + 8 * number);

	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* The kernel's SMC_STAT_PAYLOAD_SUB: the bucket is the number of bits of (n - 1) / 8 KiB. n is not 0. */
static unsigned int bucket(size_t n)
{
	unsigned int b = 0;

	for (size_t rest = (n - 1) >> 13; rest != 0 && b < BUCKETS - 1; rest >>= 1)
		b++;
	return b;
}

void count_sent(struct ismfs_procs *procs, size_t bytes)
{
	if (procs != NULL)
		count(procs, SMC_TX_BYTES, bytes);
}

void count_received(struct ismfs_procs *procs, size_t bytes)
{
	if (procs != NULL)
		count(procs, SMC_RX_BYTES, bytes);
}

void count_send_call(struct ismfs_procs *procs, size_t asked, bool sent)
{
	if (procs == NULL)
		return;
	count(procs, SMC_TX_CNT, 1);
	if (sent)
		count(procs, SMC_USR_TX_BUF + bucket(asked), 1);
}

void count_receive_call(struct ismfs_procs *procs, size_t received)
{
	if (procs == NULL)
		return;
	count(procs, SMC_RX_CNT, 1);
	if (received > 0)
		count(procs, SMC_USR_RX_BUF + bucket(received), 1);
}

void count_one(struct ismfs_procs *procs, enum counter which)
{
	count_add(procs, which, 1);
}

void count_add(struct ismfs_procs *procs, enum counter which, int64_t n)
{
	if (procs != NULL)
		count(procs, which, (uint64_t)n);
}

void count_buffer(struct ismfs_procs *procs, size_t size)
{
	if (procs == NULL)
		return;
	count(procs, COUNT_INT_RX_BUFFER + bucket(size), 1);
	count(procs, COUNT_RX_USAGE, size);
}

static _Atomic uint64_t *counter_at(struct ismfs_procs *procs, size_t offset)
{
	return (_Atomic uint64_t *)(void *)(procs->map + offset);
}

HOT _Atomic uint64_t *fallback_counter(struct ismfs_procs *procs, bool client, uint32_t code)
{
	return counter_at(procs, FALLBACKS + 16 * smc_decline_index(code) + (client ? 8 : 0));
}

HOT void count_fallback(struct ismfs_procs *procs, bool client, uint32_t code)
{
	if (procs != NULL)
		atomic_fetch_add_explicit(fallback_counter(procs, client, code), 1, memory_order_relaxed);
}

void count_handshake_error(struct ismfs_procs *procs, bool client)
{
	if (procs != NULL)
		atomic_fetch_add_explicit(counter_at(procs, ERRORS + (client ? 0 : 8)), 1, memory_order_relaxed);
}

/* The block may be there already, from another opener in this process: its size is set once. */
static int block_size(int fd, size_t wanted, size_t *size, bool *found)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (st.st_size == 0 && ftruncate(fd, (off_t)wanted) != 0)
		return -errno;
	*found = st.st_size != 0;
	*size = *found ? (size_t)st.st_size : wanted;
	return 0;
}

int ismfs_procs_open(const struct ismfs_device *dev, struct ismfs_procs **out)
{
	return procs_open_sized(dev, BLOCK_SIZE, out);
}

/* Only the first page is brought in; those of the slots are when one is used. */
int procs_open_sized(const struct ismfs_device *dev, size_t size, struct ismfs_procs **out)
{
	struct ismfs_procs *procs = calloc(1, sizeof(*procs));
	int err;

	*out = NULL;
	if (procs == NULL)
		return -ENOMEM;
	procs->fd = openat(dev->dir, "procs/self", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (procs->fd < 0) {
		err = -errno;
		free(procs);
		return err;
	}
	err = block_size(procs->fd, size, &procs->size, &procs->found);
	if (err == 0)
		err = map_first(procs->fd, procs->size, BLOCK_SIZE, &procs->map);
	procs->populated = BLOCK_SIZE;
	if (err != 0) {
		ismfs_procs_close(procs);
		return err;
	}
	*out = procs;
	return 0;
}

void ismfs_procs_close(struct ismfs_procs *procs)
{
	if (procs == NULL)
		return;
	if (procs->map != NULL)
		munmap(procs->map, procs->size);
	close(procs->fd);
	free(procs);
}
