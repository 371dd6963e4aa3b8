// Package dispatch turns the market's allocations into enforcement: it names
// what every rung of the enforcement ladder has to offer, so that the node can
// hold one without knowing which.
//
// The rungs are packages below this one. A rung makes one Group for each
// workload before the workload starts, is told the shares of every epoch by
// Apply, and takes the group away when the workload is dead. Starting the
// process is the business of whoever owns its terminal (package launch): the
// rung only says where to start it, as a Placement that can travel over a
// socket.
package dispatch

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// ErrClosed is returned by a group or an enforcer that was already taken away.
var ErrClosed = errors.New("closed")

// ErrPopulated is returned where a tree that was killed is not yet empty. It
// is a matter of milliseconds: repeat the call in the next epoch.
var ErrPopulated = errors.New("processes still alive")

// ErrRunning is returned where a tree that was frozen does not stop in time.
var ErrRunning = errors.New("still running")

// Limits are a workload's hard caps; zero means not limited.
type Limits struct {
	Memory unit.Bytes      // resident and page cache, swap forbidden where the kernel can
	Pids   int64           // processes and threads
	Cores  unit.MilliCores // most cores at any moment
}

// Placement is where a process has to be started to be governed. It is made by
// the node and used by the client that owns the terminal.
type Placement struct {
	Enforcement string   // "cgroup" or "signal"
	Cgroup      string   // v2 directory to be born in; empty if there is none
	Tasks       []string // v1 tasks files that the forking thread joins first
	Home        []string // v1 tasks files to which the node's own threads belong; a client finds its own
	CPUs        []int    // processors that are sold; empty means all of them
	Control     string   // signal rung: unix socket of the shim
	Moved       bool     // the market moves the process: start it outside, waiting
	Namespace   bool     // signal rung: start in a user and pid namespace
}

// Share is what the market says about one group: its standing for the coming
// epoch, and what it did in the one that just ended.
type Share struct {
	Slot    int
	Neutral bool          // not enforced: as the machine has a new one; what follows does not count
	Class   uint8         // market.Class of the coming epoch
	Tier    uint8         // of a loser: 0 is nearest to the margin
	Granted unit.CoreTime // for the coming epoch, floor included
	Used    unit.CoreTime // metered run time since the last Apply
	Demand  unit.CoreTime // metered run and runnable waiting since the last Apply
}

// Counters are a group's cumulative counters as the kernel keeps them. A
// counter that this machine does not have stays zero; Description.Missing
// names it.
type Counters struct {
	CPU         unit.CoreTime
	PeakMemory  unit.Bytes
	OOMKills    uint64
	Processes   int64 // and threads, now; 0 where nobody counts them
	PidsRefused uint64
}

// Group is the enforcement of one workload. Its methods may be called from any
// goroutine; none of them waits for a process except Kill where the kernel
// has no cgroup.kill, and Remove.
type Group interface {
	// Placement says where to start the workload's processes.
	Placement() Placement
	// Ref names the group to the meter.
	Ref() host.CgroupRef
	// Freeze stops every process of the group, now.
	Freeze() error
	// Thaw lets a frozen group run, whoever froze it.
	Thaw() error
	// Lane opens or closes the dying lane: a little processor time at the
	// highest priority, so that a SIGTERM handler can finish.
	Lane(on bool) error
	// Signal sends a signal to every process of the group.
	Signal(sig syscall.Signal) error
	// Kill ends every process of the group, frozen or not.
	Kill() error
	// Populated reports whether a live process is left.
	Populated() (bool, error)
	// Counters reads the kernel's counters.
	Counters() (Counters, error)
	// PeakMemory is that counter alone, which costs less.
	PeakMemory() (unit.Bytes, error)
	// Remove takes an empty group away; ErrPopulated if it is not empty.
	Remove() error
}

// Enforcer is one rung of the ladder.
type Enforcer interface {
	// Open makes the group of a workload. The slot is the index by which
	// Apply's shares name it.
	Open(slot int, name string, l Limits) (Group, error)
	// Apply enforces one epoch. elapsed is the time since the last call.
	Apply(elapsed time.Duration, shares []Share) error
	// Describe says what this rung can hold and what it cannot.
	Describe() Description
	// Close takes away everything the enforcer made.
	Close() error
}

// Lasting is a group that can outlive its daemon.
type Lasting interface {
	Group
	// Directory is the name by which the next daemon adopts the group.
	Directory() string
	// Settle freezes the tree and waits until its counters stand still;
	// ErrRunning if they do not in time. The caller thaws.
	Settle(patience time.Duration) error
}

// Guest is a group that others made.
type Guest interface {
	Lasting
	// Govern changes whether the group is governed or only observed; what was
	// changed of it is given back before it is only observed.
	Govern(on bool) error
}

// Keeper is a rung whose workloads can outlive the daemon.
type Keeper interface {
	Enforcer
	// Found names the groups that a dead daemon left, not yet adopted or
	// discarded.
	Found() []string
	// Adopt reopens one of them; fs.ErrNotExist if it is gone. A frozen one
	// stays frozen until Thaw.
	Adopt(slot int, directory string, l Limits) (Group, error)
	// Discard ends what is in one of them and takes it away.
	Discard(directory string) error
	// Attach makes a group of a directory that others made; an observed one is
	// never written to.
	Attach(slot int, directory string, observe bool) (Group, error)
	// Leave ends the daemon and leaves its workloads.
	Leave() error
}

// Description is what a rung says about itself to a person.
type Description struct {
	Enforcement string   // the word users see: "cgroup" or "signal"
	Detail      string   // "v2, as root", "v1 controllers beside v2 identity"
	Trees       bool     // every descendant is held, setsid and double forks included
	Caps        []string // hard caps it can hold: "cpu", "memory", "pids"
	Missing     []string // what it cannot do, one sentence each
	Root        string   // where it works, for the operator
}

// LimitError refuses work that this machine has no room for, before anything
// was started.
type LimitError struct {
	Limit string // the limit that binds: "open files (RLIMIT_NOFILE)"
	Need  int64
	Have  int64
	Hint  string // what raises it
}

// Error names the limit, both numbers and the remedy.
func (e *LimitError) Error() string {
	text := fmt.Sprintf("%s: need %d, have %d", e.Limit, e.Need, e.Have)
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}
