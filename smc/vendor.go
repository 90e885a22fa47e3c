// SPDX-License-Identifier: Apache-2.0

package smc

import "encoding/binary"

// What ismfs says in fields that the kernel leaves zero and ignores. All of it is a hint until the device confirms it.
//
//	Proposal              vendor_oui          VendorOUI
//	                      vendor_exp_options  the client's procs id (4), 0 (1)
//	first-contact ext     vendor_exp_options  the sender's procs id
//	                      reserved4           token of the sender's doorbell page, 0 none
//	Accept, Confirm       reserved4           the lower 15 bits: bit of the sender's DMB in the sender's page, 0 none;
//	                                          0x8000: the sender sleeps on its page only, never on the DMB's own bell

// VendorOUI marks a Proposal as one of ismfs: locally administered, then "IS".
var VendorOUI = [3]byte{0x02, 0x49, 0x53}

// SetProcess writes the client's procs id.
func (p *Proposal) SetProcess(id uint32) {
	p.VendorOUI = VendorOUI
	binary.BigEndian.PutUint32(p.VendorExpOptions[:], id)
}

// Process returns the client's procs id, 0 if it says none.
func (p *Proposal) Process() uint32 {
	if p.VendorOUI != VendorOUI {
		return 0
	}
	return binary.BigEndian.Uint32(p.VendorExpOptions[:])
}

// SetPage writes the token of the sender's doorbell page.
func (f *FirstContactExt) SetPage(token uint64) { binary.BigEndian.PutUint64(f.Reserved4[:], token) }

// Page returns the token of the sender's doorbell page, 0 if it has none.
func (f *FirstContactExt) Page() uint64 { return binary.BigEndian.Uint64(f.Reserved4[:]) }

const pageOnly = 0x8000

// SetBit writes the bit of the sender's DMB in the sender's page, and whether it sleeps there only.
func (a *AcceptConfirm) SetBit(n uint16, only bool) {
	n &^= pageOnly
	if only {
		n |= pageOnly
	}
	binary.BigEndian.PutUint16(a.Reserved4[:], n)
}

// Bit returns the bit of the sender's DMB in the sender's page, 0 if it has none.
func (a *AcceptConfirm) Bit() uint16 { return binary.BigEndian.Uint16(a.Reserved4[:]) &^ pageOnly }

// PageOnly reports whether the sender, if both sides use pages, never sleeps on the bell of its DMB, so that the receiver
// need not open it.
func (a *AcceptConfirm) PageOnly() bool { return binary.BigEndian.Uint16(a.Reserved4[:])&pageOnly != 0 }
