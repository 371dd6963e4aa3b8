package config

import (
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/strict"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// none takes away what defaults would give to a rule's wallet.
const none = "none"

// walletFields are the keys of a wallet, in the order of walletNotes.
func walletFields() []strict.Field[Wallet] {
	var all []strict.Field[Wallet]
	for _, n := range walletNotes {
		all = append(all, walletField(n.name))
	}
	return all
}

func walletField(name string) strict.Field[Wallet] {
	switch name {
	case "name":
		return strict.Field[Wallet]{
			Name: name,
			Set: func(w *Wallet, s string) (err error) {
				if s == none {
					return &fleet.Problem{Text: s, Reason: "a wallet has a name", Fix: "write {user}"}
				}
				w.Name, err = parseTemplate(s)
				return err
			},
			Get: func(w *Wallet) string { return w.Name },
		}
	case "parent":
		return optional(strict.Field[Wallet]{
			Name: name,
			Set:  func(w *Wallet, s string) (err error) { w.Parent, err = parseTemplate(s); return err },
			Get:  func(w *Wallet) string { return w.Parent },
		}, func(w *Wallet) { w.Parent = "" })
	case "allowance":
		return optional(strict.Field[Wallet]{
			Name: name,
			Set: func(w *Wallet, s string) error {
				a, err := unit.ParseAllowance(s)
				if err == nil && a.Amount == 0 {
					return &fleet.Problem{Text: s, Reason: "an allowance is above zero", Fix: "write none for an open wallet"}
				}
				w.Allowance = a
				return err
			},
			Get: func(w *Wallet) string {
				if w.Open() {
					return ""
				}
				return w.Allowance.String()
			},
		}, func(w *Wallet) { w.Allowance = unit.Allowance{} })
	case "most":
		f := terms("budget", func(w *Wallet, t *fleet.Workload, in bool) { exchange(&w.Most, &t.Budget, in) })
		f.Name = name
		return optional(f, func(w *Wallet) { w.Most = 0 })
	case "bid":
		return terms(name, func(w *Wallet, t *fleet.Workload, in bool) { exchange(&w.Bid, &t.Bid, in) })
	case "max_bid":
		return terms(name, func(w *Wallet, t *fleet.Workload, in bool) { exchange(&w.MaxBid, &t.MaxBid, in) })
	case "cores":
		return optional(terms(name, func(w *Wallet, t *fleet.Workload, in bool) { exchange(&w.Cores, &t.Cores, in) }),
			func(w *Wallet) { w.Cores = 0 })
	case "memory":
		return optional(terms(name, func(w *Wallet, t *fleet.Workload, in bool) { exchange(&w.Memory, &t.Memory, in) }),
			func(w *Wallet) { w.Memory = 0 })
	case "pids":
		return optional(terms(name, func(w *Wallet, t *fleet.Workload, in bool) { exchange(&w.Pids, &t.Pids, in) }),
			func(w *Wallet) { w.Pids = 0 })
	default: // when_broke: always written, since what is left out depends on the allowance
		f := terms(name, func(w *Wallet, t *fleet.Workload, in bool) { exchange(&w.WhenBroke, &t.WhenBroke, in) })
		f.Get = func(w *Wallet) string { return w.WhenBroke.String() }
		return f
	}
}

// terms is a field of a fleet file's workload as one of a wallet: the same words,
// bounds and messages.
func terms(name string, move func(w *Wallet, t *fleet.Workload, in bool)) strict.Field[Wallet] {
	f := strict.Find(fleet.WorkloadFields(), name)
	return strict.Field[Wallet]{
		Name: f.Name, Example: f.Example,
		Set: func(w *Wallet, s string) error {
			var t fleet.Workload
			if err := f.Set(&t, s); err != nil {
				return err
			}
			move(w, &t, true)
			return nil
		},
		Get: func(w *Wallet) string {
			t := fleet.New("")
			move(w, &t, false)
			return f.Get(&t)
		},
	}
}

func exchange[T any](ours, theirs *T, in bool) {
	if in {
		*ours = *theirs
		return
	}
	*theirs = *ours
}

// optional adds the word none.
func optional(f strict.Field[Wallet], reset func(*Wallet)) strict.Field[Wallet] {
	set := f.Set
	f.Set = func(w *Wallet, s string) error {
		if s == none {
			reset(w)
			return nil
		}
		return set(w, s)
	}
	return f
}

// settle fills in what follows from other keys; said are the keys that somebody
// wrote.
func (w *Wallet) settle(said func(name string) bool) {
	if !said("when_broke") {
		w.WhenBroke = fleet.Stop
		if !w.Open() {
			w.WhenBroke = fleet.Pause
		}
	}
}

// check reports what cannot work together, by the key at fault.
func (w *Wallet) check() *fleet.Problem {
	switch {
	case w.Most != 0 && w.Open():
		return &fleet.Problem{Field: "most", Reason: "a cap on saving needs an allowance to save", Fix: "add an allowance, or leave it out"}
	case w.Bid.Auto && w.Open():
		return &fleet.Problem{Field: "bid", Reason: "an automatic bid paces an allowance and there is none", Fix: "add an allowance, or write 2x"}
	case !w.Bid.Auto && w.Bid.Price > w.MaxBid:
		return &fleet.Problem{Field: "bid", Reason: "the bid is " + w.Bid.String() + " and max_bid " + w.MaxBid.String(), Fix: "raise max_bid or lower the bid"}
	}
	return nil
}
