// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//go:build ignore

/*
 * The SMC TCP option for ordinary TCP sockets: docs/bpf.md tells what is attached where.
 *
 * The option, 14 bytes, only in a SYN and in the SYN-ACK that answers it:
 *
 *   offset  size
 *        0     1  kind, 254 (TCPOPT_EXP)
 *        1     1  length, 14; the kernel's own option is the first 6 bytes, length 6
 *        2     4  magic, E2D4C3D9 (TCPOPT_SMC_MAGIC)
 *        6     1  direction: 1 from a client, 2 from a server
 *        7     7  tag of the device
 *
 * Setsockopt and getsockopt carry 8 bytes of the same form, a verb or an answer in place of the direction (struct word).
 *
 * Who decides what, and where it is kept:
 *
 *   socket storage   a client or listener that asked; an accepted socket whose client was told SMC. Others have none: to make and
 *                    free it costs more than all the rest, and clients that ask for nothing are most.
 *   tags             the devices of this host. A tag is here before anybody can know it, and once gone never comes back.
 *   answered         SYNs answered with the option whose connection is not established yet. The request socket of such a
 *                    handshake has no storage; its cookie is its child's.
 *
 * The server's answer must never be "plain" when the client was told "SMC": the client's Proposal would go to the application.
 * So it is read from what the SYN-ACK really said (answered) and not from how things stand when the last ACK comes: the tag may
 * been withdrawn and the listener un-marked since. Only if a flood of SYNs can have driven entries out is it worked out anew,
 * from the saved SYN. Where it cannot be told (DOUBT), a question fails; then the library reads the saved SYN.
 */

#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>

#define SOL_TCP 6
#define SOL_SMC 286
#define IPPROTO_TCP 6
#define TCP_SAVE_SYN 27
#ifndef TCP_BPF_SOCK_OPS_CB_FLAGS
#define TCP_BPF_SOCK_OPS_CB_FLAGS 1008
#endif

#define TCPHDR_SYN 0x02
#define TCPOPT_FASTOPEN 34
#define TCPOPT_EXP 254
#define TCPOLEN_EXP_SMC_BASE 6
#define TCPOLEN_ISMFS 14

#define FROM_CLIENT 1
#define FROM_SERVER 2

#define UNMARK 0
#define MARK 1

/* Answers. Zero is none of them, so that no buffer left untouched reads as an answer. */
#define UNDECIDED 0
#define PLAIN 1
#define SMC 2
#define KERNEL 3
#define LISTENER 4

union word {
	__u64 all;
	struct {
		__u8 head; /* zero in keys */
		__u8 tag[7];
	};
};

struct option {
	__u8 kind;
	__u8 len;
	__u8 magic[4];
	union word word;
} __attribute__((packed));

_Static_assert(sizeof(struct option) == TCPOLEN_ISMFS, "length of the option");

/* Roles of a marked socket. */
#define UNUSED 0 /* neither connects nor listens yet */
#define CLIENT 1
#define SERVER 2 /* listens */
#define CHILD 3	 /* accepted; its client was told SMC */

struct mark {
	__u64 tag;  /* what the socket asked for; 0: nothing any more */
	__u64 peer; /* the tag that the peer's SYN or SYN-ACK had */
	__u8 role;
	__u8 answer;
	__u8 asked;	/* somebody has read the answer */
	__u8 reserved;	/* there was room in the SYN */
	__u8 own_write; /* we have set BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG */
	__u8 own_save;	/* TCP_SAVE_SYN is */
	__u8 unused[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct mark);
} ismfs_marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64); /* CLOCK_BOOTTIME when it was added */
} ismfs_tags SEC(".maps");

#define REFUSED 0 /* in place of a tag: looked like ours, but there was no room in the SYN-ACK */

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);   /* socket cookie */
	__type(value, __u64); /* tag */
} ismfs_answered SEC(".maps");

/* Keys of state. The daemon writes the last one, so each has a value of its own. */
#define OUTSTANDING 0 /* entries of answered, or more: those driven out are never subtracted */
#define FLOODED 1     /* there have been so many that some can have been driven out */
#define DOUBT 2	      /* an accepted socket can lack the storage that it should have */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} ismfs_state SEC(".maps");

