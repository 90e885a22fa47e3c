// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// onOneCPU exchanges 20,000 messages between two processes that are bound to the same CPU, and prints how often the client slept.
const onOneCPU = `
import os, resource, socket
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
l = socket.create_server(("127.0.0.1", 0))
if os.fork():
    c, _ = l.accept()
    while m := c.recv(100):
        c.send(m)
    os.wait()
else:
    c = socket.create_connection(l.getsockname())
    m = bytes(100)
    for i in range(20000):
        c.send(m)
        c.recv(100)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw, flush=True)
    os._exit(0)
`

// TestRunOneCPU: two programs that share a CPU give it to one another in place of sleeping and waking, unless the mount forbids it.
func TestRunOneCPU(t *testing.T) {
	need(t, "python3")
	d := mountSMC(t)
	waitFor(t, "the programs to give way", func() error { // while others want the CPU they sleep
		if n := d.sleepsOnOneCPU(); n > 10_000 {
			return fmt.Errorf("the client slept %d times for 20,000 messages", n)
		}
		return nil
	})
	d = mountSMC(t, "--wait=blocking")
	waitFor(t, "the programs to sleep for each message", func() error { // while others want the CPU the answer is often there first
		if n := d.sleepsOnOneCPU(); n < 10_000 {
			return fmt.Errorf("the client slept %d times for 20,000 messages on a mount with --wait=blocking", n)
		}
		return nil
	})
}

func (d *device) sleepsOnOneCPU() (n int) {
	d.t.Helper()
	d.wantSMC(1, func() {
		out, err := d.command(underRun, "python3", "-c", onOneCPU).Output()
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(out)))
		}
		if err != nil {
			d.t.Fatal(err)
		}
	})
	return n
}
