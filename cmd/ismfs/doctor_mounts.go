// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
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
	point string
	err   error // why it does not answer
}

func lookAtMounts() mountFacts {
	mounts, err := tree.Mounts()
	f := mountFacts{err: err}
	for _, m := range mounts {
		f.mounts = append(f.mounts, mountState{m.Point, answers(m)})
	}
	return f
}

// answers asks the daemon behind a mount. One that is stopped would hold us for ever.
func answers(m tree.Mount) error {
	answer := make(chan error, 1)
	go func() { answer <- m.Alive() }()
	select {
	case err := <-answer:
		return err
	case <-time.After(mountPatience):
		return errStuck
	}
}

func judgeMounts(f mountFacts) finding {
	if f.err != nil {
		return finding{
			Status: statusWarn, Found: f.err.Error(), Costs: "no program finds a device by itself",
			Mend: "mount /proc: mount -t proc proc /proc",
		}
	}
	var living, bad, mend []string
	for _, m := range f.mounts {
		switch {
		case m.err == nil:
			living = append(living, m.point)
		case errors.Is(m.err, tree.ErrDeadMount):
			bad = append(bad, "dead: "+m.point)
			mend = append(mend, "ismfs mount --replace "+m.point)
		default:
			bad = append(bad, fmt.Sprintf("%s (%v)", m.point, m.err))
			mend = append(mend, "see why the daemon of "+m.point+" does not answer (kill -CONT, its log)")
		}
	}
	if len(bad) > 0 {
		return finding{
			Status: statusWarn, Found: strings.Join(append(bad, living...), ", "),
			Costs: "connections that were made there go on, but nothing new is; path look-ups there fail",
			Mend:  strings.Join(mend, "; "),
		}
	}
	if len(living) == 0 {
		return okay("none in this mount namespace")
	}
	return okay("%s", strings.Join(living, ", "))
}
