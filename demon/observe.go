package demon

import (
	"fmt"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Enforce is how far the market goes with a workload. One that is not enforced
// is metered, priced and billed like any other, and stands in the book until it
// would have been stopped; but nothing is done to it: no weight, no gate, no
// freeze, no end for money or caps. A person may still stop or suspend it.
//
// What it uses beyond its budget goes to the loss account, like any bill that
// nobody could pay: minting it would make a budget that nobody granted, and hide
// what enforcement would have saved. Its deposit is used before that.
type Enforce uint8

// The modes of enforcement.
const (
	EnforceOn      Enforce = iota
	EnforceObserve         // say when it would have been stopped
	EnforceWarn            // say that, and warn it as if it could be
)

var enforceNames = [...]string{EnforceOn: "on", EnforceObserve: "observe", EnforceWarn: "warn"}

// String is the mode's word in configurations.
func (e Enforce) String() string {
	if int(e) >= len(enforceNames) {
		return "unknown"
	}
	return enforceNames[e]
}

// ParseEnforce reads what String prints.
func ParseEnforce(word string) (Enforce, bool) {
	for i, name := range enforceNames {
		if name == word {
			return Enforce(i), true
		}
	}
	return EnforceOn, false
}

// MarshalText writes the mode's word.
func (e Enforce) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (e *Enforce) UnmarshalText(text []byte) error {
	have, ok := ParseEnforce(string(text))
	if !ok {
		return fmt.Errorf("enforce %q: want on, observe or warn", text)
	}
	*e = have
	return nil
}

// WouldHave is when and why a workload that is not enforced would have been
// stopped. Being funded ends it; it is kept until the next one.
type WouldHave struct {
	Reason apoptosis.Reason `json:"reason"` // None = it would run
	At     unit.Instant     `json:"at_ns"`
	Still  bool             `json:"still"` // it would be stopped now
}

// free reports whether nothing may be done to w for money or caps.
func (w *workload) free() bool { return w.ask.Enforce != EnforceOn }

// SetEnforce changes how far the market goes with slot, from the next tick on.
func (d *Demon) SetEnforce(slot int32, mode Enforce) error {
	w := d.at(slot)
	switch {
	case w == nil || w.dead:
		return &Refusal{What: "name", Reason: "it is dead"}
	case int(mode) >= len(enforceNames):
		return &Refusal{What: "enforce", Reason: "give on, observe or warn"}
	}
	w.ask.Enforce = mode
	d.touch(w)
	w.would.Still = false
	return nil
}

// wouldStop notes whether a workload that is not enforced would be stopped. An end
// by a cap is for good; being broke is over when it is funded.
func (d *Demon) wouldStop(w *workload, solvent bool) {
	if !w.started || w.dying || w.would.Still && w.would.Reason != apoptosis.Insolvent {
		return
	}
	why := d.tripped(w)
	if w.would.Still {
		// Frozen it would go on wanting; running it must not seem funded whenever it
		// sleeps.
		solvent = d.affords(w, solvencyUnit)
	}
	switch {
	case why != apoptosis.None:
	case w.ask.Memory > 0 && w.usage.PeakMemory > w.ask.Memory:
		why = apoptosis.CapMemory
	case w.ask.Pids > 0 && w.usage.Processes > w.ask.Pids:
		why = apoptosis.CapPids
	case !solvent:
		why = apoptosis.Insolvent
	}
	switch {
	case why == apoptosis.None && w.would.Still:
		w.would.Still = false
		if w.ask.Enforce == EnforceWarn {
			d.raise(w, Event{Kind: EventFunded})
		}
	case why != apoptosis.None && !w.would.Still:
		w.would = WouldHave{Reason: why, At: d.now, Still: true}
		d.raise(w, Event{Kind: EventWouldStop, Reason: why})
		if w.ask.Enforce == EnforceWarn && why == apoptosis.Insolvent {
			d.raise(w, Event{Kind: EventBroke, Reason: why, Left: w.ask.Policy.Grace})
		}
	}
}
