package demon

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// standing is a wallet that no workload owns: a person's, a team's. Workloads
// that name it (Admission.Wallet) get their budgets from it, or draw from it as
// they spend, and return what they leave. Its allowance comes from its parent, so
// that a parent's balance bounds its children, or from the mint.
type standing struct {
	name      string
	parent    *standing   // nil = the mint
	children  []*standing // in order of opening
	allowance unit.Allowance
	most      unit.Credits // that its allowance fills it to; 0 = no end
	account   ledger.ID

	since   unit.Instant // until when its allowance was paid
	carry   int64        // of it below a micro-$J, in micro-$J / allowance.Every
	changed bool         // since the last SavesOfWallets

	want    unit.Credits // while its family is paid
	blocked bool         // while those who draw from it are served: somebody waits
}

// SavedWallet is what a new process needs to go on with a standing wallet. Its
// balance is in the books.
type SavedWallet struct {
	Name      string         `json:"name"`
	Parent    string         `json:"parent"`
	Allowance unit.Allowance `json:"allowance"`
	Most      unit.Credits   `json:"most_ucredits"`
	Since     unit.Instant   `json:"since_ns"`
	Carry     int64          `json:"carry"`            // in micro-$J / Allowance.Every
	Closed    bool           `json:"closed,omitempty"` // it was closed at Since
}

// WalletLine is a standing wallet's statement.
type WalletLine struct {
	Name, Parent string
	Balance      unit.Credits
	Allowance    unit.Allowance
	Most         unit.Credits
}

// OpenWallet opens a standing wallet that is filled at allowance up to most from
// its parent, or from the mint if it has none; or changes the terms of one that is
// open. One that is made begins with the allowance of one period, as a bucket that
// leaks in begins full: whoever it is made for can start something at once. One that
// the resumed books know keeps its balance, and its allowance begins anew; see
// ReopenWallet.
func (d *Demon) OpenWallet(now unit.Instant, name, parent string, allowance unit.Allowance, most unit.Credits) error {
	if allowance.Every > mostEvery {
		return &Refusal{What: "allowance", Reason: "an allowance comes at least once a year; give it by the day"}
	}
	_, known := d.book.Lookup(ledger.Wallet(name).ID)
	_, bonded := d.book.Lookup(ledger.Deposit(name).ID) // a dead workload's account, not a wallet's
	if err := d.ReopenWallet(now, SavedWallet{Name: name, Parent: parent, Allowance: allowance, Most: most, Since: now}); err != nil {
		return err
	}
	if !known || bonded {
		d.begin(d.wallets[name], now)
	}
	return nil
}

// mostEvery is the longest period of an allowance: one of a leap year.
const mostEvery = 366 * 24 * time.Hour

// begin pays a wallet that was just made what it begins with, in advance: as much of
// a period as fits, and as its parent has left when the other children are paid. One
// that was there before and was closed has what came in since, at most: whoever closes
// and opens it again gains nothing.
func (d *Demon) begin(v *standing, now unit.Instant) {
	amount := v.allowance.Amount
	if at, was := d.closed[v.name]; was {
		if v.allowance.Amount > 0 {
			amount = min(amount, v.allowance.Over(time.Duration(now-at.since)))
		}
		delete(d.closed, v.name)
	}
	if v.most > 0 {
		amount = min(amount, v.most)
	}
	d.refillAll(now)
	source, has := mintID, d.money.left()
	if v.parent != nil {
		source, has = v.parent.account, d.book.Balance(v.parent.account)
		v.parent.changed = true
	}
	if amount = min(amount, has); amount <= 0 {
		return
	}
	b := &d.money
	b.chain, b.user = b.chain[:0], 0
	b.add(source, v.account, amount, ledger.ForAllowance)
	b.apply(v.name)
}

// closed is a standing wallet that was closed.
type closed struct {
	since   unit.Instant // when; its allowance was paid until then
	changed bool         // since the last SavesOfWallets
}

