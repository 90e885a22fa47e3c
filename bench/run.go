// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A run is one call of Run.
type run struct {
	*settings
	device *device // nil: without SMC
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
	r := &run{settings: s}
	rows := s.rowsOf(s.Rows)
	if len(rows) == 0 {
		return nil, fmt.Errorf("%w: nothing is left to measure", ErrOptions)
	}
	for _, row := range rows {
		r.cells += len(row.transports) * s.Rounds * len(s.placements)
	}
	result = &Result{Version: o.Version, Date: time.Now(), Parameters: parameters{
		Rows: o.Rows, Rounds: o.Rounds, Seconds: o.Duration.Seconds(), Placements: s.placements, Buffer: s.buffer,
	}}
	if result.Machine, err = thisMachine(); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(rows, row.needsDevice) {
		if r.device, err = openDevice(o.Command); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.device.close()) }()
		result.Device = &r.device.deviceInfo
	}
	for _, row := range rows {
		for _, where := range s.placements {
			measured, err := r.row(ctx, row, where)
			if err != nil {
				return nil, err
			}
			result.Rows = append(result.Rows, measured)
		}
	}
	result.Notes = s.notes
	return result, nil
}

func (r row) needsDevice() bool {
	return slices.ContainsFunc(r.transports, func(t transport) bool { return t.SMC })
}

// row measures a row in one placement. An error ends the run; what one transport cannot do is its own.
func (r *run) row(ctx context.Context, row row, where placement) (RowResult, error) {
	result := RowResult{
		Command: row.command, Name: row.name, Title: row.title, Placement: where.Name,
		Size: row.task.Size, Conns: row.task.Conns, Figure: row.figure(), columns: row.columns,
	}
	for _, t := range row.transports {
		result.Transports = append(result.Transports, TransportResult{Name: t.Name, Rounds: []figures{}, transport: t})
	}
	config := pairConfig{command: append(slices.Clone(r.Command), "bench", "worker")}
	if r.device != nil {
		config.point = r.device.Point
	}
	end, err := r.surround(ctx, row, &config)
	if err != nil {
		for i := range result.Transports {
			result.Transports[i].Error = err.Error()
		}
		r.done += len(row.transports) * r.Rounds
		return result, context.Cause(ctx)
	}
	for round := range r.Rounds {
		for i := range row.transports {
			t := &result.Transports[(i+round)%len(row.transports)]
			r.done++
			if t.Error != "" {
				continue
			}
			if r.Progress != nil {
				r.Progress(r.done, r.cells, fmt.Sprintf("%s, %s, round %d of %d: %s", row.name, where.Name, round+1, r.Rounds, t.Name))
			}
			if err := r.cell(ctx, row, where, config, t); err != nil {
				t.Error = err.Error()
			}
			if ctx.Err() != nil {
				return result, errors.Join(context.Cause(ctx), end())
			}
		}
	}
	result.summarize()
	return result, end()
}

// cell measures one transport once.
func (r *run) cell(ctx context.Context, row row, where placement, config pairConfig, t *TransportResult) error {
	if t.transport.SMC {
		if err := r.device.setCopy(t.transport.Copy); err != nil {
			return err
		}
	}
	task := row.task
	task.Transport = t.transport
	p, err := startPair(ctx, config, task, where)
	if err != nil {
		return err
	}
	defer p.stop()
	client, server, err := p.measure(ctx)
	if err != nil {
		return err
	}
	t.Buffer = client.Buffer
	t.SMC += client.SMC
	t.TCP += client.TCP
	if t.transport.SMC && (client.TCP > 0 || server.TCP > 0) {
		return errNotSMC
	}
	t.Rounds = append(t.Rounds, figuresOf(client, server))
	return nil
}

// surround makes what a row runs beside or within, and returns what ends it.
func (r *run) surround(ctx context.Context, row row, config *pairConfig) (end func() error, err error) {
	switch {
	case row.busy:
		return startBusy(ctx, config.command)
	case row.quota:
		q, err := makeQuota()
		if err != nil {
			return nil, err
		}
		config.admit = q.admit
		return q.remove, nil
	}
	return func() error { return nil }, nil
}
