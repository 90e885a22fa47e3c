// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ismfs/ismfs/tree"
)

// benchResult is what these tests look at in the JSON of `ismfs bench`. How fast anything was is not among it.
type benchResult struct {
	Device *struct {
		Point string `json:"mount_point"`
		Own   bool   `json:"own"`
	}
	Notes []string
	Rows  []struct {
		Command, Name, Placement, Figure string
		Transports                       []benchTransport
	}
}

type benchTransport struct {
	Name, Error string
	SMC, TCP    int
	Buffer      int
	Page        int64
	Waiting     string
	Rounds      []map[string]float64
	Summary     map[string]struct{ Median float64 }
}

// quick are arguments for a run that takes no time.
var quick = []string{"--rounds=1", "--duration=20ms", "--conns=20"}

// runBench runs `ismfs bench` with some arguments and reads its JSON.
func runBench(t *testing.T, change func(*exec.Cmd), args ...string) benchResult {
	t.Helper()
	r := execute(t, change, "ismfs", slices.Concat([]string{"bench", "--json"}, quick, args)...)
	r.want(t, 0)
	var result benchResult
	if err := json.Unmarshal([]byte(r.Stdout), &result); err != nil {
		t.Fatalf("%v\n%s", err, r.Stdout)
	}
	return result
}

// withMount has a command use a mount; an empty point takes the variable away.
func withMount(point string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, tree.EnvMount+"=") })
		if point != "" {
			cmd.Env = append(cmd.Env, tree.EnvMount+"="+point)
		}
	}
}

// TestBenchRows: each measurement has its rows in all placements, all transports have figures, and what is called SMC was SMC-D
// with every connection. The device is left as it was.
func TestBenchRows(t *testing.T) {
	d := mountSMC(t, "--dmb-copy=1")
	for command, rows := range map[string][]string{
		"latency":   {"hot-14", "thinking-14", "hot-busy-14", "thinking-busy-14", "rate-100"}, // hot-quota-14 needs a cgroup
		"stream":    {"stream-100"},
		"bandwidth": {"bandwidth-64000", "bandwidth-touched-64000"},
		"requests":  {"requests-20-1024"},
		"http":      {"http-20", "http-lean-20"},
		"connect":   {"connect", "burst-20"},
		"idle":      {"idle-20"},
	} {
		t.Run(command, func(t *testing.T) {
			result := runBench(t, withMount(d.Point), command)
			if result.Device == nil || result.Device.Point != d.Point || result.Device.Own {
				t.Errorf("the device is %+v, want that of %s", result.Device, d.Point)
			}
			placements := make(map[string][]string)
			for i, row := range result.Rows {
				if row.Command != command {
					t.Errorf("%s is a row of %s", row.Name, row.Command)
				}
				placements[row.Name] = append(placements[row.Name], row.Placement)
				result.checkTransports(t, i)
			}
			want := []string{"two CPUs", "one CPU", "free"}
			if runtime.NumCPU() == 1 {
				want = want[1:]
			}
			for _, name := range rows {
				if !slices.Equal(placements[name], want) {
					t.Errorf("%s was measured in %q, want %q", name, placements[name], want)
				}
			}
			if copied := d.Read("dmb_copy"); !strings.HasPrefix(copied, "1") {
				t.Errorf("dmb_copy was 1 and is %q", copied)
			}
		})
	}
}

