package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// ofWallet is the kind of a standing wallet's document, by its name.
const ofWallet = "wallet"

// wallet is what the node knows of a standing wallet beside the demon. It is not
// changed once it is in Market.wallets: another takes its place.
type wallet struct {
	owner   uint32
	created time.Time
}

// keptWallet is a standing wallet in the journal; its document's user is its owner.
type keptWallet struct {
	Saved   demon.SavedWallet `json:"saved"`
	At      unit.Instant      `json:"at_ns"` // when it was saved, on the clock of Saved.Since
	Created time.Time         `json:"created"`
}

func (k *keptWallet) encode() ([]byte, error) { return json.Marshal(k) }

// walletNotes are the standing wallets that changed, for the write that has what
// they paid. Called on the loop's thread.
func (l *loop) walletNotes() []note {
	if !l.m.durable() {
		return nil
	}
	var notes []note
	for _, s := range l.demon.SavesOfWallets() {
		known, _ := l.m.walletNamed(s.Name)
		notes = append(notes, note{
			ref: journal.Ref{Kind: ofWallet, Key: s.Name}, uid: known.owner, wall: time.Now(),
			body: &keptWallet{Saved: s, At: l.clock.Now(), Created: known.created},
		})
	}
	return notes
}

// reopenWallets takes the standing wallets of earlier processes back, parents first.
// The time between counts: an allowance is the wallet's, and not the daemon's.
func (m *Market) reopenWallets(p *past) error {
	waiting := make(map[string]demon.SavedWallet)
	var order []string
	for d, err := range p.keeper.store.Documents(journal.Query{Kind: ofWallet}) {
		var k keptWallet
		if err == nil {
			err = json.Unmarshal(d.Body, &k)
		}
		if err == nil && k.Saved.Name != d.Key {
			err = fmt.Errorf("it is called %q", k.Saved.Name)
		}
		if err != nil {
			return fmt.Errorf("read wallet %s: %w", d.Key, err)
		}
		if !p.boot {
			k.Saved.Since = since(&k, m.loop.clock.Now(), time.Since(d.Wall))
		}
		switch {
		case !k.Saved.Closed:
			m.noteWallet(d.Key, wallet{owner: d.UID, created: k.Created})
		case time.Since(d.Wall) > keepClosed:
			p.keeper.hand(nil, note{ref: journal.Ref{Kind: ofWallet, Key: d.Key}})
			continue
		}
		waiting[d.Key] = k.Saved
		order = append(order, d.Key)
	}
	var open func(name string) error
	open = func(name string) error {
		s, here := waiting[name]
		if !here {
			return nil // open, or not there: the demon says which
		}
		delete(waiting, name)
		if err := open(s.Parent); err != nil {
			return err
		}
		if err := m.loop.demon.ReopenWallet(m.loop.clock.Now(), s); err != nil {
			return fmt.Errorf("reopen wallet %s: %w", name, err)
		}
		return nil
	}
	for _, name := range order {
		if err := open(name); err != nil {
			return err
		}
	}
	return nil
}

// keepClosed is how long it is remembered of a wallet that was removed when that was,
// so that one that is made again does not begin with a whole period of its allowance.
// The longest that the command line knows is a day.
const keepClosed = 30 * 24 * time.Hour

// longestAway bounds what the calendar can say of the time between two boots.
const longestAway = 30 * 24 * time.Hour

// since is until when an allowance was paid, on the clock of another boot than the
// one on which it was saved: the calendar bridges them. One that was set back pays
// nothing for the time between, and one that was not set at first (1970) a month at most.
func since(k *keptWallet, now unit.Instant, away time.Duration) unit.Instant {
	return now - unit.Instant(min(max(0, away), longestAway)) - max(0, k.At-k.Saved.Since)
}

// walletNamed is what is known of a standing wallet.
func (m *Market) walletNamed(name string) (wallet, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, known := m.wallets[name]
	return w, known
}

func (m *Market) noteWallet(name string, w wallet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wallets == nil {
		m.wallets = make(map[string]wallet)
	}
	m.wallets[name] = w
}

