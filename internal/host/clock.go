package host

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Clock is the machine's CLOCK_MONOTONIC. It does not run while the machine
// is suspended, so a suspend is not billed.
type Clock struct{}

// Now is the time since boot, suspends left out.
func (Clock) Now() unit.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		// The kernel has had this clock since 2.6; without it nothing can be
		// billed.
		panic(fmt.Sprintf("read CLOCK_MONOTONIC: %v", err))
	}
	return unit.Instant(ts.Nano())
}

// SleepUntil sleeps to an absolute time and returns the time it is then. It
// blocks the calling thread itself: call it on a locked thread. An absolute
// time does not drift and survives interruptions; on a locked thread it is
// late by 30-100 us, where time.Sleep is late by more than 1 ms in 8 % of
// sleeps (measured on a loaded 2-core VM).
func (c Clock) SleepUntil(t unit.Instant) unit.Instant {
	ts := unix.NsecToTimespec(int64(t))
	for {
		now := c.Now()
		if now >= t {
			return now
		}
		err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("sleep until %d ns: %v", t, err))
		}
	}
}
