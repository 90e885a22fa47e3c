// SPDX-License-Identifier: Apache-2.0

package smc

import "fmt"

// RxCtrl is what the peer's last valid words in my DMB said (the kernel's
// local_rx_ctrl). The peer is not trusted: load a word once, give it to
// UpdateProducer or UpdateConsumer, and abort the connection on an error.
// The zero RxCtrl is that of a new connection.
type RxCtrl struct {
	Prod          Cursor // how far the peer has written my ring
	Cons          Cursor // how far the peer has read its own ring
	ProducerFlags ProducerFlags
	StateFlags    StateFlags
}

// UpdateProducer takes a producer word. read is my reader's cursor, size the
// length of my ring. It returns the bytes that can be read, at most size. After
// an error (a *ProtocolError) r is as before.
func (r *RxCtrl) UpdateProducer(word uint64, read Cursor, size uint32) (readable uint32, err error) {
	prod := ParseProducerWord(word)
	if _, err := Advance(r.Prod, prod, size); err != nil {
		return 0, err
	}
	if readable, err = Advance(read, prod, size); err != nil {
		return 0, err
	}
	r.Prod = prod
	return readable, nil
}

// UpdateConsumer takes a consumer word. prod is the cursor that I published
// last, size the length of the peer's ring. It returns the bytes that I can
// write. After an error (a *ProtocolError) r is as before.
func (r *RxCtrl) UpdateConsumer(word uint64, prod Cursor, size uint32) (space uint32, err error) {
	cons, pf, sf := ParseConsumerWord(word)
	if gone := r.StateFlags &^ sf; gone != 0 {
		return 0, &ProtocolError{"CDC consumer word", fmt.Sprintf("state flags %02x withdrawn", uint8(gone))}
	}
	if _, err := Advance(r.Cons, cons, size); err != nil {
		return 0, err
	}
	used, err := Advance(cons, prod, size)
	if err != nil {
		return 0, err
	}
	r.Cons, r.ProducerFlags, r.StateFlags = cons, pf, sf
	return size - used, nil
}