// ownsWallet is the standing wallet of that name, if a may see it and spend it. It is asked
// again where money moves.
func (m *Market) ownsWallet(a actor, name string) (wallet, bool) {
	w, known := m.walletNamed(name)
	return w, known && a.self == nil && (a.admin || a.uid == w.owner)
}

// sharesWallet reports whether a wallet pays what a user starts because his rule says so.
func (m *Market) sharesWallet(uid uint32, name string) bool {
	_, known := m.walletNamed(name)
	return known && name == m.walletByRule(uid)
}

// walletByRule is the wallet that a user's rule gives to what he starts; "" if none.
func (m *Market) walletByRule(uid uint32) string {
	if !m.durable() || m.admin(uid) {
		return ""
	}
	rule, subject := m.ruleForUser(uid)
	if rule.Wallet.Open() {
		return ""
	}
	name, _ := rule.Names(subject)
	return name
}

// ownWallets adds the standing wallets that a may see to names.
func (m *Market) ownWallets(a actor, names map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, w := range m.wallets {
		if a.self == nil && (a.admin || a.uid == w.owner) {
			names[name] = true
		}
	}
}

// noWallet refuses a name: it is not there, or not the caller's.
func noWallet(name string) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("no wallet %q of yours; maxwell wallet ls lists them", name))
}

// mints refuses who may not make money. In a market that ends with its clients the
// money is its user's own to make.
func (m *Market) mints(a actor, remedy string) error {
	if a.admin || !m.durable() {
		return nil
	}
	return connect.NewError(connect.CodePermissionDenied, errors.New("only an admin makes money in this market; "+remedy))
}

// What is made for users, who may make no money that stays: the budgets of what they start
// without a wallet, and what that earns. Most of what a market can hold is not theirs, so
// that no user can keep others from being paid.
const (
	mostForUser  = unit.Credits(1 << 50) // of one, alive: 1.1 thousand million $J, 3.5 years of a core
	leastForUser = unit.Credits(1 << 40) // of one workload, that is not worth adding up
	mostForAll   = unit.Credits(1 << 60) // left for admins
)

// makes refuses to make so much money for a user's workload, beside what was made for his
// others. Called on the loop's thread.
func (m *Market) makes(uid uint32, amount unit.Credits) error {
	if amount <= 0 || !m.durable() || m.admin(uid) {
		return nil
	}
	has := unit.Credits(0)
	for _, mem := range m.loop.serials {
		if mem.uid == uid {
			has = min(has+m.loop.demon.MintedFor(mem.slot), mostForUser)
		}
	}
	if amount > mostForUser-has {
		return &demon.Refusal{What: "budget", Reason: fmt.Sprintf(
			"at most %v is made for what you run at once; give less, or a wallet: --wallet WALLET", mostForUser.Short())}
	}
	if m.loop.demon.Room(mostForAll+amount)-amount < mostForAll {
		return &demon.Refusal{What: "budget", Reason: "no more money is made for users in this market; give less, or a wallet: --wallet WALLET"}
	}
	return nil
}

// earns reports whether a workload may be paid for so many units: money that is made on
// its own word, for a user who makes none. Called on the loop's thread.
func (m *Market) earns(mem *member, units int64) bool {
	if !m.durable() || m.admin(mem.uid) {
		return true
	}
	amount := unit.Credits(unit.MulDivSat(mem.asked.GetIncomeUcredits(), max(0, units), 1))
	return amount < leastForUser && m.loop.demon.MintedFor(mem.slot) < leastForUser || m.makes(mem.uid, amount) == nil
}