// CloseWallet takes a standing wallet away. What it has goes back to its parent, or
// to the mint if it has none; to is the parent's name.
func (d *Demon) CloseWallet(now unit.Instant, name string) (back unit.Credits, to string, err error) {
	v := d.wallets[name]
	if v == nil {
		return 0, "", &Refusal{What: "wallet", Reason: fmt.Sprintf("there is no wallet %q", name)}
	}
	if len(v.children) > 0 {
		return 0, "", &Refusal{What: "wallet", Reason: fmt.Sprintf(
			"%q fills %s; remove that first, or give it another parent: maxwell wallet create --change", name, v.children[0].name)}
	}
	for _, w := range d.slots {
		if w != nil && w.purse.from == v {
			return 0, "", &Refusal{What: "wallet", Reason: fmt.Sprintf("%q pays %s; end that first: maxwell stop %s, or detach it", name, w.ask.Name, w.ask.Name)}
		}
	}
	d.refillAll(now) // what its parent's children were not paid before, it does not owe them
	b := &d.money
	back = d.book.Balance(v.account)
	target := mintID
	if v.parent != nil {
		target, to = v.parent.account, v.parent.name
		v.parent.changed = true
	}
	b.chain, b.user = b.chain[:0], 0
	if b.add(v.account, target, back, ledger.ForReturn); len(b.chain) > 0 {
		b.apply(name)
	}
	b.forget(name, v.account)
	v.adopt(nil)
	delete(d.wallets, name)
	d.standing = slices.DeleteFunc(d.standing, func(o *standing) bool { return o == v })
	d.noteClosed(name, closed{since: now, changed: true})
	return back, to, nil
}

func (d *Demon) noteClosed(name string, c closed) {
	if d.closed == nil {
		d.closed = make(map[string]closed)
	}
	d.closed[name] = c
}

// ReopenWallet is OpenWallet of a saved one: its allowance of the time between is
// paid. It comes before the workloads that name it are readopted. One that was closed
// stays so.
func (d *Demon) ReopenWallet(now unit.Instant, s SavedWallet) error {
	if s.Closed {
		d.noteClosed(s.Name, closed{since: min(s.Since, now)})
		return nil
	}
	parent, known := d.wallets[s.Parent]
	s.Since = min(s.Since, now)
	if s.Carry < 0 || s.Carry >= int64(s.Allowance.Every) {
		s.Carry = 0 // an older Maxwell's sum that did not fit; it is below a micro-$J
	}
	_, bonded := d.book.Lookup(ledger.Deposit(s.Name).ID)
	switch {
	case s.Name == "":
		return &Refusal{What: "name", Reason: "a wallet needs a name"}
	case s.Allowance.Amount < 0 || s.Most < 0 || s.Allowance.Every < 0 || s.Allowance.Amount > 0 && s.Allowance.Every == 0:
		return &Refusal{What: "allowance", Reason: "give amounts that are not negative"}
	case s.Parent != "" && !known:
		return &Refusal{What: "parent", Reason: fmt.Sprintf("there is no wallet %q; open it first", s.Parent)}
	case bonded && (d.resumed || d.living(s.Name)): // or its workload is yet to be readopted
		return &Refusal{What: "name", Reason: fmt.Sprintf("%q is a workload's wallet; take another name", s.Name)}
	}
	for up := parent; up != nil; up = up.parent {
		if up.name == s.Name {
			return &Refusal{What: "parent", Reason: fmt.Sprintf("%q would be its own parent", s.Name)}
		}
	}
	v := d.wallets[s.Name]
	if v == nil {
		if bonded {
			d.money.retire(s.Name) // a dead one's
		}
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
		if v.allowance.Every != s.Allowance.Every {
			v.carry = 0
		}
	}
	v.adopt(parent)
	v.allowance, v.most, v.changed = s.Allowance, s.Most, true
	return nil
}

