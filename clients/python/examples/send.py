#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pass a file to recv.py (or ismfs-recv) through DMBs."""

import sys
import time

from transfer import BUFFER, connection, parse_options, report, run

OWN_SIZE = 16 << 10  # nothing but the cursor comes back: a small DMB will do


def main():
    options = parse_options(__doc__, OWN_SIZE)
    sent, buffer = 0, bytearray(BUFFER)
    file = sys.stdin.buffer if options.file == "-" else open(options.file, "rb", buffering=0)
    with file, connection(options, "send", "recv") as conn:
        started = time.monotonic()
        while n := file.readinto(buffer):
            conn.sendall(memoryview(buffer)[:n])
            sent += n
        conn.shutdown()
        if conn.recv(1):  # the receiver closes when it has everything
            sys.exit("the receiver sent bytes")
        report(options, sent, started)


if __name__ == "__main__":
    run(main)
