// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The bare ring in C is what this machine can do at best: two cursors and memcpy, or pwrite, no protocol, no sleep. It is a program of its
// own beside this one, with a fixed size of its messages, and needs a CPU for each side.
const (
	ringProgram = "ismfs-cbench"
	ringMessage = 64000
)

// findRing returns the program, empty if it is not there.
func findRing() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(self), ringProgram)
	if st, err := os.Stat(path); err != nil || st.Mode()&0o111 == 0 {
		return ""
	}
	return path
}

// ringCell measures the ring once: about as long as the others, by a guess of what a machine moves in a second.
func ringCell(ctx context.Context, path string, t transport, where placement, d time.Duration) (figures, error) {
	const guess = 10e9
	mib := max(int(guess*d.Seconds())>>20, 16)
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second+10*d)
	defer cancel()
	ring := "ring"
	if t.Copy {
		ring = "ring-copy"
	}
	cmd := exec.CommandContext(ctx, path, "--rounds", "1", "--mib", fmt.Sprint(mib), ring)
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := startOn(cmd, append(where.Server, where.Client...)); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", ringProgram, err, strings.TrimSpace(complaint.String()))
	}
	var figure struct{ Median float64 }
	if err := json.Unmarshal([]byte(out.String()), &figure); err != nil {
		return nil, fmt.Errorf("%s: %w", ringProgram, err)
	}
	return figures{"mb_per_s": figure.Median}, nil
}
