package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Urgency is a rank of scheduling, worst to best.
type Urgency uint8

// Ranks of the epoch thread.
const (
	UrgencyNormal Urgency = iota
	UrgencyNice           // nice -20
	UrgencyFIFO           // SCHED_FIFO 10
)

func (u Urgency) String() string {
	return [...]string{"normal", "nice -20", "fifo 10"}[u]
}

// Priority is what a thread got from RaisePriority.
type Priority struct {
	Urgency Urgency
	Why     error // nil with FIFO, else an *Unavailable that says why not
	old     *unix.SchedAttr
}

// fifoLevel is above ordinary real-time threads (1) and below the kernel's own
// interrupt threads (50).
const fifoLevel = 10

// RaisePriority gives the calling thread the best priority allowed: FIFO 10,
// else nice -20, else what it has. The caller has locked its goroutine to the
// thread and calls Restore on the same one. RESET_ON_FORK is always set: a
// workload born FIFO would outrun the market.
func RaisePriority() Priority {
	old, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return Priority{Why: refuse(FeatureFIFO, "read the thread's scheduling", err, "")}
	}
	fifo := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO,
		Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: fifoLevel,
	}
	err = unix.SchedSetAttr(0, &fifo, 0)
	if err == nil {
		return Priority{Urgency: UrgencyFIFO, old: old}
	}
	why := refuse(FeatureFIFO, "set SCHED_FIFO", err, fifoHint)
	nice := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL,
		Flags: unix.SCHED_FLAG_RESET_ON_FORK, Nice: -20,
	}
	if unix.SchedSetAttr(0, &nice, 0) == nil {
		return Priority{Urgency: UrgencyNice, Why: why, old: old}
	}
	return Priority{Why: why}
}

// serviceNice is how the threads of a service stand before the workloads that it
// governs: they are few and short, and whoever waits for them holds something.
const serviceNice = -10

// RaiseService gives every thread of this process, and those it starts later, a
// better nice value where that is allowed; where it is not, all stays as it
// was. The epoch thread has its own, better rank (RaisePriority).
func RaiseService() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list own threads: %w", err)
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		err = unix.Setpriority(unix.PRIO_PROCESS, tid, serviceNice)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("raise a thread to nice %d: %w", serviceNice, err)
		}
	}
	return nil
}

// String is the urgency, and why it is not better.
func (p Priority) String() string {
	if p.Why == nil {
		return p.Urgency.String()
	}
	return fmt.Sprintf("%s (%v)", p.Urgency, p.Why)
}

// Restore puts the calling thread back to what it was.
func (p Priority) Restore() error {
	if p.old == nil {
		return nil
	}
	return restorePriority(p.old)
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