// adopt gives v a parent, or none.
func (v *standing) adopt(parent *standing) {
	if v.parent == parent {
		return
	}
	if v.parent != nil {
		v.parent.children = slices.DeleteFunc(v.parent.children, func(c *standing) bool { return c == v })
	}
	if v.parent = parent; parent != nil {
		parent.children = append(parent.children, v)
	}
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
	d.refillAll(now) // what its children were not paid before, it does not owe them
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

// refill pays v's allowance until now, and those of its parent's other children,
// after the parent's own. What a parent cannot pay in full it pays in parts, to each
// the same of what is due. What does not fit, or what the parent does not have, is
// not owed.
func (d *Demon) refill(v *standing, now unit.Instant) {
	if v.parent == nil {
		d.fill(v, now, v.due(now, d.book.Balance(v.account)), mintID, d.money.left())
		return
	}
	d.refill(v.parent, now)
	all, has := int64(0), d.book.Balance(v.parent.account)
	for _, c := range v.parent.children {
		c.want = c.due(now, d.book.Balance(c.account))
		all = sum(all, int64(min(c.want, has)))
	}
	for _, c := range v.parent.children {
		part := min(c.want, has)
		if unit.Credits(all) > has {
			part = unit.Credits(unit.MulDiv(int64(part), int64(has), all))
		}
		d.fill(c, now, c.want, v.parent.account, min(part, d.book.Balance(v.parent.account)))
	}
}

// due is what v's allowance has come to since it was last paid, as far as it fits.
func (v *standing) due(now unit.Instant, balance unit.Credits) unit.Credits {
	whole, _ := v.accrued(now)
	if v.most > 0 {
		whole = min(whole, max(0, v.most-balance))
	}
	return whole
}

// accrued is what v's allowance has come to since it was last paid, and the rest of
// it below a micro-$J.
func (v *standing) accrued(now unit.Instant) (whole unit.Credits, rest int64) {
	elapsed, every := int64(now-v.since), int64(v.allowance.Every)
	if elapsed <= 0 || v.allowance.Amount == 0 {
		return 0, v.carry
	}
	if unit.MulDivSat(int64(v.allowance.Amount), elapsed, every) >= int64(mostMoney)-1 {
		return mostMoney, 0
	}
	q, r := unit.MulDivRem(int64(v.allowance.Amount), elapsed, every)
	if r >= every-v.carry { // both are below every: their sum may not fit
		return unit.Credits(q + 1), r - (every - v.carry)
	}
	return unit.Credits(q), r + v.carry
}

// fill pays v what it is due until now, at most fits, from source.
func (d *Demon) fill(v *standing, now unit.Instant, due unit.Credits, source ledger.ID, fits unit.Credits) {
	if now <= v.since {
		return
	}
	whole, rest := v.accrued(now)
	v.since = now
	if v.allowance.Amount == 0 {
		return
	}
	amount := max(0, min(due, fits))
	if amount < whole {
		rest = 0
	}
	// A full wallet need not be saved: what it gives later is. One whose parent is
	// poor must be, or a new process would pay what is not owed.
	v.changed = v.changed || amount > 0 || amount < due
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

// draw makes the standing wallet that a names ready to pay a's budget, or what it
// draws first; nil if a names none.
func (d *Demon) draw(now unit.Instant, a *Admission) (*standing, error) {
	if _, taken := d.wallets[a.Name]; taken {
		return nil, &Refusal{What: "name", Reason: fmt.Sprintf("%q is a wallet's name", a.Name)}
	}
	if a.Wallet == "" {
		return nil, nil
	}
	v := d.wallets[a.Wallet]
	if v == nil {
		return nil, &Refusal{What: "wallet", Reason: fmt.Sprintf("there is no wallet %q; open it first", a.Wallet)}
	}
	d.refill(v, now)
	has := d.book.Balance(v.account)
	if a.Budget > has {
		return nil, &Refusal{
			What: "budget", Need: a.Budget,
			Reason: fmt.Sprintf("wallet %q has %v; give less, or fund it", a.Wallet, has),
		}
	}
	if least := price.MinimumBudget(d.Deposit(a)); a.Budget == 0 && has < least {
		return nil, &Refusal{
			What: "wallet", Need: least,
			Reason: fmt.Sprintf("wallet %q has %v, and what draws from it starts with %v; fund it, or wait for its allowance", a.Wallet, has, roundUp(least)),
		}
	}
	return v, nil
}

// RefillWallets pays the allowances that are due, as Step does now and then and
// whenever they matter. Balances are up to date after it.
func (d *Demon) RefillWallets(now unit.Instant) { d.refillAll(now) }

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
// in the order in which they have to be reopened, and those that were closed. It goes
// with Entries and Saves.
func (d *Demon) SavesOfWallets() []SavedWallet {
	var list []SavedWallet
	for _, name := range slices.Sorted(maps.Keys(d.closed)) {
		if c := d.closed[name]; c.changed {
			list = append(list, SavedWallet{Name: name, Since: c.since, Closed: true})
			d.closed[name] = closed{since: c.since}
		}
	}
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
