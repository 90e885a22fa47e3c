// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func (d *device) startRedis(how launch) (port string, p *program) {
	d.t.Helper()
	need(d.t, "redis-server", "redis-cli", "redis-benchmark")
	return d.startRedisAt(how, "127.0.0.1")
}

func (d *device) startRedisAt(how launch, address string) (port string, p *program) {
	d.t.Helper()
	port = freePort(d.t)
	dir := tempDir(d.t)
	p = d.start(how, "redis-server", "--port", port, "--bind", address, "--save", "", "--dir", dir, "--unixsocket", filepath.Join(dir, "unix"))
	listening(d.t, port)
	return port, p
}

// TestRunRedis: redis-benchmark's load, a value of 100 MB, and a background save under load; with one side plain, too.
func TestRunRedis(t *testing.T) {
	d := mountSMC(t)
	port, server := d.startRedis(underRun)
	count := redisMeter(t, server)
	count.wantAll(d, 1, func() { d.wantSMC(1, func() { d.run(underRun, "redis-cli", "-p", port, "set", "a", "b") }) })
	load := func(how launch, tests string) string {
		return d.run(how, "redis-benchmark", "-p", port, "-q", "-t", tests, "-n", "20000", "-c", "50", "-d", "1024")
	}
	count.wantAll(d, 2*20000*1024, func() { d.wantSMC(-1, func() { load(underRun, "set,get") }) })
	d.wantPlain(func() { load(asItIs, "get") })

	value, contents := bigFile(t, tempDir(t), 100<<20)
	got := filepath.Join(tempDir(t), "got")
	for _, command := range []string{" -x set big < " + value, " --raw get big > " + got} {
		count.wantAll(d, 100<<20, func() {
			d.wantSMC(1, func() { d.run(underRun, "sh", "-c", "redis-cli -p "+port+command) })
		})
	}
	wantFile(t, got, append(contents, '\n'))

	count.wantAll(d, 100000, func() { d.wantSMC(-1, func() { saveUnderLoad(d, port) }) })
	server.end()
	d.WantCount(0)
}

// saveUnderLoad lets redis fork for a save while it is asked. Writes wait until all the load's connections have been seen: it is short.
func saveUnderLoad(d *device, port string) {
	d.t.Helper()
	wantOK := func(command ...string) {
		d.t.Helper()
		if out := d.run(underRun, append([]string{"redis-cli", "-p", port}, command...)...); out != "OK\n" {
			d.t.Errorf("%v: %s", command, out)
		}
	}
	wantOK("client", "pause", "60000", "write")
	wait := later(func() (string, error) {
		return d.try(underRun, "redis-benchmark", "-p", port, "-q", "-t", "set", "-n", "100000", "-c", "50")
	})
	d.wantBothEnds(port, 50)
	wantOK("client", "unpause")
	if out := d.run(underRun, "redis-cli", "-p", port, "bgsave"); !strings.Contains(out, "started") {
		d.t.Errorf("bgsave: %s", out)
	}
	if out, err := wait(); err != nil {
		d.t.Errorf("redis-benchmark during bgsave: %v %s", err, out)
	}
	waitFor(d.t, "the save", func() error {
		if out := d.run(underRun, "redis-cli", "-p", port, "info", "persistence"); !strings.Contains(out, "rdb_bgsave_in_progress:0") ||
			!strings.Contains(out, "rdb_last_bgsave_status:ok") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// TestRunRedisPubSub: a subscriber hears what is published, in SMC-D mode at both ends.
func TestRunRedisPubSub(t *testing.T) {
	d := mountSMC(t)
	port, server := d.startRedis(underRun)
	count := redisMeter(t, server)
	count.wantAll(d, 1, func() {
		d.wantSMC(11, func() {
			subscriber := d.start(underRun, "redis-cli", "-p", port, "subscribe", "news")
			d.wantBothEnds(port, 1)
			d.publish(underRun, port, subscriber)
		})
	})
}

// publish publishes ten items, one connection each, and wants the subscriber to print them.
func (d *device) publish(how launch, port string, subscriber *program) {
	d.t.Helper()
	heard := func(what string) {
		d.t.Helper()
		waitFor(d.t, "the subscriber", func() error {
			if !strings.Contains(subscriber.out.String(), what) {
				return fmt.Errorf("it says %q", subscriber.out)
			}
			return nil
		})
	}
	heard("subscribe")
	for i := range 10 {
		if out := d.run(how, "redis-cli", "-p", port, "publish", "news", fmt.Sprintf("item-%d", i)); out != "1\n" {
			d.t.Fatalf("publish says %q", out)
		}
	}
	heard("item-9")
}

// TestRunRedisPlainServer: a client under smc_run and a server that knows nothing of it.
func TestRunRedisPlainServer(t *testing.T) {
	d := mountSMC(t)
	port, _ := d.startRedis(asItIs)
	d.wantPlain(func() {
		d.run(underRun, "redis-benchmark", "-p", port, "-q", "-t", "set,get", "-n", "10000", "-c", "20")
	})
}
