// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"time"
)

// prepareSpin is the other work on a busy machine: a process that computes until it is ended.
func prepareSpin(*worker) (measure, error) {
	go func() {
		for {
		}
	}()
	return nil, nil
}

// startBusy starts a process on each CPU that does nothing but use it, and returns what ends them.
func startBusy(ctx context.Context, command []string) (end func() error, err error) {
	cpus, err := ownCPUs()
	if err != nil {
		return nil, err
	}
	var all []*process
	end = func() error {
		for _, p := range all {
			p.stop()
		}
		return nil
	}
	for _, cpu := range cpus {
		p, err := start(command, "other work", "", []int{cpu})
		if err == nil {
			all = append(all, p)
			err = p.do(task{Activity: "spin"})
		}
		if err == nil {
			_, err = p.want(ctx, eventReady, time.Minute, nil)
		}
		if err != nil {
			end()
			return nil, err
		}
	}
	return end, nil
}
