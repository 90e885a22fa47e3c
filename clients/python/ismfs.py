# SPDX-License-Identifier: Apache-2.0
"""Move bytes between two processes through ismfs DMBs. Standard library only, Linux, Python 3.9 and newer.

A DMB (direct memory buffer) is a shared file of 32 header bytes and a ring. Its owner reads the ring, one peer writes it, so a
connection is two DMBs: mine, which I read, and the peer's, which I write. docs/dmb-format.md is the contract; this is it in Python.

    offset size  field            written by
         0    1  type (0xFE)      peer
         8    8  producer word    peer                 wrap u16, count u32, 0, 0
        16    8  consumer word    peer                 wrap u16, count u32, producer flags, state flags
        24    4  signal sequence  peer, owner, device  the futex on which the owner sleeps
        28    1  reader's wait    peer, owner clears   how the peer's reader sleeps
        29    1  writer's wait    peer, owner clears   how the peer's writer sleeps
        32    -  ring             peer

Memory order. Words are stored and loaded through memoryviews of native 64-bit items, which CPython does with one aligned access of the
CPU. x86-64 keeps stores in order and loads in order, so there a plain store releases and a plain load acquires; elsewhere a full fence
stands beside each. The full fence between publishing and reading the wait state is a real one everywhere: see _Fence. What Python
lacks, an atomic add on the signal sequence, the kernel does: FUTEX_WAKE_OP adds and wakes in one call.

Errors are OSErrors with the errno that the C library returns: ConnectionResetError, ConnectionAbortedError, BrokenPipeError, EPROTO.
Timeouts are in seconds, None means for ever; TimeoutError ends one. On one connection one thread may send while another receives.
"""

import ctypes
import errno
import mmap
import os
import platform
import secrets
import select
import stat
import struct
import threading
import time
import weakref

__all__ = ["Connection", "Device", "Dmb", "ProcsBlock", "format_token", "parse_token"]

OFF_TYPE, OFF_PROD, OFF_CONS, OFF_SEQ, OFF_WAIT, HEADER = 0, 8, 16, 24, 28, 32
TYPE_DMB = 0xFE
MIN_SIZE = 4096
HUGE_PAGE = 2 << 20
CHUNK = 64 << 10  # a longer send is published in pieces of this size, so that both sides copy at once

WRITE_BLOCKED, CONS_CURS_UPD_REQ = 0x80, 0x10  # producer flags
PEER_DONE_WRITING, PEER_CONN_CLOSED, PEER_CONN_ABORT = 0x80, 0x40, 0x20  # connection state flags
PEER_LEFT = PEER_CONN_CLOSED | PEER_CONN_ABORT
PEER_ENDED = PEER_DONE_WRITING | PEER_LEFT

AWAKE, SLEEPS_ON_FUTEX, SLEEPS_ON_BELL = 0, 1, 2  # wait state
READER, WRITER = 0, 1  # my two threads, and the byte of the wait state that each announces in

LEAST_CONFIRM = 2304  # the kernel's SOCK_MIN_SNDBUF / 2
LOOK_EVERY = 1.0  # seconds between two questions to the device whether the peer lives

# ---- system calls ---------------------------------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)  # releases the GIL: for what may sleep
_libc_quick = ctypes.PyDLL(None)  # keeps it: for what is shorter than handing it over
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

_MACHINE = platform.machine()
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}.get(_MACHINE)
if _SYS_FUTEX is None:
    raise ImportError("ismfs: number of the futex system call unknown on " + _MACHINE)
_STRONG_ORDER = _MACHINE == "x86_64"

_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_WAKE_OP, _FUTEX_PRIVATE = 0, 1, 5, 128
_FUTEX_ADD_ONE = (1 << 28) | (1 << 12)  # FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0)
_INT_MAX = 0x7FFFFFFF
_MADV_HUGEPAGE, _MADV_NOHUGEPAGE, _MADV_POPULATE_READ, _MADV_POPULATE_WRITE, _MADV_COLLAPSE = 14, 15, 22, 23, 25
_MAP_FIXED, _MAP_NORESERVE, _MAP_FAILED = 0x10, 0x4000, ctypes.c_void_p(-1).value


class _Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]