// checkTransports looks at the transports of a row.
func (r benchResult) checkTransports(t *testing.T, i int) {
	row := r.Rows[i]
	var names []string
	for _, transport := range row.Transports {
		names = append(names, transport.Name)
		where := fmt.Sprintf("%s, %s, %s", row.Name, row.Placement, transport.Name)
		isSMC := strings.HasPrefix(transport.Name, "smc")
		switch {
		case transport.Error != "":
			t.Errorf("%s: %s", where, transport.Error)
		case len(transport.Rounds) != 1 || transport.Summary[row.Figure].Median <= 0:
			t.Errorf("%s: no figure %q: %v", where, row.Figure, transport.Rounds)
		case isSMC && (transport.SMC == 0 || transport.TCP != 0 || transport.Buffer == 0):
			t.Errorf("%s: %d connections were SMC-D with a ring of %d and %d were not", where, transport.SMC, transport.Buffer, transport.TCP)
		case isSMC && transport.Waiting != waitingOf(transport.Name):
			t.Errorf("%s: the connections wait in the way %q", where, transport.Waiting)
		case isSMC != hasWakeUps(transport.Rounds[0]):
			t.Errorf("%s: wake-ups are of SMC, and of both sides: %v", where, transport.Rounds)
		case !isSMC && (transport.SMC != 0 || transport.TCP == 0):
			t.Errorf("%s: %d connections were SMC-D, %d were not", where, transport.SMC, transport.TCP)
		}
	}
	wanted := []string{"smc", "tcp", "unix"}
	if strings.HasPrefix(row.Name, "bandwidth-pages") { // only where the kernel gives huge ones
		wanted = []string{"smc@1m+huge", "smc@1m+base", "tcp"}
	}
	for _, want := range wanted {
		if !slices.Contains(names, want) {
			t.Errorf("%s: there is no %s among %q", row.Name, want, names)
		}
	}
}

// waitingOf returns how connections of a transport with such a name wait.
func waitingOf(transport string) string {
	for _, wait := range []string{"busy", "blocking"} {
		if strings.Contains(transport, wait) {
			return wait
		}
	}
	return "adaptive"
}

func hasWakeUps(round map[string]float64) bool {
	has := true
	for _, name := range []string{"client_wakeups_per_op", "server_wakeups_per_op", "client_wakeups_suppressed_per_op", "server_wakeups_suppressed_per_op"} {
		_, ok := round[name]
		has = has && ok
	}
	return has
}

// TestBenchWaits: ways of waiting by name, alone and with a size, in rows of their own accord, and as far as the mount allows.
func TestBenchWaits(t *testing.T) {
	d := mountSMC(t)
	result := runBench(t, withMount(d.Point), "latency", "--pin=free")
	for _, row := range result.Rows {
		for _, other := range []string{"smc@busy", "smc@blocking"} {
			has := slices.ContainsFunc(row.Transports, func(t benchTransport) bool { return t.Name == other })
			if want := row.Name == "hot-14" || row.Name == "thinking-14"; has != want {
				t.Errorf("%s has a line of %s: %t", row.Name, other, has)
			}
		}
	}
	result = runBench(t, withMount(d.Point), "stream", "--pin=free", "--transports=smc@blocking+256k,smc,tcp,unix")
	result.checkTransports(t, 0)
	if buffer := result.Rows[0].Transports[0].Buffer; buffer != 256<<10-32 {
		t.Errorf("the ring of smc@blocking+256k has %d bytes", buffer)
	}
	d.stop()
	d = mountSMC(t, "--wait=adaptive")
	result = runBench(t, withMount(d.Point), "stream", "--pin=free", "--transports=smc@busy")
	if got := result.Rows[0].Transports[0].Waiting; got != "adaptive" {
		t.Errorf("the mount allows adaptive at most, and the connections wait in the way %q", got)
	}
	if !slices.ContainsFunc(result.Notes, func(n string) bool { return strings.Contains(n, "allows no busy") }) {
		t.Errorf("no word of it: %q", result.Notes)
	}
}

