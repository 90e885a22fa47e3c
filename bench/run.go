// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A run is one call of Run.
type run struct {
	*settings
	device *device // nil: without SMC
	ring   string  // the program, if it is there
	done   int     // cells
	cells  int     // of all rows
}

// Run measures. When it returns, also early, everything that it has changed on the machine is as before. What could not be
// measured is in the result, with the reason; see [Result.Failed].
func Run(ctx context.Context, o Options) (result *Result, err error) {
	s, err := o.read()
	if err != nil {
		return nil, err
	}
	result = &Result{Version: o.Version, Date: time.Now(), Parameters: parameters{
		Rows: o.Rows, Rounds: o.Rounds, Seconds: o.Duration.Seconds(), Placements: s.placements, Buffer: s.buffer,
	}}
	if result.Machine, err = thisMachine(); err != nil {
		return nil, err
	}
	r := &run{settings: s, ring: findRing()}
	if r.device, err = findDevice(o.Command); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.device.close()) }()
	err = r.all(ctx, s.rowsOf(s.Rows), result)
	if err != nil {
		return nil, err
	}
	result.Notes = s.notes
	return result, nil
}

// all measures all rows.
func (r *run) all(ctx context.Context, rows []row, result *Result) error {
	rows, err := r.possible(rows)
	if err != nil {
		return err
	}
	for _, row := range rows {
		for _, where := range r.placementsOf(row) {
			r.cells += len(row.result(where).Transports) * r.Rounds
		}
	}
	for _, row := range rows { // those of sockets first: they begin without a device
		if row.kind == socketsKind {
			if err := r.rowEverywhere(ctx, row, result); err != nil {
				return err
			}
		}
	}
	if slices.ContainsFunc(rows, row.needsDevice) {
		if err := r.device.mountUnlessFound(); err != nil {
			return err
		}
	}
	if r.device.found() {
		result.Device = &r.device.deviceInfo
	}
	for _, row := range rows {
		if row.kind != socketsKind {
			if err := r.rowEverywhere(ctx, row, result); err != nil {
				return err
			}
		}
	}
	slices.SortStableFunc(result.Rows, func(a, b RowResult) int { return order(rows, a) - order(rows, b) })
	return nil
}

// order returns where a result's row stands among rows.
func order(rows []row, result RowResult) int {
	return slices.IndexFunc(rows, func(r row) bool { return r.name == result.Name })
}

func (r *run) rowEverywhere(ctx context.Context, row row, result *Result) error {
	for _, where := range r.placementsOf(row) {
		measured, err := r.row(ctx, row, where)
		if err != nil {
			return err
		}
		result.Rows = append(result.Rows, measured)
	}
	return nil
}

// possible leaves out, with a note, what this machine or this user cannot measure.
func (r *run) possible(rows []row) ([]row, error) {
	var possible []row
	for _, row := range rows {
		why, err := r.impossible(row)
		if err != nil {
			return nil, err
		}
		if why != "" {
			r.note(fmt.Sprintf("%s is left out: %s", row.name, why))
			continue
		}
		row.transports = slices.DeleteFunc(slices.Clone(row.transports), func(t transport) bool {
			if t.Ring {
				return !r.canRing(row)
			}
			return t.Copy && !r.canCopy()
		})
		if len(row.transports) > 0 {
			possible = append(possible, row)
		}
	}
	if len(possible) == 0 {
		return nil, fmt.Errorf("%w: nothing is left to measure: %s", ErrOptions, strings.Join(r.notes, "; "))
	}
	return possible, nil
}

// impossible returns why a row cannot be measured; empty: it can.
func (r *run) impossible(row row) (why string, err error) {
	switch row.kind {
	case socketsKind:
		return r.noSockets()
	case pagesKind:
		return r.NoHugePages, nil
	case quotaKind:
		q, err := makeQuota()
		if err == nil {
			err = q.remove()
		}
		if err != nil {
			return err.Error(), nil
		}
	}
	return "", nil
}

// canCopy reports whether dmb_copy can be set, and notes why not. If somebody asked for it by name, setting it will be tried.
func (r *run) canCopy() bool {
	if len(r.transports) > 0 || !r.device.found() || r.device.steerable {
		return true
	}
	r.note("smc-copy is left out: only root, or the user who mounted, can set dmb_copy of " + r.device.Point)
	return false
}

