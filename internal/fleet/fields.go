package fleet

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/strict"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// nodeFields are the keys of node:, in the order they are written.
var nodeFields = []strict.Field[Node]{
	{
		Name: "cores", Example: "2",
		Set: func(n *Node, s string) (err error) { n.Cores, err = ParseCores(s); return err },
		Get: func(n *Node) string { return some(n.Cores, unit.MilliCores.String) },
	},
	{
		Name: "watts", Example: "25W",
		Set: func(n *Node, s string) (err error) { n.Watts, err = watts(s); return err },
		Get: func(n *Node) string { return some(n.Watts, unit.Microwatts.String) },
	},
	{
		Name: "watts_per_core", Example: "12W",
		Set: func(n *Node, s string) (err error) { n.WattsPerCore, err = watts(s); return err },
		Get: func(n *Node) string { return some(n.WattsPerCore, unit.Microwatts.String) },
	},
	{
		Name: "idle_watts", Example: "5W",
		Set: func(n *Node, s string) (err error) { n.IdleWatts, err = watts(s); return err },
		Get: func(n *Node) string { return some(n.IdleWatts, unit.Microwatts.String) },
	},
	{
		Name: "floor", Example: "2%",
		Set: func(n *Node, s string) error {
			f, err := ParseFloor(s)
			if err == nil {
				n.Floor = new(f)
			}
			return err
		},
		Get: func(n *Node) string {
			if n.Floor == nil {
				return ""
			}
			return n.Floor.String()
		},
	},
	{
		Name: "epoch", Example: "100ms",
		Set: func(n *Node, s string) (err error) { n.Epoch, err = ParseEpoch(s); return err },
		Get: func(n *Node) string { return some(n.Epoch, formatDuration) },
	},
}

// workloadFields are the scalar keys of a workload, in the order written.
var workloadFields = []strict.Field[Workload]{
	{
		Name: "budget", Example: "500",
		Set: func(w *Workload, s string) (err error) { w.Budget, err = above(unit.ParseCredits(s)); return err },
		Get: func(w *Workload) string { return some(w.Budget, unit.Credits.String) },
	},
	{
		Name: "wallet", Example: "team",
		Set: func(w *Workload, s string) (err error) { w.Wallet, err = ParseWallet(s); return err },
		Get: func(w *Workload) string { return w.Wallet },
	},
	{
		Name: "bid", Example: "2x",
		Set: func(w *Workload, s string) (err error) { w.Bid, err = ParseBid(s); return err },
		Get: func(w *Workload) string { return unless(w.Bid, Bid{Price: DefaultBid}, Bid.String) },
	},
	{
		Name: "max_bid", Example: "8x",
		Set: func(w *Workload, s string) (err error) { w.MaxBid, err = above(unit.ParsePrice(s)); return err },
		Get: func(w *Workload) string { return unless(w.MaxBid, DefaultMaxBid, unit.Price.String) },
	},
	{
		Name: "rate", Example: "16/s",
		Set: func(w *Workload, s string) (err error) { w.Rate, err = above(unit.ParseSpend(s)); return err },
		Get: func(w *Workload) string { return some(w.Rate, unit.Spend.String) },
	},
	{
		Name: "horizon", Example: "2h",
		Set: func(w *Workload, s string) (err error) { w.Horizon, err = duration("horizon", s); return err },
		Get: func(w *Workload) string { return some(w.Horizon, formatDuration) },
	},
	{
		Name: "timeout", Example: "10m",
		Set: func(w *Workload, s string) (err error) { w.Timeout, err = duration("timeout", s); return err },
		Get: func(w *Workload) string { return some(w.Timeout, formatDuration) },
	},
	{
		Name: "cores", Example: "2",
		Set: func(w *Workload, s string) (err error) { w.Cores, err = ParseCores(s); return err },
		Get: func(w *Workload) string { return some(w.Cores, unit.MilliCores.String) },
	},
	{
		Name: "memory", Example: "4G",
		Set: func(w *Workload, s string) (err error) { w.Memory, err = ParseMemory(s); return err },
		Get: func(w *Workload) string { return some(w.Memory, unit.Bytes.String) },
	},
	{
		Name: "pids", Example: "512",
		Set: func(w *Workload, s string) (err error) { w.Pids, err = ParsePids(s); return err },
		Get: func(w *Workload) string {
			return some(w.Pids, func(n int64) string { return strconv.FormatInt(n, 10) })
		},
	},
	{
		Name: "max_energy", Example: "500J",
		Set: func(w *Workload, s string) (err error) { w.MaxEnergy, err = above(unit.ParseEnergy(s)); return err },
		Get: func(w *Workload) string { return some(w.MaxEnergy, unit.Microjoules.String) },
	},
	{
		Name: "max_cpu", Example: "10m",
		Set: func(w *Workload, s string) error {
			v, err := duration("max_cpu", s)
			w.MaxCPU = unit.CoreTime(v)
			return err
		},
		Get: func(w *Workload) string { return some(time.Duration(w.MaxCPU), formatDuration) },
	},
	{
		Name: "when_broke", Example: "pause",
		Set: func(w *Workload, s string) error { return w.SetWhenBroke(s) },
		Get: func(w *Workload) string {
			if w.StopSaid {
				return Stop.String()
			}
			return some(w.WhenBroke, WhenBroke.String)
		},
	},
	{
		Name: "grace", Example: "10s",
		Set: func(w *Workload, s string) (err error) { w.Grace, err = ParseGrace(s); return err },
		Get: func(w *Workload) string { return unless(w.Grace, DefaultGrace, formatDuration) },
	},
	{
		Name: "replicas", Example: "3",
		Set: func(w *Workload, s string) error {
			n, err := count(s, MaxReplicas)
			w.Replicas = int(n)
			return err
		},
		Get: func(w *Workload) string { return some(w.Replicas, strconv.Itoa) },
	},
	{
		Name: "dir", Example: "/srv/agent",
		Set: func(w *Workload, s string) error {
			if s == "" || strings.ContainsRune(s, 0) {
				return &Problem{Text: s, Reason: "not a directory", Fix: "write its path"}
			}
			w.Dir = s
			return nil
		},
		Get: func(w *Workload) string { return w.Dir },
	},
}