// keepsMade refuses to move what is not a user's own to where it would stay his: what was
// made for his workload, or given to it by a wallet that others share, into a wallet, or to
// a workload that leaves to one what it has. Called on the loop's thread.
func (m *Market) keepsMade(a actor, from, to demon.Holder) error {
	if a.admin || !m.durable() || from.Wallet != "" {
		return nil
	}
	giver, _ := m.loop.demon.LineOf(from.Slot)
	taker, _ := m.loop.demon.LineOf(to.Slot)
	into := cmp.Or(to.Wallet, taker.Wallet)
	_, own := m.ownsWallet(a, giver.Wallet)
	switch {
	case into == "" || into == giver.Wallet || own:
		return nil
	case giver.Wallet != "":
		return connect.NewError(connect.CodePermissionDenied,
			fmt.Errorf("what %s has is from %s, which is not yours, and stays with what that pays; ask an admin", giver.Name, giver.Wallet))
	}
	return m.mints(a, "what was made for "+giver.Name+" stays with workloads that no wallet pays")
}

// ensureWallet opens a standing wallet, or gives these terms to the one that is open;
// where they are its terms already, nothing changes. Called on the loop's thread.
func (m *Market) ensureWallet(name, parent string, allowance unit.Allowance, most unit.Credits, owner uint32) error {
	known, open := m.walletNamed(name)
	lines := m.loop.demon.Wallets()
	i := slices.IndexFunc(lines, func(l demon.WalletLine) bool { return l.Name == name })
	if open && i >= 0 && known.owner == owner && lines[i].Parent == parent && lines[i].Allowance == allowance && lines[i].Most == most {
		return nil
	}
	if p := fleet.CheckName(name); p != nil {
		return &demon.Refusal{What: "name", Reason: p.Error()}
	}
	if err := m.loop.demon.OpenWallet(m.loop.clock.Now(), name, parent, allowance, most); err != nil {
		return err
	}
	if !open {
		known.created = time.Now()
	}
	known.owner = owner
	m.noteWallet(name, known)
	return nil
}

// ensureParent opens the wallet that a rule's wallet draws from, unless it is there: it is
// root's, and empty until an admin fills it. Called on the loop's thread.
func (m *Market) ensureParent(name string) error {
	if _, open := m.walletNamed(name); open || name == "" {
		return nil
	}
	if err := m.ensureWallet(name, "", unit.Allowance{}, 0, 0); err != nil {
		return err
	}
	m.log.Warn("a rule's wallets draw from one that nobody had made: it is empty until you fund it or give it an allowance", "wallet", name)
	return nil
}

// CreateWallet implements MarketService.
func (s service) CreateWallet(ctx context.Context, req *v1.CreateWalletRequest) (*v1.CreateWalletResponse, error) {
	a, err := s.actor(ctx)
	if err == nil {
		err = a.outside("open wallets")
	}
	if err != nil {
		return nil, err
	}
	if out, known := answered[*v1.CreateWalletResponse](&s.m.answers, a.uid, req); known {
		return out, s.m.settled(ctx)
	}
	if err := cmp.Or(s.m.mayCreate(a, req), s.m.reserved(a, req)); err != nil {
		return nil, err
	}
	return mutate(ctx, s.m, a.uid, req, func(l *loop) (*v1.CreateWalletResponse, error) {
		before, known := s.m.walletNamed(req.GetName())
		switch {
		case known && !req.GetChange():
			return nil, &demon.Refusal{What: "name", Reason: fmt.Sprintf("%q is a wallet's name; take another, or change that one: maxwell wallet create --change", req.GetName())}
		case !known && req.GetChange():
			return nil, noWallet(req.GetName())
		case !known:
			if err := s.m.roomForWallet(a); err != nil {
				return nil, err
			}
		}
		if err := s.m.mayCreate(a, req); err != nil { // its parent may have changed hands
			return nil, err
		}
		owner := a.uid
		switch {
		case req.Owner != nil:
			owner = req.GetOwner()
		case known:
			owner = before.owner
		}
		allowance := unit.Allowance{Amount: unit.Credits(req.GetAllowanceUcredits()), Every: time.Duration(req.GetAllowanceEveryNs())}
		if err := s.m.ensureWallet(req.GetName(), req.GetParent(), allowance, unit.Credits(req.GetMostUcredits()), owner); err != nil {
			return nil, err
		}
		lines := l.demon.Wallets()
		i := slices.IndexFunc(lines, func(w demon.WalletLine) bool { return w.Name == req.GetName() })
		return &v1.CreateWalletResponse{Wallet: s.m.walletOn(&lines[i])}, nil
	})
}

