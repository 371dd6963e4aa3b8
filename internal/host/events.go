package host

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// WaitEvent waits until a key of a file such as cgroup.events has the wanted
// value ("populated" 0, "frozen" 1). The kernel announces each change on the
// file, so nothing is polled by time. It returns false when the timeout passes
// first.
func WaitEvent(path, key string, want int64, timeout time.Duration) (bool, error) {
	f, err := OpenFile(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for end := time.Now().Add(timeout); ; {
		// Reading arms the notification: a change after this is not missed.
		v, err := f.ReadKey(key)
		if err != nil {
			return false, err
		}
		if v == want {
			return true, nil
		}
		left := time.Until(end)
		if left <= 0 {
			return false, nil
		}
		wait := []unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLPRI}}
		if _, err := unix.Poll(wait, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("wait for %s: %w", path, err)
		}
	}
}