_FUTEX_ARGS = (ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
_futex = _libc.syscall
_futex.argtypes = _FUTEX_ARGS
_futex_quick = _libc_quick.syscall
_futex_quick.argtypes = _FUTEX_ARGS


def _futex_wait(address, value, seconds):
    left = _Timespec(int(seconds), int(seconds % 1 * 1e9))
    _futex(_SYS_FUTEX, address, _FUTEX_WAIT, value, ctypes.addressof(left), None, 0)


def _futex_add_and_wake(address):
    """Add 1 to the word, atomically, and wake all who sleep on it. val2, the second limit, travels in the timeout's place."""
    _futex(_SYS_FUTEX, address, _FUTEX_WAKE_OP, _INT_MAX, None, address, _FUTEX_ADD_ONE)


class _Fence:
    """A full memory barrier, which Python has no word for.

    x86-64: every locked instruction is one, and pthread_spin_trylock on a lock shared between processes cannot do without
    one. Elsewhere an acquire or a release is less than a full barrier, so there it is the system call FUTEX_WAKE, on a word of my own
    on which nobody sleeps: the kernel has to order the caller's earlier stores before its look at the sleepers, and does it with
    smp_mb(), because every futex user's "store, then wake" depends on that. An arbitrary system call would not do.
    """

    def __init__(self):
        self._word = ctypes.c_uint32()
        self._address = ctypes.c_void_p(ctypes.addressof(self._word))
        if _STRONG_ORDER:
            process_shared = 1
            _libc_quick.pthread_spin_init(self._address, process_shared)
            self._trylock = _libc_quick.pthread_spin_trylock
            self._trylock.argtypes = (ctypes.c_void_p,)

    def full(self):
        if _STRONG_ORDER:
            self._trylock(self._address)  # that it stays locked does not matter
        else:
            _futex_quick(_SYS_FUTEX, self._address, _FUTEX_WAKE | _FUTEX_PRIVATE, 1, None, None, 0)

    def order(self):
        """Release before a store, acquire after a load."""
        if not _STRONG_ORDER:
            self.full()


_fence = _Fence()

# ---- memory ---------------------------------------------------------------------------------------------------------------------


def _call(result, what):
    if result in (-1, _MAP_FAILED):
        e = ctypes.get_errno()
        raise OSError(e, f"{what}: {os.strerror(e)}")
    return result


def _madvise(address, size, advice, what):
    while _libc.madvise(address, size, advice) != 0:
        e = ctypes.get_errno()
        if e not in (errno.EINTR, errno.EAGAIN):
            raise OSError(errno.ENOMEM if e == errno.EFAULT else e, f"{what}: {os.strerror(e)}")


def _alignment_for(size):
    """The kernel gives a page of some size only to a mapping that has room for it at a multiple of that size. 0: not worth it."""
    return HUGE_PAGE if size >= HUGE_PAGE else HUGE_PAGE // 2 if size >= HUGE_PAGE // 2 else 0


class _Mapping:
    """A shared, writable mapping of a whole file. Unmapped when the last view of it is gone, so that no view can fault.

    mmap.mmap cannot map at a boundary of its caller's choice, which huge pages need, so this calls libc.
    """

    def __init__(self, fd, size, align=0):
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        place = self._reserve(size, align) if align else None
        flags = mmap.MAP_SHARED | (_MAP_FIXED if place else 0)
        self.address = _call(_libc.mmap(place, size, protection, flags, fd, 0), "mmap")
        self.size = size
        array = (ctypes.c_ubyte * size).from_address(self.address)
        weakref.finalize(array, _libc.munmap, self.address, size)
        self.bytes = memoryview(array).cast("B")

    @staticmethod
    def _reserve(size, align):
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        base = _call(_libc.mmap(None, size + align, 0, flags, -1, 0), "mmap")
        before = -base % align
        if before:
            _libc.munmap(base, before)
        _libc.munmap(base + before + size, align - before)
        return base + before

    def advise(self, advice):
        """A wish: kernels without huge pages refuse it."""
        _libc.madvise(self.address, self.size, advice)

    def populate(self):
        """Allocate every page now: a shortage is an OSError here rather than SIGBUS later."""
        _madvise(self.address, self.size, _MADV_POPULATE_WRITE, "populate")

    def bring_in(self):
        """Map pages that are there already. They come writable, since shared memory tracks no first write, and 16 at a time."""
        _madvise(self.address, self.size, _MADV_POPULATE_READ, "populate")


# ---- device ---------------------------------------------------------------------------------------------------------------------


def format_token(token):
    """16 lower-case hex digits."""
    return f"{token:016x}"


def parse_token(text):
    """The inverse of format_token. ValueError for anything else, and for 0."""
    if len(text) != 16 or set(text) - set("0123456789abcdef") or int(text, 16) == 0:
        raise ValueError(f"not a token: {text!r} (want 16 lower-case hex digits, not all 0)")
    return int(text, 16)


def _find_mount():
    """The only fuse.ismfs mount; several mount points of one file system (bind mounts) are one mount."""
    found = {}
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            before, _, after = line.partition(b" - ")
            if after.startswith(b"fuse.ismfs "):
                fields = before.split()
                point = fields[4].decode("unicode_escape").encode("latin-1")  # space is written as \040
                found.setdefault(fields[2], os.fsdecode(point))
    if len(found) == 1:
        return next(iter(found.values()))
    e = errno.ENOTUNIQ if found else errno.ENOENT
    raise OSError(e, "which fuse.ismfs mount? set ISMFS_MOUNT" if found else "no fuse.ismfs mount here")


class Device:
    """A loopback-ism device: the directory MOUNT/devices/loopback-ism.

    mount None means $ISMFS_MOUNT and, if that is not set, the only fuse.ismfs mount of this mount namespace.
    """

    def __init__(self, mount=None):
        mount = mount or os.environ.get("ISMFS_MOUNT") or _find_mount()
        self.path = os.path.join(mount, "devices", "loopback-ism")
        self.dir = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, name, flags):
        """A descriptor of a file of the tree."""
        return os.open(name, flags | os.O_CLOEXEC, 0o600, dir_fd=self.dir)

    def knob(self, name):
        """The leading number of a control file (dmb_type, dmb_copy)."""
        fd = self.open(name, os.O_RDONLY)
        try:
            return int(os.read(fd, 128).split(b":")[0])
        finally:
            os.close(fd)

    def close(self):
        """DMBs, connections and procs blocks stay valid."""
        if self.dir >= 0:
            os.close(self.dir)
        self.dir = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Dmb:
    """A DMB of mine (Dmb.register) or of a peer (Dmb.attach). close() unregisters, or detaches.

    token, size, fd; mapping is None for a peer's DMB in copy mode, and separated True.
    """

    def __init__(self, token, fd):
        self.token = token
        self.fd = fd
        self.size = 0
        self.mapping = None
        self.separated = False

    @classmethod
    def register(cls, device, size):
        """Create under a random token, size, map and populate; only then may the token be told. size: a multiple of 4096."""
        if size < MIN_SIZE or size % MIN_SIZE:
            raise OSError(errno.EINVAL, f"a DMB's size is a multiple of {MIN_SIZE}, not {size}")
        contiguous = device.knob("dmb_type") == 0
        dmb = cls._create(device)
        try:
            os.ftruncate(dmb.fd, size)
            dmb.size = size
            dmb._map_registered(contiguous)
        except BaseException:
            dmb.close()
            raise
        return dmb

    @classmethod
    def _create(cls, device):
        while True:
            token = secrets.randbits(64)
            if token == 0:
                continue
            try:
                return cls(token, device.open("dmbs/" + format_token(token), os.O_RDWR | os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue

    def _map_registered(self, contiguous):
        huge = contiguous and self.size >= HUGE_PAGE
        self.mapping = _Mapping(self.fd, self.size, _alignment_for(self.size) if contiguous else 0)
        self.mapping.advise(_MADV_HUGEPAGE if contiguous else _MADV_NOHUGEPAGE)
        self.mapping.populate()
        if huge:
            self.mapping.advise(_MADV_COLLAPSE)

    @classmethod
    def attach(cls, device, token, size=None):
        """Attach to a peer's DMB, once in its life. size: what the peer told; another one is EMSGSIZE."""
        name = "dmbs/" + format_token(token)
        separated = False
        try:
            fd = device.open(name, os.O_RDWR)
        except PermissionError:  # how a peer learns that the mode is copy
            fd = device.open(name, os.O_WRONLY)
            separated = True
        dmb = cls(token, fd)
        dmb.separated = separated
        try:
            dmb._map_attached(size)
        except BaseException:
            dmb.close()
            raise
        return dmb

    def _map_attached(self, told):
        self.size = os.fstat(self.fd).st_size
        if self.size < MIN_SIZE or told not in (None, self.size):
            raise OSError(errno.EMSGSIZE, f"the DMB has {self.size} bytes, its owner said {told}")
        if self.separated:
            return
        self.mapping = _Mapping(self.fd, self.size, _alignment_for(self.size))
        self.mapping.bring_in()

    def is_separated(self):
        """Whether the peer of this DMB can only write it: the permissions that it shows say so. Without an answer, True."""
        if self.separated:
            return True
        try:
            mode = os.fstat(self.fd).st_mode
        except OSError:
            return True
        return mode & (stat.S_IROTH | stat.S_IWOTH) == stat.S_IWOTH

    def close(self):
        """Unmap (when no borrowed view is left) and close."""
        self.mapping = None
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- procs block ----------------------------------------------------------------------------------------------------------------


class ProcsBlock:
    """This process's counters (docs/dmb-format.md 3.2). Traffic of a process without one is missing from xfer_bytes and stats.

    Open one per process and share it. Adding is a load and a store under a lock, not an atomic add: nothing else in the process, such
    as the C library, may count in the same block at the same time.
    """

    SIZE = 4096
    USR_TX_BUF, USR_RX_BUF, RX_BYTES, TX_BYTES, RX_CNT, TX_CNT = 18, 27, 59, 60, 61, 62

    def __init__(self, device):
        self._lock = threading.Lock()
        self.fd = device.open("procs/self", os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(self.fd).st_size == 0:  # set once; another opener in this process may have done it
                os.ftruncate(self.fd, self.SIZE)
            self._mapping = _Mapping(self.fd, os.fstat(self.fd).st_size)
            self._mapping.populate()
        except BaseException:
            os.close(self.fd)
            raise
        self._numbers = self._mapping.bytes[64 : 64 + 65 * 8].cast("Q")

    @staticmethod
    def bucket(n):
        """Up to 8 KiB, 16 KiB, ... 1 MiB, above: as the kernel's SMC_STAT_PAYLOAD_SUB. n is not 0."""
        return min(((n - 1) >> 13).bit_length(), 8)

    def sent(self, n):
        with self._lock:
            self._numbers[self.TX_BYTES] += n

    def received(self, n):
        with self._lock:
            self._numbers[self.RX_BYTES] += n

    def send_call(self, asked):
        with self._lock:
            self._numbers[self.TX_CNT] += 1
            self._numbers[self.USR_TX_BUF + self.bucket(asked)] += 1

    def receive_call(self, n):
        with self._lock:
            self._numbers[self.RX_CNT] += 1
            self._numbers[self.USR_RX_BUF + self.bucket(n)] += 1

    def close(self):
        self._numbers = self._mapping = None
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- cursors --------------------------------------------------------------------------------------------------------------------
# A cursor is a tuple (wrap, count). Words have the host's byte order field by field, hence struct with "=".

_WORD = struct.Struct("=HIBB")
_U64 = struct.Struct("=Q")


def pack_word(cursor, producer_flags=0, state_flags=0):
    """The 64-bit number whose bytes are wrap, count and the two flag bytes."""
    return _U64.unpack(_WORD.pack(*cursor, producer_flags, state_flags))[0]


def unpack_word(word):
    """(wrap, count), producer flags, state flags."""
    wrap, count, producer_flags, state_flags = _WORD.unpack(_U64.pack(word))
    return (wrap, count), producer_flags, state_flags


def _protocol_error(what):
    return OSError(errno.EPROTO, "the peer broke the contract: " + what)


def cursor_add(cursor, n, length):
    """n is at most length."""
    wrap, count = cursor
    count += n
    return (wrap, count) if count < length else ((wrap + 1) & 0xFFFF, count - length)


def cursor_distance(a, b, length):
    """Bytes from a to b, 0 to length. Both counts are below length. EPROTO when b cannot lie ahead of a."""
    if a[0] == b[0]:
        if b[1] >= a[1]:
            return b[1] - a[1]
    elif (a[0] + 1) & 0xFFFF == b[0] and b[1] <= a[1]:
        return length - a[1] + b[1]
    raise _protocol_error(f"cursor {b} is not ahead of {a}")


def cursor_accept(last, new, limit, length):
    """new, if it lies between last and limit. The limit of a producer cursor is one ring ahead of the last published consumer cursor,
    that of a consumer cursor is what was produced."""
    if new[1] >= length:
        raise _protocol_error(f"count {new[1]} is outside the ring of {length}")
    cursor_distance(last, new, length)
    cursor_distance(new, limit, length)
    return new


def state_accept(last, new):
    """State flags are states, not events: one that was set stays set."""
    if last & ~new:
        raise _protocol_error(f"state flags went from {last:#x} to {new:#x}")
    return new


# ---- connection -----------------------------------------------------------------------------------------------------------------


class _Header:
    """The header of a DMB in memory: its two words and the two bytes of the wait state, and its ring."""

    def __init__(self, mapping):
        self.words = mapping.bytes[OFF_PROD:OFF_SEQ].cast("Q")  # [0] producer, [1] consumer
        self.sequence = mapping.bytes[OFF_SEQ:OFF_WAIT].cast("I")
        self.waits = mapping.bytes[OFF_WAIT : OFF_WAIT + 2]
        self.ring = mapping.bytes[HEADER:]
        self.sequence_address = mapping.address + OFF_SEQ

    def load(self, offset):
        word = self.words[offset // 8 - 1]
        _fence.order()
        return word

    def store(self, offset, word):
        _fence.order()
        self.words[offset // 8 - 1] = word

    def put(self, at, data):
        self.ring[at : at + len(data)] = data

    def announce(self, side, how):
        self.waits[side] = how


class _WriteOnlyHeader:
    """A peer's header and ring in copy mode: pwrite, the header in single words."""

    def __init__(self, fd):
        self._fd = fd
        self._lock = threading.Lock()
        self._waits = bytearray(4)

    def store(self, offset, word):
        os.pwrite(self._fd, _U64.pack(word), offset)

    def put(self, at, data):
        while data:
            n = os.pwrite(self._fd, data, HEADER + at)
            data, at = data[n:], at + n

    def announce(self, side, how):
        """From my copy of both fields: a field that the owner just cleared and this sets again costs one signal too many."""
        with self._lock:
            self._waits[side] = how
            os.pwrite(self._fd, self._waits, OFF_WAIT)


class _Bell:
    """My FIFO. A byte that is read is swallowed, so one thread at a time listens and passes the news on to the other."""

    def __init__(self, fd):
        self.fd = fd
        self._lock = threading.Condition()
        self._generation = 0
        self._led = False

    def arm(self):
        """Before announcing. Returns what sleep and disarm want."""
        with self._lock:
            generation, leads = self._generation, not self._led
            self._led = True
            if leads and self._empty():
                self._pass_on()
            return generation, leads

    def sleep(self, turn, seconds):
        generation, leads = turn
        if leads:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            poll.poll(seconds * 1000)
            return
        with self._lock:
            self._lock.wait_for(lambda: self._generation != generation, seconds)

    def disarm(self, turn):
        if not turn[1]:
            return
        with self._lock:
            self._led = False
            self._pass_on()

    def _pass_on(self):
        self._generation += 1
        self._lock.notify_all()

    def _empty(self):
        """Once: a peer that rings without a pause could hold a loop here. What is left over ends the next sleep early."""
        try:
            return bool(os.read(self.fd, 4096))
        except BlockingIOError:
            return False


def _open_bell(device, token):
    return device.open("bells/" + format_token(token), os.O_RDWR | os.O_NONBLOCK)


class Connection:
    """A stream in both directions over my DMB and the peer's, both new. Close it before the DMBs.

    procs None: uncounted. bell True: sleep on the bell even where the futex would do.
    """

    def __init__(self, device, own, peer, procs=None, bell=False):
        self._own, self._peer, self._procs = own, peer, procs
        self._rx_len, self._tx_len = own.size - HEADER, peer.size - HEADER
        self._mine = _Header(own.mapping)
        self._theirs = _Header(peer.mapping) if peer.mapping else _WriteOnlyHeader(peer.fd)
        self._mapped = peer.mapping is not None
        self._confirm_limit = max(self._rx_len // 10, LEAST_CONFIRM)
        # The receiving thread's.
        self._rx_prod = self._rx_cons = (0, 0)
        self._rx_state = 0
        # The sending thread's.
        self._tx_prod = self._tx_cons = (0, 0)
        self._tx_state = 0
        # The consumer word that I last wrote: the reader's cursor and the writer's flags, changed under the lock.
        self._lock = threading.Lock()
        self._confirmed = (0, 0)
        self._flags = self._state = 0

        self._shut = self._peer_met = False
        self._failed = 0  # errno of the end
        self._looked = [time.monotonic()] * 2
        self._closed = False

        # Now, since no path can be looked up once the daemon is dead.
        self._peer_bell = _open_bell(device, peer.token)
        self._bell = None
        try:
            if bell or own.is_separated():
                self._bell = _Bell(_open_bell(device, own.token))
            self._write_type()
        except BaseException:
            self._close_bells()
            raise

    def _write_type(self):
        if self._mapped:
            self._peer.mapping.bytes[OFF_TYPE] = TYPE_DMB
        else:
            os.pwrite(self._peer.fd, bytes([TYPE_DMB]) + bytes(7), OFF_TYPE)

    # -- publishing: store, full fence, look whether the peer sleeps

    def _put_word(self, offset, word):
        self._theirs.store(offset, word)
        _fence.full()

    def _signal(self, side):
        """Clear the field, then wake. It is a byte of its own, so a store does for the compare-and-swap of the contract: should it
        clear the announcement of a next sleep, the addition to the sequence (the ring of the bell) comes later and ends that one."""
        how = self._mine.waits[side]
        if how not in (SLEEPS_ON_FUTEX, SLEEPS_ON_BELL):
            return
        self._mine.waits[side] = AWAKE
        if how == SLEEPS_ON_FUTEX and self._mapped:
            _futex_add_and_wake(self._theirs.sequence_address)
            return
        _fence.full()
        try:
            os.write(self._peer_bell, b"\0")
        except BlockingIOError:
            pass  # it rings already

    def _publish_producer(self):
        self._put_word(OFF_PROD, pack_word(self._tx_prod))
        self._signal(READER)

    def _publish_consumer(self, set_state=0, set_flags=0, clear_flags=0):
        """Any change may carry a cursor that has moved on, so each one signals the peer's writer."""
        with self._lock:
            self._flags = (self._flags | set_flags) & ~clear_flags
            self._state |= set_state
            self._confirmed = self._rx_cons
            self._put_word(OFF_CONS, pack_word(self._confirmed, self._flags, self._state))
        self._signal(WRITER)

    def _set_write_blocked(self, blocked):
        """A peer that holds back a cursor has to hear of it also when it sleeps, whichever of its threads that is."""
        if bool(self._flags & WRITE_BLOCKED) == blocked:
            return
        if not blocked:
            self._publish_consumer(clear_flags=WRITE_BLOCKED)
            return
        self._publish_consumer(set_flags=WRITE_BLOCKED)
        self._signal(READER)

    def _peer_flags(self):
        return unpack_word(self._mine.load(OFF_CONS))[1]

    def _holds_back_cursor(self):
        return bool(self._peer_flags() & (WRITE_BLOCKED | CONS_CURS_UPD_REQ)) and self._rx_cons != self._confirmed

    # -- failing

    def _fail(self, number):
        self._failed = self._failed or number

    def _error(self, number):
        return OSError(number, os.strerror(number))

    def _checked(self, load):
        """Keep the reason when a peer breaks the contract: the connection is over for both threads."""
        if self._closed:
            raise OSError(errno.EBADF, "the connection is closed")
        if self._failed == errno.EPROTO:
            raise self._error(errno.EPROTO)
        try:
            return load()
        except OSError as e:
            if e.errno == errno.EPROTO:
                self._fail(errno.EPROTO)
            raise

    # -- receiving

    def _rx_load(self):
        """Bytes that can be read; None: the end of the stream. The failure is loaded before the words and the flags before the
        producer cursor, so that what a peer wrote before it ended is not lost."""
        failed = self._failed
        _, _, state = unpack_word(self._mine.load(OFF_CONS))
        new, _, _ = unpack_word(self._mine.load(OFF_PROD))
        wrap, count = self._confirmed  # after the producer word: the peer cannot have known a later one
        self._rx_state = state_accept(self._rx_state, state)
        self._rx_prod = cursor_accept(self._rx_prod, new, ((wrap + 1) & 0xFFFF, count), self._rx_len)
        available = cursor_distance(self._rx_cons, self._rx_prod, self._rx_len)
        if available:
            return available
        if self._rx_state & PEER_CONN_ABORT:
            raise self._error(errno.ECONNRESET)
        if self._rx_state & PEER_ENDED:
            return None
        if failed:
            raise self._error(failed)
        return 0

    def _rx_look(self):
        return self._checked(self._rx_load)

    def _should_confirm(self):
        """The kernel's rule (smc_tx_consumer_update), so that the word does not bounce for every message."""
        flags = self._peer_flags()
        if flags & CONS_CURS_UPD_REQ:
            return True
        if cursor_distance(self._confirmed, self._rx_cons, self._rx_len) <= self._confirm_limit:
            return False
        sender_free = self._rx_len - cursor_distance(self._confirmed, self._rx_prod, self._rx_len)
        return sender_free <= self._rx_len // 2 or bool(flags & WRITE_BLOCKED)

    def _rx_advance(self, n):
        self._rx_cons = cursor_add(self._rx_cons, n, self._rx_len)
        if self._procs:
            self._procs.received(n)
        if self._should_confirm():
            self._publish_consumer()

    def _rx_wait(self, timeout):
        available = self._rx_look()
        if available == 0:
            self._wait(READER, timeout)
            available = self._rx_look()
        return available

    def recv_into(self, buffer, timeout=None):
        """Receive into a writable buffer of bytes: waits for the first byte, takes what is there. Returns how many; 0: the end."""
        view = memoryview(buffer).cast("B")
        available = self._rx_wait(timeout) if view else None
        if available is None:
            return 0
        n = min(available, len(view))
        done = 0
        while done < n:
            at = self._rx_cons[1]
            piece = min(n - done, self._rx_len - at, CHUNK)
            view[done : done + piece] = self._mine.ring[at : at + piece]
            self._rx_advance(piece)
            done += piece
        if self._procs:
            self._procs.receive_call(n)
        return n

    def recv(self, n, timeout=None):
        """Receive 1 to n bytes as bytes; b"" is the end of the stream."""
        available = self._rx_wait(timeout) if n > 0 else None
        if available is None:
            return b""
        n = min(n, available)
        at = self._rx_cons[1]
        if n <= min(CHUNK, self._rx_len - at):  # one copy less
            data = bytes(self._mine.ring[at : at + n])
            self._rx_advance(n)
            if self._procs:
                self._procs.receive_call(n)
            return data
        data = bytearray(n)
        self.recv_into(data)
        return bytes(data)

    def peek(self):
        """Borrow what can be read in place: a read-only view up to the ring's end (empty: none now), None at the end of the stream.
        The bytes stay the peer's to overwrite maliciously, so copy before checking anything. Release it before closing."""
        available = self._rx_look()
        if available is None:
            return None
        at = self._rx_cons[1]
        return self._mine.ring[at : at + min(available, self._rx_len - at)].toreadonly()

    def consume(self, n):
        """Give back n bytes that were read in place."""
        if not 0 <= n <= cursor_distance(self._rx_cons, self._rx_prod, self._rx_len):
            raise ValueError("more than there is to read")
        if n == 0:
            return
        self._rx_advance(n)
        if self._procs:
            self._procs.receive_call(n)

    # -- sending

    def _tx_load(self):
        cons, _, state = unpack_word(self._mine.load(OFF_CONS))
        self._tx_state = state_accept(self._tx_state, state)
        self._tx_cons = cursor_accept(self._tx_cons, cons, self._tx_prod, self._tx_len)
        if self._tx_state & PEER_LEFT:
            raise self._error(errno.ECONNRESET)
        return self._tx_len - cursor_distance(self._tx_cons, self._tx_prod, self._tx_len)

    def _tx_look(self):
        if self._shut:
            raise self._error(errno.EPIPE)
        if self._failed:
            raise self._error(self._failed)
        return self._checked(self._tx_load)

    def _tx_advance(self, n):
        self._tx_prod = cursor_add(self._tx_prod, n, self._tx_len)
        if self._procs:
            self._procs.sent(n)
        self._publish_producer()

    def _tx_some(self, data):
        """One round: what fits, at most a chunk. 0: the ring is full."""
        free = self._tx_look()
        self._set_write_blocked(len(data) > free)
        n = min(len(data), free, CHUNK)
        if n == 0:
            return 0
        at = self._tx_prod[1]
        first = min(n, self._tx_len - at)
        self._theirs.put(at, data[:first])
        if n > first:
            self._theirs.put(0, data[first:n])
        self._tx_advance(n)
        return n

    def send(self, data, timeout=None):
        """Send a buffer of bytes: waits until all are in the peer's ring or the time is up. Returns how many are, which is less when
        the time or the connection ran out: the next call says which."""
        view = memoryview(data).cast("B")
        deadline = None if timeout is None else time.monotonic() + timeout
        done = 0
        try:
            while done < len(view):
                n = self._tx_some(view[done:])
                if n == 0:
                    self._wait(WRITER, None if deadline is None else deadline - time.monotonic())
                done += n
        except OSError:
            if done == 0:
                raise
        if self._procs and done:
            self._procs.send_call(len(view))
        return done

    def sendall(self, data, timeout=None):
        """Send everything or raise; how much was sent is then unknown."""
        view = memoryview(data).cast("B")
        deadline = None if timeout is None else time.monotonic() + timeout
        while view:
            view = view[self.send(view, None if deadline is None else deadline - time.monotonic()) :]

    def reserve(self):
        """Borrow free space of the peer's ring: a writable view up to the ring's end (empty: full now). Merged mode only."""
        if not self._mapped:
            raise OSError(errno.EOPNOTSUPP, "the peer's DMB is in copy mode and not mapped")
        free = self._tx_look()
        self._set_write_blocked(free == 0)
        at = self._tx_prod[1]
        return self._theirs.ring[at : at + min(free, self._tx_len - at)]

    def commit(self, n):
        """Publish the first n reserved bytes."""
        if not 0 <= n <= self._tx_len - cursor_distance(self._tx_cons, self._tx_prod, self._tx_len):
            raise ValueError("more than there is space for")
        if n == 0:
            return
        self._tx_advance(n)
        if self._procs:
            self._procs.send_call(n)

    # -- waiting (docs/dmb-format.md 1.4)

    def wait_readable(self, timeout=None):
        """Wait until recv would not wait; an end or an error counts as ready. TimeoutError."""
        self._wait(READER, timeout)

    def wait_writable(self, timeout=None):
        """Wait until send would not wait."""
        self._wait(WRITER, timeout)

    def _ready(self, side):
        try:
            return (self._rx_look if side == READER else self._tx_look)() != 0
        except OSError:
            return True

    def _has_news(self, side):
        return self._ready(side) or self._holds_back_cursor()

    def _wait(self, side, timeout):
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready(side):
            if self._holds_back_cursor():
                self._publish_consumer()
            self._look_if_due(side)
            now = time.monotonic()
            if self._ready(side):
                return
            if deadline is not None and now >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            until = self._looked[side] + LOOK_EVERY
            self._sleep(side, max(0, (until if deadline is None else min(until, deadline)) - now))
            if not self._has_news(side):
                self._look_at_peer(side)

    def _look_if_due(self, side):
        """The device's wake-up at the peer's death is lost on whoever is awake then: a look is due before a sleep too."""
        if time.monotonic() - self._looked[side] >= LOOK_EVERY:
            self._look_at_peer(side)

    def _announce(self, side, how):
        self._theirs.announce(side, how)
        _fence.full()

    def _sleep(self, side, seconds):
        if self._bell:
            self._sleep_on_bell(side, seconds)
            return
        before = self._mine.sequence[0]
        _fence.order()
        self._announce(side, SLEEPS_ON_FUTEX)
        if not self._has_news(side):
            _futex_wait(self._mine.sequence_address, before, seconds)
        self._announce(side, AWAKE)

    def _sleep_on_bell(self, side, seconds):
        turn = self._bell.arm()
        try:
            self._announce(side, SLEEPS_ON_BELL)
            if not self._has_news(side):
                self._bell.sleep(turn, seconds)
            self._announce(side, AWAKE)
        finally:
            self._bell.disarm(turn)

    def _look_at_peer(self, side):
        """Ask the device. A failing fstat says nothing: the daemon is dead, and what is mapped goes on working."""
        self._looked[side] = time.monotonic()
        try:
            peer, own = os.fstat(self._peer.fd).st_nlink, os.fstat(self._own.fd).st_nlink
        except OSError:
            return
        self._peer_met = self._peer_met or own >= 2
        if own == 0 or peer == 0:
            self._fail(errno.ECONNABORTED)
        elif peer < 2 or (own < 2 and self._peer_met):
            self._fail(errno.ECONNRESET)

    # -- ending

    def shutdown(self):
        """No more will be sent. Receiving goes on."""
        if not self._shut:
            self._shut = True
            self._publish_consumer(set_state=PEER_DONE_WRITING)
            self._signal(READER)

    def close(self):
        """Tell the peer (closed, or aborted when bytes are unread) and let go of the DMBs, which stay open."""
        if self._closed:
            return
        try:
            unread = bool(self._rx_look())
        except OSError as e:
            unread = e.errno == errno.EPROTO
        self._publish_consumer(set_state=PEER_CONN_ABORT if unread else PEER_CONN_CLOSED)
        self._signal(READER)
        self._closed = True
        self._close_bells()
        self._mine = self._theirs = None

    def _close_bells(self):
        os.close(self._peer_bell)
        if self._bell:
            os.close(self._bell.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
