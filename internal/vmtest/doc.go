// Package vmtest runs Maxwell's tests as root on a kernel of their choice: the
// machine is a QEMU guest, and the guest is thrown away.
//
// It has no code of its own, only a test under the build tag vm:
//
//	go test -tags vm -v ./internal/vmtest
//
// which fetches a stock Debian kernel and a static busybox with apt-get,
// builds the named packages' test binaries and the maxwell program without
// cgo, packs all into an initial ram disk with the program init as the first
// process, boots it under qemu-system-x86_64 with two processors and a full
// cgroup v2 tree, and reports each binary as a sub-test. The guest has no
// disk, no network and no share: the host is touched in a temporary directory
// and in the cache of downloaded packages only. A kernel panic, an oops, a
// binary that is late and a guest that falls silent are failures.
//
// What runs is said by the environment; see settings in vm_test.go.
//
// QEMU emulates (TCG): /dev/kvm of a hosted machine may exist and not work, and
// the emulation is fast enough (arithmetic at 0.8 of native, system calls at
// 0.4, boot to init 2-4 s on a 2-core VM).
package vmtest
