// SPDX-License-Identifier: Apache-2.0

package device

import (
	"os"
	"path/filepath"
	"testing"
)

// Where the kernel gives no pages between 4 KiB and 2 MiB, as by default, nobody's fstat waits for a look into the page tables.
func TestAnySmallFolios(t *testing.T) {
	const never = "always inherit within_size advise [never]\n"
	for _, c := range []struct {
		top, of64k, of2m string
		want             bool
	}{
		{"always within_size advise [never] deny force\n", never, "always [inherit] within_size advise never\n", false}, // the kernel's default
		{"always within_size [advise] never deny force\n", never, "always [inherit] within_size advise never\n", false},
		{"always within_size advise [never] deny force\n", "always inherit within_size [advise] never\n", never, true},
		{"always within_size [advise] never deny force\n", "always [inherit] within_size advise never\n", never, true},
		{"always within_size advise [never] deny force\n", "always [inherit] within_size advise never\n", never, false},
		{"always within_size advise never [deny] force\n", "always [inherit] within_size advise never\n", never, false},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"": c.top, "hugepages-64kB": c.of64k, "hugepages-2048kB": c.of2m} {
			if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name, "shmem_enabled"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := anySmallFolios(dir); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
	if anySmallFolios(t.TempDir()) {
		t.Error("a kernel without such settings gives pages")
	}
}