// TestBenchPages: dmb_type is what a transport wants for its turn, and then as it was; what a buffer has got is looked at; and where the kernel
// gives no huge pages it says how it would.
func TestBenchPages(t *testing.T) {
	d := mountSMC(t)
	const base = 4096
	arguments := []string{"bandwidth", "--pin=free", "--transports=smc@1m+base,tcp"}
	for _, row := range runBench(t, withMount(d.Point), arguments...).Rows {
		if got := row.Transports[0]; got.Error != "" || got.Page != base || got.SMC == 0 || got.TCP != 0 {
			t.Errorf("%s: %+v, want pages of %d", row.Name, got, base)
		}
	}
	if kind := d.Read("dmb_type"); !strings.HasPrefix(kind, "0") {
		t.Errorf("dmb_type was 0 and is %q", kind)
	}
	wantErrno(t, "dmb_type 1", d.Write("dmb_type", "1"), nil)
	arguments[2] = "--transports=smc@1m+huge"
	r := execute(t, withMount(d.Point), "ismfs", slices.Concat([]string{"bench", "--json"}, quick, arguments)...)
	if r.Code == 2 {
		if !strings.Contains(r.Stderr, "shmem_enabled") && !strings.Contains(r.Stderr, "6.11") {
			t.Errorf("it says %q", r.Stderr)
		}
	} else {
		var result benchResult
		if err := json.Unmarshal([]byte(r.Stdout), &result); err != nil {
			t.Fatalf("exit code %d, %v: %s", r.Code, err, r.Stderr)
		}
		for _, row := range result.Rows {
			if got := row.Transports[0]; got.Error == "" && got.Page <= base {
				t.Errorf("%s: %+v, which are no huge pages", row.Name, got)
			}
		}
	}
	if kind := d.Read("dmb_type"); !strings.HasPrefix(kind, "1") {
		t.Errorf("dmb_type was 1 and is %q", kind)
	}
}

// TestBenchVariants: buffers by option and by name, zero-copy calls, and a plot.
func TestBenchVariants(t *testing.T) {
	d := mountSMC(t)
	plot := filepath.Join(tempDir(t), "plot.svg")
	result := runBench(t, withMount(d.Point), "bandwidth", "--pin=free", "--size=64,100k", "--buffer=256k", "--plot="+plot,
		"--transports=smc,smc-zerocopy@1m,smc-copy@16k")
	const header = 32
	want := map[string]int{"smc": 256<<10 - header, "smc-zerocopy@1m": 1<<20 - header, "smc-copy@16k": 16<<10 - header}
	for _, row := range result.Rows {
		for _, transport := range row.Transports {
			if transport.Error != "" || transport.Buffer != want[transport.Name] || transport.SMC == 0 || transport.TCP != 0 {
				t.Errorf("%s: %+v, want a ring of %d", row.Name, transport, want[transport.Name])
			}
		}
	}
	f, err := os.Open(plot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := 0
	for dec := xml.NewDecoder(f); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the plot: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 3 {
		t.Errorf("the plot has %d lines, want one for each of 3 transports", lines)
	}
}

// benchAlone makes sure that bench can mount a device and finds none, and has it work in a directory of its own.
func benchAlone(t *testing.T) (dir string, change func(*exec.Cmd)) {
	t.Helper()
	mounts, err := tree.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	if len(mounts) > 0 && os.Getenv("CI") == "" {
		t.Skipf("an ismfs is mounted on %s, which bench would use", mounts[0].Point)
	}
	mountSMC(t).stop()
	dir = tempDir(t)
	return dir, func(cmd *exec.Cmd) {
		withMount("")(cmd)
		cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	}
}

func within(dir, path string) bool { return strings.HasPrefix(path, dir+"/") }

// wantNothingLeft fails the test if a run has left its mount.
func wantNothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("bench leaves %v, %v", left, err)
	}
	mounts, err := tree.Mounts()
	if err != nil || slices.ContainsFunc(mounts, func(m tree.Mount) bool { return within(dir, m.Point) }) {
		t.Errorf("mounted afterwards: %v, %v", mounts, err)
	}
}

