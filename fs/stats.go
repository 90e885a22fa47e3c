// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"bytes"
	"encoding/json"
	"os"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/ismfs/ismfs/device"
)

// deviceStats is the "device" object of the stats file.
type deviceStats struct {
	Version        string               `json:"version"`
	PID            int                  `json:"pid"`
	UptimeSeconds  int64                `json:"uptime_seconds"`
	Goroutines     int                  `json:"goroutines"`
	HeapLiveBytes  uint64               `json:"heap_live_bytes"`
	State          string               `json:"state"`
	Epoch          uint64               `json:"epoch"`
	DMBs           int                  `json:"dmbs"`
	Bytes          int64                `json:"bytes"`
	MaxDMBs        int                  `json:"max_dmbs"`
	MaxDMBsPerUID  int                  `json:"max_dmbs_per_uid"`
	MaxDMBSize     int64                `json:"max_dmb_size"`
	MaxBytes       int64                `json:"max_bytes"`
	MaxBytesPerUID int64                `json:"max_bytes_per_uid"`
	Processes      []device.ProcessInfo `json:"processes"`
	Liars          []device.Liar        `json:"liars"`
}

// showStats is `smcd stats json` and, beside its "SMCD" object, how handshakes failed and how the device stands.
func (t *tree) showStats(c device.Caller) (string, error) {
	s := t.dev.Statistics(c)
	dev, err := json.Marshal(deviceStats{
		Version: t.opts.Version, PID: os.Getpid(), UptimeSeconds: int64(time.Since(s.Started).Seconds()),
		Goroutines: runtime.NumGoroutine(), HeapLiveBytes: heapLive(),
		State: s.State.String(), Epoch: s.Epoch, DMBs: s.DMBs, Bytes: s.Bytes,
		MaxDMBs: s.Limits.MaxDMBs, MaxDMBsPerUID: s.Limits.MaxDMBsPerUID, MaxDMBSize: s.Limits.MaxDMBSize,
		MaxBytes: s.Limits.MaxBytes, MaxBytesPerUID: s.Limits.MaxBytesPerUID,
		// Lists, not null, where there is nothing.
		Processes: append([]device.ProcessInfo{}, s.Processes...),
		Liars:     append([]device.Liar{}, s.Liars...),
	})
	if err != nil {
		return "", err
	}
	smcd, err := orderedObject(s.Counters)
	if err != nil {
		return "", err
	}
	handshake, err := json.Marshal(s.Handshake)
	if err != nil {
		return "", err
	}
	return `{"SMCD":` + smcd + `,"handshake":` + string(handshake) + `,"device":` + string(dev) + "}\n", nil
}

// heapLive returns the bytes of live objects that the last garbage collection found.
func heapLive() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// orderedObject keeps the counters in smcd's order, which encoding/json would sort.
func orderedObject(counters []device.Counter) (string, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, c := range counters {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(c.Name)
		if err != nil {
			return "", err
		}
		value, err := json.Marshal(c.Value)
		if err != nil {
			return "", err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.String(), nil
}
