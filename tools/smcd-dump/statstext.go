// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ismfs/ismfs/smc"
)

// statsText is what `smcd stats` prints: print_as_text of smc-tools' stats.c.
func statsText(s statistic, details bool) string {
	t := statsPrinter{statistic: s, details: details}
	t.connections()
	t.direction("RX")
	t.direction("TX")
	t.extras()
	return t.String()
}

type statsPrinter struct {
	strings.Builder
	statistic
	details bool
}

// of is a counter by its name without SMC_.
func (t *statsPrinter) of(name string) uint64 { return t.SMCD["SMC_"+name] }

// row prints a number, and what the format says of it.
func (t *statsPrinter) row(name string, v uint64, format string, more ...any) {
	fmt.Fprintf(t, "  %-27s%12d%s\n", name, v, fmt.Sprintf(format, more...))
}

// split is how a number divides between client and server, which only details say.
func (t *statsPrinter) split(name string, client, server uint64) {
	if !t.details {
		t.row(name, client+server, "")
		return
	}
	t.row(name, client+server, " (client %d, server %d)", client, server)
}

func (t *statsPrinter) detail(name string, v uint64) {
	if t.details {
		t.row(name, v, "")
	}
}

func (t *statsPrinter) bytes(name string, v uint64) {
	fmt.Fprintf(t, "  %-25s%14d (%s)\n", name, v, abbreviated(v))
}

// share prints a number and its percentage of all, computed as the tool does: in float, which has seven digits.
func (t *statsPrinter) share(name string, v, all uint64) {
	var percent float32
	if all > 0 {
		percent = float32(float64(v) / float64(all) * 100)
	}
	t.row(name, v, " (%.2f%%)", percent)
}

func (t *statsPrinter) connections() {
	h := &t.Handshake
	v1c, v1s := t.of("CLNT_V1_SUCC_CNT"), t.of("SRV_V1_SUCC_CNT")
	v2c, v2s := t.of("CLNT_V2_SUCC_CNT"), t.of("SRV_V2_SUCC_CNT")
	conns, errs := v1c+v1s+v2c+v2s, h.ClientErrors+h.ServerErrors
	client, server := sum(h.ClientFallback), sum(h.ServerFallback)
	var average float32
	if conns > 0 {
		average = float32(float64(t.of("RX_CNT")+t.of("TX_CNT")) / float64(conns))
	}
	t.WriteString("SMC-D Connections Summary\n")
	t.row("Total connections handled", conns+errs+client+server, "")
	t.split("SMC connections", v1c+v2c, v1s+v2s)
	t.detail("  v1", v1c+v1s)
	t.detail("  v2", v2c+v2s)
	t.split("Handshake errors", h.ClientErrors, h.ServerErrors)
	fmt.Fprintf(t, "  %-27s%14.1f\n", "Avg requests per SMC conn", average)
	t.split("TCP fallback", client, server)
	if t.details {
		t.reasons("Server", h.ServerFallback)
		t.reasons("Client", h.ClientFallback)
	}
	t.WriteByte('\n')
}

func sum(m map[string]uint64) (total uint64) {
	for _, n := range m {
		total += n
	}
	return total
}

// reasons prints the three reasons that were met most often.
func (t *statsPrinter) reasons(caption string, counts map[string]uint64) {
	const most = 3
	var met []smc.DeclineCode
	for _, code := range smc.DeclineCodes {
		if counts[code.String()] > 0 {
			met = append(met, code)
		}
	}
	slices.SortStableFunc(met, func(a, b smc.DeclineCode) int { return cmp.Compare(counts[b.String()], counts[a.String()]) })
	for i, code := range met[:min(len(met), most)] {
		if i == 0 {
			fmt.Fprintf(t, "    %s\n", caption)
		}
		name, _ := code.StatsName()
		fmt.Fprintf(t, "     %-12s            %12d\n", name, counts[code.String()])
	}
}

func (t *statsPrinter) direction(dir string) {
	calls := t.of(dir + "_CNT")
	buffers := func(event string) uint64 { return t.of("INT_" + dir + "_BUF_" + event + "_CNT") }
	fmt.Fprintf(t, "%s Stats\n", dir)
	t.bytes("Data transmitted (Bytes)", t.of(dir+"_BYTES"))
	t.row("Total requests", calls, "")
	t.bytes("Buffer usage (Bytes)", t.of(dir+"_RMB_USAGE"))
	t.share("Buffer full", buffers("FULL"), calls)
	if dir == "TX" {
		t.share("Buffer full (remote)", buffers("FULL_PEER"), calls)
		t.share("Buffer too small", buffers("SIZE_SM"), calls)
		t.share("Buffer too small (remote)", buffers("SIZE_SM_PEER"), calls)
	}
	t.detail("Buffer downgrades", buffers("DGRADE"))
	t.detail("Buffer reuses", buffers("REUSE"))
	t.WriteString("            8KB    16KB    32KB    64KB   128KB   256KB   512KB  >512KB\n")
	t.sizes("Bufs", "INT_"+dir+"_BUF_")
	t.sizes("Reqs", "USR_"+dir+"_BUF_")
	t.WriteByte('\n')
}

// sizes prints how often each size came. The two largest stand together.
func (t *statsPrinter) sizes(name, prefix string) {
	fmt.Fprintf(t, "  %-6s ", name)
	for i, size := range []string{"8K", "16K", "32K", "64K", "128K", "256K", "512K", "1024K"} {
		n := t.of(prefix + size)
		if size == "1024K" {
			n += t.of(prefix + "G_1024K")
		}
		if i > 0 {
			t.WriteString("  ")
		}
		fmt.Fprintf(t, "%6s", abbreviated(n))
	}
	t.WriteByte('\n')
}

func (t *statsPrinter) extras() {
	calls := []struct{ name, counter string }{
		{"cork", "CORK_CNT"}, {"nodelay", "NDLY_CNT"}, {"sendpage", "SENDPAGE_CNT"}, {"splice", "SPLICE_CNT"}, {"urgent data", "URG_DATA_CNT"},
	}
	var total uint64
	for _, c := range calls {
		total += t.of(c.counter)
	}
	t.WriteString("Extras\n")
	t.row("Special socket calls", total, "")
	for _, c := range calls {
		t.detail("  "+c.name, t.of(c.counter))
	}
}
