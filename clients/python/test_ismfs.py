# SPDX-License-Identifier: Apache-2.0
"""Against a fake mount, a tmpfs directory of ordinary files and FIFOs: no daemon, no root. `python3 -m unittest` here runs it."""

import errno
import os
import random
import shutil
import struct
import sys
import tempfile
import threading
import unittest
from unittest import mock

import ismfs

LEN = ismfs.MIN_SIZE - ismfs.HEADER  # the ring of the smallest DMB


class Fake:
    """What only the device does is done by hand: a DMB's second reference is a hard link."""

    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="ismfs-test-", dir="/dev/shm")
        self.path = os.path.join(self.root, "devices", "loopback-ism")
        for name in ("dmbs", "bells", "procs", "references"):
            os.makedirs(os.path.join(self.path, name))
        self.write("dmb_type", "0: Physically contiguous buffer\n")
        self.write("dmb_copy", "0: sndbuf and DMB merged and no data copied\n")
        os.symlink("7", os.path.join(self.path, "procs", "self"))
        self.device = ismfs.Device(self.root)

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w") as f:
            f.write(text)

    def register(self, size=ismfs.MIN_SIZE):
        dmb = ismfs.Dmb.register(self.device, size)
        os.mkfifo(os.path.join(self.path, "bells", ismfs.format_token(dmb.token)))
        return dmb

    def attach(self, token, separated=False):
        name = ismfs.format_token(token)
        os.link(os.path.join(self.path, "dmbs", name), os.path.join(self.path, "references", name))
        if not separated:
            return ismfs.Dmb.attach(self.device, token)
        real_open = self.device.open

        def refuse_reading(path, flags):
            if flags == os.O_RDWR:
                raise PermissionError(errno.EACCES, path)
            return real_open(path, flags)

        with mock.patch.object(self.device, "open", refuse_reading):
            return ismfs.Dmb.attach(self.device, token)

    def drop_reference(self, token):
        os.unlink(os.path.join(self.path, "references", ismfs.format_token(token)))

    def close(self):
        self.device.close()
        shutil.rmtree(self.root)


class Cursors(unittest.TestCase):
    def test_words_keep_their_bytes(self):
        word = struct.pack("=Q", ismfs.pack_word((0x5566, 0x11223344), 0x80, 0x40))
        self.assertEqual(word, struct.pack("=HIBB", 0x5566, 0x11223344, 0x80, 0x40))
        self.assertEqual(ismfs.unpack_word(ismfs.pack_word((7, 9), 1, 2)), ((7, 9), 1, 2))

    def test_distance(self):
        for a, b, want in (
            ((0, 0), (0, 0), 0),
            ((0, 10), (0, 30), 20),
            ((0, 30), (1, 30), LEN),
            ((65535, LEN - 1), (0, 0), 1),
        ):
            self.assertEqual(ismfs.cursor_distance(a, b, LEN), want)
            self.assertEqual(ismfs.cursor_add(a, want, LEN), b)
        for a, b in (((0, 30), (0, 10)), ((0, 30), (1, 31)), ((0, 0), (2, 0)), ((1, 0), (0, 0))):
            self.assert_refused(ismfs.cursor_distance, a, b, LEN)

    def test_accept(self):
        self.assertEqual(ismfs.cursor_accept((0, 10), (1, 10), (1, 10), LEN), (1, 10))
        for last, new, limit in (
            ((0, 10), (0, LEN), (1, 10)),
            ((0, 10), (0, 2**32 - 1), (1, 10)),
            ((0, 10), (0, 9), (1, 10)),
            ((0, 10), (1, 11), (1, 10)),
            ((0, 10), (2, 0), (1, 10)),
            ((0, 0), (0, 21), (0, 20)),
        ):
            self.assert_refused(ismfs.cursor_accept, last, new, limit, LEN)

    def test_state_flags_stay(self):
        self.assertEqual(ismfs.state_accept(0x80, 0xC0), 0xC0)
        self.assert_refused(ismfs.state_accept, 0x80, 0x40)

    def assert_refused(self, function, *args):
        with self.assertRaises(OSError) as caught:
            function(*args)
        self.assertEqual(caught.exception.errno, errno.EPROTO)

    def test_tokens(self):
        self.assertEqual(ismfs.parse_token(ismfs.format_token(0xABCDEF)), 0xABCDEF)
        for text in ("0" * 16, "ABCDEF0123456789", "12", "1" * 17):
            self.assertRaises(ValueError, ismfs.parse_token, text)


class WithFake(unittest.TestCase):
    def setUp(self):
        self.fake = Fake()
        self.addCleanup(self.fake.close)

    def pair(self, separated=False, bell=False, size=ismfs.MIN_SIZE, procs=None):
        own = [self.fake.register(size) for _ in range(2)]
        peer = [self.fake.attach(own[1 - i].token, separated) for i in range(2)]
        for dmb in own:
            dmb.separated = separated
        ends = [ismfs.Connection(self.fake.device, own[i], peer[i], procs, bell) for i in range(2)]
        for closable in own + peer + ends:  # run in reverse order
            self.addCleanup(closable.close)
        self.own = own
        return ends


