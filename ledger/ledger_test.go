package ledger

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// funded returns a ledger with the given wallets, each holding amount.
func funded(tb testing.TB, c Config, amount unit.Credits, names ...string) *Ledger {
	tb.Helper()
	l := New(c)
	for _, a := range []Account{Mint(), Heat(), Treasury()} {
		mustOpen(tb, l, a)
	}
	for i, name := range names {
		mustOpen(tb, l, Wallet(name))
		status := l.Apply(Transfer{
			ID: MakeID(math.MaxUint64, uint64(i)), Debit: Mint().ID, Credit: Wallet(name).ID, Amount: amount, Code: ForFunding,
		})
		if status != OK {
			tb.Fatalf("fund %s: %v", name, status)
		}
	}
	return l
}

func mustOpen(tb testing.TB, l *Ledger, a Account) {
	tb.Helper()
	if status := l.Open(a); status != OK {
		tb.Fatalf("open %s: %v", a.Name, status)
	}
}

// energy is a transfer of one credit from a wallet to heat.
func energy(n uint64, name string, at unit.Instant) Transfer {
	return Transfer{ID: MakeID(1, n), Debit: Wallet(name).ID, Credit: Heat().ID, Amount: 1, Code: ForEnergy, At: at}
}

func TestOpen(t *testing.T) {
	good := Wallet("a")
	for _, c := range []struct {
		name   string
		change func(*Account)
		want   Status
	}{
		{"good", func(*Account) {}, OK},
		{"again", func(*Account) {}, AccountExists},
		{"other name", func(a *Account) { a.Name = "wallet:b" }, AccountExistsDifferent},
		{"other kind", func(a *Account) { a.Code = KindBond }, AccountExistsDifferent},
		{"other flags", func(a *Account) { a.Flags = 0 }, AccountExistsDifferent},
		{"no id", func(a *Account) { a.ID = ID{} }, IDZero},
		{"no name", func(a *Account) { a.Name = "" }, NameInvalid},
		{"no kind", func(a *Account) { a.Code = 0 }, KindInvalid},
		{"unknown kind", func(a *Account) { a.Code = kinds }, KindInvalid},
		{"unknown flags", func(a *Account) { a.Flags = 4 }, FlagsInvalid},
		{"both limits", func(a *Account) { a.Flags = 3 }, FlagsInvalid},
		{"brings money", func(a *Account) { a.CreditsPosted.Lo = 1 }, SumsNotZero},
		{"no id before no name", func(a *Account) { *a = Account{} }, IDZero},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := New(Config{})
			if c.name != "good" && c.name != "brings money" {
				mustOpen(t, l, good)
			}
			a := good
			c.change(&a)
			if have := l.Open(a); have != c.want {
				t.Errorf("have %v, want %v", have, c.want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	l := funded(t, Config{Window: 4, Holds: 1, Accounts: 4}, 100, "a")
	if have := l.Open(Wallet("b")); have != AccountsFull {
		t.Errorf("fifth account: %v", have)
	}
	hold := func(n uint64) Transfer {
		tr := energy(n, "a", 1)
		tr.Flags = Pending
		return tr
	}
	for i, c := range []struct {
		transfer Transfer
		want     Status
	}{
		{hold(1), OK},
		{hold(2), HoldsFull},
		{energy(3, "a", 1), OK},
		{energy(4, "a", 1), OK},
		{energy(5, "a", 1), OK},         // forgets the funding at 0
		{energy(6, "a", 1), WindowFull}, // nothing older than 1 is left to forget
		{energy(6, "a", 2), OK},         // forgets the hold
		{hold(1), Exists},               // but an open hold is remembered
		{energy(3, "a", 1), Exists},     // still in the window
		{energy(7, "a", 2), OK},         // forgets 3
		{energy(3, "a", 1), Stale},
		{energy(3, "a", 3), OK}, // a client that lies about its clock harms itself only
	} {
		if have := l.Apply(c.transfer); have != c.want {
			t.Errorf("%d: have %v, want %v", i, have, c.want)
		}
	}
	chain := make([]Transfer, 5)
	for i := range chain {
		chain[i] = energy(uint64(20+i), "a", unit.Instant(10+i))
		chain[i].Flags = Linked
	}
	chain[4].Flags = 0
	out := make([]Status, 5)
	if n := l.ApplyAll(chain, out); n != 5 || out[0] != WindowFull || out[4] != LinkedFailed {
		t.Errorf("a chain longer than the window: %d refused, %v", n, out)
	}
}

// TestSlotsAreReused: opening and forgetting does not grow the ledger, and the
// forgotten stay in the totals.
func TestSlotsAreReused(t *testing.T) {
	l := funded(t, Config{Accounts: 5}, 1000, "a")
	mustOpen(t, l, Wallet("b"))
	for i := range uint64(100) {
		if s := l.Apply(energy(i+1, "a", 0)); s != OK {
			t.Fatal(s)
		}
		if s := l.Forget(Wallet("b").ID); s != OK {
			t.Fatal(s)
		}
		mustOpen(t, l, Wallet("b"))
	}
	if len(l.accounts) != 5 || l.Len() != 5 {
		t.Errorf("%d slots for %d accounts, want 5", len(l.accounts), l.Len())
	}
	if r := l.Retired(KindWallet); r.Accounts != 100 || !r.Debits.IsZero() {
		t.Errorf("retired wallets %+v, want 100 without turnover", r)
	}
}

// TestSumsExceed64Bits moves the largest amount to and fro: every sum passes
// 2^64 while the balances stay small.
func TestSumsExceed64Bits(t *testing.T) {
	l := New(Config{})
	mustOpen(t, l, System())
	mustOpen(t, l, Loss())
	a, b := System().ID, Loss().ID
	for i := range uint64(6) {
		s := l.Apply(Transfer{ID: MakeID(0, i+1), Debit: a, Credit: b, Amount: math.MaxInt64, Code: ForOther})
		if s != OK {
			t.Fatal(s)
		}
		if have := l.Balance(b) + l.Balance(a); have != 0 || l.Sum() != 0 {
			t.Fatalf("balances differ by %d, sum %d", have, l.Sum())
		}
		s = l.Apply(Transfer{ID: MakeID(1, i+1), Debit: a, Credit: b, Amount: 1, Code: ForOther})
		if want := []Status{Overflow, OK}[i%2]; s != want {
			t.Fatalf("one more: %v, want %v", s, want)
		}
		if s == OK {
			l.Apply(Transfer{ID: MakeID(2, i+1), Debit: b, Credit: a, Amount: 1, Code: ForOther})
		}
		a, b = b, a
	}
	acc, _ := l.Lookup(System().ID)
	if want := "27670116110564327424"; acc.DebitsPosted.String() != want {
		t.Errorf("debits of %s, want %s", acc.DebitsPosted, want)
	}
	if l.Balance(System().ID) != 0 {
		t.Errorf("balance %d", l.Balance(System().ID))
	}
}

// TestHoldsCountAgainstOverflow: posting may not be refused, so the range is
// judged when the hold is made.
func TestHoldsCountAgainstOverflow(t *testing.T) {
	l := New(Config{})
	mustOpen(t, l, System())
	mustOpen(t, l, Loss())
	tr := Transfer{ID: MakeID(0, 1), Debit: System().ID, Credit: Loss().ID, Amount: math.MaxInt64, Code: ForOther, Flags: Pending}
	if s := l.Apply(tr); s != OK {
		t.Fatal(s)
	}
	tr.ID, tr.Amount = MakeID(0, 2), 1
	if s := l.Apply(tr); s != Overflow {
		t.Errorf("a hold beyond the range: %v", s)
	}
}

func TestTimeoutBeyondTheClock(t *testing.T) {
	l := funded(t, Config{}, 10, "a")
	tr := energy(1, "a", math.MaxInt64-5)
	tr.Flags, tr.Timeout = Pending, time.Hour
	if s := l.Apply(tr); s != OK {
		t.Fatal(s)
	}
	if n := l.Expire(math.MaxInt64 - 1); n != 0 {
		t.Errorf("%d holds expired before the end of time", n)
	}
}

func TestAccountsAreSorted(t *testing.T) {
	l := funded(t, Config{}, 10, "c", "a", "b")
	var have []string
	for a := range l.Accounts() {
		have = append(have, a.Name)
	}
	want := []string{"heat", "mint", "treasury", "wallet:a", "wallet:b", "wallet:c"}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
	for a := range l.Accounts() { // stops when asked
		if a.Name != "heat" {
			t.Error("went on after break")
		}
		break
	}
}

func TestUnknownAccountHasNothing(t *testing.T) {
	l := New(Config{})
	if l.Balance(MakeID(0, 1)) != 0 || l.Available(MakeID(0, 1)) != 0 {
		t.Error("an unknown account has money")
	}
	if _, ok := l.Lookup(MakeID(0, 1)); ok {
		t.Error("an unknown account is found")
	}
	if l.Retired(99) != (Total{}) {
		t.Error("an unknown kind has a total")
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{{Window: -1}, {Holds: -1}, {Accounts: math.MaxInt64}} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
}

// TestWords: every status, kind and purpose has a word of its own.
func TestWords(t *testing.T) {
	var words []string
	for s := range Status(statuses) {
		words = append(words, s.String())
	}
	for k := Kind(1); k < kinds; k++ {
		words = append(words, "account "+k.String())
	}
	for p := Purpose(1); p < purposes; p++ {
		words = append(words, "for "+p.String())
	}
	slices.Sort(words)
	if len(slices.Compact(slices.Clone(words))) != len(words) || slices.Contains(words, "") {
		t.Errorf("words repeat or are empty: %q", words)
	}
	if Status(200).String() != "unknown" || Kind(0).String() != "unknown" || Purpose(0).String() != "unknown" {
		t.Error("what is not declared has a word")
	}
	for _, s := range []Status{OK, Exists, AccountExists} {
		if !s.Done() {
			t.Errorf("%v is not done", s)
		}
	}
	if ExceedsCredits.Done() || LinkedFailed.Done() {
		t.Error("a refusal is done")
	}
}

// TestChartNames: the constructors name what DESIGN names, and equal names are
// equal accounts.
func TestChartNames(t *testing.T) {
	for want, a := range map[string]Account{
		"mint": Mint(), "wallet:x": Wallet("x"), "deposit:x": Deposit("x"), "heat": Heat(), "entropy": Entropy(),
		"treasury": Treasury(), "system": System(), "loss": Loss(), "bond:x": Bond("x"), "lease:x": Lease("x"),
	} {
		if a.Name != want || a.ID != NameID(want) {
			t.Errorf("account %q with id %v, want %q with %v", a.Name, a.ID, want, NameID(want))
		}
		mayOwe := want == "system" || want == "loss" || want == "mint"
		if (a.Flags&DebitsMustNotExceedCredits == 0) != mayOwe {
			t.Errorf("%s: flags %b", want, a.Flags)
		}
	}
}

func TestApplyDoesNotAllocate(t *testing.T) {
	l := funded(t, Config{Window: 1 << 10}, 1e9, "a")
	tr := energy(0, "a", 0)
	n := uint64(0)
	next := func() {
		n++
		tr.ID, tr.At = MakeID(1, n), unit.Instant(n)
		if s := l.Apply(tr); s != OK {
			t.Fatal(s)
		}
	}
	for range 1 << 12 {
		next()
	}
	if have := testing.AllocsPerRun(1<<14, next); have != 0 {
		t.Errorf("%v allocations a transfer, want 0", have)
	}
}

// FuzzParseID: whatever is read prints as it was written.
func FuzzParseID(f *testing.F) {
	f.Add("0123456789abcdef0123456789abcdef")
	f.Add("0123456789ABCDEF0123456789abcdef")
	f.Add("")
	f.Add("zz23456789abcdef0123456789abcdef")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err == nil && id.String() != text {
			t.Errorf("%q reads as %v", text, id)
		}
		if back, err := ParseID(id.String()); err != nil || back != id {
			t.Errorf("%v reads as %v: %v", id, back, err)
		}
	})
}
