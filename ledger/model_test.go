package ledger

import (
	"maps"
	"math"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// model is the second implementation: slow and obvious. It keeps the history
// and adds it up whenever it is asked; it asks every status by itself whether
// it holds, and answers the first.
type model struct {
	accounts map[ID]Account
	history  []Transfer // applied, in order
	open     map[ID]Transfer
	resolved map[ID]Status
	last     unit.Instant
}

func newModel() *model {
	return &model{
		accounts: map[ID]Account{}, open: map[ID]Transfer{}, resolved: map[ID]Status{}, last: math.MinInt64,
	}
}

func (m *model) clone() *model {
	return &model{
		maps.Clone(m.accounts), slices.Clone(m.history), maps.Clone(m.open), maps.Clone(m.resolved), m.last,
	}
}

func (m *model) find(id ID) (Transfer, bool) {
	i := slices.IndexFunc(m.history, func(t Transfer) bool { return t.ID == id })
	if i < 0 {
		return Transfer{}, false
	}
	return m.history[i], true
}

// sums adds up what an account paid and received, posted and held.
func (m *model) sums(id ID) (paid, held, received, coming *big.Int) {
	paid, held, received, coming = new(big.Int), new(big.Int), new(big.Int), new(big.Int)
	count := func(out, in *big.Int, t Transfer, amount unit.Credits) {
		if t.Debit == id {
			out.Add(out, big.NewInt(int64(amount)))
		}
		if t.Credit == id {
			in.Add(in, big.NewInt(int64(amount)))
		}
	}
	for _, t := range m.history {
		switch {
		case t.Flags&Pending != 0 || t.Flags&Void != 0:
		case t.Flags&Post != 0:
			hold, _ := m.find(t.PendingID)
			count(paid, received, hold, t.Amount)
		default:
			count(paid, received, t, t.Amount)
		}
	}
	for _, t := range m.open {
		count(held, coming, t, t.Amount)
	}
	return paid, held, received, coming
}

// holds lists, for every status that can refuse a transfer, whether it holds.
// The bounds are not modelled: the ledger under test never reaches them.
func (m *model) refusals(t Transfer) map[Status]bool {
	before, known := m.find(t.ID)
	body := t
	body.At = before.At
	resolves := t.Flags&Post != 0 || t.Flags&Void != 0
	exclusive := 0
	for _, f := range []TransferFlags{Pending, Post, Void} {
		if t.Flags&f != 0 {
			exclusive++
		}
	}
	r := map[Status]bool{
		IDZero: t.ID == ID{}, Exists: known && body == before, ExistsDifferent: known,
		FlagsInvalid:        t.Flags > 15 || exclusive > 1,
		AmountInvalid:       t.Amount < 0 || t.Flags&Void == 0 && t.Amount == 0 || t.Flags&Void != 0 && t.Amount != 0,
		TimeoutInvalid:      t.Timeout < 0 || t.Flags&Pending == 0 && t.Timeout > 0,
		CodeInvalid:         t.Code >= purposes || t.Code == 0 && !resolves,
		PendingIDZero:       resolves && t.PendingID == ID{},
		PendingIDUnexpected: !resolves && t.PendingID != ID{},
		SameAccount:         !resolves && t.Debit == t.Credit,
		Stale:               t.At < m.last,
	}
	if resolves {
		m.refuseResolution(r, t)
	} else {
		m.refuseMovement(r, t)
	}
	return r
}

func (m *model) refuseResolution(r map[Status]bool, t Transfer) {
	hold, open := m.open[t.PendingID]
	why, was := m.resolved[t.PendingID]
	r[PendingNotFound] = !open && !was
	if was {
		r[why] = true
	}
	if !open {
		return
	}
	differs := func(id, have ID) bool { return id != ID{} && id != have }
	r[PendingDifferent] = differs(t.Debit, hold.Debit) || differs(t.Credit, hold.Credit) ||
		t.Code != 0 && t.Code != hold.Code
	r[PendingExpired] = hold.Timeout > 0 && t.At-hold.At >= unit.Instant(hold.Timeout)
	r[ExceedsPending] = t.Amount > hold.Amount
}

func (m *model) refuseMovement(r map[Status]bool, t Transfer) {
	from, fromOpen := m.accounts[t.Debit]
	to, toOpen := m.accounts[t.Credit]
	r[DebitNotFound], r[CreditNotFound] = !fromOpen, !toOpen
	if !fromOpen || !toOpen {
		return
	}
	paid, held, received, _ := m.sums(t.Debit)
	debt := new(big.Int).Add(paid, held)
	debt.Add(debt, big.NewInt(int64(t.Amount))).Sub(debt, received) // at worst, after t
	paid, _, received, coming := m.sums(t.Credit)
	gain := new(big.Int).Add(received, coming)
	gain.Add(gain, big.NewInt(int64(t.Amount))).Sub(gain, paid)
	r[ExceedsCredits] = from.Flags == DebitsMustNotExceedCredits && debt.Sign() > 0
	r[ExceedsDebits] = to.Flags == CreditsMustNotExceedDebits && gain.Sign() > 0
	r[Overflow] = !debt.IsInt64() || !gain.IsInt64()
}

// apply answers and applies one transfer.
func (m *model) apply(t Transfer) Status {
	r := m.refusals(t)
	for s := OK; int(s) < statuses; s++ {
		if r[s] {
			return s
		}
	}
	m.history = append(m.history, t)
	m.last = t.At
	switch {
	case t.Flags&Pending != 0:
		m.open[t.ID] = t
	case t.Flags&Post != 0:
		delete(m.open, t.PendingID)
		m.resolved[t.PendingID] = PendingPosted
	case t.Flags&Void != 0:
		delete(m.open, t.PendingID)
		m.resolved[t.PendingID] = PendingVoided
	}
	return OK
}

// applyAll applies a batch, chain by chain, on copies that are thrown away.
func (m *model) applyAll(ts []Transfer) []Status {
	var out []Status
	for len(ts) > 0 {
		n := 1
		for ts[n-1].Flags&Linked != 0 && n < len(ts) {
			n++
		}
		chain, trial := make([]Status, n), m.clone()
		failed := -1
		for i, t := range ts[:n] {
			if chain[i] = trial.apply(t); chain[i] != OK && failed < 0 {
				failed = i
			}
		}
		if ts[n-1].Flags&Linked != 0 {
			failed = n - 1
			chain[failed] = ChainOpen
		}
		if failed < 0 {
			*m = *trial
		}
		for i := range chain {
			if failed >= 0 && i != failed {
				chain[i] = LinkedFailed
			}
		}
		out, ts = append(out, chain...), ts[n:]
	}
	return out
}

func (m *model) expire(now unit.Instant) int {
	count := 0
	for id, t := range m.open {
		if t.Timeout > 0 && now-t.At >= unit.Instant(t.Timeout) {
			delete(m.open, id)
			m.resolved[id] = PendingExpired
			count++
		}
	}
	return count
}

// bank drives a ledger and its model together.
type bank struct {
	ledger  *Ledger
	model   *model
	now     unit.Instant
	sent    [][]Transfer    // every request ever made, to be delivered again
	journal []func(*Ledger) // what changed the books
}

var bankAccounts = []Account{
	Mint(), Wallet("a"), Wallet("b"), Deposit("a"), Heat(), System(), Lease("n"),
}

func newBank() *bank {
	b := &bank{ledger: New(Config{}), model: newModel()}
	for _, a := range bankAccounts {
		b.open(a)
	}
	return b
}

func (b *bank) open(a Account) {
	if b.ledger.Open(a) == OK {
		b.model.accounts[a.ID] = a
		b.journal = append(b.journal, func(l *Ledger) { l.Open(a) })
	}
}

// drawTransfer makes a request that is sensible more often than not. Ids come
// from a small pool, so that they collide.
func (b *bank) drawTransfer(t *rapid.T) Transfer {
	id := rapid.Custom(func(t *rapid.T) ID { return MakeID(0, rapid.Uint64Range(0, 60).Draw(t, "id")) })
	account := rapid.Custom(func(t *rapid.T) ID {
		return rapid.SampledFrom(append(bankAccounts, Wallet("nobody"))).Draw(t, "account").ID
	})
	tr := Transfer{ID: id.Draw(t, "transfer"), At: b.now, Code: ForOther}
	if rapid.IntRange(0, 19).Draw(t, "odd") == 0 { // anything at all
		tr.Flags = TransferFlags(rapid.Uint8Range(0, 31).Draw(t, "flags"))
		tr.Code = Purpose(rapid.Uint16Range(0, 24).Draw(t, "code"))
		tr.Timeout = time.Duration(rapid.Int64Range(-1, 1).Draw(t, "timeout"))
		tr.At -= unit.Instant(rapid.Int64Range(0, 1).Draw(t, "late"))
		tr.PendingID = id.Draw(t, "pending")
	}
	tr.Amount = unit.Credits(rapid.OneOf(
		rapid.Int64Range(1, 100), rapid.SampledFrom([]int64{-1, 0, math.MaxInt64 / 2, math.MaxInt64}),
	).Draw(t, "amount"))
	kind := rapid.IntRange(0, 5).Draw(t, "kind")
	if kind >= 4 && len(b.model.open) > 0 {
		tr.Flags |= Post
		tr.PendingID = rapid.SampledFrom(b.openHolds()).Draw(t, "hold")
		if kind == 5 {
			tr.Flags, tr.Amount = tr.Flags&^Post|Void, 0
		}
		tr.Code = rapid.SampledFrom([]Purpose{0, ForOther, ForRent}).Draw(t, "code")
		return tr
	}
	tr.Debit, tr.Credit = account.Draw(t, "debit"), account.Draw(t, "credit")
	if kind >= 2 {
		tr.Flags |= Pending
		tr.Timeout = time.Duration(rapid.Int64Range(0, 20).Draw(t, "timeout"))
	}
	return tr
}

func (b *bank) openHolds() []ID {
	return slices.SortedFunc(maps.Keys(b.model.open), func(x, y ID) int { return slices.Compare(x[:], y[:]) })
}

// deliver sends one request to both and compares the answers.
func (b *bank) deliver(t *rapid.T, ts []Transfer) {
	want := b.model.applyAll(ts)
	have := make([]Status, len(ts))
	if len(ts) == 1 && ts[0].Flags&Linked == 0 {
		have[0] = b.ledger.Apply(ts[0])
	} else {
		b.ledger.ApplyAll(ts, have)
	}
	if diff := cmp.Diff(want, have, cmp.Transformer("word", Status.String)); diff != "" {
		t.Fatalf("answers to %+v (-model +ledger):\n%s", ts, diff)
	}
	if slices.Contains(have, OK) {
		b.journal = append(b.journal, func(l *Ledger) { l.ApplyAll(ts, make([]Status, len(ts))) })
	}
}

// check compares every sum, and holds what must be true of any books.
func (b *bank) check(t *rapid.T) {
	for id, a := range b.model.accounts {
		have, ok := b.ledger.Lookup(id)
		if !ok {
			t.Fatalf("%s is not open", a.Name)
		}
		paid, held, received, coming := b.model.sums(id)
		for _, s := range []struct {
			name string
			want *big.Int
			have unit.Wide
		}{
			{"debits posted", paid, have.DebitsPosted},
			{"debits pending", held, have.DebitsPending},
			{"credits posted", received, have.CreditsPosted},
			{"credits pending", coming, have.CreditsPending},
		} {
			if s.want.String() != s.have.String() {
				t.Fatalf("%s: %s %v, model %v", a.Name, s.name, s.have, s.want)
			}
		}
		if a.Flags&DebitsMustNotExceedCredits != 0 && b.ledger.Available(id) < 0 {
			t.Fatalf("%s is overdrawn: %d", a.Name, b.ledger.Available(id))
		}
	}
	if sum := b.ledger.Sum(); sum != 0 {
		t.Fatalf("sum %d", sum)
	}
}

// replay runs the journal on a new ledger and compares.
func (b *bank) replay(t *rapid.T) {
	l := New(Config{})
	for _, entry := range b.journal {
		entry(l)
	}
	if diff := cmp.Diff(slices.Collect(b.ledger.Accounts()), slices.Collect(l.Accounts())); diff != "" {
		t.Fatalf("replay differs (-ledger +replay):\n%s", diff)
	}
	if diff := cmp.Diff(slices.Collect(b.ledger.Holds()), slices.Collect(l.Holds())); diff != "" {
		t.Fatalf("replayed holds differ (-ledger +replay):\n%s", diff)
	}
}

// TestModel is the state-machine test: any history of requests, each delivered
// none to three times and some of them late, against the slow model.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBank()
		t.Repeat(map[string]func(*rapid.T){
			"": b.check,
			"fund": func(t *rapid.T) {
				w := rapid.SampledFrom([]Account{Wallet("a"), Wallet("b")}).Draw(t, "wallet")
				b.deliver(t, []Transfer{{
					ID: MakeID(1, rapid.Uint64Range(0, 9).Draw(t, "id")), Debit: Mint().ID, Credit: w.ID,
					Amount: 100, Code: ForFunding, At: b.now,
				}})
			},
			"request": func(t *rapid.T) {
				ts := make([]Transfer, rapid.IntRange(1, 4).Draw(t, "length"))
				for i := range ts {
					ts[i] = b.drawTransfer(t)
					if i < len(ts)-1 && rapid.IntRange(0, 3).Draw(t, "linked") > 0 {
						ts[i].Flags |= Linked
					}
				}
				b.sent = append(b.sent, ts)
				for range rapid.IntRange(0, 3).Draw(t, "deliveries") {
					b.deliver(t, ts)
				}
			},
			"late": func(t *rapid.T) {
				if len(b.sent) > 0 {
					b.deliver(t, rapid.SampledFrom(b.sent).Draw(t, "request"))
				}
			},
			"time": func(t *rapid.T) { b.now += unit.Instant(rapid.Int64Range(1, 9).Draw(t, "ns")) },
			"expire": func(t *rapid.T) {
				now := b.now
				if want, have := b.model.expire(now), b.ledger.Expire(now); want != have {
					t.Fatalf("expired %d, model %d", have, want)
				}
				b.journal = append(b.journal, func(l *Ledger) { l.Expire(now) })
			},
			"replay": b.replay,
		})
		b.replay(t)
	})
}

