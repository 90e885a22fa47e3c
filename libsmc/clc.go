// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"io"
	"net"

	"github.com/ismfs/ismfs/smc"
)

// readMessage reads exactly one CLC message: what follows it on the stream may be the application's.
func readMessage(tcp *net.TCPConn) (smc.Header, []byte, error) {
	buf := make([]byte, smc.HeaderLen, smc.MaxMessageLen)
	if _, err := io.ReadFull(tcp, buf); err != nil {
		return smc.Header{}, nil, err
	}
	h, err := smc.ParseHeader(buf)
	if err != nil {
		return h, nil, err
	}
	buf = buf[:h.Length]
	_, err = io.ReadFull(tcp, buf[smc.HeaderLen:])
	return h, buf, err
}

// declined is the error of a read that met a Decline where another message was expected.
type declined struct{ smc.Decline }

func (d declined) Error() string { return "the peer declined: " + d.Diagnosis.Error() }

// readAnswer reads an Accept or a Confirm. Errors: declined, a *smc.ProtocolError, those of the TCP connection.
func readAnswer(tcp *net.TCPConn, want smc.MsgType) (smc.AcceptConfirm, error) {
	h, b, err := readMessage(tcp)
	if err != nil {
		return smc.AcceptConfirm{}, err
	}
	if err := parseDecline(h, b); err != nil {
		return smc.AcceptConfirm{}, err
	}
	m, err := smc.ParseAcceptConfirm(b)
	if err == nil && m.Type != want {
		err = &smc.ProtocolError{Msg: "CLC " + m.Type.String(), Detail: "expected a " + want.String()}
	}
	return m, err
}

// readProposal reads a Proposal. Errors as readAnswer's.
func readProposal(tcp *net.TCPConn) (smc.Proposal, error) {
	h, b, err := readMessage(tcp)
	if err != nil {
		return smc.Proposal{}, err
	}
	if err := parseDecline(h, b); err != nil {
		return smc.Proposal{}, err
	}
	return smc.ParseProposal(b)
}

// parseDecline returns a Decline as the error that it is.
func parseDecline(h smc.Header, b []byte) error {
	if h.Type != smc.MsgDecline {
		return nil
	}
	d, err := smc.ParseDecline(b)
	if err != nil {
		return err
	}
	return declined{d}
}

// sendDecline tells the peer that this connection stays TCP.
func sendDecline(tcp *net.TCPConn, code smc.DeclineCode) error {
	d := smc.NewDecline(smc.V2, code)
	_, err := tcp.Write(d.AppendTo(nil))
	return err
}

// sendAnswer sends an Accept or a Confirm.
func sendAnswer(tcp *net.TCPConn, m *smc.AcceptConfirm) error {
	b, err := m.AppendTo(nil)
	if err == nil {
		_, err = tcp.Write(b)
	}
	return err
}
