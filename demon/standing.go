package demon

import (
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// standing is a wallet that no workload owns: a person's, a team's. Workloads
// that name it (Admission.Wallet) get their budgets from it and return what they
// leave. Its allowance comes from its parent, so that a parent's balance bounds
// its children, or from the mint.
type standing struct {
	name      string
	parent    *standing // nil = the mint
	allowance unit.Spend
	most      unit.Credits // that its allowance fills it to; 0 = no end
	account   ledger.ID

	since   unit.Instant // until when its allowance was paid
	carry   int64        // of it below a micro-$J, in 1e-9
	changed bool         // since the last SavesOfWallets
}

// SavedWallet is what a new process needs to go on with a standing wallet. Its
// balance is in the books.
type SavedWallet struct {
	Name      string       `json:"name"`
	Parent    string       `json:"parent"`
	Allowance unit.Spend   `json:"allowance_ucredits_per_s"`
	Most      unit.Credits `json:"most_ucredits"`
	Since     unit.Instant `json:"since_ns"`
	Carry     int64        `json:"carry_ncredits"` // in 1e-9 micro-$J, below 1e9
}

// WalletLine is a standing wallet's statement.
type WalletLine struct {
	Name, Parent string
	Balance      unit.Credits
	Allowance    unit.Spend
	Most         unit.Credits
}

// OpenWallet opens a standing wallet that is filled at allowance up to most from
// its parent, or from the mint if it has none; or changes the terms of one that is
// open. One that the resumed books know keeps its balance, and its allowance begins
// anew; see ReopenWallet.
func (d *Demon) OpenWallet(now unit.Instant, name, parent string, allowance unit.Spend, most unit.Credits) error {
	return d.ReopenWallet(now, SavedWallet{Name: name, Parent: parent, Allowance: allowance, Most: most, Since: now})
}

// ReopenWallet is OpenWallet of a saved one: its allowance of the time between is
// paid. It comes before the workloads that name it are readopted.
func (d *Demon) ReopenWallet(now unit.Instant, s SavedWallet) error {
	parent, known := d.wallets[s.Parent]
	s.Since = min(s.Since, now)
	_, bonded := d.book.Lookup(ledger.Deposit(s.Name).ID)
	switch {
	case s.Name == "":
		return &Refusal{What: "name", Reason: "a wallet needs a name"}
	case s.Allowance < 0 || s.Most < 0 || s.Carry < 0 || s.Carry >= int64(time.Second):
		return &Refusal{What: "allowance", Reason: "give amounts that are not negative"}
	case s.Parent != "" && !known:
		return &Refusal{What: "parent", Reason: fmt.Sprintf("there is no wallet %q; open it first", s.Parent)}
	case bonded:
		return &Refusal{What: "name", Reason: fmt.Sprintf("%q is a workload's wallet; take another name", s.Name)}
	}
	for up := parent; up != nil; up = up.parent {
		if up.name == s.Name {
			return &Refusal{What: "parent", Reason: fmt.Sprintf("%q would be its own parent", s.Name)}
		}
	}
	v := d.wallets[s.Name]
	if v == nil {
		account := ledger.Wallet(s.Name)
		if status := d.money.openAccount(account); !status.Done() {
			return &Refusal{What: "name", Reason: fmt.Sprintf("open %s: %v", account.Name, status)}
		}
		delete(d.money.wallet, s.Name) // resumed books do not say whose it is
		v = &standing{name: s.Name, account: account.ID, since: s.Since, carry: s.Carry}
		if d.wallets == nil {
			d.wallets = make(map[string]*standing)
		}
		d.wallets[s.Name] = v
		d.standing = append(d.standing, v)
	} else {
		d.refill(v, now) // by its old terms
	}
	v.parent, v.allowance, v.most, v.changed = parent, s.Allowance, s.Most, true
	return nil
}

// FundWallet mints amount into a standing wallet, at once, and returns its
// balance. With an id that is not zero it has one effect, as FundAs.
func (d *Demon) FundWallet(now unit.Instant, name string, amount unit.Credits, id ledger.ID) (unit.Credits, error) {
	v := d.wallets[name]
	if v == nil {
		return 0, &Refusal{What: "wallet", Reason: fmt.Sprintf("there is no wallet %q", name)}
	}
	what := request{debit: mintID, credit: v.account, amount: amount}
	if !id.IsZero() {
		if done, err := d.money.asked.judge(id, what); done || err != nil {
			return d.book.Balance(v.account), err
		}
	}
	switch {
	case amount <= 0:
		return 0, &Refusal{What: "amount", Reason: "give a positive amount"}
	case !d.money.room(amount):
		return 0, &Refusal{What: "amount", Reason: fmt.Sprintf("%v is more money than a market can hold; give less", amount)}
	}
	d.refill(v, now)
	v.changed = true
	b := &d.money
	b.chain, b.user = b.chain[:0], 0
	if !id.IsZero() {
		b.user = callerMade
		b.asked.remember(id, what)
	}
	b.add(mintID, v.account, amount, ledger.ForFunding)
	b.chain[0].ID = id
	b.apply(name)
	return d.book.Balance(v.account), nil
}

// refill pays v's allowance until now, after its parent's. What does not fit, or
// what the parent does not have, is not owed.
func (d *Demon) refill(v *standing, now unit.Instant) {
	if v.parent != nil {
		d.refill(v.parent, now)
	}
	elapsed := int64(now - v.since)
	if elapsed <= 0 {
		return
	}
	v.since = now
	if v.allowance == 0 {
		return
	}
	whole, rest := int64(mostMoney), int64(0)
	if hi := unit.MulDivSat(int64(v.allowance), elapsed, int64(time.Second)); hi < int64(mostMoney)-1 {
		whole, rest = unit.MulDivRem(int64(v.allowance), elapsed, int64(time.Second))
		whole, rest = whole+(rest+v.carry)/int64(time.Second), (rest+v.carry)%int64(time.Second)
	}
	fits := mostMoney + d.book.Balance(mintID) // minted so far is negative
	source := mintID
	if v.parent != nil {
		source, fits = v.parent.account, d.book.Balance(v.parent.account)
	}
	if v.most > 0 {
		fits = min(fits, v.most-d.book.Balance(v.account))
	}
	amount := min(unit.Credits(whole), max(0, fits))
	if amount < unit.Credits(whole) {
		rest = 0
	}
	// A full wallet need not be saved: what it gives later is. One whose parent is
	// poor must be, or a new process would pay what is not owed.
	poor := amount < unit.Credits(whole) && (v.most == 0 || d.book.Balance(v.account)+amount < v.most)
	v.changed = v.changed || amount > 0 || poor
	v.carry = rest
	if amount == 0 {
		return
	}
	b := &d.money
	b.chain, b.user = b.chain[:0], 0
	b.add(source, v.account, amount, ledger.ForAllowance)
	b.apply(v.name)
	if v.parent != nil {
		v.parent.changed = true
	}
}

// refillAll pays every allowance until now.
func (d *Demon) refillAll(now unit.Instant) {
	for _, v := range d.standing {
		d.refill(v, now)
	}
}

// draw makes the standing wallet that a names ready to pay a's budget; nil if a
// names none.
func (d *Demon) draw(now unit.Instant, a *Admission) (*standing, error) {
	if _, taken := d.wallets[a.Name]; taken {
		return nil, &Refusal{What: "name", Reason: fmt.Sprintf("%q is a wallet's name", a.Name)}
	}
	if a.Wallet == "" {
		return nil, nil
	}
	v := d.wallets[a.Wallet]
	switch {
	case v == nil:
		return nil, &Refusal{What: "wallet", Reason: fmt.Sprintf("there is no wallet %q; open it first", a.Wallet)}
	case a.Budget <= 0:
		return nil, &Refusal{What: "budget", Reason: fmt.Sprintf("give a budget to take from wallet %q", a.Wallet)}
	}
	d.refill(v, now)
	if has := d.book.Balance(v.account); a.Budget > has {
		return nil, &Refusal{
			What: "budget", Need: a.Budget,
			Reason: fmt.Sprintf("wallet %q has %v; give less, or fund it", a.Wallet, has),
		}
	}
	return v, nil
}

// Wallets returns the standing wallets in the order in which they were opened.
func (d *Demon) Wallets() []WalletLine {
	var lines []WalletLine
	for _, v := range d.standing {
		l := WalletLine{Name: v.name, Balance: d.book.Balance(v.account), Allowance: v.allowance, Most: v.most}
		if v.parent != nil {
			l.Parent = v.parent.name
		}
		lines = append(lines, l)
	}
	return lines
}

// SavesOfWallets hands over the standing wallets that changed since the last call,
// in the order in which they have to be reopened. It goes with Entries and Saves.
func (d *Demon) SavesOfWallets() []SavedWallet {
	var list []SavedWallet
	for _, v := range d.standing {
		if !v.changed {
			continue
		}
		v.changed = false
		s := SavedWallet{Name: v.name, Allowance: v.allowance, Most: v.most, Since: v.since, Carry: v.carry}
		if v.parent != nil {
			s.Parent = v.parent.name
		}
		list = append(list, s)
	}
	return list
}
