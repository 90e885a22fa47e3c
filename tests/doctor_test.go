// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// A doctorFinding is an object of `ismfs doctor --json`.
type doctorFinding struct{ Name, Status, Found, Costs, Mend string }

// askDoctor runs `ismfs doctor` and returns what it says of one thing.
func askDoctor(t *testing.T, change func(*exec.Cmd), code int, name string) doctorFinding {
	t.Helper()
	r := execute(t, change, "ismfs", "doctor", "--json")
	r.want(t, code)
	var findings []doctorFinding
	if err := json.Unmarshal([]byte(r.Stdout), &findings); err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("nothing is said of %s: %s", name, r.Stdout)
	return doctorFinding{}
}

// TestDoctorMounts: it says of each mount that does not do all it could what that is, and how to mend it.
func TestDoctorMounts(t *testing.T) {
	off, draining := mountDevice(t, "--sockets=off"), mountDevice(t, "--sockets=off")
	bare, dead := mountDevice(t, "--sockets=off"), mountDevice(t, "--sockets=off")
	for d, state := range map[*device]string{off: "0", draining: "drain"} {
		if err := d.Write("active", state); err != nil {
			t.Fatal(err)
		}
	}
	dead.Kill()
	f := askDoctor(t, nil, 0, "mounts")
	if f.Status != "warn" {
		t.Errorf("status %q", f.Status)
	}
	for text, parts := range map[string][]string{
		f.Found: {off.Point + " (switched off)", draining.Point + " (draining)", bare.Point + " (without sockets)", dead.Point + " (dead)"},
		f.Mend:  {"echo 1 > " + off.Path("active"), "echo 1 > " + draining.Path("active"), "ismfs umount " + bare.Point, "ismfs mount --replace " + dead.Point},
	} {
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%q does not say %q", text, part)
			}
		}
	}
}

// TestDoctorUnprivileged: who may not look says so, and does not say that there is nothing.
func TestDoctorUnprivileged(t *testing.T) {
	mountSMC(t)
	const notPermitted = 4
	f := askDoctor(t, user(1234), notPermitted, "programs")
	if f.Status != "warn" || !strings.Contains(f.Found, "cannot be seen by this user") || !strings.Contains(f.Mend, "sudo ismfs doctor") {
		t.Errorf("an ordinary user's doctor says %+v", f)
	}
}