// mayCreate says why a may not open a wallet, or change one, as asked.
func (m *Market) mayCreate(a actor, req *v1.CreateWalletRequest) error {
	switch {
	case req.GetAllowanceUcredits() < 0 || req.GetMostUcredits() < 0 || req.GetAllowanceEveryNs() < 0:
		return refused(&demon.Refusal{What: "allowance", Reason: "give amounts that are not negative"})
	case req.GetMostUcredits() > 0 && req.GetAllowanceUcredits() == 0:
		return refused(&demon.Refusal{What: "most", Reason: "a cap on saving needs an allowance to save; give both, or none"})
	case req.GetAllowanceUcredits() > 0 && req.GetAllowanceEveryNs() < int64(time.Second):
		return refused(&demon.Refusal{What: "allowance", Reason: "an allowance comes at most every second"})
	case req.Owner != nil && req.GetOwner() != a.uid && !a.admin:
		return connect.NewError(connect.CodePermissionDenied, errors.New("only an admin opens wallets of others; leave --owner out"))
	}
	if req.GetChange() {
		if _, mine := m.ownsWallet(a, req.GetName()); !mine {
			return noWallet(req.GetName())
		}
	}
	if parent := req.GetParent(); parent != "" {
		if _, mine := m.ownsWallet(a, parent); !mine {
			return noWallet(parent)
		}
		return nil
	}
	if req.GetAllowanceUcredits() > 0 {
		return m.mints(a, "give a wallet of yours that the allowance comes from: --parent WALLET")
	}
	return nil
}

// reserved refuses a user a new wallet under a name that a rule may give to one: it would
// have what the rule means for others. His own is his.
func (m *Market) reserved(a actor, req *v1.CreateWalletRequest) error {
	name := req.GetName()
	if a.admin || req.GetChange() || !m.durable() || !m.settings.Daemon.Config.Reserves(name, accounts{&m.users}) {
		return nil
	}
	if rule, _ := m.ruleForUser(a.uid); rule.Wallet.Personal() && m.walletByRule(a.uid) == name {
		return nil
	}
	return connect.NewError(connect.CodePermissionDenied,
		fmt.Errorf("%q is the name of a wallet that a rule may give to somebody; take another, or ask an admin to open it", name))
}

// RemoveWallet implements MarketService.
func (s service) RemoveWallet(ctx context.Context, req *v1.RemoveWalletRequest) (*v1.RemoveWalletResponse, error) {
	a, err := s.actor(ctx)
	if err == nil {
		err = a.outside("remove wallets")
	}
	if err == nil && !a.admin {
		err = connect.NewError(connect.CodePermissionDenied, errors.New("only an admin removes wallets; empty yours by maxwell transfer"))
	}
	if err != nil {
		return nil, err
	}
	return mutate(ctx, s.m, a.uid, req, func(l *loop) (*v1.RemoveWalletResponse, error) {
		if _, known := s.m.walletNamed(req.GetName()); !known {
			return nil, noWallet(req.GetName())
		}
		back, to, err := l.demon.CloseWallet(l.clock.Now(), req.GetName())
		if err != nil {
			return nil, connect.NewError(connect.CodeFailedPrecondition, err)
		}
		s.m.mu.Lock()
		delete(s.m.wallets, req.GetName())
		s.m.mu.Unlock()
		s.m.changes.Add(1)
		s.m.log.Info("wallet removed", "wallet", req.GetName(), "returned", back.Short(), "to", cmp.Or(to, "mint"))
		return &v1.RemoveWalletResponse{ReturnedUcredits: int64(back), To: to}, nil
	})
}