// canRing reports whether the bare ring can be in a row, and notes why not.
func (r *run) canRing(row row) bool {
	if row.name != fmt.Sprintf("bandwidth-%d", ringMessage) {
		if len(r.transports) > 0 {
			r.note(fmt.Sprintf("the bare ring is in the row bandwidth-%d only", ringMessage))
		}
		return false
	}
	if r.ring == "" {
		r.note("the bare ring is left out: there is no " + ringProgram + " beside ismfs (make build makes it)")
	}
	return r.ring != ""
}

// noSockets returns why what the mount costs others cannot be measured; empty: it can.
func (r *run) noSockets() (string, error) {
	if r.device.found() {
		return "a device is mounted already, so that there is no turn without one", nil
	}
	if err := r.device.mountable(); err != nil {
		return err.Error(), nil
	}
	attached, err := programsAttached()
	if attached {
		return "the eBPF programs of another mount, or of a dead daemon, are attached (ismfs doctor shows them)", nil
	}
	return "", err
}

// placementsOf returns where a row is measured.
func (r *run) placementsOf(row row) []placement {
	if row.kind != socketsKind {
		return r.placements
	}
	one, _, err := placements("one") // its single process wants one CPU and nothing else
	if err != nil {
		return nil
	}
	return one
}

func (r row) needsDevice() bool {
	return slices.ContainsFunc(r.transports, func(t transport) bool { return t.SMC })
}

// worker is the command that starts a worker.
func (r *run) worker() []string { return append(slices.Clone(r.Command), "bench", "worker") }

// step tells what is measured next.
func (r *run) step(row row, where placement, round int, what string) {
	r.done++
	r.say(row, where, fmt.Sprintf("round %d of %d: %s", round+1, r.Rounds, what))
}

func (r *run) say(row row, where placement, what string) {
	if r.Progress != nil {
		r.Progress(r.done, r.cells, fmt.Sprintf("%s, %s, %s", row.name, where.Name, what))
	}
}

// row measures a row in one placement. An error ends the run; what one transport cannot do is its own.
func (r *run) row(ctx context.Context, row row, where placement) (result RowResult, err error) {
	config := pairConfig{command: r.worker(), point: r.device.Point}
	switch row.kind {
	case socketsKind:
		return r.socketsRow(ctx, row, where)
	case idleKind:
		return r.idleRow(ctx, row, where, config)
	case busyKind:
		end, err := startBusy(ctx, config.command)
		if err != nil {
			return result, err
		}
		defer end()
	case quotaKind:
		q, err := makeQuota()
		if err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, q.remove()) }()
		config.admit = q.admit
	}
	return r.rounds(ctx, row, where, config)
}

// rounds measures all transports in turns.
func (r *run) rounds(ctx context.Context, row row, where placement, config pairConfig) (RowResult, error) {
	result := row.result(where)
	for round := range r.Rounds {
		for i := range result.Transports {
			t := &result.Transports[(i+round)%len(result.Transports)]
			r.step(row, where, round, t.Name)
			if t.Error != "" {
				continue
			}
			if err := r.cell(ctx, row, where, config, t); err != nil {
				t.Error = err.Error()
			}
			if ctx.Err() != nil {
				return result, context.Cause(ctx)
			}
		}
	}
	result.summarize(baseline)
	return result, nil
}

// cell measures one transport once.
func (r *run) cell(ctx context.Context, row row, where placement, config pairConfig, t *TransportResult) error {
	if t.transport.Ring {
		f, err := ringCell(ctx, r.ring, t.transport, where, row.task.Duration)
		if err == nil {
			t.Rounds = append(t.Rounds, f)
		}
		return err
	}
	if err := r.prepareDevice(t.transport); err != nil {
		return err
	}
	task := row.task
	task.Transport = t.transport
	p, err := startPair(ctx, config, task, where)
	if err != nil {
		return err
	}
	defer p.stop()
	client, server, err := p.measure(ctx, wordStart)
	if err != nil {
		return err
	}
	t.add(client)
	r.note(t.otherWait())
	if err := errors.Join(t.transport.Pages.check(client.PageSize), t.transport.Pages.check(server.PageSize)); err != nil {
		return err
	}
	if fallen := max(client.TCP, server.TCP); t.transport.SMC && fallen > 0 {
		return fmt.Errorf("%w: %d of %d", errNotSMC, fallen, client.TCP+client.SMC)
	}
	t.Rounds = append(t.Rounds, figuresOf(client, server))
	return nil
}

// prepareDevice has the device make what a transport wants.
func (r *run) prepareDevice(t transport) error {
	if !t.SMC {
		return nil
	}
	return errors.Join(r.device.setCopy(t.Copy), r.device.setPages(t.Pages))
}
