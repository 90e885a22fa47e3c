// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/tree"
)

// A process is a worker as the one that started it sees it.
type process struct {
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	events chan event // closed when it has ended
	stderr bytes.Buffer
}

// ownGroup keeps a ^C at the terminal from what is started: it is for this program, which then ends in good order.
var ownGroup = &syscall.SysProcAttr{Setpgid: true}

// start starts a worker that does nothing yet. point is the mount for its SMC sockets, empty for none.
func start(command []string, name, point string, cpus []int) (*process, error) {
	p := &process{name: name, cmd: exec.Command(command[0], command[1:]...), events: make(chan event)}
	if point == "" {
		point = "off"
	}
	p.cmd.Env = append(os.Environ(), tree.EnvMount+"="+point)
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = ownGroup
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(p.cmd, cpus); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", name, err)
	}
	go func() {
		defer close(p.events)
		for dec := json.NewDecoder(out); ; {
			var e event
			if dec.Decode(&e) != nil {
				return
			}
			p.events <- e
		}
	}()
	return p, nil
}

// do sends the task.
func (p *process) do(t task) error {
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return p.tell(string(line))
}

// tell sends a line.
func (p *process) tell(line string) error {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return p.ended()
	}
	return nil
}

// ended is the error of a process that listens or talks no more, with what it complained of.
func (p *process) ended() error {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	return fmt.Errorf("the %s ended: %s", p.name, strings.TrimSpace(p.stderr.String()))
}

// want waits for an event. other, unless nil, is the process without which it will not come.
func (p *process) want(ctx context.Context, name string, patience time.Duration, other *process) (event, error) {
	var others chan event
	if other != nil {
		others = other.events
	}
	select {
	case e, ok := <-p.events:
		return p.judge(e, ok, name)
	case e, ok := <-others:
		_, err := other.judge(e, ok, eventFailed) // it has nothing to say now but this
		return event{}, err
	case <-time.After(patience):
		return event{}, fmt.Errorf("the %s: nothing within %v, waiting for %q", p.name, patience, name)
	case <-ctx.Done():
		return event{}, context.Cause(ctx)
	}
}

func (p *process) judge(e event, ok bool, name string) (event, error) {
	switch {
	case !ok:
		return e, p.ended()
	case e.Event == eventFailed:
		return e, fmt.Errorf("the %s: %s", p.name, e.Error)
	case e.Event != name:
		return e, fmt.Errorf("the %s said %q, not %q", p.name, e.Event, name)
	}
	return e, nil
}

// stop ends the process and waits for it.
func (p *process) stop() {
	p.in.Close()
	ended := make(chan struct{})
	go func() {
		for range p.events {
		}
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill()
		<-ended
	}
	p.cmd.Wait()
}
