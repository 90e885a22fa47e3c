// SPDX-License-Identifier: Apache-2.0

package stream

// A relation says where the two processes of a link group run. Each shows in its own page whether it is bound to one CPU; it is
// a hint, and wrong for a while after somebody has moved one of them.
type relation int

const (
	unknown relation = iota // at least one may run on several CPUs
	sameCPU                 // both are bound to one CPU: only one of them runs at a time
	apart                   // each is bound to a CPU of its own
)

// relation returns the relation of the two processes. Without pages only the own side is known; then two that may share a CPU
// count as if they did.
func (p *Pages) relation() relation {
	own := host.place.Load()
	if p == nil {
		if host.usable.Load() == 1 {
			return sameCPU
		}
		return unknown
	}
	if p.own.Place() != own {
		p.own.SetPlace(own)
	}
	switch peer := p.peer.Place(); {
	case own == 0 || peer == 0:
		return unknown
	case own == peer:
		return sameCPU
	}
	return apart
}
