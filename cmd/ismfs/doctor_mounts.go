// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/ismfs/ismfs/tree"
)

// A mount whose daemon does not answer within this time is taken for stuck.
const mountPatience = 2 * time.Second

var errStuck = fmt.Errorf("no answer within %v", mountPatience)

// mountFacts are the ismfs mounts there are; err says why they are not known.
type mountFacts struct {
	mounts []mountState
	err    error
}

type mountState struct {
	point   string
	err     error // why it does not answer
	active  tree.State
	sockets bool // those of this process can use the device
}

func lookAtMounts() mountFacts {
	mounts, err := tree.Mounts()
	f := mountFacts{err: err}
	for _, m := range mounts {
		f.mounts = append(f.mounts, lookAtMount(m.Point))
	}
	return f
}

// lookAtMount asks the daemon behind a mount. One that is stopped would hold us for ever.
func lookAtMount(point string) mountState {
	answer := make(chan mountState, 1)
	go func() {
		s := mountState{point: point}
		s.err = s.fill()
		answer <- s
	}()
	select {
	case s := <-answer:
		return s
	case <-time.After(mountPatience):
		return mountState{point: point, err: errStuck}
	}
}

func (s *mountState) fill() error {
	d, err := tree.Find(s.point)
	if err != nil {
		return err
	}
	if s.active, err = d.Active(); err != nil {
		return err
	}
	gid, err := d.GID()
	if err != nil {
		return err
	}
	s.sockets, err = socketsCovered(d, gid)
	return err
}

// Ways out, with the mount point for %[1]s.
const (
	switchOn    = "echo 1 > %[1]s/devices/" + tree.DeviceName + "/active"
	mountAnew   = "ismfs umount %[1]s, then ismfs mount %[1]s without --sockets=off; if sockets still stay TCP, the findings above say why"
	bringBack   = "ismfs mount --replace %[1]s"
	wakeDaemon  = "see why the daemon of %[1]s does not answer (kill -CONT, its log)"
	letOthersIn = "run as the user who mounted %[1]s or as root, or mount it with --allow-other and a --mode that lets others in"
)

// trouble says what is wrong with a mount, what that costs and how to mend it; nothing if all is well.
func (s mountState) trouble() (what, costs, mend string) {
	const nothingNew = "what is there goes on, but new connections are TCP"
	switch {
	case errors.Is(s.err, tree.ErrDeadMount):
		return "dead", nothingNew + ", and path look-ups there fail", bringBack
	case errors.Is(s.err, fs.ErrPermission):
		return "not for this user", "this user's programs do not find a device there", letOthersIn
	case s.err != nil:
		return s.err.Error(), nothingNew + ", and path look-ups there fail", wakeDaemon
	case s.active == tree.Inactive:
		return "switched off", "no DMBs, and connections are TCP", switchOn
	case s.active == tree.Draining:
		return "draining", nothingNew + " and no DMB can be registered", switchOn
	case !s.sockets:
		return "without sockets", "connections are TCP; programs can share DMBs themselves", mountAnew
	}
	return "", "", ""
}

func judgeMounts(f mountFacts) finding {
	if f.err != nil {
		return finding{
			Status: statusWarn, Found: f.err.Error(), Costs: "no program finds a device by itself",
			Mend: "mount /proc: mount -t proc proc /proc",
		}
	}
	if len(f.mounts) == 0 {
		return okay("none in this mount namespace")
	}
	var found, costs, mend []string
	for _, m := range f.mounts {
		what, cost, way := m.trouble()
		if what == "" {
			found = append(found, m.point)
			continue
		}
		found = append(found, fmt.Sprintf("%s (%s)", m.point, what))
		costs = append(costs, m.point+": "+cost)
		mend = append(mend, fmt.Sprintf(way, m.point))
	}
	if len(mend) == 0 {
		return okay("%s", strings.Join(found, ", "))
	}
	return finding{
		Status: statusWarn, Found: strings.Join(found, ", "),
		Costs: strings.Join(costs, "; "), Mend: strings.Join(mend, "; "),
	}
}
