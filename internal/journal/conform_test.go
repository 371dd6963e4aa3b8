package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// engines are the stores that have to pass the suite below. again opens what was
// closed, for writing.
var engines = map[string]func(t testing.TB) (s Store, again func() (Store, error)){
	"sqlite": func(t testing.TB) (Store, func() (Store, error)) {
		path := filepath.Join(t.TempDir(), "journal.sqlite")
		again := func() (Store, error) { return Create(path) }
		s, err := again()
		if err != nil {
			t.Fatal(err)
		}
		return s, again
	},
}

// novel is a ledger that does what ledgers do, and writes down what it did.
type novel struct {
	rng     *rand.Rand
	books   *ledger.Ledger
	names   []string
	holds   []ledger.ID
	seq     uint64
	now     unit.Instant
	entries []ledger.Entry
}

func newNovel(seed uint64) *novel {
	n := &novel{rng: rand.New(rand.NewPCG(seed, 7)), books: ledger.New(ledger.Config{})}
	for _, a := range []ledger.Account{ledger.Mint(), ledger.Heat(), ledger.Treasury(), ledger.Lease("node")} {
		n.open(a)
	}
	return n
}

func (n *novel) open(a ledger.Account) {
	if n.books.Open(a) == ledger.OK {
		n.entries = append(n.entries, ledger.Entry{Change: ledger.Opened, Account: a})
	}
}

// apply tries a chain; only what the books accept is written down.
func (n *novel) apply(chain ...ledger.Transfer) bool {
	n.now++
	for i := range chain {
		n.seq++
		chain[i].ID, chain[i].At, chain[i].UserData = ledger.MakeID(1, n.seq), n.now, n.rng.Uint64()
		if i < len(chain)-1 {
			chain[i].Flags |= ledger.Linked
		}
	}
	if n.books.ApplyAll(chain, make([]ledger.Status, len(chain))) > 0 {
		return false
	}
	n.entries = append(n.entries, ledger.Entry{Change: ledger.Applied, Chain: slices.Clone(chain)})
	return true
}

// page is one thing that happens: somebody comes, earns, pays, is held, or goes.
func (n *novel) page() {
	r := n.rng
	wallet := func() ledger.ID { return ledger.Wallet(n.names[r.IntN(len(n.names))]).ID }
	amount := unit.Credits(1 + r.Int64N(1_000_000))
	switch {
	case len(n.names) == 0 || r.IntN(10) == 0:
		name := fmt.Sprintf("agent-%d é\x01", len(n.names))
		n.names = append(n.names, name)
		n.open(ledger.Wallet(name))
		n.apply(ledger.Transfer{Debit: ledger.Mint().ID, Credit: ledger.Wallet(name).ID, Amount: 5 * amount, Code: ledger.ForFunding})
	case r.IntN(4) == 0:
		hold := ledger.Transfer{
			Debit: wallet(), Credit: ledger.Lease("node").ID, Amount: amount, Code: ledger.ForLease,
			Flags: ledger.Pending, Timeout: time.Duration(r.Int64N(2)) * time.Hour,
		}
		if n.apply(hold) {
			n.holds = append(n.holds, ledger.MakeID(1, n.seq))
		}
	case len(n.holds) > 0 && r.IntN(3) == 0:
		id := n.holds[0]
		n.holds = n.holds[1:]
		n.apply(ledger.Transfer{PendingID: id, Flags: ledger.Void})
	case r.IntN(20) == 0:
		name := n.names[r.IntN(len(n.names))]
		id := ledger.Wallet(name).ID
		if left := n.books.Balance(id); left > 0 {
			n.apply(ledger.Transfer{Debit: id, Credit: ledger.Mint().ID, Amount: left, Code: ledger.ForReturn})
		}
		if n.books.Forget(id) == ledger.OK {
			n.entries = append(n.entries, ledger.Entry{Change: ledger.Forgot, Account: ledger.Account{ID: id}})
		}
	default:
		w := wallet()
		n.apply(
			ledger.Transfer{Debit: w, Credit: ledger.Heat().ID, Amount: amount, Code: ledger.ForEnergy},
			ledger.Transfer{Debit: w, Credit: ledger.Treasury().ID, Amount: 1 + amount/3, Code: ledger.ForRent},
		)
	}
}

// resumeNovel goes on from the books of a store.
func resumeNovel(t testing.TB, s Store, seed uint64) *novel {
	t.Helper()
	n := &novel{rng: rand.New(rand.NewPCG(seed, 7)), books: ledger.New(ledger.Config{})}
	if _, err := Replay(s, n.books); err != nil {
		t.Fatal(err)
	}
	for _, r := range read(t, s) {
		accounts := []ledger.Account{r.Account}
		if r.Books != nil {
			accounts, n.now, n.seq = r.Books.Accounts, r.Books.Last, 10*uint64(r.Books.Last)
		}
		for _, a := range accounts {
			if name, ok := strings.CutPrefix(a.Name, "wallet:"); ok && !slices.Contains(n.names, name) {
				n.names = append(n.names, name)
			}
		}
		for _, c := range r.Chain {
			n.seq, n.now = binary.BigEndian.Uint64(c.ID[8:]), c.At
		}
	}
	return n
}

// take returns what happened since the last call.
func (n *novel) take() []ledger.Entry {
	list := n.entries
	n.entries = nil
	return list
}

