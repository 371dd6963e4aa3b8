package ledger

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// carried is l brought forward into a new ledger.
func carried(t interface{ Fatalf(string, ...any) }, l *Ledger) *Ledger {
	books := l.Books()
	fresh := New(Config{})
	if status := fresh.Replay(&Entry{Change: Carried, Books: &books}); status != OK {
		t.Fatalf("carry: %v", status)
	}
	return fresh
}

// TestCarry: books that are brought forward, once or again and again, answer what
// comes after as those that they were taken from, and end as the same books.
func TestCarry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole, inFiles := New(Config{}), New(Config{})
		names := []string{"a", "b", "c"}
		all := []Account{Mint(), Heat(), System(), Loss()}
		for _, name := range names {
			all = append(all, Wallet(name), Deposit(name))
		}
		var holds []ID
		seq, now := uint64(0), unit.Instant(0)
		both := func(e Entry) Status {
			a, b := whole.Replay(&e), inFiles.Replay(&e)
			if a != b {
				t.Fatalf("%+v: %v, and %v where the books were brought forward", e, a, b)
			}
			return a
		}
		apply := func(tr Transfer) {
			seq++
			now++
			tr.ID, tr.At = MakeID(1, seq), now
			if both(Entry{Change: Applied, Chain: []Transfer{tr}}) == OK && tr.Flags&Pending != 0 {
				holds = append(holds, tr.ID)
			}
		}
		account := rapid.SampledFrom(all)
		amount := rapid.OneOf(rapid.Int64Range(1, 1000), rapid.Int64Range(1<<62, 1<<63-1))
		t.Repeat(map[string]func(*rapid.T){
			"open":   func(t *rapid.T) { both(Entry{Change: Opened, Account: account.Draw(t, "account")}) },
			"forget": func(t *rapid.T) { both(Entry{Change: Forgot, Account: Account{ID: account.Draw(t, "account").ID}}) },
			"move": func(t *rapid.T) {
				apply(Transfer{
					Debit: account.Draw(t, "debit").ID, Credit: account.Draw(t, "credit").ID,
					Amount: unit.Credits(amount.Draw(t, "amount")), Code: ForOther,
				})
			},
			"hold": func(t *rapid.T) {
				apply(Transfer{
					Debit: account.Draw(t, "debit").ID, Credit: account.Draw(t, "credit").ID, Amount: unit.Credits(amount.Draw(t, "amount")),
					Code: ForLease, Flags: Pending, Timeout: time.Duration(rapid.Int64Range(0, 20).Draw(t, "timeout")),
				})
			},
			"resolve": func(t *rapid.T) {
				if len(holds) == 0 {
					return
				}
				i := rapid.IntRange(0, len(holds)-1).Draw(t, "hold")
				tr := Transfer{PendingID: holds[i], Flags: Void}
				if held, open := whole.Hold(holds[i]); open && rapid.Bool().Draw(t, "post") {
					tr.Flags, tr.Amount = Post, held.Amount
				}
				holds = slices.Delete(holds, i, i+1)
				if _, open := whole.Hold(tr.PendingID); open { // of others an older ledger knows more
					apply(tr)
				}
			},
			"expire": func(t *rapid.T) {
				if a, b := whole.Expire(now), inFiles.Expire(now); a != b {
					t.Fatalf("%d expire, and %d where the books were brought forward", a, b)
				}
			},
			"carry": func(t *rapid.T) { inFiles = carried(t, inFiles) },
			"": func(t *rapid.T) {
				if d := cmp.Diff(whole.Books(), inFiles.Books()); d != "" || inFiles.Sum() != 0 {
					t.Fatalf("the books, and those that were brought forward (sum %d):\n%s", inFiles.Sum(), d)
				}
			},
		})
	})
}

// TestCarryRefused: books that do not fit themselves, or a ledger that is not empty,
// are refused, and nothing is there afterwards.
func TestCarryRefused(t *testing.T) {
	hold := MakeID(1, 2)
	good := func() Books {
		l := New(Config{})
		for _, a := range []Account{Mint(), Wallet("a"), Lease("node")} {
			l.Open(a)
		}
		l.Apply(Transfer{ID: MakeID(1, 1), Debit: Mint().ID, Credit: Wallet("a").ID, Amount: 10, Code: ForFunding, At: 5})
		l.Apply(Transfer{ID: hold, Debit: Wallet("a").ID, Credit: Lease("node").ID, Amount: 4, Code: ForLease, Flags: Pending, At: 6})
		return l.Books() // lease:node, mint, wallet:a
	}
	if l := New(Config{}); l.Replay(&Entry{Change: Carried}) == OK {
		t.Error("an entry without books is accepted")
	}
	for name, test := range map[string]struct {
		spoil func(b *Books)
		want  Status
	}{
		"nothing":               {func(*Books) {}, OK},
		"money from nowhere":    {func(b *Books) { b.Accounts[2].CreditsPosted.Lo++ }, BooksUneven},
		"an overdraft":          {func(b *Books) { b.Accounts[2].DebitsPosted.Lo, b.Accounts[1].CreditsPosted.Lo = 7, 7 }, BooksUneven},
		"mint in credit":        {func(b *Books) { b.Accounts[1].CreditsPosted.Lo, b.Accounts[2].DebitsPosted.Lo = 11, 11 }, BooksUneven},
		"a sum beyond all":      {func(b *Books) { b.Accounts[1].DebitsPosted.Hi, b.Accounts[2].CreditsPosted.Hi = 1<<63, 1<<63 }, BooksUneven},
		"a balance beyond all":  {func(b *Books) { b.Accounts[1].DebitsPosted.Hi, b.Accounts[2].CreditsPosted.Hi = 1, 1 }, BooksUneven},
		"a hold too few":        {func(b *Books) { b.Holds = nil }, BooksUneven},
		"a hold twice":          {func(b *Books) { b.Holds = append(b.Holds, b.Holds[0]) }, ExistsDifferent},
		"a hold without id":     {func(b *Books) { b.Holds[0].ID = ID{} }, IDZero},
		"a hold that is none":   {func(b *Books) { b.Holds[0].Flags = 0 }, FlagsInvalid},
		"a hold of nothing":     {func(b *Books) { b.Holds[0].Amount = 0 }, AmountInvalid},
		"a hold of nobody's":    {func(b *Books) { b.Holds[0].Debit = hold }, DebitNotFound},
		"a hold for nobody":     {func(b *Books) { b.Holds[0].Credit = hold }, CreditNotFound},
		"an account twice":      {func(b *Books) { b.Accounts[0] = b.Accounts[1] }, AccountExists},
		"an account of no kind": {func(b *Books) { b.Accounts[0].Code = kinds }, KindInvalid},
		"the forgotten uneven":  {func(b *Books) { b.Retired = []Total{{Accounts: 1, Debits: unit.Wide{Lo: 1}}} }, BooksUneven},
		"too many kinds":        {func(b *Books) { b.Retired = make([]Total, kinds+1) }, KindInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			b := good()
			test.spoil(&b)
			l := New(Config{})
			if status := l.Replay(&Entry{Change: Carried, Books: &b}); status != test.want {
				t.Errorf("%v, want %v", status, test.want)
			}
			if left := l.Books(); test.want != OK && len(left.Accounts)+len(left.Holds)+len(left.Retired) > 0 {
				t.Errorf("refused, and it left %+v", left)
			}
			b = good()
			l.Open(Heat())
			if status := l.Replay(&Entry{Change: Carried, Books: &b}); status != BooksNotEmpty {
				t.Errorf("into a ledger that has an account: %v", status)
			}
		})
	}
}
