// SPDX-License-Identifier: Apache-2.0

package stream

import "github.com/ismfs/ismfs/dmb"

// PageBits is how many bits a doorbell page has (docs/dmb-format.md, section 2).
const PageBits = (4096 - 64) * 8

// Pages are the two doorbell pages of a link group.
type Pages struct{}

// NewPages makes Pages of the own page and the peer's, with their bells. They stay the caller's, and must live until Close.
func NewPages(own *dmb.Registered, ownBell *dmb.Bell, peer *dmb.Attached, peerBell *dmb.Bell) *Pages {
	return &Pages{}
}

// Close ends the use of the pages. No connection uses them any more.
func (p *Pages) Close() error { return nil }

func (p *Pages) leave(c *Conn) {}
