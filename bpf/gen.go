// SPDX-License-Identifier: Apache-2.0

package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel,bpfeb -no-global-types -cflags "-O2 -g -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" ismfs ismfs.bpf.c
//go:generate sed -i "1i // SPDX-License-Identifier: Apache-2.0\\n" ismfs_bpfel.go ismfs_bpfeb.go
