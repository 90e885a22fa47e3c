#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the device and print the tables of docs/performance.md.

Runs on a mount of its own in a temporary directory, as root, and undoes it. Nothing else should run meanwhile.
"""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = ROOT / "bin"
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "clients/python"))
import ismfs  # noqa: E402
DMBS = 5000  # a full table: the default of max_dmbs
ROUNDS = 7
MIB = 256  # a transfer
TRANSPORTS = {"ismfs": "DMB of 1 MiB", "unix": "Unix socket", "tcp": "TCP, loopback", "bare_ring": "two cursors and memcpy, no protocol"}
COST_ROWS = [
    ("register_populate_map_64K", "register a DMB of 64 KiB: create, size, map, populate"),
    ("register_populate_map_1024K", "the same, 1 MiB"),
    ("attach_open_64K", "attach: the open alone"),
    ("attach_map_populate_64K", "attach to 64 KiB: open, fstat, map, populate"),
    ("attach_map_populate_1024K", "the same, 1 MiB"),
    ("detach_64K", "detach from 64 KiB: unmap, close"),
    ("detach_1024K", "the same, 1 MiB"),
    ("unregister_64K", "unregister 64 KiB: unmap, close"),
    ("pwrite_64", "pwrite of 64 B through passthrough"),
    ("pwrite_64K", "pwrite of 64 KiB through passthrough"),
]


@contextlib.contextmanager
def mounted():
    """A device in a temporary directory; gives the mount point."""
    with tempfile.TemporaryDirectory(prefix="ismfs-bench-") as directory:
        subprocess.run([BIN / "ismfs", "mount", "--sockets=off", directory], check=True)
        try:
            yield pathlib.Path(directory)
        finally:
            subprocess.run([BIN / "ismfs", "umount", "--force", directory], check=True)


def cbench(mount, *command):
    """Run ismfs-cbench; gives its figures by name."""
    out = subprocess.run([BIN / "ismfs-cbench", "--mount", mount, *command], check=True, stdout=subprocess.PIPE, text=True)
    return {figure["name"]: figure for figure in map(json.loads, out.stdout.splitlines())}


@contextlib.contextmanager
def on_one_cpu(daemon):
    """The daemon's threads, and what is started meanwhile, on the same CPU: no idle one has to be woken for a request."""
    everywhere = os.sched_getaffinity(0)
    threads = [0] + [int(thread) for thread in os.listdir(f"/proc/{daemon}/task")]
    for thread in threads:
        os.sched_setaffinity(thread, {min(everywhere)})
    try:
        yield
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, everywhere)


def device_stats(mount):
    return json.loads((mount / "devices/loopback-ism/stats").read_text())["device"]


def anonymous_memory(pid):
    """Bytes of a process's own memory that are resident: heap, stacks, and what the allocator keeps."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon")


def summary(samples):
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples)}


def full_table(mount):
    """Fill the table, and see what that costs the daemon and a listing."""
    dmbs = mount / "devices/loopback-ism/dmbs"
    before = device_stats(mount)
    rss = anonymous_memory(before["pid"])
    with subprocess.Popen([BIN / "ismfs-cbench", "--mount", mount, "hold", str(DMBS), "16384"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        if holder.stdout.readline() != "ready\n":
            raise RuntimeError("cannot fill the table")
        rss = anonymous_memory(before["pid"]) - rss
        names, stats = [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            n = len(os.listdir(dmbs))
            names.append((time.perf_counter() - start) * 1e3)
            start = time.perf_counter()
            with os.scandir(dmbs) as entries:
                for entry in entries:
                    entry.stat()
            stats.append((time.perf_counter() - start) * 1e3)
            if n != DMBS:
                raise RuntimeError(f"{n} of {DMBS} DMBs are listed")
        # The listings have made garbage enough for a collection; what it found alive is the figure.
        live = device_stats(mount)["heap_live_bytes"] - before["heap_live_bytes"]
        holder.stdin.close()
    return {
        "heap": live / DMBS, "rss": rss / DMBS,
        "names": summary(names), "stats": summary(stats),
    }


def receive(sock, take):
    """Call take(buffer) until MIB MiB have come; gives MB/s."""
    buffer = memoryview(bytearray(1 << 20))
    left = MIB << 20
    start = time.perf_counter()
    while left:
        n = take(buffer)
        if not n:
            raise RuntimeError(f"the sender ended {left} bytes early")
        left -= n
    rate = (MIB << 20) / (time.perf_counter() - start) / 1e6
    sock.sendall(b"d")
    return rate


def receive_dmb(mount, sock):
    with ismfs.Device(str(mount)) as device, ismfs.Dmb.register(device, 1 << 20) as own:
        sock.sendall(struct.pack("=Q", own.token))
        (token,) = struct.unpack("=Q", sock.recv(8, socket.MSG_WAITALL))
        with ismfs.Dmb.attach(device, token) as peer, ismfs.Connection(device, own, peer) as conn:
            return receive(sock, conn.recv_into)


def c_to_python(mount, transport):
    """MB/s from a C process to this one."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(directory, "socket")
        listener.bind(path)
        listener.listen(1)
        command = [BIN / "ismfs-cbench", "--mount", mount, "--mib", str(MIB), "source", transport, path]
        with subprocess.Popen(command) as sender:
            sock, _ = listener.accept()
            with sock:
                rate = receive_dmb(mount, sock) if transport == "dmb" else receive(sock, sock.recv_into)
        if sender.returncode:
            raise RuntimeError("the sender failed")
    return rate


