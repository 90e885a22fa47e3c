// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// What the counters were when the user reset them stands in a file of the user's own, as smcd's does in /tmp/.smcstats.uUID.
// It has another name, since smcd gives up on a file that it cannot read. It lies where everybody can make files, so it is
// used only if it is a regular file that belongs to the user and that nobody else can write.

// baselineDir is where the file lies.
var baselineDir = "/tmp"

const (
	mostBaselines    = 16      // devices; the GID of each mount is a new one
	mostBaselineFile = 1 << 20 // bytes that are read
)

// A baseline is what a device's counters were.
type baseline struct {
	GID  string    `json:"gid"`
	Time time.Time `json:"time"`
	statistic
}

func baselinePath() string {
	return filepath.Join(baselineDir, fmt.Sprintf(".ismfsstats.u%d", os.Getuid()))
}

// openBaselines opens the file and locks it until it is closed.
func openBaselines(flags int) (*os.File, error) {
	path := baselinePath()
	// O_NONBLOCK: a FIFO that somebody has put there must not hold us up.
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	err = checkBaselines(f)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func checkBaselines(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a regular file: remove it")
	case int(st.Uid) != os.Getuid():
		return fmt.Errorf("the file belongs to uid %d: have it removed", st.Uid)
	case st.Mode&0o077 != 0:
		return fmt.Errorf("the file is open to others (mode %o): remove it", st.Mode&0o777)
	case st.Nlink != 1:
		return errors.New("the file has several names: remove it")
	}
	return nil
}

// loadBaselines reads them all. A file that cannot be understood holds none: a reset makes it good.
func loadBaselines(f *os.File) ([]baseline, error) {
	text, err := io.ReadAll(io.LimitReader(f, mostBaselineFile))
	if err != nil {
		return nil, err
	}
	var list []baseline
	if json.Unmarshal(text, &list) != nil {
		return nil, nil
	}
	return list, nil
}

// readBaseline returns what a device's counters were when the user reset them last, nil if there was no reset.
func readBaseline(gid string) (*statistic, error) {
	f, err := openBaselines(os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := loadBaselines(f)
	if err != nil {
		return nil, err
	}
	for _, b := range list {
		if b.GID == gid {
			return &b.statistic, nil
		}
	}
	return nil, nil
}

// writeBaseline notes down what a device's counters are.
func writeBaseline(gid string, s statistic) error {
	f, err := openBaselines(os.O_RDWR | os.O_CREATE)
	if err != nil {
		return err
	}
	list, err := loadBaselines(f)
	if err == nil {
		list = slices.DeleteFunc(list, func(b baseline) bool { return b.GID == gid })
		list = append(list, baseline{GID: gid, Time: time.Now().UTC().Truncate(time.Second), statistic: s})
		list = list[max(0, len(list)-mostBaselines):]
		err = storeBaselines(f, list)
	}
	return errors.Join(err, f.Close())
}

func storeBaselines(f *os.File, list []baseline) error {
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(text, '\n'), 0)
	return err
}