class Streams(WithFake):
    def test_round_the_ring(self):
        data = random.Random(1).randbytes(5 * LEN)
        for separated in (False, True):
            for step in (7, 500, 1999, LEN, 2 * LEN):
                self.assertEqual(self.pass_through(data, step, separated), data)

    def pass_through(self, data, step, separated):
        a, b = self.pair(separated, bell=separated)
        writer = threading.Thread(target=lambda: (a.sendall(data, timeout=30), a.shutdown()))
        writer.start()
        received = bytearray()
        while piece := b.recv(step, timeout=30):
            received += piece
        writer.join()
        return received

    def test_full(self):
        a, b = self.pair()
        self.assertEqual(a.send(bytes(LEN + 1), timeout=0), LEN)
        self.assertRaises(TimeoutError, a.send, b"x", timeout=0)
        self.assertEqual(len(b.recv(LEN)), LEN)
        self.assertEqual(a.send(b"x", timeout=0), 1)

    def test_borrowed(self):
        a, b = self.pair()
        with a.reserve() as space:
            self.assertEqual(len(space), LEN)
            space[:5] = b"hello"
        a.commit(5)
        with b.peek() as view:
            self.assertEqual(bytes(view), b"hello")
        b.consume(5)
        self.assertRaises(ValueError, b.consume, 1)
        self.assertRaises(ValueError, a.commit, LEN + 1)

    def test_copy_mode_lends_nothing(self):
        a, _ = self.pair(separated=True)
        with self.assertRaises(OSError) as caught:
            a.reserve()
        self.assertEqual(caught.exception.errno, errno.EOPNOTSUPP)

    def test_held_back_cursor_is_given_to_a_blocked_peer(self):
        """A reader that sleeps on a cursor which its rule holds back publishes it when the writer says that it is blocked."""
        with mock.patch.object(ismfs, "LOOK_EVERY", 60.0):
            a, b = self.pair(size=65536)
            a.sendall(bytes(5000))
            b.recv(5000)
            reader = threading.Thread(target=b.recv, args=(1, 30))
            reader.start()
            a._set_write_blocked(True)
            while a._tx_look() < 65536 - ismfs.HEADER and reader.is_alive():
                pass
            self.assertEqual(a._tx_look(), 65536 - ismfs.HEADER)
            a.sendall(b"x")
            reader.join()

    def test_a_peer_that_breaks_the_contract(self):
        for offset, cursor in ((8, (0, LEN)), (8, (1, 1)), (8, (2, 0)), (8, (65535, 0)), (16, (1, 0)), (16, (0, 2**32 - 1))):
            a, _ = self.pair()
            self.own[0].mapping.bytes[offset : offset + 8] = struct.pack("=Q", ismfs.pack_word(cursor))
            call = (lambda: a.recv(1, timeout=0)) if offset == 8 else (lambda: a.send(b"x", timeout=0))
            for _ in range(2):
                with self.assertRaises(OSError) as caught:
                    call()
                self.assertEqual(caught.exception.errno, errno.EPROTO)


class Ends(WithFake):
    def test_shutdown(self):
        a, b = self.pair()
        a.sendall(b"1234")
        a.shutdown()
        self.assertRaises(BrokenPipeError, a.send, b"x")
        self.assertEqual((b.recv(9), b.recv(9)), (b"1234", b""))
        b.sendall(b"back")
        self.assertEqual(a.recv(9), b"back")

    def test_close(self):
        a, b = self.pair()
        a.close()
        self.assertEqual(b.recv(1), b"")
        self.assertRaises(ConnectionResetError, b.send, b"x")

    def test_close_with_unread_bytes_aborts(self):
        a, b = self.pair()
        b.sendall(b"unread")
        a.close()
        self.assertRaises(ConnectionResetError, b.recv, 1)

    def test_a_dead_peer(self):
        for bell in (False, True):
            a, b = self.pair(bell=bell)
            a.sendall(b"1234")
            for dmb in self.own:
                self.fake.drop_reference(dmb.token)
            self.assertEqual(b.recv(9), b"1234")
            self.assertRaises(ConnectionResetError, b.recv, 9)
            self.assertRaises(ConnectionResetError, b.send, b"x")


class Counters(WithFake):
    def test_counts(self):
        with ismfs.ProcsBlock(self.fake.device) as procs:
            a, b = self.pair(procs=procs)
            a.sendall(bytes(100))
            b.recv(100)
            with open(os.path.join(self.fake.path, "procs", "7"), "rb") as f:
                numbers = struct.unpack_from("=65Q", f.read(), 64)
        self.assertEqual(numbers[59:63], (100, 100, 1, 1))
        self.assertEqual((numbers[18], numbers[27]), (1, 1))

    def test_buckets(self):
        sizes = (1, 8192, 8193, 65536, 65537, 1 << 20, (1 << 20) + 1, 1 << 40)
        self.assertEqual([ismfs.ProcsBlock.bucket(n) for n in sizes], [0, 0, 1, 3, 4, 7, 8, 8])


class LostWakeUps(WithFake):
    """Two processes, both ways at once, through the smallest rings, so that everybody sleeps and wakes all the time. Nobody looks by
    himself every second here, so a wake-up that got lost runs into the timeout."""

    BYTES, TIMEOUT = 1 << 20, 30

    def stress(self, **how):
        ends = self.pair(**how)
        with mock.patch.object(ismfs, "LOOK_EVERY", 60.0):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    self.both_ways(ends[0])
                    status = 0
                finally:
                    os._exit(status)
            self.both_ways(ends[1])
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def both_ways(self, end):
        data = random.Random(1).randbytes(self.BYTES)
        sender = threading.Thread(target=self.send, args=(end, data))
        sender.start()
        received = bytearray()
        while piece := end.recv(1000, timeout=self.TIMEOUT):
            received += piece
        sender.join()
        self.assertEqual(received, data)

    def send(self, end, data):
        sizes, at = random.Random(2), 0
        while at < len(data):
            n = sizes.randint(1, 3000)
            end.sendall(data[at : at + n], timeout=self.TIMEOUT)
            at += n
        end.shutdown()

    def test_futex(self):
        self.stress()

    def test_bell(self):
        self.stress(bell=True)

    def test_copy_mode(self):
        self.stress(separated=True, bell=True)


if __name__ == "__main__":
    sys.exit(unittest.main())
