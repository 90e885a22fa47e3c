# SPDX-License-Identifier: Apache-2.0
"""What send.py and recv.py share: options, the rendezvous, the connection, the closing line. As clients/c/examples/transfer.h."""

import argparse
import contextlib
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import ismfs  # noqa: E402

RENDEZVOUS_SECONDS, RENDEZVOUS_POLL = 30, 0.002
BUFFER = 256 << 10


def size(text):
    units = {"K": 10, "M": 20}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, None)
    return int(number) << units.get(unit, 0)


def parse_options(description, default_size):
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--rendezvous", required=True, metavar="PATH", help="tokens are exchanged in PATH.send and PATH.recv")
    p.add_argument("--mount", help="default: $ISMFS_MOUNT, else the only mount")
    p.add_argument("--size", type=size, default=default_size, help="of this end's DMB, in bytes; K and M are understood")
    p.add_argument("--counted", dest="counted", action="store_true", default=True)
    p.add_argument("--uncounted", dest="counted", action="store_false", help="no procs block: not in xfer_bytes")
    p.add_argument("--bell", action="store_true", help="sleep on the bell rather than on the futex")
    p.add_argument("--quiet", action="store_true")
    p.add_argument("file", help="- is standard input or output")
    return p.parse_args()


def _tell(rendezvous, mine, own):
    """A token is the right to write into the DMB: nobody else may read the file. Complete at once, by rename."""
    path = f"{rendezvous}.{mine}"
    fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as f:
        f.write(f"{ismfs.format_token(own.token)} {own.size}\n")
    os.rename(path + ".tmp", path)


def _learn(rendezvous, theirs):
    path = pathlib.Path(f"{rendezvous}.{theirs}")
    until = time.monotonic() + RENDEZVOUS_SECONDS
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{path}: no peer came")
        time.sleep(RENDEZVOUS_POLL)
    token, told = path.read_text().split()
    path.unlink()
    return ismfs.parse_token(token), int(told)


@contextlib.contextmanager
def connection(options, mine, theirs):
    """Register, exchange tokens, connect; close everything at the end."""
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(ismfs.Device(options.mount))
        procs = stack.enter_context(ismfs.ProcsBlock(device)) if options.counted else None
        own = stack.enter_context(ismfs.Dmb.register(device, options.size))
        _tell(options.rendezvous, mine, own)
        token, told = _learn(options.rendezvous, theirs)
        peer = stack.enter_context(ismfs.Dmb.attach(device, token, told))
        yield stack.enter_context(ismfs.Connection(device, own, peer, procs, options.bell))


def report(options, count, started):
    if options.quiet:
        return
    took = time.monotonic() - started
    print(f"{count} bytes in {took:.3f} s, {count / took / 1e6:.1f} MB/s", file=sys.stderr)


def run(main):
    """Errors as the C programs report them: one line, exit status 1."""
    try:
        main()
    except OSError as e:
        sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {e}")
