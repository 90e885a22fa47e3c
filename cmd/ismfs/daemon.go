// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"math"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/tree"
)

// A daemon in the background is this program again, with --foreground, in a session of its own. It says that the tree is
// mounted by a line on a pipe; until then its standard error is the caller's, so that the caller sees why it failed.
const (
	readyVariable = "ISMFS_READY_FD"
	readyFD       = 3 // the first of exec.Cmd.ExtraFiles
	readyWord     = "mounted\n"
	answerTimeout = 10 * time.Second
)

// startDaemon starts the daemon with the flags that are set, and returns when the tree answers.
func startDaemon(point string, flags *pflag.FlagSet) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, daemonArgs(point, flags)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", readyVariable, readyFD))
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What the caller left open is not for the daemon: a lock on such a descriptor would be held as long as the mount lasts.
	if err := unix.CloseRange(readyFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	w.Close()
	word, err := io.ReadAll(r)
	if err != nil || string(word) != readyWord {
		return daemonFailed(cmd.Wait())
	}
	if err := waitForAnswer(point); err != nil {
		return fmt.Errorf("the daemon (pid %d) runs, but the tree does not answer: %w", cmd.Process.Pid, err)
	}
	return cmd.Process.Release()
}

// errReported is an error whose text the daemon has written to standard error itself.
var errReported = errors.New("the daemon did not start")

func daemonFailed(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return withCode(exit.ExitCode(), errReported)
	}
	return fmt.Errorf("the daemon ended before the tree was mounted: %v", err)
}

// daemonArgs are the arguments for the daemon: the flags that are set, in the foreground. The mount point has been cleared
// and resolved already.
func daemonArgs(point string, flags *pflag.FlagSet) []string {
	args := []string{"mount"}
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "options", "replace", "foreground": // options have set the others
		default:
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return append(args, "--foreground", "--", point)
}

// waitForAnswer reads the tree as any client does.
func waitForAnswer(point string) error {
	answer := make(chan error, 1)
	go func() {
		d, err := tree.Find(point)
		if err == nil {
			_, err = d.GID()
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-time.After(answerTimeout):
		return fmt.Errorf("no answer within %v", answerTimeout)
	}
}

// readyPipe returns the pipe on which the starter waits; nil without one.
func readyPipe() *os.File {
	if os.Getenv(readyVariable) != fmt.Sprint(readyFD) {
		return nil
	}
	os.Unsetenv(readyVariable)
	unix.CloseOnExec(readyFD)
	return os.NewFile(readyFD, "ready pipe")
}

// tellReady lets the starter go on, and lets go of its standard error.
func tellReady(ready *os.File) error {
	if ready == nil {
		return nil
	}
	defer ready.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), int(os.Stderr.Fd()), 0); err != nil {
		return fmt.Errorf("letting go of standard error: %w", err)
	}
	_, err = io.WriteString(ready, readyWord)
	return err
}

// syslogHandler logs to syslog if there is one, else nowhere.
func syslogHandler(opts *slog.HandlerOptions) slog.Handler {
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "ismfs")
	if err != nil {
		return slog.DiscardHandler
	}
	opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{} // syslog has its own
		}
		return a
	}
	return slog.NewTextHandler(w, opts)
}