// TestForgettingNeverRepeats: with a window of a few transfers, no id is ever
// applied twice, however late and however often it comes, and the books are
// the sum of what was answered with OK.
func TestForgettingNeverRepeats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := New(Config{Window: rapid.IntRange(1, 6).Draw(t, "window"), Holds: 3})
		mint, w, heat := Mint(), Wallet("w"), Heat()
		for _, a := range []Account{mint, w, heat} {
			l.Open(a)
		}
		var sent [][]Transfer
		var now unit.Instant
		var want unit.Credits
		applied := map[ID]bool{}
		deliver := func(t *rapid.T, ts []Transfer) {
			out := make([]Status, len(ts))
			l.ApplyAll(ts, out)
			for i, s := range out {
				if s != OK {
					continue
				}
				if applied[ts[i].ID] {
					t.Fatalf("%v applied twice", ts[i].ID)
				}
				applied[ts[i].ID] = true
				if ts[i].Debit == mint.ID {
					want += ts[i].Amount
				} else {
					want -= ts[i].Amount
				}
			}
			if have := l.Balance(w.ID); have != want {
				t.Fatalf("balance %d, want %d", have, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"new": func(t *rapid.T) {
				ts := make([]Transfer, rapid.IntRange(1, 4).Draw(t, "length"))
				for i := range ts {
					now += unit.Instant(rapid.Int64Range(0, 1).Draw(t, "ns"))
					ts[i] = Transfer{
						ID: MakeID(1, uint64(len(sent)*4+i+1)), Debit: mint.ID, Credit: w.ID,
						Amount: unit.Credits(rapid.Int64Range(1, 9).Draw(t, "amount")), Code: ForFunding, At: now,
					}
					if rapid.Bool().Draw(t, "spend") {
						ts[i].Debit, ts[i].Credit, ts[i].Code = w.ID, heat.ID, ForEnergy
					}
					if i < len(ts)-1 {
						ts[i].Flags = Linked
					}
				}
				sent = append(sent, ts)
				deliver(t, ts)
			},
			"again": func(t *rapid.T) {
				if len(sent) > 0 {
					deliver(t, rapid.SampledFrom(sent).Draw(t, "request"))
				}
			},
		})
	})
}
