package meter

import (
	"errors"
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Meter counts the processor time of wallets. A wallet is a slot: a small
// integer of the caller's choice that indexes what Read fills.
//
// All times count from Add and only grow. Methods must not be called at the
// same time; Read and ReadOne do not allocate.
type Meter interface {
	// Add begins to count a group in a slot. Call it before the first process
	// enters the group: what ran or waited earlier is nobody's.
	Add(slot int, cgroup host.CgroupRef) error
	// Remove ends it and gives the final sample. Call it when the group is
	// empty; it waits up to two milliseconds for the last process, which still
	// runs a little after the group is said to be empty.
	Remove(slot int) (Sample, error)
	// Read fills dst, indexed by slot; slots that are not counted become zero.
	// It may be shorter than the highest slot.
	Read(dst []Sample) (Node, error)
	// ReadOne reads a single slot, cheap enough for a timer inside an epoch.
	ReadOne(slot int) (Sample, error)
	// Describe says how this meter counts, for the operator.
	Describe() Description
	// Close stops counting and gives back what the meter took.
	Close() error
}

// Sample is what one slot has used since Add.
type Sample struct {
	Run      unit.CoreTime // on a processor
	Wait     unit.CoreTime // runnable and not on a processor, summed over its threads
	Runnable int32         // threads that run or wait now; Unknown if the meter can't count them
}

// Unknown is the Runnable of a meter that cannot count it.
const Unknown int32 = -1

// Node is the whole machine. Busy - System is what all wallets together used,
// those removed included.
type Node struct {
	Busy   unit.CoreTime // of all processors
	System unit.CoreTime // of which no wallet's
	Self   unit.CoreTime // of which Maxwell's own process, wherever it is counted
}

// Kind names a way to count.
type Kind string

// Kinds, best first.
const (
	Auto      Kind = ""          // the best that works
	BPF       Kind = "bpf"       // the scheduler's own events
	Files     Kind = "files"     // cgroup counters
	Processes Kind = "processes" // sweeps over process trees
)

// Config says what to count and where. The zero value counts processes.
type Config struct {
	Kind Kind

	// Parent is the directory of the market: every group's directory is its
	// child. The BPF meter makes one child of its own in it for a moment, to
	// test itself. Without a parent only processes can be counted.
	Parent host.CgroupRef

	// Slots is how many groups can be counted at once; 0 means 16,384. The
	// BPF meter takes 64 bytes of kernel memory for each.
	Slots int

	// Probe is a short harmless command for the self-test; empty means one of
	// the system's own (true).
	Probe []string

	// Sweep is how often the processes meter looks for new processes; 0 means
	// 200 ms.
	Sweep time.Duration
}

// MaxSlots bounds Config.Slots.
const MaxSlots = 1 << 20

const defaultSlots = 16384

// Validate refuses what no meter can do, and names the field.
func (c Config) Validate() error {
	switch c.Kind {
	case Auto, Processes:
	case BPF, Files:
		if c.Parent.Dir == "" && c.Parent.V1[host.CPUAcct] == "" {
			return fmt.Errorf("meter %s: no parent group given: %w", c.Kind, host.ErrUnavailable)
		}
	default:
		return fmt.Errorf("meter %q: unknown kind", c.Kind)
	}
	if c.Slots < 0 || c.Slots > MaxSlots {
		return fmt.Errorf("meter: %d slots: not between 0 and %d", c.Slots, MaxSlots)
	}
	if c.Sweep < 0 {
		return fmt.Errorf("meter: sweep every %s: negative", c.Sweep)
	}
	return nil
}

func (c Config) slots() int {
	if c.Slots == 0 {
		return defaultSlots
	}
	return c.Slots
}

// Description is what a meter says about itself.
type Description struct {
	Kind   Kind
	Detail string // one line: where the numbers come from
	Charge string // "exact", or what the running time leaves out
	Wait   string // how waiting is counted, or what it leaves out
	// LowerBound means that processes may have run without being charged.
	LowerBound bool
	// Refused says why better meters were not used, and which parts of this
	// one the machine refuses.
	Refused []error
	// Cost is what one Read takes of the calling thread, a moving average;
	// Reads is how many it is from and Slots how many it counted last.
	Cost  time.Duration
	Reads int64
	Slots int
}

// Open opens the best meter that works here, or the one asked for. Each
// candidate is used once for real before it is trusted; why a better one was
// not taken stands in Description.Refused.
func Open(cfg Config, roots host.Roots) (Meter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	switch cfg.Kind {
	case BPF:
		return openBPF(cfg)
	case Files:
		return openFiles(cfg, roots, nil)
	case Processes:
		return openProcesses(cfg, roots, nil)
	case Auto:
	}
	var refused []error
	b, err := openBPF(cfg)
	if err == nil {
		return b, nil
	}
	refused = append(refused, err)
	f, err := openFiles(cfg, roots, refused)
	if err == nil {
		return f, nil
	}
	p, err := openProcesses(cfg, roots, append(refused, err))
	if err != nil {
		return nil, errors.Join(append(refused, err)...)
	}
	return p, nil
}

// SlotError refuses a call about one slot.
type SlotError struct {
	Slot   int
	Reason string
}

// Error names the slot.
func (e *SlotError) Error() string { return fmt.Sprintf("meter slot %d: %s", e.Slot, e.Reason) }

// Reasons of a SlotError.
const (
	reasonRange = "out of range"
	reasonTaken = "already counted"
	reasonEmpty = "not counted"
	reasonFull  = "no cell left: too many groups at once"
	reasonDir   = "its group is not a child of the market's"
)
