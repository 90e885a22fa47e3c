// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Control files read and write as sysfs files do: text, one value, a newline at the end.

func (d *Device) path(name string) string {
	return filepath.Join(d.Dir(), filepath.FromSlash(name))
}

func (d *Device) read(name string) (string, error) {
	text, err := os.ReadFile(d.path(name))
	return strings.TrimSuffix(string(text), "\n"), err
}

func (d *Device) readLines(name string) ([]string, error) {
	text, err := d.read(name)
	if text == "" {
		return nil, err
	}
	return strings.Split(text, "\n"), err
}

func (d *Device) readUint(name string, base, bits int) (uint64, error) {
	text, err := d.read(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, base, bits)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", d.path(name), err)
	}
	return n, nil
}

// readSetting reads a control whose value is a digit and what it means, as in "0: Physically contiguous buffer".
func (d *Device) readSetting(name string) (int, error) {
	text, err := d.read(name)
	if err != nil {
		return 0, err
	}
	switch digit, _, _ := strings.Cut(text, ":"); digit {
	case "0":
		return 0, nil
	case "1":
		return 1, nil
	}
	return 0, d.unexpected(name, text)
}

func (d *Device) unexpected(name, text string) error {
	return fmt.Errorf("%s reads %q, which this program does not know", d.path(name), text)
}

// write writes one value in one write, as echo does; the device answers that write with its verdict.
func (d *Device) write(name, value string) error {
	if err := writeControl(d.path(name), value); err != nil {
		return fmt.Errorf("value %q: %w", value, err)
	}
	return nil
}

func writeControl(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}