/* As long as no more are outstanding, nothing is driven out of answered: each CPU keeps some room to itself. */
const volatile __u64 safe_outstanding = 0;

/* The option's number at SOL_SMC. Its last byte is the version of struct word; the tests use another number. */
const volatile __u32 option_name = 0x49534d01;

static __always_inline int known(__u64 tag)
{
	return bpf_map_lookup_elem(&ismfs_tags, &tag) != NULL;
}

static __always_inline __u64 *state(__u32 key)
{
	return bpf_map_lookup_elem(&ismfs_state, &key);
}

static __always_inline int is_set(__u32 key)
{
	__u64 *v = state(key);

	return v && *v;
}

static __always_inline void set(__u32 key)
{
	__u64 *v = state(key);

	if (v)
		*v = 1;
}

static __always_inline void put_option(struct option *o, __u64 tag, __u8 direction)
{
	o->kind = TCPOPT_EXP;
	o->len = TCPOLEN_ISMFS;
	o->magic[0] = 0xe2;
	o->magic[1] = 0xd4;
	o->magic[2] = 0xc3;
	o->magic[3] = 0xd9;
	o->word.all = tag;
	o->word.head = direction;
}

/* find_option returns the length of the option with the magic, or an error: -ENOMSG if there is none. */
static __always_inline int find_option(struct bpf_sock_ops *ctx, struct option *o, __u64 flags)
{
	put_option(o, 0, 0);
	o->len = TCPOLEN_EXP_SMC_BASE; /* search by kind and magic */
	return bpf_load_hdr_opt(ctx, o, sizeof(*o), flags);
}

/* get_option returns the option's length, or an error; other lengths than ours and the kernel's are errors, too. */
static __always_inline int get_option(struct bpf_sock_ops *ctx, struct option *o, __u64 flags)
{
	int n = find_option(ctx, o, flags);

	if (n == TCPOLEN_ISMFS || n == TCPOLEN_EXP_SMC_BASE)
		return n;
	return -EINVAL;
}

/* syn_tag returns the tag of a SYN that one of this host's clients has sent, as far as one can see, else 0. */
static __always_inline __u64 syn_tag(struct bpf_sock_ops *ctx)
{
	__u8 fastopen[18] = { TCPOPT_FASTOPEN };
	struct option o;
	union word w;

	if (get_option(ctx, &o, BPF_LOAD_HDR_OPT_TCP_SYN) != TCPOLEN_ISMFS || o.word.head != FROM_CLIENT)
		return 0;
	/* Its data would be with the application before the handshake ends. */
	if (bpf_load_hdr_opt(ctx, fastopen, sizeof(fastopen), BPF_LOAD_HDR_OPT_TCP_SYN) != -ENOMSG)
		return 0;
	w.all = o.word.all;
	w.head = 0;
	return known(w.all) ? w.all : 0;
}

static __always_inline struct mark *mark_of(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk ? bpf_sk_storage_get(&ismfs_marks, sk, NULL, 0) : NULL;
}

