// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"net"

	"github.com/ismfs/ismfs/smc"
)

// An idle connection has a goroutine at each end that waits for bytes, as servers and pools of connections do.

// prepareIdle makes the task's idle connections and an active one; its measure is the active one's ping-pong.
func prepareIdle(w *worker) (measure, error) {
	conns, err := w.dialAll()
	if err != nil {
		return nil, err
	}
	for _, c := range conns {
		go waitForBytes(c)
	}
	return preparePingPong(w)
}

func waitForBytes(c net.Conn) {
	var b [1]byte
	c.Read(b[:])
}

// idleRow measures each transport's active connection beside idle ones and, in turns, that of another pair of processes without. Here the transports do not take turns: idle connections of one must not disturb another.
func (r *run) idleRow(ctx context.Context, row row, where placement, config pairConfig) (RowResult, error) {
	result := row.result(where)
	for i := range result.Transports {
		t := &result.Transports[i]
		if err := r.idleCells(ctx, row, where, config, t); err != nil {
			t.Error = err.Error()
		}
		if ctx.Err() != nil {
			return result, context.Cause(ctx)
		}
	}
	result.summarize(baseline)
	return result, nil
}

func (r *run) idleCells(ctx context.Context, row row, where placement, config pairConfig, t *TransportResult) error {
	if err := r.prepareDevice(t.transport); err != nil {
		return err
	}
	task := row.task
	task.Transport, task.Conns = t.transport, 0
	alone, err := startPair(ctx, config, task, where)
	if err != nil {
		return err
	}
	defer alone.stop()
	before, err := r.dmbBytes()
	if err != nil {
		return err
	}
	if task.Conns, err = r.idleConns(row.task.Conns, t.transport, alone.buffer+smc.CDCLen); err != nil {
		return err
	}
	r.say(row, where, fmt.Sprintf("%s, making %d connections", t.Name, task.Conns))
	crowded, err := startPair(ctx, config, task, where)
	if err != nil {
		return err
	}
	defer crowded.stop()
	after, err := r.dmbBytes()
	if err != nil {
		return err
	}
	emptyClient, emptyServer, err := alone.measure(ctx, wordRest)
	if err != nil {
		return err
	}
	empty := map[string]figures{"client": emptyClient.Figures, "server": emptyServer.Figures}
	for round := range r.Rounds {
		r.step(row, where, round, t.Name)
		f, err := idleRound(ctx, alone, crowded, t, empty)
		if err != nil {
			return err
		}
		r.note(t.otherWait())
		f["conns"] = float64(task.Conns)
		if t.transport.SMC {
			f["dmb_bytes_per_conn"] = (after - before) / float64(task.Conns)
		}
		t.Rounds = append(t.Rounds, f)
	}
	return nil
}

// idleRound measures the two pairs in turns, and then the crowded one at rest. empty is what the two processes of the other take.
func idleRound(ctx context.Context, alone, crowded *pair, t *TransportResult, empty map[string]figures) (figures, error) {
	without, _, err := alone.measure(ctx, wordStart)
	if err != nil {
		return nil, err
	}
	with, atServer, err := crowded.measure(ctx, wordStart)
	if err != nil {
		return nil, err
	}
	t.add(with)
	if t.transport.SMC && (with.TCP > 0 || atServer.TCP > 0) {
		return nil, errNotSMC
	}
	f := figures{
		"alone_p50_us": without.Figures["p50_us"], "beside_p50_us": with.Figures["p50_us"],
		"beside_to_alone": with.Figures["p50_us"] / without.Figures["p50_us"],
	}
	addWakeUps(with, atServer, f)
	restedClient, restedServer, err := crowded.measure(ctx, wordRest)
	if err != nil {
		return nil, err
	}
	idle := float64(with.SMC + with.TCP - 1)
	for side, r := range map[string]report{"client": restedClient, "server": restedServer} {
		r.Usage.per(side, 0, 0, f)
		for _, kind := range []string{memoryAnon, memoryShared} {
			f[side+"_"+kind+"_per_conn"] = (r.Figures[kind] - empty[side][kind]) / idle
		}
	}
	return f, nil
}

// idleConns returns how many connections there can be of those asked for.
func (r *run) idleConns(want int, t transport, dmbSize int) (int, error) {
	perConn := 1
	if t.SMC {
		perConn = 5 // a socket, two DMBs, two bells
	}
	const others = 200
	files, err := allowDescriptors(uint64(perConn*want + others))
	if err != nil {
		return 0, err
	}
	can, why := (int(files)-others)/perConn, fmt.Sprintf("the limit of %d open files leaves room for (ulimit -Hn)", files)
	if t.SMC {
		room, err := r.device.room(dmbSize)
		if err != nil {
			return 0, err
		}
		if room < can {
			can, why = room, fmt.Sprintf("--max-dmbs %d and --max-bytes of the device leave room for", r.device.MaxDMBs)
		}
	}
	switch {
	case can >= want:
		return want, nil
	case can < 1:
		return 0, fmt.Errorf("no connections are what %s", why)
	}
	r.note(fmt.Sprintf("%s: %d idle connections are what %s", t.Name, can, why))
	return can, nil
}

// dmbBytes returns the memory of the device's DMBs.
func (r *run) dmbBytes() (float64, error) {
	if !r.device.found() {
		return 0, nil
	}
	stats, err := r.device.tree.Stats()
	return float64(stats.Device.Bytes), err
}
