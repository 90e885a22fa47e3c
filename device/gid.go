// SPDX-License-Identifier: Apache-2.0

package device

import (
	"crypto/rand"

	"github.com/ismfs/ismfs/smc"
)

// NewGID draws a device's GID: a random UUID (version 4), as in DIBS (drivers/dibs/dibs_loopback.c).
func NewGID() smc.GID {
	var g smc.GID
	rand.Read(g[:])
	g[6] = g[6]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}
