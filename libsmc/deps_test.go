// SPDX-License-Identifier: Apache-2.0

package libsmc_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/ismfs/ismfs/"

// TestDependencies: who imports this package gets the standard library, golang.org/x/sys and a part of this module, none of it
// the daemon's.
func TestDependencies(t *testing.T) {
	for _, target := range []string{"linux/amd64", "linux/arm64", "darwin/arm64", "windows/amd64"} {
		system, architecture, _ := strings.Cut(target, "/")
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
		cmd.Env = append(cmd.Environ(), "GOOS="+system, "GOARCH="+architecture, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for _, path := range strings.Fields(string(out)) {
			if !allowed(path) {
				t.Errorf("%s: libsmc depends on %s", target, path)
			}
		}
		if !strings.Contains(string(out), module+"libsmc\n") {
			t.Errorf("%s: the list is not of this package: %q", target, out)
		}
	}
}

func allowed(path string) bool {
	if strings.HasPrefix(path, "golang.org/x/sys/") || path == module+"bpf/smcopt" {
		return true
	}
	for _, p := range []string{"libsmc", "smc", "dmb", "tree", "procs"} {
		if path == module+p || strings.HasPrefix(path, module+p+"/") {
			return true
		}
	}
	return false
}
