// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"io"
	"net"
	"sync"

	"github.com/ismfs/ismfs/smc"
)

// A clcConn is a TCP connection on which three messages go first that are as long as the handshake's in an existing link group.
// Nobody looks into them: this is the least that a handshake costs a program that uses package net.
type clcConn struct {
	net.Conn
	client bool
}

// clcLengths are those of Proposal, Accept and Confirm.
var clcLengths = sync.OnceValues(func() ([]int, error) {
	var lengths []int
	p := smc.NewProposal(smc.Local{CHID: smc.CHIDLoopback, UEIDs: []smc.EID{{}}, Release: smc.Release})
	a := smc.AcceptConfirm{Type: smc.MsgAccept, Version: smc.V2, TypeV1: smc.PathD, CHID: smc.CHIDLoopback}
	for _, m := range []interface{ AppendTo([]byte) ([]byte, error) }{&p, &a, &a} {
		b, err := m.AppendTo(nil)
		if err != nil {
			return nil, err
		}
		lengths = append(lengths, len(b))
	}
	return lengths, nil
})

// handshake sends and receives the three.
func (c clcConn) handshake() error {
	lengths, err := clcLengths()
	if err != nil {
		return err
	}
	mine := c.client
	for _, n := range lengths {
		b := make([]byte, n)
		if mine {
			_, err = c.Write(b)
		} else {
			_, err = io.ReadFull(c, b)
		}
		if err != nil {
			return err
		}
		mine = !mine
	}
	return nil
}

// A clcListener accepts clcConns.
type clcListener struct{ net.Listener }

func (l clcListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return clcConn{Conn: c}, nil
}