// ListWallets implements MarketService.
func (s service) ListWallets(ctx context.Context, _ *v1.ListWalletsRequest) (*v1.ListWalletsResponse, error) {
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	out := &v1.ListWalletsResponse{} // a workload sees none
	shared := ""
	if a.self == nil {
		shared = s.m.walletByRule(a.uid)
	}
	if !s.m.loop.do(func() {
		l := s.m.loop
		if now := l.clock.Now(); now-l.refilled >= unit.Instant(time.Second) { // each is a transfer
			l.demon.RefillWallets(now)
			l.refilled = now
		}
		lines := l.demon.Wallets()
		for i := range lines {
			if _, mine := s.m.ownsWallet(a, lines[i].Name); mine || lines[i].Name == shared {
				out.Wallets = append(out.Wallets, s.m.walletOn(&lines[i]))
			}
		}
	}) {
		return nil, errClosing
	}
	return out, nil
}

// walletOn is a standing wallet on the wire.
func (m *Market) walletOn(l *demon.WalletLine) *v1.Wallet {
	known, _ := m.walletNamed(l.Name)
	return &v1.Wallet{
		Name: l.Name, Parent: l.Parent, Uid: known.owner, AllowanceUcredits: int64(l.Allowance.Amount), AllowanceEveryNs: int64(l.Allowance.Every),
		MostUcredits: int64(l.Most), BalanceUcredits: int64(l.Balance), CreatedWallNs: known.created.UnixNano(),
	}
}

// paid is the admission that a request asks for, with the wallet that pays it: the
// user's own, or any for an admin. Called on the loop's thread.
func (m *Market) paid(uid uint32, req *v1.AdmitRequest) (demon.Admission, error) {
	out, err := m.paidBy(uid, req)
	switch {
	case err != nil:
	case out.Wallet == "":
		err = m.makes(uid, out.Budget)
	case out.Income > 0: // it would end in the wallet
		err = m.mints(actor{uid: uid, admin: m.admin(uid)}, "leave the income out where a wallet pays")
	}
	return out, err
}

func (m *Market) paidBy(uid uint32, req *v1.AdmitRequest) (demon.Admission, error) {
	out := admission(req)
	if out.Wallet = req.GetWallet(); out.Wallet == "" {
		if !m.durable() || m.admin(uid) {
			return out, nil
		}
		// A user's money comes from where his rule says, if it says so.
		rule, subject := m.ruleForUser(uid)
		var err error
		if out.Wallet, err = m.payer(rule, subject, uid); err == nil && out.Wallet != "" && out.Budget == 0 && req.GetBrokeByWallet() {
			out.Policy.WhenBroke = apoptosis.Pause
		}
		return out, err
	}
	if _, mine := m.ownsWallet(actor{uid: uid, admin: m.admin(uid)}, out.Wallet); !mine && !m.sharesWallet(uid, out.Wallet) {
		return out, noWallet(out.Wallet)
	}
	if req.GetBrokeByWallet() && out.Budget == 0 {
		for _, w := range m.loop.demon.Wallets() {
			if w.Name == out.Wallet && w.Allowance.Amount > 0 {
				out.Policy.WhenBroke = apoptosis.Pause
			}
		}
	}
	return out, nil
}

// holder is who a name means where money moves: a living workload, or a standing
// wallet.
type holder struct {
	name string
	mem  *member // nil: a standing wallet
}

// holder finds whom a name means, if a may act on it.
func (s service) holder(a actor, name string) (holder, error) {
	if _, mine := s.m.ownsWallet(a, name); mine {
		return holder{name: name}, nil
	}
	mem, err := s.visible(a, name)
	if err != nil {
		return holder{}, connect.NewError(connect.CodeNotFound, fmt.Errorf("no workload or wallet %q; maxwell wallet ls lists yours", name))
	}
	return holder{name: name, mem: mem}, nil
}

// at is where a holder is now. Called on the loop's thread.
func (h holder) at(l *loop, a actor) (demon.Holder, error) {
	if h.mem != nil {
		return demon.Holder{Slot: h.mem.slot}, l.still(h.mem)
	}
	if _, mine := l.m.ownsWallet(a, h.name); !mine {
		return demon.Holder{}, noWallet(h.name)
	}
	return demon.Holder{Wallet: h.name}, nil
}

