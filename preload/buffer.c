/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "buffer.h"
#include "group.h"
#include "table.h"

static struct buffer *buffers;
static struct remote *remotes;

/* ismfs_dmb_detach would close what is hidden. */
static void release(struct ismfs_dmb *dmb)
{
	if (dmb->map != NULL)
		munmap(dmb->map, dmb->size);
	hidden_close(dmb->fd);
}

int buffer_register(struct device *d, enum role role, size_t size, struct buffer **made)
{
	struct buffer *b = hidden_has_room() ? calloc(1, sizeof(*b)) : NULL;
	int err;

	if (b == NULL)
		return -ENOMEM;
	b->role = role;
	b->epoch = procs_epoch(d->procs);
	b->met = atomic_load(procs_word(d->procs));
	d->dev.dmb_type = procs_dmb_type(d->procs);
	err = ismfs_dmb_register(&d->dev, size, &b->dmb);
	if (err != 0) {
		free(b);
		return err;
	}
	device_answered(d);
	b->dmb.fd = hidden_take(b->dmb.fd);
	b->bell = bell_open(&d->dev, b->dmb.token);
	if (b->bell < 0) {
		err = b->bell;
		release(&b->dmb);
		free(b);
		return err;
	}
	b->bell = hidden_take(b->bell);
	b->separated = size != PAGE_SIZE_BYTES && dmb_is_separated(&b->dmb);
	b->behind = buffers;
	if (buffers != NULL)
		buffers->before = b;
	buffers = b;
	*made = b;
	return 0;
}

void buffer_close(struct buffer *b)
{
	if (b->before != NULL)
		b->before->behind = b->behind;
	else if (buffers == b)
		buffers = b->behind;
	if (b->behind != NULL)
		b->behind->before = b->before;
	hidden_close(b->bell);
	release(&b->dmb);
	free(b);
}

bool buffer_is_own(uint64_t token, enum role role)
{
	for (const struct buffer *b = buffers; b != NULL; b = b->behind)
		if (b->dmb.token == token)
			return b->role == role;
	return false;
}

bool buffer_was_met(const struct buffer *b)
{
	uint64_t words[ISMFS_OFF_SEQ / sizeof(uint64_t)];

	memcpy(words, b->dmb.map, sizeof(words));
	return (words[0] | words[1] | words[2]) != 0;
}

bool buffer_has_peer(const struct buffer *b)
{
	struct stat st;

	return fstat(b->dmb.fd, &st) == 0 && st.st_nlink == 2;
}

bool buffer_keeps_peer(struct device *d, struct buffer *b)
{
	uint32_t word = atomic_load(procs_word(d->procs));

	if (b->met == word && device_answered_lately(d))
		return true;
	if (!buffer_has_peer(b))
		return false;
	device_answered(d);
	b->met = word;
	return true;
}

int remote_attach(struct device *d, uint64_t token, size_t size, struct remote **attached)
{
	struct remote *r = calloc(1, sizeof(*r));
	struct stat st;
	int err;

	if (r == NULL)
		return -ENOMEM;
	err = dmb_attach(&d->dev, token, size, &r->dmb, &st);
	if (err != 0) {
		free(r);
		return err;
	}
	device_answered(d);
	r->dmb.fd = hidden_take(r->dmb.fd);
	r->bell = bell_open(&d->dev, token);
	if (r->bell < 0) {
		err = r->bell;
		release(&r->dmb);
		free(r);
		return err;
	}
	r->bell = hidden_take(r->bell);
	r->owner = (uint32_t)(st.st_ino >> 32) & 0x3FFFFFFF;
	r->in_use = true;
	r->next = remotes;
	remotes = r;
	*attached = r;
	return 0;
}

int remote_stand_in(size_t size, struct remote **made)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct remote *r = map != MAP_FAILED ? calloc(1, sizeof(*r)) : NULL;

	if (map == MAP_FAILED)
		return -errno;
	if (r == NULL) {
		munmap(map, size);
		return -ENOMEM;
	}
	r->dmb = (struct ismfs_dmb){ .size = size, .map = map, .fd = -1 };
	r->bell = -1;
	r->in_use = r->stand_in = true;
	*made = r;
	return 0;
}

struct remote *remote_find(uint64_t token)
{
	struct remote *r = remotes;

	while (r != NULL && r->dmb.token != token)
		r = r->next;
	return r;
}

bool remote_has_owner(const struct remote *r)
{
	struct stat st;

	return fstat(r->dmb.fd, &st) == 0 && st.st_nlink == 2;
}

void remote_close(struct remote *r)
{
	for (struct remote **at = &remotes; *at != NULL; at = &(*at)->next)
		if (*at == r) {
			*at = r->next;
			break;
		}
	hidden_close(r->bell);
	release(&r->dmb);
	free(r);
}

/* In a child of fork: for handshakes that it may go on with. */
static bool is_kept(const struct remote *r)
{
	return r->group != NULL && r->group->awaited > 0 && !r->of_child;
}

void remote_leave(struct remote *r)
{
	r->in_use = false;
	if (!is_kept(r))
		remote_close(r);
}

void remotes_close(const struct group *g)
{
	for (struct remote *r = remotes, *next; r != NULL; r = next) {
		next = r->next;
		if (r->group == g && !r->in_use)
			remote_close(r);
	}
}

void buffers_forget(void)
{
	struct remote *kept = NULL;

	for (struct remote *r = remotes, *next; r != NULL; r = next) {
		next = r->next;
		if (is_kept(r)) {
			r->in_use = false;
			r->next = kept;
			kept = r;
		} else if (!r->in_use) {
			remote_close(r);
		}
	}
	buffers = NULL;
	remotes = kept;
}

void remotes_drop_lost(const struct group *g)
{
	for (struct remote *r = remotes, *next; r != NULL; r = next) {
		next = r->next;
		if (r->group == g && !r->in_use && !remote_has_owner(r))
			remote_close(r);
	}
}