// NodeFields are the keys of node:, for files that have such a section too.
func NodeFields() []strict.Field[Node] { return slices.Clone(nodeFields) }

// WorkloadFields are the scalar keys of a workload, likewise.
func WorkloadFields() []strict.Field[Workload] { return slices.Clone(workloadFields) }

// Nearest returns the known word that somebody may have meant, or "".
func Nearest(word string, known []string) string { return strict.Nearest(word, known) }

// unless formats v if it differs from the default.
func unless[T comparable](v, standard T, format func(T) string) string {
	if v == standard {
		return ""
	}
	return format(v)
}

// some formats v if it is not zero.
func some[T comparable](v T, format func(T) string) string {
	var zero T
	return unless(v, zero, format)
}

func formatDuration(d time.Duration) string { return d.String() }

// watts reads power; the keys say watts, so a bare number is one.
func watts(text string) (unit.Microwatts, error) {
	if n := len(text); n > 0 && text[n-1] >= '0' && text[n-1] <= '9' {
		text += "W"
	}
	return above(unit.ParsePower(text))
}

// ParseCores reads a number of cores above zero.
func ParseCores(text string) (unit.MilliCores, error) {
	v, err := above(unit.ParseCores(text))
	if err == nil && v > maxCores {
		return 0, &Problem{Text: text, Reason: "more cores than any machine has", Fix: "write 2 or 0.5"}
	}
	return v, err
}

// leastMemory is the smallest memory cap: below it the kernel ends a command, or lets
// it wait, before its first instruction.
const leastMemory = 1 << 20

// ParseMemory reads a memory cap.
func ParseMemory(text string) (unit.Bytes, error) {
	v, err := above(unit.ParseBytes(text))
	if err == nil && v < leastMemory {
		return 0, &Problem{Text: text, Reason: "too little for any command to start in", Fix: "write 1M or more"}
	}
	return v, err
}

// ParsePids reads a process cap.
func ParsePids(text string) (int64, error) {
	// 4 Mi is the kernel's own limit on process ids (PID_MAX_LIMIT).
	n, err := count(text, 4<<20)
	if err == nil && n < 2 {
		return 0, &Problem{Text: text, Reason: "a command that may not fork once", Fix: "write 2 or more"}
	}
	return n, err
}

// ParseGrace reads a grace; zero is allowed and means at once.
func ParseGrace(text string) (time.Duration, error) {
	if text == "0" {
		return 0, nil
	}
	v, err := unit.ParseDuration(text)
	if err != nil {
		return 0, err
	}
	if p := checkDuration("grace", text, v); p != nil {
		return 0, p
	}
	return v, nil
}

// Epoch bounds: below 10 ms a scheduling slice is a whole epoch, above 1 s a
// broke workload would run for too long on somebody else's money.
const (
	minEpoch = 10 * time.Millisecond
	maxEpoch = time.Second
)

// ParseEpoch reads the length of a market round.
func ParseEpoch(text string) (time.Duration, error) {
	v, err := unit.ParseDuration(text)
	if err == nil && (v < minEpoch || v > maxEpoch) {
		return 0, &Problem{Text: text, Reason: "an epoch is 10ms to 1s", Fix: "leave it out: 50ms up to 200 workloads, 100ms above"}
	}
	return v, err
}

// maxFloor is 20 %: more would make the floor, not the price, decide.
const maxFloor unit.PPM = 200_000

// ParseFloor reads the share of supply that goes to all who wait: "2%",
// "0.5%" or "0".
func ParseFloor(text string) (unit.PPM, error) {
	if text == "0" {
		return 0, nil
	}
	v, err := unit.ParseFraction(text)
	if err == nil && v > maxFloor {
		return 0, &Problem{Text: text, Reason: "more than 20 %: the floor, not the price, would decide", Fix: "write 2%, or 0 to turn it off"}
	}
	return v, err
}
