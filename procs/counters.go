// SPDX-License-Identifier: Apache-2.0

package procs

// CounterNames are the names of the counters: the keys of `smcd stats json`, in the tool's order.
var CounterNames = func() []string {
	sizes := []string{"8K", "16K", "32K", "64K", "128K", "256K", "512K", "1024K", "G_1024K"}
	events := []string{"SIZE_SM_PEER_CNT", "SIZE_SM_CNT", "FULL_PEER_CNT", "FULL_CNT", "REUSE_CNT", "ALLOC_CNT", "DGRADE_CNT"}
	var names []string
	for _, group := range []struct {
		prefix string
		of     []string
	}{
		{"SMC_INT_TX_BUF_", sizes}, {"SMC_INT_RX_BUF_", sizes}, {"SMC_USR_TX_BUF_", sizes}, {"SMC_USR_RX_BUF_", sizes},
		{"SMC_INT_TX_BUF_", events}, {"SMC_INT_RX_BUF_", events},
	} {
		for _, s := range group.of {
			names = append(names, group.prefix+s)
		}
	}
	return append(names,
		"SMC_CLNT_V1_SUCC_CNT", "SMC_CLNT_V2_SUCC_CNT", "SMC_SRV_V1_SUCC_CNT", "SMC_SRV_V2_SUCC_CNT",
		"SMC_SENDPAGE_CNT", "SMC_URG_DATA_CNT", "SMC_SPLICE_CNT", "SMC_CORK_CNT", "SMC_NDLY_CNT",
		"SMC_RX_BYTES", "SMC_TX_BYTES", "SMC_RX_CNT", "SMC_TX_CNT", "SMC_RX_RMB_USAGE", "SMC_TX_RMB_USAGE")
}()