static __always_inline void want_write(struct bpf_sock_ops *ctx, struct mark *m)
{
	__u32 flags = ctx->bpf_sock_ops_cb_flags;

	if (flags & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG)
		return;
	m->own_write = 1;
	bpf_sock_ops_cb_flags_set(ctx, flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

/* done_writing spares an established connection the call for each segment. */
static __always_inline void done_writing(struct bpf_sock_ops *ctx, struct mark *m)
{
	__u32 flags = ctx->bpf_sock_ops_cb_flags;

	if (!m->own_write)
		return;
	m->own_write = 0;
	bpf_sock_ops_cb_flags_set(ctx, flags & ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

/*
 * Accepted sockets have their listener's flags, and nothing else by which one could tell whose child they are. So a listener
 * whose BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG is ours alone has BPF_SOCK_OPS_RTO_CB_FLAG beside it, which means nothing to a
 * listener, and none of the others that users of header options set.
 */
#define OURS (BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG)
#define NOT_OURS                                                                                                               \
	(BPF_SOCK_OPS_RETRANS_CB_FLAG | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG)

static __always_inline int flags_ours(__u32 flags)
{
	return (flags & (OURS | NOT_OURS)) == OURS;
}

/* listener_flags returns a listener's new flags. */
static __always_inline __u32 listener_flags(struct mark *m, __u32 flags)
{
	if (!(flags & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG))
		m->own_write = 1;
	else if (m->own_write && flags_ours(flags))
		return flags; /* marked anew */
	if (m->own_write && !(flags & (BPF_SOCK_OPS_RTO_CB_FLAG | NOT_OURS)))
		return flags | OURS;
	flags |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
	return flags_ours(flags) ? flags | BPF_SOCK_OPS_RETRANS_CB_FLAG : flags; /* it is not as if all were ours */
}

static __always_inline void connecting(struct bpf_sock_ops *ctx)
{
	struct mark *m = mark_of(ctx);

	if (!m || !m->tag)
		return;
	m->role = CLIENT;
	m->peer = 0;
	m->answer = UNDECIDED;
	m->asked = 0;
	m->reserved = 0;
	want_write(ctx, m);
}

static __always_inline void listening(struct bpf_sock_ops *ctx)
{
	struct mark *m = mark_of(ctx);
	int on = 0;

	if (!m || !m->tag)
		return;
	m->role = SERVER;
	/* In this order: a SYN that is saved must be one that was looked at. */
	bpf_sock_ops_cb_flags_set(ctx, listener_flags(m, ctx->bpf_sock_ops_cb_flags));
	if (!bpf_getsockopt(ctx, SOL_TCP, TCP_SAVE_SYN, &on, sizeof(on)) && on)
		return;
	on = 1;
	m->own_save = !bpf_setsockopt(ctx, SOL_TCP, TCP_SAVE_SYN, &on, sizeof(on));
}

static __always_inline void reserve_in_syn(struct bpf_sock_ops *ctx)
{
	struct mark *m = mark_of(ctx);

	if (m && m->tag && m->role == CLIENT)
		m->reserved = !bpf_reserve_hdr_opt(ctx, TCPOLEN_ISMFS, 0);
}

/* remember notes what is about to be answered. It is counted before it is there, so that there are never more than are counted. */
static __always_inline void remember(__u64 cookie, __u64 tag)
{
	__u64 *outstanding = state(OUTSTANDING);

	if (!outstanding)
		return;
	__sync_fetch_and_add(outstanding, 1);
	if (*outstanding > safe_outstanding)
		set(FLOODED);
	if (bpf_map_update_elem(&ismfs_answered, &cookie, &tag, BPF_NOEXIST))
		__sync_fetch_and_add(outstanding, -1);
}

/*
 * A SYN-ACK is written for a request socket; the listener, and so its mark, cannot be reached from here. A retransmitted one
 * must say what the first one said. For both the kernel has the SYN, unless somebody has taken the listener's TCP_SAVE_SYN away.
 */
static __always_inline void reserve_in_synack(struct bpf_sock_ops *ctx)
{
	__u64 cookie, tag, *answered;
	struct option o;

	if (ctx->args[0] == BPF_WRITE_HDR_TCP_SYNACK_COOKIE)
		return;
	if (find_option(ctx, &o, BPF_LOAD_HDR_OPT_TCP_SYN) == -ENOMSG)
		return; /* of the others nothing was, or will be, remembered */
	cookie = bpf_get_socket_cookie(ctx);
	answered = bpf_map_lookup_elem(&ismfs_answered, &cookie);
	if (!answered) {
		tag = syn_tag(ctx);
		if (!tag)
			return;
		remember(cookie, tag); /* fails if another CPU has just done it */
		answered = bpf_map_lookup_elem(&ismfs_answered, &cookie);
	}
	if (answered && *answered != REFUSED && bpf_reserve_hdr_opt(ctx, TCPOLEN_ISMFS, 0))
		*answered = REFUSED;
}

static __always_inline void write_in_syn(struct bpf_sock_ops *ctx)
{
	struct mark *m = mark_of(ctx);
	struct option o;

	if (!m || !m->tag || m->role != CLIENT || !m->reserved)
		return;
	put_option(&o, m->tag, FROM_CLIENT);
	if (bpf_store_hdr_opt(ctx, &o, sizeof(o), 0))
		m->reserved = 0;
}

static __always_inline void write_in_synack(struct bpf_sock_ops *ctx)
{
	__u64 cookie, *answered;
	struct option o;

	if (ctx->args[0] == BPF_WRITE_HDR_TCP_SYNACK_COOKIE)
		return;
	cookie = bpf_get_socket_cookie(ctx);
	answered = bpf_map_lookup_elem(&ismfs_answered, &cookie);
	if (!answered || *answered == REFUSED)
		return;
	put_option(&o, *answered, FROM_SERVER);
	if (bpf_store_hdr_opt(ctx, &o, sizeof(o), 0))
		*answered = REFUSED;
}

/* A SYN-ACK with our own direction in it is an echo. */
static __always_inline void client_established(struct bpf_sock_ops *ctx)
{
	struct mark *m = mark_of(ctx);
	struct option o;
	union word w;
	int n;

	if (!m || m->role != CLIENT)
		return;
	done_writing(ctx, m);
	m->answer = PLAIN;
	if (!m->tag || !m->reserved)
		return;
	n = get_option(ctx, &o, 0);
	if (n == TCPOLEN_EXP_SMC_BASE) {
		m->answer = KERNEL;
	} else if (n == TCPOLEN_ISMFS && o.word.head == FROM_SERVER) {
		w.all = o.word.all;
		w.head = 0;
		if (w.all != m->tag)
			return;
		m->peer = w.all;
		m->answer = SMC;
	}
}

/* told_smc notes that an accepted socket's client was told SMC. */
static __always_inline int told_smc(struct bpf_sock_ops *ctx, __u64 tag)
{
	struct bpf_sock *sk = ctx->sk;
	struct mark *m = sk ? bpf_sk_storage_get(&ismfs_marks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;

	if (!m)
		return -ENOMEM;
	m->role = CHILD;
	m->peer = tag;
	m->answer = SMC;
	return 0;
}

/*
 * In DOUBT a child without storage is judged by its saved SYN. Where that does not say that nothing was announced, this
 * does: under SYN cookies none is saved, and an option that was left unanswered is in one, too. Of a SYN-ACK that a flood can have
 * made forgotten it cannot be said. It needs no counting (needed, below): a role of none.
 */
static __always_inline void tell_plain(struct bpf_sock_ops *ctx, int answered)
{
	struct bpf_sock *sk = ctx->sk;
	struct option o;
	struct mark *m;
	int n = find_option(ctx, &o, BPF_LOAD_HDR_OPT_TCP_SYN);

	if (n == -ENOMSG || (n != -ENOENT && !answered && is_set(FLOODED)))
		return;
	m = sk ? bpf_sk_storage_get(&ismfs_marks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	if (m)
		m->answer = PLAIN;
}

/*
 * Also called for a client whose SYN met the other end's SYN: no SYN-ACK answered either, so it is plain. An accepted socket
 * has no storage yet, and gets none if nothing was promised. It is looked for whatever its flags are: its listener can have
 * been un-marked since.
 */
static __always_inline void server_established(struct bpf_sock_ops *ctx)
{
	__u32 flags = ctx->bpf_sock_ops_cb_flags;
	struct mark *m = mark_of(ctx);
	__u64 cookie, *answered = NULL, *outstanding, tag = 0;

	if (m) {
		done_writing(ctx, m);
		m->peer = 0;
		m->answer = PLAIN;
		return;
	}
	if (flags_ours(flags))
		bpf_sock_ops_cb_flags_set(ctx, flags & ~OURS); /* spares it the call for each segment */
	outstanding = state(OUTSTANDING);
	if (outstanding && *outstanding) {
		cookie = bpf_get_socket_cookie(ctx);
		answered = bpf_map_lookup_elem(&ismfs_answered, &cookie);
		if (answered)
			tag = *answered;
		else if (is_set(FLOODED) && flags & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG)
			tag = syn_tag(ctx);
		if (tag && told_smc(ctx, tag))
			set(DOUBT);
		if (answered && !bpf_map_delete_elem(&ismfs_answered, &cookie))
			__sync_fetch_and_add(outstanding, -1);
	}
	if (!tag && flags & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG && is_set(DOUBT))
		tell_plain(ctx, answered != NULL);
}

/* Always 1, and never a reply: both would replace those of other programs. */
SEC("sockops")
int ismfs_sockops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		connecting(ctx);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		listening(ctx);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		client_established(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		server_established(ctx);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		if (!(ctx->skb_tcp_flags & TCPHDR_SYN))
			break;
		if (ctx->is_fullsock)
			reserve_in_syn(ctx);
		else
			reserve_in_synack(ctx);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		if (!(ctx->skb_tcp_flags & TCPHDR_SYN))
			break;
		if (ctx->is_fullsock)
			write_in_syn(ctx);
		else
			write_in_synack(ctx);
		break;
	}
	return 1;
}

/*
 * pass leaves an option to the kernel and to other programs. Of a long value a program sees the first page only; unless told
 * 0 ("the caller's own buffer"), kernels before 6.5 then fail the call, later ones log it.
 */
static __always_inline int pass(struct bpf_sockopt *ctx)
{
	if (ctx->optlen > (long)(ctx->optval_end - ctx->optval))
		ctx->optlen = 0;
	return 1;
}

static __always_inline int ours(struct bpf_sockopt *ctx)
{
	return ctx->level == SOL_SMC && ctx->optname == option_name && ctx->sk && ctx->sk->protocol == IPPROTO_TCP;
}

static __always_inline int fail(int error)
{
	bpf_set_retval(error);
	return 1;
}

/* listen_now does to a socket that listens already what listening() does at listen(2). Linux 6.12 at least. */
static __always_inline int listen_now(struct bpf_sockopt *ctx, struct mark *m)
{
	__u8 own_write = m->own_write;
	int flags = 0, on = 0;

	if (bpf_getsockopt(ctx->sk, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)))
		return -EOPNOTSUPP;
	flags = listener_flags(m, flags);
	if (bpf_setsockopt(ctx->sk, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags))) {
		m->own_write = own_write;
		return -EOPNOTSUPP;
	}
	if (bpf_getsockopt(ctx->sk, SOL_TCP, TCP_SAVE_SYN, &on, sizeof(on)) || !on) {
		on = 1;
		m->own_save = !bpf_setsockopt(ctx->sk, SOL_TCP, TCP_SAVE_SYN, &on, sizeof(on));
	}
	m->role = SERVER;
	return 0;
}

/* The storage stays, for the count of those who wait in its queue. */
static __always_inline void listen_no_more(struct bpf_sockopt *ctx, struct mark *m)
{
	int flags = 0, off = 0;

	if (m->own_save)
		bpf_setsockopt(ctx->sk, SOL_TCP, TCP_SAVE_SYN, &off, sizeof(off));
	m->own_save = 0;
	if (!m->own_write)
		return;
	if (bpf_getsockopt(ctx->sk, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)))
		return;
	flags &= flags_ours(flags) ? ~OURS : ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
	if (!bpf_setsockopt(ctx->sk, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)))
		m->own_write = 0;
}

SEC("cgroup/setsockopt")
int ismfs_setsockopt(struct bpf_sockopt *ctx)
{
	union word *v = ctx->optval, w;
	struct mark *m;
	__u64 before;
	__u32 state;
	int err;

	if (!ours(ctx))
		return pass(ctx);
	if ((void *)(v + 1) > ctx->optval_end || ctx->optlen != sizeof(*v) || v->head > MARK)
		return fail(-EINVAL);
	state = ctx->sk->state;
	if (state != BPF_TCP_CLOSE && state != BPF_TCP_LISTEN)
		return fail(-EISCONN);

	if (v->head == UNMARK) {
		m = bpf_sk_storage_get(&ismfs_marks, ctx->sk, NULL, 0);
		if (m) {
			m->tag = 0;
			if (state == BPF_TCP_LISTEN)
				listen_no_more(ctx, m);
		}
		goto done;
	}

	w.all = v->all;
	w.head = 0;
	if (!w.all || !known(w.all))
		return fail(-ENODEV);
	m = bpf_sk_storage_get(&ismfs_marks, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!m)
		return fail(-ENOMEM);
	before = m->tag;
	m->tag = w.all;
	if (state == BPF_TCP_LISTEN) {
		err = listen_now(ctx, m);
		if (err) {
			m->tag = before;
			return fail(err);
		}
	}
done:
	ctx->optlen = -1; /* handled: not for the kernel */
	return 1;
}

/* unknown returns what a question to a socket without storage fails with. */
static __always_inline int unknown(struct bpf_sock *sk)
{
	if (sk->state == BPF_TCP_CLOSE || sk->state == BPF_TCP_SYN_SENT || sk->state == BPF_TCP_LISTEN)
		return -ENODATA;
	return is_set(DOUBT) ? -ENOTCONN : -ENODATA;
}

SEC("cgroup/getsockopt")
int ismfs_getsockopt(struct bpf_sockopt *ctx)
{
	union word *v = ctx->optval;
	struct mark *m;

	if (!ours(ctx))
		return pass(ctx);
	m = bpf_sk_storage_get(&ismfs_marks, ctx->sk, NULL, 0);
	if (!m)
		return fail(unknown(ctx->sk));
	if ((void *)(v + 1) > ctx->optval_end)
		return fail(-EINVAL);
	if (ctx->sk->state == BPF_TCP_LISTEN) {
		if (!m->tag)
			return fail(-ENODATA);
		v->all = m->tag;
		v->head = LISTENER;
	} else {
		if (m->answer == UNDECIDED)
			return fail(m->tag ? -ENOTCONN : -ENODATA);
		v->all = m->peer;
		v->head = m->answer;
		m->asked = 1;
	}
	ctx->optlen = sizeof(*v);
	barrier(); /* the verifier refuses one store of 8 bytes to both */
	ctx->retval = 0;
	return 1;
}

/*
 * The sockets that would be worse off without the programs: for each marked listener, and for each connection whose answer
 * nobody has read, the two programs below write a record. ismfs_sockets goes through all storage there is. Kernels that are
 * locked down refuse it (its context could be written to); ismfs_task_sockets goes through the files of all processes then. It
 * meets a socket as often as processes have it. Those that wait to be accepted, most of which have no storage, are counted with
 * their listener, for which it does not matter whether it is marked still.
 */
struct record {
	__u64 cookie;
	__u64 sockets; /* that it stands for */
};

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct sock_common {
	unsigned long skc_flags;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket; /* none: waits to be accepted */
	__u32 sk_ack_backlog;
} __attribute__((preserve_access_index));

struct socket {
	struct sock *sk;
} __attribute__((preserve_access_index));

#define SOCK_DEAD (1UL << 0) /* of skc_flags: closed, though its memory is not free yet */

static __always_inline __u64 needed(struct mark *m, struct sock *sk)
{
	switch (m->role) {
	case SERVER:
		return (m->tag != 0) + (__u64)sk->sk_ack_backlog;
	case CHILD:
		return sk->sk_socket && !m->asked;
	default:
		return !m->asked && m->tag;
	}
}

static __always_inline void list(struct bpf_iter_meta *meta, struct sock *sk, __u64 sockets)
{
	struct record r = { bpf_get_socket_cookie(sk), sockets };

	if (sockets)
		bpf_seq_write(meta->seq, &r, sizeof(r));
}

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	struct mark *value;
};

SEC("iter/bpf_sk_storage_map")
int ismfs_sockets(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct mark *m = ctx->value;
	struct sock *sk = ctx->sk;

	if (m && sk && !(sk->__sk_common.skc_flags & SOCK_DEAD))
		list(ctx->meta, sk, needed(m, sk));
	return 0;
}

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

SEC("iter/task_file")
int ismfs_task_sockets(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct socket *socket;
	struct mark *m;
	struct sock *sk;

	if (!file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	m = bpf_sk_storage_get(&ismfs_marks, sk, NULL, 0);
	if (m)
		list(ctx->meta, sk, needed(m, sk));
	return 0;
}

char _license[] SEC("license") = "GPL";
