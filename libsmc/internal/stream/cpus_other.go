// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package stream

func affinity() int { return 0 }

func hasCPUQuota() bool { return false }
