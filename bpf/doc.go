// SPDX-License-Identifier: Apache-2.0

// Package bpf puts the SMC TCP option into the handshakes of ordinary TCP sockets: it loads, attaches, shares and removes the
// eBPF programs of ismfs.bpf.c. Package smcopt is how a socket talks to them.
//
// One set of programs serves every device of a host. It is pinned in bpffs, so that it outlives the daemons:
//
//	/sys/fs/bpf/ismfs            locked (flock) while anything below is changed
//	/sys/fs/bpf/ismfs/v2         one set; the number is that of the maps' layout
//	    maps/*  links/*          pinned
//	    devices/<tag>            a directory for each device, locked by its daemon as long as that lives
//	        idle                 an empty one: no process uses the device
//
// A daemon's life: [Attach] makes the set or joins it and adds the device's tag; [Registration.Withdraw] takes the tag back, so
// that no SYN is answered any more; [Registration.Close] leaves, and removes the set if no other daemon lives and no socket
// still needs it. A daemon that dies leaves its tag and the programs as they are.
//
// In between the programs are attached while a process uses a device of the host ([Registration.Use]) or a socket needs them,
// and not while all rest ([Registration.Rest]): their links are pinned in links/ or are not there.
package bpf
