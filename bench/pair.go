// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"time"
)

// A pair is a server and a client that have connected.
type pair struct {
	server, client *process
	patience       time.Duration
}

// pairConfig is what all pairs of a run have in common.
type pairConfig struct {
	command []string // starts a worker
	point   string   // of the device
	// admit, unless nil, is called for each process before it has its task.
	admit func(pid int) error
}

// patienceFor is how long a process may take for one thing. It is a limit for what hangs, not a measure.
func patienceFor(t task) time.Duration {
	return 2*t.Duration + t.Rest + time.Minute + time.Duration(t.Conns)*50*time.Millisecond
}

// startPair starts a server and a client for it, and returns when the client is ready to measure.
func startPair(ctx context.Context, c pairConfig, t task, where placement) (*pair, error) {
	p := &pair{patience: patienceFor(t)}
	if err := p.start(ctx, c, t, where); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *pair) start(ctx context.Context, c pairConfig, t task, where placement) error {
	point := ""
	if t.Transport.SMC {
		point = c.point
	}
	var err error
	if p.server, err = start(c.command, "server", point, where.Server); err != nil {
		return err
	}
	if p.client, err = start(c.command, "client", point, where.Client); err != nil {
		return err
	}
	if c.admit != nil {
		for _, process := range []*process{p.server, p.client} {
			if err := c.admit(process.cmd.Process.Pid); err != nil {
				return err
			}
		}
	}
	t.Server = true
	if err := p.server.do(t); err != nil {
		return err
	}
	listening, err := p.server.want(ctx, eventListening, p.patience, nil)
	if err != nil {
		return err
	}
	t.Server, t.Address = false, listening.Address
	if err := p.client.do(t); err != nil {
		return err
	}
	_, err = p.client.want(ctx, eventReady, p.patience, p.server)
	return err
}

// measure has the client measure once, or rest, and returns what both have seen.
func (p *pair) measure(ctx context.Context, word string) (client, server report, err error) {
	if err := p.server.tell(wordMark); err != nil {
		return client, server, err
	}
	if _, err := p.server.want(ctx, eventMarked, p.patience, nil); err != nil {
		return client, server, err
	}
	if err := p.client.tell(word); err != nil {
		return client, server, err
	}
	e, err := p.client.want(ctx, eventReport, p.patience, p.server)
	if err != nil {
		return client, server, err
	}
	client = *e.Report
	if err := p.server.tell(wordReport); err != nil {
		return client, server, err
	}
	if e, err = p.server.want(ctx, eventReport, p.patience, nil); err != nil {
		return client, server, err
	}
	return client, *e.Report, nil
}

// stop ends both.
func (p *pair) stop() {
	for _, process := range []*process{p.client, p.server} {
		if process != nil {
			process.stop()
		}
	}
}

// figuresOf puts together what both sides of a cell have seen.
func figuresOf(client, server report) figures {
	f := figures{}
	for name, v := range client.Figures {
		f[name] = v
	}
	for name, v := range server.Figures {
		f["server_"+name] = v
	}
	client.Usage.per("client", client.Operations, client.Bytes, f)
	server.Usage.per("server", client.Operations, client.Bytes, f)
	addWakeUps(client, server, f)
	f["operations"], f["seconds"] = client.Operations, client.Usage.At.Seconds()
	return f
}