def python_bandwidth(mount):
    """C to Python, by DMB and by Unix socket in turn."""
    rates = {"dmb": [], "unix": []}
    for _ in range(ROUNDS):
        for transport, samples in rates.items():
            samples.append(c_to_python(mount, transport))
    ratios = [dmb / unix for dmb, unix in zip(rates["dmb"], rates["unix"])]
    return {"dmb": summary(rates["dmb"]), "unix": summary(rates["unix"]), "ratio": summary(ratios)}


def row(*cells):
    print("| " + " | ".join(cells) + " |")


def spread(figure, digits=1):
    return f"{figure['median']:.{digits}f} ({figure['min']:.{digits}f}–{figure['max']:.{digits}f})"


def print_machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown CPU")
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True)
    print(f"{datetime.date.today()}, {os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release()}, "
          f"commit {commit.stdout.strip()}. Medians (min–max).\n")


def print_costs(costs, pinned, table):
    row("operation, µs", "program and daemon on one CPU", "placed by the scheduler")
    row("---", "---", "---")
    for name, text in COST_ROWS:
        row(text, spread(pinned[name]), spread(costs[name]))
    print()
    row(f"with {DMBS} DMBs registered", "")
    row("---", "---")
    row("daemon's live heap per DMB", f"{table['heap']:.0f} B")
    row("daemon's resident memory per DMB", f"{table['rss']:.0f} B")
    row("list the names", spread(table["names"]) + " ms")
    row("list the names and stat each", spread(table["stats"]) + " ms")


def print_bandwidth(figures, python):
    row("from, to, placement", "transport", "MB/s", "ratio to the Unix socket of the same round")
    row("---", "---", "---", "---")
    for placement in ("two_cpus", "one_cpu", "free"):
        for transport, text in TRANSPORTS.items():
            rate = figures.get(f"bandwidth_{placement}_{transport}")
            if rate is None:
                continue
            ratio = figures.get(f"bandwidth_{placement}_{transport}_to_unix")
            row("C, C, " + placement.replace("_", " "), text,
                spread(rate, 0), spread(ratio, 2) if ratio else "1")
    row("C, Python, free", "DMB of 1 MiB", spread(python["dmb"], 0), spread(python["ratio"], 2))
    row("C, Python, free", "Unix socket", spread(python["unix"], 0), "1")


def main():
    if os.geteuid() != 0:
        sys.exit("bench: mounting needs root")
    with mounted() as mount:
        costs = cbench(mount, "cost")
        with on_one_cpu(device_stats(mount)["pid"]):
            pinned = cbench(mount, "cost")
        bandwidth = cbench(mount, "--rounds", str(ROUNDS), "--mib", str(MIB), "bandwidth")
        python = python_bandwidth(mount)
        table = full_table(mount)
    print_machine()
    print_costs(costs, pinned, table)
    print()
    print_bandwidth(bandwidth, python)


if __name__ == "__main__":
    main()
