package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// value is a flag of any type that has a parser. It refuses zero unless the
// flag says what zero means.
type value[T comparable] struct {
	target *T
	kind   string // shown in help: --budget MONEY
	parse  func(string) (T, error)
	format func(T) string
	zero   bool // zero is a meaning, not a slip
}

func (v *value[T]) Set(text string) error {
	var none T
	got, err := v.parse(text)
	if err != nil {
		return err
	}
	if got == none && !v.zero {
		return &fleet.Problem{Text: text, Reason: "the amount is zero", Fix: "leave the flag out for no limit"}
	}
	*v.target = got
	return nil
}

func (v *value[T]) String() string {
	var none T
	if v.target == nil || *v.target == none {
		return ""
	}
	return v.format(*v.target)
}

func (v *value[T]) Type() string { return v.kind }

var _ pflag.Value = (*value[int64])(nil)

// workloadFlags are the flags of one workload; the fleet file has a key for
// each of them.
func workloadFlags(f *pflag.FlagSet, w *fleet.Workload) {
	f.Var(&value[unit.Credits]{target: &w.Budget, kind: "MONEY", parse: unit.ParseCredits, format: unit.Credits.String}, "budget",
		"hard cap in $J for the whole process tree, as 500 or 2k; exit 122 when it is spent")
	f.Var(&value[string]{target: &w.Wallet, kind: "WALLET", parse: fleet.ParseWallet, format: func(s string) string { return s }}, "wallet",
		"the standing wallet that pays: --budget at once, or without one as it spends")
	f.Var(&value[fleet.Bid]{target: &w.Bid, kind: "PRICE", parse: fleet.ParseBid, format: fleet.Bid.String}, "bid",
		"the most to pay, as a multiple of the base price (4x), or auto with a budget or a wallet")
	f.Var(&value[unit.Price]{target: &w.MaxBid, kind: "PRICE", parse: unit.ParsePrice, format: unit.Price.String}, "max-bid",
		"the most that --bid auto may bid")
	f.Var(&value[unit.Spend]{target: &w.Rate, kind: "MONEY/s", parse: unit.ParseSpend, format: unit.Spend.String}, "rate",
		"spend at most this much per second, as 16/s; paces the bid below its cap")
	f.Var(&value[time.Duration]{target: &w.Horizon, kind: "TIME", parse: fleet.ParseSpan, format: time.Duration.String}, "horizon",
		"spread the budget over this time, at least 5s (with --bid auto: 1h unless given)")
	f.Var(&value[unit.Microjoules]{target: &w.MaxEnergy, kind: "ENERGY", parse: unit.ParseEnergy, format: unit.Microjoules.String}, "max-energy",
		"end the tree when it has burned this much, as 500J or 0.5kWh; exit 121")
	f.Var(&value[time.Duration]{target: (*time.Duration)(&w.MaxCPU), kind: "TIME", parse: fleet.ParseSpan, format: time.Duration.String}, "max-cpu",
		"end the tree when it has used this much processor time, as 10m; exit 121")
	f.Var(&value[unit.Bytes]{target: &w.Memory, kind: "BYTES", parse: fleet.ParseMemory, format: unit.Bytes.String}, "memory",
		"memory cap of the tree, as 4G; exit 121")
	f.Var(&value[int64]{target: &w.Pids, kind: "N", parse: fleet.ParsePids, format: formatCount}, "pids",
		"most processes and threads at once; exit 121")
	f.Var(&value[unit.MilliCores]{target: &w.Cores, kind: "CORES", parse: fleet.ParseCores, format: unit.MilliCores.String}, "cores",
		"most cores at any moment, as 2 or 0.5")
	f.Var(&value[time.Duration]{target: &w.Timeout, kind: "TIME", parse: fleet.ParseSpan, format: time.Duration.String}, "timeout",
		"end the tree after this much time, as 10m; exit 124")
	f.Var(&value[fleet.WhenBroke]{target: &w.WhenBroke, kind: "CHOICE", parse: whenBroke(w), format: fleet.WhenBroke.String, zero: true}, "when-broke",
		"pause: stay frozen until funded; stop: end after the grace (default stop; pause if it spends a wallet with an allowance)")
	f.Var(&value[time.Duration]{target: &w.Grace, kind: "TIME", parse: fleet.ParseGrace, format: time.Duration.String, zero: true}, "grace",
		"time to fund a broke workload before it is ended")
}

// whenBroke reads the choice, and remembers that it was made.
func whenBroke(w *fleet.Workload) func(string) (fleet.WhenBroke, error) {
	return func(text string) (fleet.WhenBroke, error) {
		err := w.SetWhenBroke(text)
		return w.WhenBroke, err
	}
}

func formatCount(n int64) string { return strconv.FormatInt(n, 10) }

// completeWorkload offers values for the flags that have few.
func completeWorkload(cmd *cobra.Command) {
	offer(cmd, "bid", "auto\tpaced by the node", "1x\tonly when nobody competes", "2x\tthe default", "4x", "8x")
	offer(cmd, "max-bid", "4x", "8x\tthe default", "16x")
	offer(cmd, "when-broke", "stop\tend after the grace", "pause\tfrozen until funded")
	for _, name := range []string{"budget", "rate", "horizon", "max-energy", "max-cpu", "memory", "pids", "cores", "timeout", "grace"} {
		offer(cmd, name)
	}
}

// offer registers a fixed list of completions and nothing else for a flag.
func offer(cmd *cobra.Command, name string, choices ...string) {
	err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
	if err != nil { // a flag that does not exist: a fault of this program
		panic(fmt.Sprintf("completion of --%s: %v", name, err))
	}
}

// choice is a flag with a closed set of words.
func choice(target *string, words ...string) *value[string] {
	parse := func(text string) (string, error) {
		if slices.Contains(words, text) {
			return text, nil
		}
		return "", &fleet.Problem{Text: text, Reason: "unknown choice", Fix: "write " + orList(words)}
	}
	return &value[string]{target: target, kind: "CHOICE", parse: parse, format: func(s string) string { return s }}
}

func orList(words []string) string {
	switch len(words) {
	case 0:
		return ""
	case 1:
		return words[0]
	}
	var text strings.Builder
	text.WriteString(words[0])
	for _, w := range words[1 : len(words)-1] {
		text.WriteString(", " + w)
	}
	return text.String() + " or " + words[len(words)-1]
}
