package hosttest

import (
	"fmt"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// DialAs connects to a unix socket as another user, which only root can. The kernel
// notes of a connection who the connecting thread is: one thread is that user for a
// moment.
func DialAs(uid int, socket string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := euid(uid); err != nil {
		return nil, err
	}
	c, err := net.Dial("unix", socket)
	if e := euid(0); e != nil {
		panic(fmt.Sprintf("hosttest: be root again: %v", e))
	}
	return c, err
}

// euid changes the effective user of this thread alone.
func euid(uid int) error {
	const same = ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); e != 0 {
		return fmt.Errorf("be user %d: %w", uid, e)
	}
	return nil
}
