// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"net"
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

// The idlers are the pairs of processes that have a transport's idle connections: as many as the limit of open files wants. The
// first has the active connection, too.
type idlers []*pair

func (c idlers) stop() {
	for _, p := range c {
		p.stop()
	}
}

// startIdlers makes idle connections, so many in each pair.
func startIdlers(ctx context.Context, config pairConfig, t task, where placement, shares []int) (c idlers, err error) {
	for _, t.Conns = range shares {
		p, err := startPair(ctx, config, t, where)
		if err != nil {
			c.stop()
			return nil, err
		}
		c = append(c, p)
	}
	return c, nil
}

// idleRow measures each transport's active connection beside idle ones and, in turns, that of another pair of processes without.
// Here the transports do not take turns: idle connections of one must not disturb another.
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
	shares, err := r.idleShares(row.task.Conns, t.transport)
	if err != nil {
		return err
	}
	r.say(row, where, fmt.Sprintf("%s, making idle connections in %d pairs of processes", t.Name, len(shares)))
	crowded, err := startIdlers(ctx, config, task, where, shares)
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
		if t.transport.SMC {
			f["dmb_bytes_per_conn"] = (after - before) / f["conns"]
		}
		t.Rounds = append(t.Rounds, f)
	}
	return nil
}

// idleRound measures the active connections alone and beside the crowd in turns, and then the crowd at rest. empty is what the
// processes of a pair take without idle connections.
func idleRound(ctx context.Context, alone *pair, crowded idlers, t *TransportResult, empty map[string]figures) (figures, error) {
	without, _, err := alone.measure(ctx, wordStart)
	if err != nil {
		return nil, err
	}
	with, atServer, err := crowded[0].measure(ctx, wordStart)
	if err != nil {
		return nil, err
	}
	t.add(with)
	f := figures{
		"alone_p50_us": without.Figures["p50_us"], "beside_p50_us": with.Figures["p50_us"],
		"beside_to_alone": with.Figures["p50_us"] / without.Figures["p50_us"],
	}
	addWakeUps(with, atServer, f)
	rested := figures{}
	for _, p := range crowded {
		if err := p.rest(ctx, t.transport, empty, rested); err != nil {
			return nil, err
		}
	}
	f["conns"] = rested["conns"] - 1 // the active one
	f["pairs"] = float64(len(crowded))
	for _, side := range []string{"client", "server"} {
		f[side+"_cpu_percent"] = rested[side+"_cpu_percent"]
		for _, kind := range []string{memoryAnon, memoryShared} {
			f[side+"_"+kind+"_per_conn"] = rested[side+"_"+kind] / f["conns"]
		}
	}
	return f, nil
}

// rest lets a pair rest, and adds to sum what it took, its connections, and its memory beyond that of one without them.
func (p *pair) rest(ctx context.Context, t transport, empty map[string]figures, sum figures) error {
	client, server, err := p.measure(ctx, wordRest)
	if err != nil {
		return err
	}
	if t.SMC && (client.TCP > 0 || server.TCP > 0) {
		return errNotSMC
	}
	sum["conns"] += float64(client.SMC + client.TCP)
	for side, r := range map[string]report{"client": client, "server": server} {
		used := figures{}
		r.Usage.per(side, 0, 0, used)
		sum[side+"_cpu_percent"] += used[side+"_cpu_percent"]
		for _, kind := range []string{memoryAnon, memoryShared} {
			sum[side+"_"+kind] += r.Figures[kind] - empty[side][kind]
		}
	}
	return nil
}

// What an idle connection takes.
const (
	filesPlain = 1        // in each process: a socket
	filesSMC   = 3        // and two DMBs
	sizeInMany = 32 << 10 // of most DMBs where a process has thousands, at most: libsmc makes them smaller then
)

// idleShares shares the idle connections that are asked for, as many as there can be, among pairs of processes.
func (r *run) idleShares(want int, t transport) ([]int, error) {
	const others = 200 // files of a process
	perConn := filesPlain
	if t.SMC {
		perConn = filesSMC
	}
	files, err := allowDescriptors(uint64(perConn*want + others))
	if err != nil {
		return nil, err
	}
	can, why := want, ""
	if t.SMC {
		size := t.Buffer
		if size == 0 {
			size = sizeInMany
		}
		room, limit, err := r.device.room(size, int(files))
		if err != nil {
			return nil, err
		}
		if room < can {
			can, why = room, limit
		}
	}
	if can < 1 {
		return nil, fmt.Errorf("no idle connections: %s", why)
	}
	if can < want {
		r.note(fmt.Sprintf("%s: only %d idle connections: %s", t.Name, can, why))
	}
	return shared(can, (int(files)-others)/perConn-1), nil
}

// shared shares n connections evenly among as few as can be, with most for each.
func shared(n, most int) []int {
	pairs := (n + most - 1) / most
	shares := make([]int, pairs)
	for i := range shares {
		shares[i] = (n - i + pairs - 1) / pairs
		if i > 0 {
			shares[i]-- // the pair's ping-pong is one of them
		}
	}
	return shares
}

// dmbBytes returns the memory of the device's DMBs.
func (r *run) dmbBytes() (float64, error) {
	if !r.device.found() {
		return 0, nil
	}
	stats, err := r.device.tree.Stats()
	return float64(stats.Device.Bytes), err
}
