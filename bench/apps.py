#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The table of the kernel feature's cover letter: the same commands over TCP and over SMC-D, interleaved, medians of five.

    bench/apps.py [--rounds N] [--seconds N] [--place PLACE] [--profile] [ROW ...]

With --profile also where the CPUs' time goes while a row's client runs, once over TCP and once over SMC-D (perf, of Debian's linux-perf).

As root, on a mount of its own. Nothing else should run meanwhile. Before a program is measured under smc_run it is seen that its
connections are in SMC-D mode: the device counts them.
"""

import argparse
import collections
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = ROOT / "bin"
COSTS = ("fallback", "connect")  # what a program pays whose peer is not under smc_run
RECORD = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", "1999", "-o"]
FINER = 3  # times as many rounds for what is meant to show no difference
MESSAGES = os.environ.get("MESSAGES", "1000000")
PLACES = {"two CPUs": ("0", "1"), "one CPU": ("0", "0"), "free": (None, None)}
NGINX = """daemon off; worker_processes {workers}; pid {dir}/pid; error_log {dir}/error warn; user root;
events {{ worker_connections 4000; }}
http {{ access_log off; keepalive_requests 1000000000;
  client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3; uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;
  server {{ listen 127.0.0.1:{port}; root {dir}; }} }}
"""


@contextlib.contextmanager
def mounted():
    with tempfile.TemporaryDirectory(prefix="ismfs-bench-") as directory:
        os.chmod(directory, 0o755)
        subprocess.run([BIN / "ismfs", "mount", "--sockets=require", directory], check=True)
        try:
            yield pathlib.Path(directory)
        finally:
            subprocess.run([BIN / "ismfs", "umount", "--force", directory], check=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def client_cpu():
    """Seconds on a CPU of all programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def server_cpu(process):
    """Seconds on a CPU of one that runs."""
    return sum(int(task.read_text().split()[0]) for task in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat")) / 1e9


class Bench:
    def __init__(self, mount, seconds):
        self.device = mount / "devices/loopback-ism"
        self.env = {**os.environ, "ISMFS_MOUNT": str(mount)}
        self.seconds = str(seconds)
        self.profiles = None  # of clients: (what ran, its shares)

    def command(self, smc, cpu, command):
        pin = ["taskset", "-c", cpu] if cpu is not None else []
        return [*pin, *([BIN / "smc_run"] if smc else []), *command]

    def connections(self):
        counters = json.loads((self.device / "stats").read_text())["SMCD"]
        return counters["SMC_CLNT_V2_SUCC_CNT"]

    @contextlib.contextmanager
    def server(self, smc, cpu, command, port):
        with subprocess.Popen(self.command(smc, cpu, command), env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
            try:
                for _ in range(100):
                    if subprocess.run(["ss", "-Hltn", "sport", "=", ":" + port], stdout=subprocess.PIPE, check=True).stdout.strip():
                        break
                    time.sleep(0.05)
                yield p
            finally:
                p.terminate()

    def client(self, smc, cpu, command, agrees=True):
        before = self.connections()
        done = self.run(self.command(smc, cpu, command), title(command))
        out = done.stdout
        if done.returncode != 0:
            raise RuntimeError(f"{command}: exit code {done.returncode}\n{out}")
        if (self.connections() > before) != (smc and agrees):
            raise RuntimeError(f"{command}: SMC-D was {'not ' if smc and agrees else ''}used")
        return out

    def run(self, command, what):
        how = {"env": self.env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        if self.profiles is None:
            return subprocess.run(command, **how)
        with tempfile.NamedTemporaryFile(prefix="ismfs-bench-") as profile:
            done = subprocess.run([*RECORD, profile.name, "--", *command], **how)
            self.profiles.append((what, shares(profile.name)))
        return done

    def pingpong(self, smc, cpus):
        pins = [cpus[0], cpus[1]] if cpus[0] is not None else []
        return {"ping-pong 100 B, messages/s": float(self.client(smc, None, [BIN / "smc-run-pingpong", free_port(), MESSAGES, "100", *pins]))}

    def sockperf_server(self, smc, cpu, port):
        return self.server(smc, cpu, ["sockperf", "sr", "--tcp", "-i", "127.0.0.1", "-p", port], port)

    def redis_server(self, smc, cpu, port):
        return self.server(smc, cpu, ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"], port)

    def sockperf(self, smc, cpus):
        port, figures = free_port(), {}
        with self.sockperf_server(smc, cpus[0], port):
            # By itself sockperf has room to count fewer ping-pongs than there are.
            for mode, size, name, pattern in (("tp", "64000", "sockperf throughput 64,000 B, MB/s", r"BandWidth is ([\d.]+)"),
                                              ("pp --mps=5000000", "14", "sockperf latency 14 B, µs", r"Latency is ([\d.]+)")):
                out = self.client(smc, cpus[1], ["sockperf", *mode.split(), "--tcp", "-i", "127.0.0.1", "-p", port, f"--msg-size={size}", "-t", self.seconds])
                figures[name] = float(re.search(pattern, out).group(1))
        return figures

    def fallback(self, smc, cpus):
        """What a program pays that never meets a peer that speaks SMC: time on a CPU, which other work disturbs less than it does speed."""
        port, figures = free_port(), {}
        requests = 100000
        load = ["redis-benchmark", "-q", "-t", "get", "-n", str(requests), "-c", "200", "-d", "1024", "-p"]
        with self.sockperf_server(False, cpus[0], port):
            before = client_cpu()
            out = self.client(smc, cpus[1], ["sockperf", "pp", "--tcp", "-i", "127.0.0.1", "-p", port, "--msg-size=14", "-t", "1", "--mps=5000000"], False)
            messages = int(re.search(r"Total Run\].*SentMessages=(\d+)", out).group(1))
            figures["sockperf, 14 B there and back, µs of CPU"] = (client_cpu() - before) / messages * 1e6
        port = free_port()
        with self.redis_server(False, cpus[0], port):
            before = client_cpu()
            self.client(smc, cpus[1], [*load, port], False)
            figures["redis-benchmark, GET, µs of CPU"] = (client_cpu() - before) / requests * 1e6
        port = free_port()
        with self.redis_server(smc, cpus[0], port) as server:
            before = server_cpu(server)
            self.client(False, cpus[1], [*load, port])
            figures["redis-server, GET, µs of CPU"] = (server_cpu(server) - before) / requests * 1e6
        return figures

    def connect(self, smc, cpus):
        """The same where each request has a connection of its own, which is the dearest that there is."""
        figures, connections = {}, 20000
        program = BIN / "smc-run-connect"
        port = free_port()
        with self.server(False, cpus[0], [program, port], port):
            before = client_cpu()
            self.client(smc, cpus[1], [program, port, str(connections)], False)
            figures["connect, request, close: client, µs of CPU"] = (client_cpu() - before) / connections * 1e6
        port = free_port()
        with self.server(smc, cpus[0], [program, port], port) as server:
            before = server_cpu(server)
            self.client(False, cpus[1], [program, port, str(connections)])
            figures["accept, request, close: server, µs of CPU"] = (server_cpu(server) - before) / connections * 1e6
        return figures

    def nginx(self, smc, cpus):
        with tempfile.TemporaryDirectory(prefix="ismfs-bench-") as directory:
            os.chmod(directory, 0o755)
            port, path = free_port(), pathlib.Path(directory)
            (path / "index.html").write_text("hello\n")
            (path / "conf").write_text(NGINX.format(dir=directory, port=port, workers=os.cpu_count()))
            with self.server(smc, cpus[0], ["nginx", "-c", path / "conf"], port):
                out = self.client(smc, cpus[1], ["wrk", "-t", "8", "-c", "1000", "-d", self.seconds, f"http://127.0.0.1:{port}/"])
        return {"nginx/wrk, requests/s": float(re.search(r"Requests/sec:\s*([\d.]+)", out).group(1))}

    def redis(self, smc, cpus):
        port = free_port()
        with self.redis_server(smc, cpus[0], port):
            out = self.client(smc, cpus[1], ["redis-benchmark", "-p", port, "-q", "-t", "set,get", "-n", "400000", "-c", "200", "-d", "1024"])
        found = {name: float(n) for name, n in re.findall(r"(SET|GET): ([\d.]+) requests per second", out)}
        return {f"redis {name}, requests/s": found[name] for name in ("SET", "GET")}

    def reconnect(self, smc, cpus):
        """A connection for each request: the handshake is dearer than TCP's."""
        port = free_port()
        with self.redis_server(smc, cpus[0], port):
            out = self.client(smc, cpus[1], ["redis-benchmark", "-p", port, "-q", "-k", "0", "-t", "get", "-n", "20000", "-c", "20"])
        return {"redis GET, a connection for each, requests/s": float(re.search(r"GET: ([\d.]+) requests per second", out).group(1))}


def measure(bench, rows, rounds, places):
    """Gives {(figure, place): {transport: [samples]}}."""
    samples = {}
    for _ in range(rounds):
        for row in rows:
            for place, cpus in places.items():
                for smc in (False, True):
                    for figure, value in getattr(bench, row)(smc, cpus).items():
                        samples.setdefault((figure, place), {}).setdefault(smc, []).append(value)
    return samples


def title(command):
    mode = command[1] if not command[1].startswith("-") else ""
    return f"{pathlib.Path(command[0]).name} {mode}".strip()


def kind_of(obj):
    if obj.startswith("[kernel") or obj.startswith("[guest"):
        return "kernel"
    if obj == "libsmc-preload.so":
        return "the library"
    return "C library" if obj.startswith(("lib", "[vdso]", "ld-")) else "own code"


def shares(path):
    """Where the time of a profile went: {(program, kind): percent}."""
    command = ["perf", "report", "-i", path, "--stdio", "--no-children", "-F", "overhead,comm,dso", "-t", ";"]
    report = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    found = collections.Counter()
    for line in report.splitlines():
        if line.strip() and not line.startswith("#"):
            percent, program, obj = (field.strip() for field in line.split(";")[:3])
            found["idle" if program == "swapper" else f"{program}: {kind_of(obj)}"] += float(percent.rstrip("%"))
    return found


def print_profiles(bench, rows, places):
    for row in rows:
        for place, cpus in places.items():
            both = []
            for smc in (False, True):
                bench.profiles = []
                getattr(bench, row)(smc, cpus)
                both.append(bench.profiles)
            bench.profiles = None
            for (what, tcp), (_, smcd) in zip(*both):
                print(f"\nWhere the time of the CPUs goes, in %: {what}, {place}\n\n| | TCP | SMC-D |\n|---|---|---|")
                for where in sorted(tcp | smcd, key=lambda w: -tcp[w] - smcd[w]):
                    if tcp[where] + smcd[where] >= 1:
                        print(f"| {where} | {tcp[where]:.1f} | {smcd[where]:.1f} |")


def print_table(samples, heads):
    print(f"| | placement | {heads[0]} | {heads[1]} | ratio, same rounds |\n|---|---|---|---|---|")
    for (figure, place), by in samples.items():
        digits = 0 if statistics.median(by[False]) > 1000 else 2
        ratios = [b / a for a, b in zip(by[False], by[True])]
        print(f"| {figure} | {place} | {spread(by[False], digits)} | {spread(by[True], digits)} | {spread(ratios, 2)} |")


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def print_results(samples, costs, rounds):
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    print(f"{datetime.date.today()}, {os.cpu_count()} × {cpu}, Linux {platform.release()}. Medians (min–max) of {rounds} rounds.\n")
    if samples:
        print_table(samples, ("TCP", "SMC-D"))
    if costs:
        print(f"\nA program whose peer is not under smc_run, {rounds * FINER} rounds:\n")
        print_table(costs, ("without smc_run", "under smc_run, on TCP"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--place", choices=PLACES, action="append", help="one of the placements; all if none is given")
    parser.add_argument("--profile", action="store_true", help="also where the time of the CPUs goes")
    parser.add_argument("rows", nargs="*", default=["pingpong", "sockperf", "nginx", "redis", "reconnect", *COSTS])
    args = parser.parse_args()
    if args.profile and shutil.which("perf") is None:
        sys.exit("apps.py: --profile needs perf: apt-get install linux-perf")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is mounted and started ends with it
    places = {p: PLACES[p] for p in args.place or PLACES}
    with mounted() as mount:
        bench = Bench(mount, args.seconds)
        samples = measure(bench, [r for r in args.rows if r not in COSTS], args.rounds, places)
        costs = measure(bench, [r for r in args.rows if r in COSTS], args.rounds * FINER, places)
        print_results(samples, costs, args.rounds)
        if args.profile:
            print_profiles(bench, args.rows, places)


main()
