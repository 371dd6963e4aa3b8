package fleet

import (
	"strconv"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// field is one scalar key: how to set it from text, how to write it back.
// get returns "" when the value is the default and need not be written.
type field[T any] struct {
	name    string
	example string
	set     func(t *T, text string) error
	get     func(t *T) string
}

// nodeFields are the keys of node:, in the order they are written.
var nodeFields = []field[Node]{
	{
		"cores", "2",
		func(n *Node, s string) (err error) { n.Cores, err = ParseCores(s); return err },
		func(n *Node) string { return some(n.Cores, unit.MilliCores.String) },
	},
	{
		"watts", "25W",
		func(n *Node, s string) (err error) { n.Watts, err = watts(s); return err },
		func(n *Node) string { return some(n.Watts, unit.Microwatts.String) },
	},
	{
		"watts_per_core", "12W",
		func(n *Node, s string) (err error) { n.WattsPerCore, err = watts(s); return err },
		func(n *Node) string { return some(n.WattsPerCore, unit.Microwatts.String) },
	},
	{
		"idle_watts", "5W",
		func(n *Node, s string) (err error) { n.IdleWatts, err = watts(s); return err },
		func(n *Node) string { return some(n.IdleWatts, unit.Microwatts.String) },
	},
	{
		"floor", "2%",
		func(n *Node, s string) error {
			f, err := ParseFloor(s)
			if err == nil {
				n.Floor = new(f)
			}
			return err
		},
		func(n *Node) string {
			if n.Floor == nil {
				return ""
			}
			return n.Floor.String()
		},
	},
	{
		"epoch", "100ms",
		func(n *Node, s string) (err error) { n.Epoch, err = ParseEpoch(s); return err },
		func(n *Node) string { return some(n.Epoch, formatDuration) },
	},
}

// workloadFields are the scalar keys of a workload, in the order written.
var workloadFields = []field[Workload]{
	{
		"budget", "500",
		func(w *Workload, s string) (err error) { w.Budget, err = above(unit.ParseCredits(s)); return err },
		func(w *Workload) string { return some(w.Budget, unit.Credits.String) },
	},
	{
		"bid", "2x",
		func(w *Workload, s string) (err error) { w.Bid, err = ParseBid(s); return err },
		func(w *Workload) string { return unless(w.Bid, Bid{Price: DefaultBid}, Bid.String) },
	},
	{
		"max_bid", "8x",
		func(w *Workload, s string) (err error) { w.MaxBid, err = above(unit.ParsePrice(s)); return err },
		func(w *Workload) string { return unless(w.MaxBid, DefaultMaxBid, unit.Price.String) },
	},
	{
		"rate", "16/s",
		func(w *Workload, s string) (err error) { w.Rate, err = above(unit.ParseSpend(s)); return err },
		func(w *Workload) string { return some(w.Rate, unit.Spend.String) },
	},
	{
		"horizon", "2h",
		func(w *Workload, s string) (err error) { w.Horizon, err = duration("horizon", s); return err },
		func(w *Workload) string { return some(w.Horizon, formatDuration) },
	},
	{
		"timeout", "10m",
		func(w *Workload, s string) (err error) { w.Timeout, err = duration("timeout", s); return err },
		func(w *Workload) string { return some(w.Timeout, formatDuration) },
	},
	{
		"cores", "2",
		func(w *Workload, s string) (err error) { w.Cores, err = ParseCores(s); return err },
		func(w *Workload) string { return some(w.Cores, unit.MilliCores.String) },
	},
	{
		"memory", "4G",
		func(w *Workload, s string) (err error) { w.Memory, err = above(unit.ParseBytes(s)); return err },
		func(w *Workload) string { return some(w.Memory, unit.Bytes.String) },
	},
	{
		"pids", "512",
		func(w *Workload, s string) (err error) { w.Pids, err = ParsePids(s); return err },
		func(w *Workload) string {
			return some(w.Pids, func(n int64) string { return strconv.FormatInt(n, 10) })
		},
	},
	{
		"max_energy", "500J",
		func(w *Workload, s string) (err error) { w.MaxEnergy, err = above(unit.ParseEnergy(s)); return err },
		func(w *Workload) string { return some(w.MaxEnergy, unit.Microjoules.String) },
	},
	{
		"max_cpu", "10m",
		func(w *Workload, s string) error {
			v, err := duration("max_cpu", s)
			w.MaxCPU = unit.CoreTime(v)
			return err
		},
		func(w *Workload) string { return some(time.Duration(w.MaxCPU), formatDuration) },
	},
	{
		"when_broke", "pause",
		func(w *Workload, s string) (err error) { w.WhenBroke, err = ParseWhenBroke(s); return err },
		func(w *Workload) string { return some(w.WhenBroke, WhenBroke.String) },
	},
	{
		"grace", "10s",
		func(w *Workload, s string) (err error) { w.Grace, err = ParseGrace(s); return err },
		func(w *Workload) string { return unless(w.Grace, DefaultGrace, formatDuration) },
	},
	{
		"replicas", "3",
		func(w *Workload, s string) error {
			n, err := count(s, MaxReplicas)
			w.Replicas = int(n)
			return err
		},
		func(w *Workload) string { return some(w.Replicas, strconv.Itoa) },
	},
	{
		"dir", "/srv/agent",
		func(w *Workload, s string) error {
			if s == "" || strings.ContainsRune(s, 0) {
				return &Problem{Text: s, Reason: "not a directory", Fix: "write its path"}
			}
			w.Dir = s
			return nil
		},
		func(w *Workload) string { return w.Dir },
	},
}

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

func findField[T any](fields []field[T], name string) *field[T] {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

func fieldNames[T any](fields []field[T]) []string {
	out := make([]string, len(fields))
	for i := range fields {
		out[i] = fields[i].name
	}
	return out
}
