// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismfs/ismfs/tree"
)

// The processes of a pair are this test again.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "bench" {
		if err := RunWorker(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// withoutDevice are options for a run that needs neither root nor a mount. package tests has the runs with SMC.
func withoutDevice(t *testing.T, rows string) Options {
	t.Setenv(tree.EnvMount, "off")
	t.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // or each of some hundred processes takes a second to end
	return Options{
		Command: []string{"/proc/self/exe"}, Rows: rows, Transports: []string{"tcp", "unix"}, Pin: "free",
		Rounds: 2, Duration: 5 * time.Millisecond, Conns: []int{3},
	}
}

func TestRun(t *testing.T) {
	var said []string
	o := withoutDevice(t, "all")
	o.Progress = func(n, of int, what string) { said = append(said, fmt.Sprintf("%d/%d %s", n, of, what)) }
	result, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, row := range result.Rows {
		names[row.Command] = true
		for _, transport := range row.Transports {
			if transport.Error != "" {
				t.Errorf("%s, %s: %s", row.Name, transport.Name, transport.Error)
				continue
			}
			if len(transport.Rounds) != 2 || transport.Summary[row.Figure].Median <= 0 {
				t.Errorf("%s, %s: %+v", row.Name, transport.Name, transport)
			}
		}
	}
	for _, command := range RowNames[:len(RowNames)-1] {
		if !names[command] {
			t.Errorf("no rows of %s", command)
		}
	}
	var n, of int
	if _, err := fmt.Sscanf(said[len(said)-1], "%d/%d", &n, &of); err != nil || n != of {
		t.Errorf("the last step is %q", said[len(said)-1])
	}
	checkOutput(t, result)
}

// checkOutput looks at the table and the JSON of a result with TCP and Unix sockets.
func checkOutput(t *testing.T, result *Result) {
	var table bytes.Buffer
	if err := result.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 rounds are too few", "hot-14: ", "burst-3: ", "unix", result.Machine.Kernel} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &table)
		}
	}
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Rows) != len(result.Rows) || len(back.Rows[0].Transports[0].Rounds) != 2 {
		t.Errorf("JSON lost something: %s", text)
	}
}

// What cannot be done is an error that says what to do, before anything is measured.
func TestRunWithoutDevice(t *testing.T) {
	o := withoutDevice(t, "latency")
	o.Transports = nil
	_, err := Run(t.Context(), o)
	if !errors.Is(err, ErrNoDevice) || !errors.Is(err, tree.ErrOff) || !strings.Contains(err.Error(), "--transports tcp,unix") {
		t.Error(err)
	}
}

// A cell of SMC whose connection is TCP has no figures.
func TestFallbackIsAnError(t *testing.T) {
	o := withoutDevice(t, "latency")
	s, err := o.read()
	if err != nil {
		t.Fatal(err)
	}
	row := s.rowsOf("latency")[0]
	row.task.Transport = plainTransports["smc"]
	p, err := startPair(t.Context(), pairConfig{command: []string{"/proc/self/exe", "bench", "worker"}}, row.task, s.placements[0])
	if err == nil {
		p.stop()
	}
	if err == nil || !strings.Contains(err.Error(), errNotSMC.Error()) {
		t.Errorf("a pair without a device: %v", err)
	}
}

func TestRunEndsEarly(t *testing.T) {
	o := withoutDevice(t, "stream")
	o.Duration, o.Rounds = time.Hour, 1
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	o.Progress = func(int, int, string) { time.AfterFunc(50*time.Millisecond, func() { cancel(enough) }) }
	if _, err := Run(ctx, o); !errors.Is(err, enough) {
		t.Error(err)
	}
}

// A worker that fails or dies is a transport's error that has its words, and the others are measured.
func TestWorkerFails(t *testing.T) {
	o := withoutDevice(t, "stream")
	o.Command = []string{"sh", "-c", "echo broken >&2; exit 3"}
	result, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if result.Failed() != len(result.Rows)*2 {
		t.Errorf("%d cells failed of %d rows", result.Failed(), len(result.Rows))
	}
	if text := result.Rows[0].Transports[0].Error; !strings.Contains(text, "broken") {
		t.Errorf("the error is %q", text)
	}
	var table bytes.Buffer
	if err := result.WriteTable(&table); err != nil || !strings.Contains(table.String(), "failed: the server ended: broken") {
		t.Errorf("%v\n%s", err, &table)
	}
}

func TestWorkerWithoutTask(t *testing.T) {
	if err := RunWorker(strings.NewReader(""), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "ismfs bench") {
		t.Error(err)
	}
	if err := RunWorker(strings.NewReader("start\n"), new(bytes.Buffer)); err == nil {
		t.Error("a worker takes anything for its task")
	}
}

func TestNothingLeftToMeasure(t *testing.T) {
	o := withoutDevice(t, "latency")
	o.Transports = []string{"c-ring"}
	if _, err := Run(t.Context(), o); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), "the bare ring is in the row") {
		t.Error(err)
	}
}

// Each round begins with another transport.
func TestRoundsRotate(t *testing.T) {
	o := withoutDevice(t, "stream")
	var order []string
	o.Progress = func(_, _ int, what string) { order = append(order, what[strings.LastIndex(what, " ")+1:]) }
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if want := []string{"tcp", "unix", "unix", "tcp"}; !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
}