func read(t testing.TB, s Store) []Record {
	t.Helper()
	var list []Record
	for r, err := range s.Records() {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// TestConformKeeps: what was appended comes back, in order, in every field, before
// and after the store was closed; and the books that it gives are the books.
func TestConformKeeps(t *testing.T) {
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				s, again := open(t)
				n := newNovel(rapid.Uint64().Draw(rt, "seed"))
				var want []ledger.Entry
				batches := rapid.SliceOfN(rapid.IntRange(0, 12), 1, 6).Draw(rt, "batches")
				wall := time.Unix(1_790_000_000, 123_456_789).UTC()
				for i, pages := range batches {
					for range pages {
						n.page()
					}
					batch := n.take()
					want = append(want, batch...)
					head, err := s.Append(wall.Add(time.Duration(i)), Batch{Entries: batch})
					if err != nil || head.Seq != uint64(len(want)) {
						rt.Fatalf("append: head %d, %v; want %d", head.Seq, err, len(want))
					}
					if i == len(batches)/2 { // in the middle
						if err := s.Close(); err != nil {
							rt.Fatal(err)
						}
						if s, err = again(); err != nil {
							rt.Fatal(err)
						}
						if h, err := s.Head(); err != nil || h != head {
							rt.Fatalf("opened again it ends at %v, %v; want %v", h, err, head)
						}
					}
				}
				var have []ledger.Entry
				for _, r := range read(t, s) {
					have = append(have, r.Entry)
				}
				if d := cmp.Diff(want, have); d != "" {
					rt.Fatalf("kept otherwise (-want +have):\n%s", d)
				}
				r, err := Verify(s)
				if err != nil {
					rt.Fatal(err)
				}
				books := make(map[string]unit.Credits)
				for a := range n.books.Accounts() {
					books[a.Name] = a.Balance()
				}
				if d := cmp.Diff(books, r.Books); d != "" || r.Sum != 0 {
					rt.Errorf("replayed books differ (-want +have), sum %v:\n%s", r.Sum, d)
				}
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
			})
		})
	}
}

// TestConformRotates: whenever a journal goes on in a new file, and whenever it is
// opened again, the chain goes on, the file verifies and gives the books, and the
// documents are all there.
func TestConformRotates(t *testing.T) {
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				s, again := open(t)
				n := newNovel(rapid.Uint64().Draw(rt, "seed"))
				docs := &shelf{places: map[Ref]int{}, there: map[Ref]Document{}}
				wall := time.Unix(1_790_000_000, 0).UTC()
				var head, origin Head
				for i, what := range rapid.SliceOfN(rapid.IntRange(0, 4), 3, 7).Draw(rt, "what") {
					switch {
					case what == 0 && head.Seq > 0:
						old := head
						var err error
						if head, err = s.Rotate(wall, n.books.Books()); err != nil || head.Seq != old.Seq+1 {
							rt.Fatalf("rotate at %d: head %d, %v", old.Seq, head.Seq, err)
						}
						origin = old
					case what == 1:
						if err := s.Close(); err != nil {
							rt.Fatal(err)
						}
						var err error
						if s, err = again(); err != nil {
							rt.Fatal(err)
						}
					default:
						for range what {
							n.page()
						}
						b := Batch{Entries: n.take(), Put: []Document{{Kind: "event", Key: fmt.Sprint(i % 4), Body: []byte{byte(i)}}}}
						var err error
						if head, err = s.Append(wall, b); err != nil {
							rt.Fatal(err)
						}
						docs.write(wall, &b)
					}
				}
				if h, err := s.Head(); err != nil || h != head {
					rt.Fatalf("it ends at %v, %v; want %v", h, err, head)
				}
				if o, err := s.Origin(); err != nil || o != origin {
					rt.Fatalf("it begins after %v, %v; want %v", o, err, origin)
				}
				books := ledger.New(ledger.Config{})
				if r, err := Replay(s, books); err != nil || r.Head != head {
					rt.Fatalf("record %d, %v; want %d", r.Head.Seq, err, head.Seq)
				}
				if d := cmp.Diff(n.books.Books(), books.Books()); d != "" && head.Seq > 0 { // nothing was handed over
					rt.Fatalf("books (-want +have):\n%s", d)
				}
				if d := cmp.Diff(docs.answer(&Query{Kind: "event"}), gather(t, s.Documents(Query{Kind: "event"})), cmpopts.EquateEmpty()); d != "" {
					rt.Fatalf("documents (-want +have):\n%s", d)
				}
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
			})
		})
	}
}

// TestConformAllOrNothing: a batch of which one entry cannot be kept leaves
// nothing, and the journal takes the next one.
func TestConformAllOrNothing(t *testing.T) {
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			n := newNovel(1)
			for range 10 {
				n.page()
			}
			good := n.take()
			first, err := s.Append(time.Now(), Batch{Entries: good})
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				n.page()
			}
			next := n.take()
			bad := append(slices.Clone(next), good[len(good)-1]) // an id that is there already
			if head, err := s.Append(time.Now(), Batch{Entries: bad}); err == nil || head != first {
				t.Errorf("a batch with a bad end: head %v, %v; want %v and an error", head, err, first)
			}
			if _, err := s.Append(time.Now(), Batch{Entries: next}); err != nil {
				t.Errorf("after it: %v", err)
			}
			if _, err := Verify(s); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestConformOneWriter: a second writer is refused while the first lives.
func TestConformOneWriter(t *testing.T) {
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			s, again := open(t)
			if _, err := again(); !errors.Is(err, ErrBusy) {
				t.Errorf("a second writer: %v, want %v", err, ErrBusy)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s, err := again()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
