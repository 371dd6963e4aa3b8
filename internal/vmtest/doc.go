// Package vmtest runs Maxwell's tests as root on a kernel of their choice: the
// machine is a QEMU guest, and the guest is thrown away.
//
// It has no code of its own, only a test under the build tag vm:
//
//	go test -tags vm -v ./internal/vmtest
//
// which fetches stock Debian kernels and a static busybox with apt-get (from
// suites of its own, the machine's sources are not touched), builds the named
// packages' test binaries and the maxwell program without cgo, packs all into
// an initial ram disk with the program init as the first process, boots each
// kernel under qemu-system-x86_64 with a full cgroup v2 tree, and reports each
// binary as a sub-test. The guest has no disk, no network and no share: the
// host is touched in a temporary directory and in the cache of downloaded
// packages only. A kernel panic, an oops, a binary that is late, a guest that
// falls silent and a skipped test that is not in a short list are failures.
//
// What runs is said by the environment; see settings in vm_test.go.
//
// # Time
//
// QEMU emulates (TCG): /dev/kvm of a hosted machine may exist and not work.
// The guest's clock does not follow the host's: it advances 2 ns with each
// instruction and leaps over idle time (-icount shift=1,sleep=off). With a
// clock that follows the host's, a guest that is kept off its processors for
// 50 ms sees one of its tasks run for 50 ms, and no weight can put that right:
// on a busy 2-core VM grants of 75/25 were delivered as 45/55, and 6.1 and 6.18
// alike give 75/25 within 2 points when instructions are counted, at load 3 as
// at load 50. So the guest needs no looser bounds than a machine, a run that failed
// fails again, and an overloaded host makes it slow, not red.
//
// The price is that one processor is emulated at a time: two take turns within
// a tick. Kernels before 6.5 wait for their second processor in a loop that
// never ends then, and get one.
package vmtest
