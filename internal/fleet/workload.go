package fleet

import (
	"strconv"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Defaults a person gets without asking. They are printed in help texts, so
// they are constants here and nowhere else.
const (
	// DefaultBid is 2x: enough to run beside an idle machine's base price,
	// little enough that a crowd is felt.
	DefaultBid unit.Price = 2000
	// DefaultMaxBid bounds an automatic bid. Without a bound a rich wallet on
	// auto bids to the top of the ladder.
	DefaultMaxBid unit.Price = 8000
	// DefaultGrace is the time to fund a broke workload before it is ended.
	DefaultGrace = 10 * time.Second
	// DefaultHorizon is what an automatic bid spreads a budget over.
	DefaultHorizon = time.Hour
	// MinHorizon is the shortest horizon the pacing rule can hold: it settles
	// in about five seconds (100 epochs).
	MinHorizon = 5 * time.Second
	// MaxReplicas bounds one template, MaxWorkloads a whole fleet: far above
	// what a machine starts, low enough that a slip of the finger is an error
	// and not an exhausted memory.
	MaxReplicas  = 100_000
	MaxWorkloads = 100_000
	// maxName keeps a name usable as a directory entry with a replica suffix.
	maxName = 63
)

// WhenBroke says what happens to a workload whose money is gone.
type WhenBroke uint8

// The two choices. Stop is the default: the workload has its grace to be
// funded, then ends. Pause keeps it frozen until somebody pays.
const (
	Stop WhenBroke = iota
	Pause
)

// String returns the word users write.
func (w WhenBroke) String() string {
	if w == Pause {
		return "pause"
	}
	return "stop"
}

// ParseWhenBroke reads "stop" or "pause".
func ParseWhenBroke(s string) (WhenBroke, error) {
	switch s {
	case "stop":
		return Stop, nil
	case "pause":
		return Pause, nil
	}
	return 0, &Problem{Field: "when_broke", Text: s, Reason: "unknown choice", Fix: "write pause or stop"}
}

// SetWhenBroke reads "stop" or "pause".
func (w *Workload) SetWhenBroke(s string) (err error) {
	w.WhenBroke, err = ParseWhenBroke(s)
	w.StopSaid = err == nil && w.WhenBroke == Stop
	return err
}

// Bid is the most a workload pays per core-second: a multiple of the base
// price, or left to the node.
type Bid struct {
	Auto  bool
	Price unit.Price // unused when Auto
}

// String returns "auto" or the multiple.
func (b Bid) String() string {
	if b.Auto {
		return "auto"
	}
	return b.Price.String()
}

// ParseBid reads "auto" or a multiple such as "4x".
func ParseBid(s string) (Bid, error) {
	if s == "auto" {
		return Bid{Auto: true}, nil
	}
	p, err := unit.ParsePrice(s)
	if err != nil {
		return Bid{}, err
	}
	return Bid{Price: p}, nil
}

// Income pays a workload for work it reports. It is self-reported: the node
// says so wherever it shows it.
type Income struct {
	Per    string // the kind of work, as in "work 3 prime-batch"
	Amount unit.Credits
}

// Place is where in a file a workload was written; zero when it came from
// flags.
type Place struct {
	Line, Column int
}

// Workload is one line of intent: a command, its money and its caps. Zero
// amounts mean "no limit"; Fill turns them into the documented defaults.
type Workload struct {
	Name      string
	Command   []string
	Budget    unit.Credits // 0: open wallet, nothing is limited by money; or it spends Wallet
	Wallet    string       // standing wallet that pays; empty: none
	Bid       Bid
	MaxBid    unit.Price
	Rate      unit.Spend
	Horizon   time.Duration
	Timeout   time.Duration
	Cores     unit.MilliCores
	Memory    unit.Bytes
	Pids      int64
	MaxEnergy unit.Microjoules
	MaxCPU    unit.CoreTime
	WhenBroke WhenBroke
	StopSaid  bool // Stop was written: it holds also where an allowance comes in
	Grace     time.Duration
	Replicas  int // 0: one workload under its plain name; n: name-1 .. name-n
	Income    Income
	Env       map[string]string
	Dir       string
	Place     Place
}

// New is a workload with the defaults of the command line.
func New(name string, command ...string) Workload {
	return Workload{
		Name:    name,
		Command: command,
		Bid:     Bid{Price: DefaultBid},
		MaxBid:  DefaultMaxBid,
		Grace:   DefaultGrace,
	}
}

// Open says that nothing limits the workload's money: its wallet is minted as used.
func (w *Workload) Open() bool { return w.Budget == 0 && w.Wallet == "" }

// Node is the part of a fleet file that describes the market's machine. Zero
// means "what the machine has" for each.
type Node struct {
	Cores        unit.MilliCores
	Watts        unit.Microwatts // allowance for sold watts
	WattsPerCore unit.Microwatts // the operator's word for the model
	IdleWatts    unit.Microwatts
	Floor        *unit.PPM // nil: the market's default
	Epoch        time.Duration
}

// Fleet is a parsed fleet file.
type Fleet struct {
	Node      Node
	Workloads []Workload // in the order of the file, before replicas
}

// Expand returns one workload per wallet: a template with n replicas becomes
// name-1 .. name-n. Parse has already refused colliding names.
func (f *Fleet) Expand() []Workload {
	total := 0
	for i := range f.Workloads {
		total += max(1, f.Workloads[i].Replicas)
	}
	out := make([]Workload, 0, total)
	for _, w := range f.Workloads {
		if w.Replicas == 0 {
			out = append(out, w)
			continue
		}
		base, n := w.Name, w.Replicas
		w.Replicas = 0
		for i := range n {
			w.Name = replicaName(base, i+1)
			out = append(out, w)
		}
	}
	return out
}

func replicaName(base string, i int) string { return base + "-" + strconv.Itoa(i) }
