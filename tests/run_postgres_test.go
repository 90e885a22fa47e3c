// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// postgres is a server in a directory of its own, which runs as the user that Debian makes for it: it refuses root.
type postgres struct {
	*program
	d    *device
	bin  string // Debian has the programs of each version apart
	port string
}

func (d *device) startPostgres(how launch) *postgres {
	d.t.Helper()
	need(d.t, "setpriv", "psql")
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		d.t.Fatal("psql is there, and no server in /usr/lib/postgresql: make setup installs postgresql")
	}
	p := &postgres{d: d, bin: found[len(found)-1], port: freePort(d.t)}
	data := filepath.Join(tempDir(d.t), "data")
	asPostgres := []string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}
	for _, args := range [][]string{
		{"install", "-d", "-o", "postgres", "-g", "postgres", data},
		append(asPostgres, filepath.Join(p.bin, "initdb"), "-A", "trust", "-N", data),
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			d.t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	p.program = d.start(how, append(asPostgres, filepath.Join(p.bin, "postgres"), "-D", data, "-p", p.port, "-F",
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=")...)
	listening(d.t, p.port)
	return p
}

// client is the command line of one of its programs.
func (p *postgres) client(name string, args ...string) []string {
	return append([]string{filepath.Join(p.bin, name), "-h", "127.0.0.1", "-p", p.port, "-U", "postgres"}, append(args, "postgres")...)
}

var pgbenchCount = regexp.MustCompile(`actually processed: (\d+)`)

// bench runs pgbench's query for a second or more, and returns how many bytes there are at least in the queries and the rows.
func (p *postgres) bench(how launch, args ...string) int64 {
	p.d.t.Helper()
	out := p.d.run(how, p.client("pgbench", append([]string{"-n", "-S"}, args...)...)...)
	found := pgbenchCount.FindStringSubmatch(out)
	if found == nil {
		p.d.t.Fatalf("pgbench prints\n%s", out)
	}
	n, _ := strconv.ParseInt(found[1], 10, 64)
	return n * int64(len("SELECT abalance FROM pgbench_accounts WHERE aid = 1;")+len("abalance"))
}

// copyThrough copies a file into a table and out again.
func (p *postgres) copyThrough(how launch) {
	p.d.t.Helper()
	var rows bytes.Buffer
	for i := range 300000 {
		fmt.Fprintf(&rows, "%d\t%060d\n", i, i*7)
	}
	in := filepath.Join(tempDir(p.d.t), "rows")
	if err := os.WriteFile(in, rows.Bytes(), 0o644); err != nil {
		p.d.t.Fatal(err)
	}
	size := int64(rows.Len())
	p.d.wantMode(underRun, how, 1, size, func() int64 {
		p.d.run(how, p.client("psql", "-c", "create unlogged table if not exists t (i int, s text)", "-c", "truncate t",
			"-c", `\copy t from `+in, "-c", `\copy (select * from t order by i) to `+in+".out")...)
		return 2 * size
	})
	wantFile(p.d.t, in+".out", rows.Bytes())
}

// TestRunPostgres: a process of the server's for each connection, connections for one query each, 20 MB each way, a query that is
// cancelled over a connection of its own, and the server's end while there is a client.
func TestRunPostgres(t *testing.T) {
	d := mountSMC(t)
	p := d.startPostgres(underRun)
	d.run(asItIs, p.client("pgbench", "-i", "-q")...)

	// One connection more asks about the tables.
	d.wantSMC(1+8, func() { d.wantGrowthWithin(1<<30, func() int64 { return p.bench(underRun, "-c", "8", "-T", "1") }) })
	d.wantSMC(1+20, func() { p.bench(underRun, "-C", "-c", "4", "-t", "5") })
	d.wantPlain(func() { p.bench(asItIs, "-c", "8", "-t", "100") })
	for _, how := range []launch{underRun, asItIs} {
		p.copyThrough(how)
	}

	for _, row := range []struct {
		end  func(sleeper *program)
		says string
	}{
		{func(sleeper *program) { sleeper.cmd.Process.Signal(os.Interrupt) }, "canceling statement due to user request"},
		{func(*program) { p.cmd.Process.Signal(os.Interrupt) }, "terminating connection due to administrator command"},
	} {
		sleeper := d.start(underRun, p.client("psql", "-c", "select pg_sleep(600)")...)
		d.wantBothEnds(p.port, 1)
		p.waitForQuery("pg_sleep")
		row.end(sleeper)
		sleeper.cmd.Wait()
		waitForText(t, sleeper.out, row.says)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the server ends with %v", err)
	}
	d.wantNoneTo(p.port)
	d.WantCount(0)
}

// waitForQuery waits until somebody's query runs.
func (p *postgres) waitForQuery(what string) {
	p.d.t.Helper()
	ask := "select count(*) from pg_stat_activity where state = 'active' and query like '%" + what + "%' and pid <> pg_backend_pid()"
	waitFor(p.d.t, "the query", func() error {
		if out := p.d.run(asItIs, p.client("psql", "-At", "-c", ask)...); out != "1\n" {
			return fmt.Errorf("%q of them", out)
		}
		return nil
	})
}
