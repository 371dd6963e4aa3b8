package host

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPoll: it waits as long as it is told, wakes for a descriptor, and the rest
// of the program goes on meanwhile, garbage collection included.
func TestPoll(t *testing.T) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: -1}}
	poll := func(timeout time.Duration) int {
		for {
			n, err := Poll(fds, timeout)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	from := time.Now()
	if n := poll(20 * time.Millisecond); n != 0 || time.Since(from) < 20*time.Millisecond {
		t.Errorf("nothing was ready: %d after %v, want 0 after 20 ms", n, time.Since(from))
	}
	if n := poll(-time.Second); n != 0 {
		t.Errorf("%d ready at once, want 0", n)
	}
	var others sync.WaitGroup
	for range runtime.GOMAXPROCS(0) + 1 { // as many as there are processors, and this one
		others.Go(func() {
			runtime.GC()
			one := [8]byte{1}
			if _, err := unix.Write(fd, one[:]); err != nil {
				t.Error(err)
			}
		})
	}
	if n := poll(time.Minute); n != 1 || fds[0].Revents != unix.POLLIN {
		t.Errorf("%d ready, the first with %#x, want 1 with POLLIN", n, fds[0].Revents)
	}
	others.Wait()
	fds[0].Fd = int32(fd) + 1000
	if n := poll(0); n != 1 || fds[0].Revents != unix.POLLNVAL {
		t.Errorf("a descriptor that is not open: %d ready with %#x, want 1 with POLLNVAL", n, fds[0].Revents)
	}
}
