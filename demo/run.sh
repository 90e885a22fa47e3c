#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What ismfs is for, in half a minute: an HTTP server and client of Go's net/http talk over shared memory, and then a file
# crosses from a Python process to a C process through one DMB, and back in copy mode. Everything happens on a mount in a
# temporary directory, and is undone.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
die() { echo "demo: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "mounting needs root: sudo $0"
work=$(mktemp -d /tmp/ismfs-demo-XXXXXX)
mount=$work/mnt
mkdir "$mount"
cleanup() {
    status=$?
    [ -z "${server:-}" ] || kill "$server" 2>/dev/null || true
    if mountpoint -q "$mount"; then bin/ismfs umount --force "$mount" || umount -l "$mount"; fi
    rm -rf "$work"
    exit $status
}
trap cleanup EXIT

say "A device"
run bin/ismfs mount "$mount"
run bin/ismfs info
dev=$mount/devices/loopback-ism
run ls -l "$dev"
run bin/smcd-dump --mount "$mount" device

say "HTTP over shared memory: net/http at both ends, one changed line each"
export ISMFS_MOUNT=$mount
bin/examples/http-server -listen 127.0.0.1:0 > "$work/server.log" &
server=$!
for _ in $(seq 50); do grep -q '127.0.0.1:[0-9]' "$work/server.log" && break; sleep 0.1; done
address=$(grep -o '127.0.0.1:[0-9]*' "$work/server.log" | head -1)
[ -n "$address" ] || die "the server does not start: $(cat "$work/server.log")"
before=$(cat "$dev/xfer_bytes")
bin/examples/http-client -url "http://$address" -require-smc -hold 2s &
client=$!
sleep 1
run bin/smcd-dump --mount "$mount" sockets -a
run bin/smcd-dump --mount "$mount" linkgroup
wait $client
echo "xfer_bytes: $before before, $(cat "$dev/xfer_bytes") after"
kill "$server" && wait "$server" || true
server=

say "128 MiB from Python to C, through one DMB of 1 MiB"
head -c 128M /dev/urandom > "$work/original"
before=$(cat "$dev/xfer_bytes")
bin/ismfs-recv --mount "$mount" --rendezvous "$work/meet" --size 1M "$work/received" &
python3 clients/python/examples/send.py --mount "$mount" --rendezvous "$work/meet" "$work/original"
wait $!
(cd "$work" && sha256sum original received)
cmp "$work/original" "$work/received" || die "what arrived is not what was sent"
after=$(cat "$dev/xfer_bytes")
echo "xfer_bytes: $before before, $after after"
[ $((after - before)) = "$(stat -c %s "$work/original")" ] || die "xfer_bytes did not grow by the file's size"

say "A knob turned: from now on peers write DMBs and do not map them; from C to Python"
echo '$ echo 1 >' "$dev/dmb_copy"
echo 1 > "$dev/dmb_copy"
run cat "$dev/dmb_copy"
python3 clients/python/examples/recv.py --mount "$mount" --rendezvous "$work/meet" --size 1M "$work/copied" &
bin/ismfs-send --mount "$mount" --rendezvous "$work/meet" "$work/original"
wait $!
cmp "$work/original" "$work/copied" || die "what arrived is not what was sent"
echo "the same bytes; xfer_bytes: $(cat "$dev/xfer_bytes")"

say "Nothing is left"
for _ in $(seq 50); do [ "$(cat "$dev/dmbs_cnt")" = 0 ] && break; sleep 0.1; done
run cat "$dev/dmbs_cnt"
run bin/ismfs umount "$mount"
mountpoint -q "$mount" && die "the mount is still there"
say "Done"
