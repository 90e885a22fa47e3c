// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package stream

func affinity() (count, first int) { return 0, 0 }

func hasCPUQuota() bool { return false }

func yield() {}
