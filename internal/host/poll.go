package host

import (
	"syscall"
	"time"
	"unsafe" // for go:linkname, and for the arguments of a system call

	"golang.org/x/sys/unix"
)

// Poll waits until one of fds is ready or timeout has passed, as ppoll(2) does,
// and returns how many are ready. It is for the one thread that wakes many
// times a second: before it waits it gives its processor back to the Go
// runtime. From an ordinary system call the runtime takes the processor after
// 10 ms, and until it has, and each time after it did, its monitor thread wakes
// every 20 us for about a millisecond. In a market of 1,000 workloads that
// monitor cost as much as the market's own tick (decision 0009).
//
// A signal ends the wait early: EINTR.
func Poll(fds []unix.PollFd, timeout time.Duration) (int, error) {
	ts := unix.NsecToTimespec(int64(max(0, timeout)))
	n, errno := blockingPoll(unsafe.SliceData(fds), len(fds), &ts)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// blockingPoll is the body of syscall.Syscall6 with the runtime's other
// announcement. Between the two nothing may grow the stack.
//
//go:nosplit
//go:norace
func blockingPoll(fds *unix.PollFd, count int, ts *unix.Timespec) (uintptr, syscall.Errno) {
	entersyscallblock()
	n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fds)), uintptr(count), uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	exitsyscall()
	return n, errno
}

// The runtime keeps the names and the signatures of these two for its users
// (go.dev/issue/67401).

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()