// ledgerID is the ledger's own id of a change, so that it too refuses a second
// effect: zero without a request id. Ids are each user's own.
func ledgerID(uid uint32, req change) ledger.ID {
	id := req.GetRequestId()
	if len(id) != len(requestID{}) {
		return ledger.ID{}
	}
	sum := sha256.Sum256(append(binary.LittleEndian.AppendUint32([]byte("maxwell request "), uid), id...))
	return ledger.MakeID(binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:16]))
}

// Fund implements MarketService. Money comes from nowhere: a workload that could
// ask for it would have no budget, and neither would a user of a market that lasts.
func (s service) Fund(ctx context.Context, req *v1.FundRequest) (*v1.FundResponse, error) {
	a, err := s.actor(ctx)
	if err == nil {
		err = a.outside("fund wallets")
	}
	if err != nil {
		return nil, err
	}
	if out, known := answered[*v1.FundResponse](&s.m.answers, a.uid, req); known {
		return out, s.m.settled(ctx)
	}
	to, err := s.holder(a, req.GetName())
	if err != nil {
		return nil, err
	}
	if err := s.m.mints(a, "move some of yours: maxwell transfer WALLET "+to.name+" AMOUNT"); err != nil {
		return nil, err
	}
	var old *v1.Workload
	if to.mem != nil {
		old = s.m.lineOf(to.mem.id())
	}
	return mutate(ctx, s.m, a.uid, req, func(l *loop) (*v1.FundResponse, error) {
		at, err := to.at(l, a)
		if err != nil {
			return nil, err
		}
		var balance unit.Credits
		amount, id := unit.Credits(req.GetAmountUcredits()), ledgerID(a.uid, req)
		switch {
		case at.Wallet != "":
			balance, err = l.demon.FundWallet(l.clock.Now(), at.Wallet, amount, id)
		case id.IsZero():
			balance, err = l.demon.Fund(at.Slot, amount)
		default:
			balance, err = l.demon.FundAs(at.Slot, amount, id)
		}
		if at.Wallet == "" && err == nil {
			if line, ok := l.demon.LineOf(at.Slot); ok {
				balance = s.m.balanceSeen(a, balance, line.Total(), old)
			}
		}
		s.m.changes.Add(1)
		return &v1.FundResponse{BalanceUcredits: int64(balance)}, err
	})
}

// Transfer implements MarketService.
func (s service) Transfer(ctx context.Context, req *v1.TransferRequest) (*v1.TransferResponse, error) {
	a, err := s.actor(ctx)
	if err == nil {
		err = a.outside("move money")
	}
	if err != nil {
		return nil, err
	}
	if out, known := answered[*v1.TransferResponse](&s.m.answers, a.uid, req); known {
		return out, s.m.settled(ctx)
	}
	from, err := s.holder(a, req.GetFrom())
	if err != nil {
		return nil, err
	}
	to, err := s.holder(a, req.GetTo())
	if err != nil {
		return nil, err
	}
	return mutate(ctx, s.m, a.uid, req, func(l *loop) (*v1.TransferResponse, error) {
		giver, err := from.at(l, a)
		if err != nil {
			return nil, err
		}
		taker, err := to.at(l, a)
		if err != nil {
			return nil, err
		}
		if err := s.m.keepsMade(a, giver, taker); err != nil {
			return nil, err
		}
		left, has, err := l.demon.Move(l.clock.Now(), giver, taker, unit.Credits(req.GetAmountUcredits()), ledgerID(a.uid, req))
		return &v1.TransferResponse{FromBalanceUcredits: int64(left), ToBalanceUcredits: int64(has)}, err
	})
}

// ownAccount is the account of a standing wallet that a may see, by its name or as
// the books print it.
func (s service) ownAccount(a actor, name string) (ledger.ID, bool) {
	name = strings.TrimPrefix(name, ledger.KindWallet.String()+":")
	_, mine := s.m.ownsWallet(a, name)
	return ledger.Wallet(name).ID, mine
}
