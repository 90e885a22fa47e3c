// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Options say what is measured and how.
type Options struct {
	Command    []string // this program: starts a worker with "bench worker" behind it, a mount with "mount"
	Version    string   // of this program
	Rows       string   // one of RowNames
	Transports []string // by name; none: those of each row
	Pin        string   // two, one, free or all
	Rounds     int
	Duration   time.Duration // of each cell
	Sizes      []string      // of messages; none: those of each row
	Conns      []int         // of the rows of many connections; none: those of each row
	Buffer     string        // of SMC connections: a size; empty: libsmc's default

	Sweep bool // also measure what WritePlot draws

	// NoHugePages says why the kernel gives DMBs of SMC connections no huge pages, and how it would; empty: it does.
	NoHugePages string

	// Progress, unless nil, is called before each cell with its number, from 1, out of how many, and what it is.
	Progress func(n, of int, what string)
}

// Defaults of the options, and how few rounds make a measurement.
const (
	DefaultRounds   = 5
	DefaultDuration = 200 * time.Millisecond
	enoughRounds    = 5
)

// RowNames are what Options.Rows can be.
var RowNames = []string{"latency", "stream", "bandwidth", "requests", "http", "connect", "idle", "all"}

// ErrOptions is wrapped by what Run says of options that make no sense.
var ErrOptions = errors.New("wrong option")

// settings are the options, read.
type settings struct {
	Options
	transports []transport
	placements []placement
	sizes      []int
	buffer     int
	notes      []string
}

func (o Options) read() (*settings, error) {
	s := &settings{Options: o}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	return s, nil
}

func (s *settings) check() (err error) {
	switch {
	case !slices.Contains(RowNames, s.Rows):
		return fmt.Errorf("no measurement %q: there are %s", s.Rows, strings.Join(RowNames, ", "))
	case !slices.Contains([]string{"two", "one", "free", "all"}, s.Pin):
		return fmt.Errorf("--pin is two, one, free or all, not %q", s.Pin)
	case s.Rounds < 1:
		return fmt.Errorf("--rounds is at least 1, not %d", s.Rounds)
	case s.Duration < time.Millisecond:
		return fmt.Errorf("--duration is at least 1ms, not %v", s.Duration)
	}
	if s.Sweep && !slices.ContainsFunc(sweeps, func(w sweep) bool { return s.Rows == w.command || s.Rows == "all" }) {
		return fmt.Errorf("--plot shows latency and bandwidth: it goes with one of them or with all, not with %s", s.Rows)
	}
	for _, n := range s.Conns {
		if n < 1 {
			return fmt.Errorf("--conns is at least 1, not %d", n)
		}
	}
	for _, text := range s.Sizes {
		n, err := parseSize(text)
		if err != nil {
			return fmt.Errorf("--size: %w", err)
		}
		s.sizes = append(s.sizes, n)
	}
	if s.Buffer != "" {
		if s.buffer, err = parseBuffer(s.Buffer); err != nil {
			return fmt.Errorf("--buffer: %w", err)
		}
	}
	if s.transports, err = s.parse(s.Transports); err != nil {
		return err
	}
	for _, t := range s.transports {
		if t.Pages == hugePages && s.NoHugePages != "" {
			return fmt.Errorf("transport %q: %s", t.Name, s.NoHugePages)
		}
	}
	var note string
	if s.placements, note, err = placements(s.Pin); err != nil {
		return err
	}
	s.note(note)
	if s.Rounds < enoughRounds {
		s.note(fmt.Sprintf("%d rounds are too few to compare by: medians want %d or more", s.Rounds, enoughRounds))
	}
	return nil
}

// note adds what a reader of the figures has to know.
func (s *settings) note(text string) {
	if text != "" && !slices.Contains(s.notes, text) {
		s.notes = append(s.notes, text)
	}
}

// parse reads names of transports, and gives those of SMC the buffer asked for.
func (s *settings) parse(names []string) ([]transport, error) {
	all, err := parseTransports(names)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].SMC && all[i].Buffer == 0 {
			all[i].Buffer = s.buffer
		}
	}
	return all, nil
}

// choose returns the transports of a row whose own are names: what --transports says, if anything.
func (s *settings) choose(names ...string) []transport {
	if len(s.transports) > 0 {
		return s.transports
	}
	all, err := s.parse(names)
	if err != nil {
		panic(err) // they are constants
	}
	return all
}
