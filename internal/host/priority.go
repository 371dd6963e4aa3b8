package host

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Priority is how a thread is scheduled.
type Priority uint8

// Priorities of the epoch thread, worst to best.
const (
	PriorityNormal Priority = iota
	PriorityNice            // nice -20
	PriorityFIFO            // SCHED_FIFO 10
)

func (p Priority) String() string {
	return [...]string{"normal", "nice -20", "fifo 10"}[p]
}

// fifoLevel is above ordinary real-time threads (1) and below the kernel's own
// interrupt threads (50).
const fifoLevel = 10

// RaisePriority gives the calling thread the best priority allowed: FIFO 10,
// else nice -20, else what it has. The caller has locked its goroutine to the
// thread. RESET_ON_FORK is always set: a workload born FIFO would outrun the
// market. The error is nil with FIFO, else an *Unavailable that says why not.
// restore puts the thread back.
func RaisePriority() (p Priority, restore func() error, why error) {
	old, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return PriorityNormal, func() error { return nil },
			refuse(FeatureFIFO, "read the thread's scheduling", err, "")
	}
	restore = func() error { return restorePriority(old) }
	fifo := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO,
		Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: fifoLevel,
	}
	err = unix.SchedSetAttr(0, &fifo, 0)
	if err == nil {
		return PriorityFIFO, restore, nil
	}
	refusal := refuse(FeatureFIFO, "set SCHED_FIFO", err, fifoHint)
	nice := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL,
		Flags: unix.SCHED_FLAG_RESET_ON_FORK, Nice: -20,
	}
	if unix.SchedSetAttr(0, &nice, 0) == nil {
		return PriorityNice, restore, refusal
	}
	return PriorityNormal, restore, refusal
}

const fifoHint = "run as root in the root cpu cgroup, or grant CAP_SYS_NICE; epochs are up to some ms late without it"

// restorePriority sets the old attributes. Clearing RESET_ON_FORK needs
// CAP_SYS_NICE, which a thread that got FIFO by resource limit lacks; the flag
// then stays, which is harmless.
func restorePriority(old *unix.SchedAttr) error {
	err := unix.SchedSetAttr(0, old, 0)
	if errors.Is(err, unix.EPERM) {
		kept := *old
		kept.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
		err = unix.SchedSetAttr(0, &kept, 0)
	}
	if err != nil {
		return fmt.Errorf("restore the thread's scheduling: %w", err)
	}
	return nil
}