// TestBenchMounts: without a device root gets one for the run, and nothing of it stays.
func TestBenchMounts(t *testing.T) {
	dir, change := benchAlone(t)
	result := runBench(t, change, "stream", "--pin=free")
	if result.Device == nil || !result.Device.Own || filepath.Dir(result.Device.Point) != dir {
		t.Errorf("the device is %+v, want one in %s", result.Device, dir)
	}
	result.checkTransports(t, 0)
	wantNothingLeft(t, dir)
	table := execute(t, change, "ismfs", slices.Concat([]string{"bench", "stream", "--pin=free"}, quick)...)
	table.want(t, 0)
	for _, want := range []string{"stream-100: ", "smc (adaptive, 1 MiB)", "messages/s", "1 rounds are too few"} {
		if !strings.Contains(table.Stdout, want) {
			t.Errorf("the table does not say %q:\n%s", want, table.Stdout)
		}
	}
	wantNothingLeft(t, dir)
}

// TestBenchInterrupted: a signal ends a run in the middle of a measurement, with its processes and its mount.
func TestBenchInterrupted(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			dir, change := benchAlone(t)
			cmd := exec.Command(filepath.Join(bin, "ismfs"), "bench", "latency", "--duration=1h", "--pin=free", "--transports=smc")
			change(cmd)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill() })
			waitFor(t, "a connection", func() error {
				devices, err := tree.Devices()
				own := slices.IndexFunc(devices, func(d *tree.Device) bool { return within(dir, d.Point()) })
				if own < 0 {
					return fmt.Errorf("no device among %d, %w", len(devices), err)
				}
				conns, err := devices[own].Conns()
				if !slices.ContainsFunc(conns, func(c tree.Conn) bool { return c.Mode == tree.ModeSMCD }) {
					return fmt.Errorf("%d connections and listeners, %w", len(conns), err)
				}
				return nil
			})
			cmd.Process.Signal(signal)
			if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), signal.String()) {
				t.Errorf("%v, it says %q", err, &stderr)
			}
			wantNothingLeft(t, dir)
		})
	}
}

// TestBenchUnprivileged: without root and without a device bench says what to do, and what it measures without.
func TestBenchUnprivileged(t *testing.T) {
	if mounts, err := tree.Mounts(); err != nil || len(mounts) > 0 && os.Getenv("CI") == "" {
		t.Skipf("an ismfs is mounted, which bench would use: %v, %v", mounts, err)
	}
	user := func(cmd *exec.Cmd) {
		withMount("")(cmd)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 1000, Gid: 1000}
	}
	execute(t, user, "ismfs", "bench").want(t, 7, "sudo ismfs bench", "--transports tcp,unix")
	result := runBench(t, user, "latency", "--transports=tcp,unix", "--pin=one")
	if result.Device != nil || len(result.Rows) == 0 {
		t.Errorf("%+v", result)
	}
	if !slices.ContainsFunc(result.Notes, func(n string) bool { return strings.Contains(n, "hot-quota-14 is left out") }) {
		t.Errorf("no word of the row that needs a cgroup: %q", result.Notes)
	}
}

// TestBenchOnAnothersDevice: who cannot turn dmb_copy measures without.
func TestBenchOnAnothersDevice(t *testing.T) {
	d := mountSMC(t)
	result := runBench(t, func(cmd *exec.Cmd) {
		withMount(d.Point)(cmd)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 1000, Gid: 1000}
	}, "stream", "--pin=free")
	result.checkTransports(t, 0)
	if len(result.Rows[0].Transports) != 3 || !slices.ContainsFunc(result.Notes, func(n string) bool { return strings.Contains(n, "smc-copy is left out") }) {
		t.Errorf("%+v, notes %q", result.Rows[0].Transports, result.Notes)
	}
}

func TestBenchUsage(t *testing.T) {
	for _, args := range [][]string{{"speed"}, {"latency", "stream"}, {"--pin=three"}, {"--size=0"}, {"--transports=ipx"}, {"--duration=1"}, {"idle", "--plot=x.svg"}} {
		execute(t, nil, "ismfs", append([]string{"bench"}, args...)...).want(t, 2)
	}
}
