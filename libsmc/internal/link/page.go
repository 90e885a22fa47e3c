// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/libsmc/internal/stream"
)

// pageSize is the size of a doorbell page, which tells the device what it is.
const pageSize = 4096

// A doorbell is the pair of doorbell pages of a group. Both sides have both or neither.
type doorbell struct {
	group *Group

	mu    sync.Mutex // held also while the device is asked
	tried bool       // there was an own page, or none could be had
	own   *buffer
	peer  *remote
	pages *stream.Pages
}

// mine makes the own page the first time, and returns its token, 0 if none could be had.
func (p *doorbell) mine() dmb.Token {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.tried {
		p.tried = true
		p.own = p.group.newPage() // without one every connection has its own bell
	}
	return p.tokenLocked()
}

// newPage makes a doorbell page, nil if none can be had.
func (g *Group) newPage() *buffer {
	b, err := g.register(pageSize)
	if err != nil {
		return nil
	}
	if err := g.dev.openBell(&b.bell, b.Token()); err != nil {
		b.Close()
		return nil
	}
	return b
}

func (p *doorbell) token() dmb.Token {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tokenLocked()
}

func (p *doorbell) tokenLocked() dmb.Token {
	if p.own == nil {
		return 0
	}
	return p.own.Token()
}

// join makes the peer's page known. It fails if the page cannot be attached, or is another than before.
func (p *doorbell) join(t dmb.Token) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.own == nil, t == 0:
		return errors.New("no doorbell page")
	case p.peer != nil && p.peer.Token() == t:
		return nil
	case p.peer != nil:
		return fmt.Errorf("doorbell page %v: the peer's is %v", t, p.peer.Token())
	}
	if err := p.group.dev.reflected(t, p.group.role); err != nil {
		return err
	}
	a, err := dmb.Attach(p.group.dev.tree, t, pageSize)
	if err != nil {
		return err
	}
	if a.Owner() != p.group.peer {
		a.Close()
		return fmt.Errorf("doorbell page %v is process %d's, the peer is %d", t, a.Owner(), p.group.peer)
	}
	bell, err := dmb.OpenBell(p.group.dev.tree, t)
	if err != nil {
		a.Close()
		return err
	}
	p.peer = &remote{Attached: a, bell: bell, group: p.group}
	p.pages = stream.NewPages(p.own.Registered, p.own.bell, a, bell)
	return nil
}

// get returns the pages, nil if the group has none.
func (p *doorbell) get() *stream.Pages {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pages
}

// peerGone reports whether the device says that the peer has let go of the own page: its process is gone, or its group.
func (p *doorbell) peerGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pages == nil {
		return false
	}
	links, err := p.own.Links()
	return err == nil && links < 2
}

// Close ends both pages. No connection uses them any more.
func (p *doorbell) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = true
	var errs []error
	if p.pages != nil {
		errs = append(errs, p.pages.Close())
	}
	if p.own != nil {
		errs = append(errs, p.own.Close())
	}
	if p.peer != nil {
		errs = append(errs, p.peer.Close())
	}
	p.own, p.peer, p.pages = nil, nil, nil
	return errors.Join(errs...)
}
