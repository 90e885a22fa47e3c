#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Take a file from send.py (or ismfs-send) through DMBs."""

import sys
import time

from transfer import BUFFER, connection, parse_options, report, run

OWN_SIZE = 1 << 20


def write_all(file, view):
    while view:
        view = view[file.write(view) :]


def main():
    options = parse_options(__doc__, OWN_SIZE)
    received, buffer = 0, memoryview(bytearray(BUFFER))
    file = sys.stdout.buffer if options.file == "-" else open(options.file, "wb", buffering=0)
    with file, connection(options, "recv", "send") as conn:
        started = time.monotonic()
        while n := conn.recv_into(buffer):
            write_all(file, buffer[:n])
            received += n
        file.flush()
        report(options, received, started)


if __name__ == "__main__":
    run(main)
