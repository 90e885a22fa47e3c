// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"testing"
	"time"
)

// TestRunKill: either side is killed again and again in the middle of a load; nothing of it stays.
func TestRunKill(t *testing.T) {
	need(t, "redis-server", "redis-benchmark", "python3")
	d := mountSMC(t)
	for round := range 6 {
		port, server := d.startRedis(underRun)
		pause := time.Duration(round*17) * time.Millisecond // then it is in the middle of something, whatever it is
		if round%2 == 0 {
			client := d.start(underRun, "redis-benchmark", "-p", port, "-q", "-t", "set,get", "-n", "10000000", "-c", "50", "-d", "4096")
			d.wantBothEnds(port, 50)
			time.Sleep(pause)
			client.kill()
			d.wantNoneTo(port)
			d.wantSMC(1, func() { d.run(underRun, "redis-cli", "-p", port, "ping") })
			server.kill()
		} else {
			client := d.start(underRun, "python3", "-c", redisClient, port)
			d.wantBothEnds(port, 50)
			time.Sleep(pause)
			server.kill()
			client.wantEnd(t)
		}
		d.WantCount(0)
	}
}

// redisClient has 50 connections that ask and are answered without a pause, and ends when all have ended. (redis-benchmark
// itself does not end where a write is the first to fail: it goes on for ever with a connection that it knows to be broken.)
const redisClient = `
import selectors, socket, sys
ask = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4096\r\n" + 4096 * b"x" + b"\r\n"
poll = selectors.DefaultSelector()
for i in range(50):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.setblocking(False)
    poll.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE, [ask])

def step(s, left, ready):
    if ready & selectors.EVENT_READ:
        answer = s.recv(4096)
        if not answer:
            raise ConnectionResetError
        left[0] += ask * answer.count(b"+OK")
    elif left[0]:
        left[0] = left[0][s.send(left[0]):]
    poll.modify(s, selectors.EVENT_READ | (selectors.EVENT_WRITE if left[0] else 0), left)

while poll.get_map():
    for key, ready in poll.select():
        try:
            step(key.fileobj, key.data, ready)
        except (ConnectionResetError, BrokenPipeError):
            poll.unregister(key.fileobj)
            key.fileobj.close()
`
