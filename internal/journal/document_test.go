package journal

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/ledger"
)

func gather[T any](t testing.TB, list iter.Seq2[T, error]) []T {
	t.Helper()
	var all []T
	for v, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// shelf is what a store's documents should be: a map and a sort.
type shelf struct {
	places map[Ref]int // in the order in which names came
	next   int
	there  map[Ref]Document
}

func (s *shelf) write(wall time.Time, b *Batch) {
	for _, r := range b.Drop {
		delete(s.there, r)
		delete(s.places, r)
	}
	for _, d := range b.Put {
		r := Ref{d.Kind, d.Key}
		if _, ok := s.places[r]; !ok {
			s.next++
			s.places[r] = s.next
		}
		if d.Wall.IsZero() {
			d.Wall = wall
		}
		s.there[r] = d
	}
}

// sorted is every document of a kind, the oldest first.
func (s *shelf) sorted(kind string) []Document {
	list := slices.DeleteFunc(slices.Collect(maps.Values(s.there)), func(d Document) bool { return d.Kind != kind })
	slices.SortFunc(list, func(a, b Document) int {
		return cmp.Or(a.Wall.Compare(b.Wall), cmp.Compare(s.places[Ref{a.Kind, a.Key}], s.places[Ref{b.Kind, b.Key}]))
	})
	return list
}

func (s *shelf) answer(q *Query) []Document {
	list := slices.DeleteFunc(s.sorted(q.Kind), func(d Document) bool {
		return q.Key != "" && d.Key != q.Key || q.UID != nil && d.UID != *q.UID || d.Wall.Before(q.Since)
	})
	if q.Newest {
		slices.Reverse(list)
	}
	if q.Limit > 0 {
		list = list[:min(q.Limit, len(list))]
	}
	return list
}

func (s *shelf) prune(kind string, before time.Time, keep int) int {
	list := s.sorted(kind)
	n := 0
	for _, d := range list[:max(0, len(list)-keep)] {
		if d.Wall.Before(before) {
			delete(s.there, Ref{d.Kind, d.Key})
			delete(s.places, Ref{d.Kind, d.Key})
			n++
		}
	}
	return n
}

var (
	someKind = rapid.SampledFrom([]string{"event", "workload"})
	someKey  = rapid.SampledFrom([]string{"a", "b", "c", "d é\x01", "' OR 1=1 --"})
	someUID  = rapid.SampledFrom([]uint32{0, 1000, 1<<32 - 1})
	someTime = rapid.Custom(func(t *rapid.T) time.Time {
		if n := rapid.Int64Range(0, 6).Draw(t, "time"); n > 0 {
			return time.Unix(1_790_000_000, n).UTC()
		}
		return time.Time{}
	})
	someDocument = rapid.Custom(func(t *rapid.T) Document {
		return Document{
			Kind: someKind.Draw(t, "kind"), Key: someKey.Draw(t, "key"), UID: someUID.Draw(t, "uid"),
			Wall: someTime.Draw(t, "wall"), Body: rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "body"),
		}
	})
	someRef   = rapid.Custom(func(t *rapid.T) Ref { return Ref{someKind.Draw(t, "kind"), someKey.Draw(t, "key")} })
	someBatch = rapid.Custom(func(t *rapid.T) Batch {
		return Batch{Drop: rapid.SliceOfN(someRef, 0, 3).Draw(t, "drop"), Put: rapid.SliceOfN(someDocument, 0, 4).Draw(t, "put")}
	})
	someQuery = rapid.Custom(func(t *rapid.T) Query {
		q := Query{
			Kind: someKind.Draw(t, "kind"), Since: someTime.Draw(t, "since"),
			Newest: rapid.Bool().Draw(t, "newest"), Limit: rapid.IntRange(0, 4).Draw(t, "limit"),
		}
		if rapid.Bool().Draw(t, "by key") {
			q.Key = someKey.Draw(t, "key")
		}
		if rapid.Bool().Draw(t, "by uid") {
			q.UID = new(someUID.Draw(t, "uid"))
		}
		return q
	})
)

// TestConformDocuments: documents are put, replaced, dropped, pruned and found as
// in a map that is sorted for each question, before and after the store was closed;
// and the head stays where it is.
func TestConformDocuments(t *testing.T) {
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			s, again := open(t)
			rapid.Check(t, func(rt *rapid.T) {
				for _, kind := range []string{"event", "workload"} { // another store would take longer than the rest
					if _, err := s.Prune(kind, time.Unix(1<<40, 0), 0); err != nil {
						rt.Fatal(err)
					}
				}
				want := &shelf{places: map[Ref]int{}, there: map[Ref]Document{}}
				rt.Repeat(map[string]func(*rapid.T){
					"append": func(rt *rapid.T) {
						b, wall := someBatch.Draw(rt, "batch"), time.Unix(1_790_000_000, 3).UTC()
						if head, err := s.Append(wall, b); err != nil || head != (Head{}) {
							rt.Fatalf("append: head %v, %v", head, err)
						}
						want.write(wall, &b)
					},
					"prune": func(rt *rapid.T) {
						kind, before, keep := someKind.Draw(rt, "kind"), someTime.Draw(rt, "before"), rapid.IntRange(0, 3).Draw(rt, "keep")
						n, err := s.Prune(kind, before, keep)
						if w := want.prune(kind, before, keep); err != nil || n != w {
							rt.Fatalf("prune: %d, %v; want %d", n, err, w)
						}
					},
					"again": func(rt *rapid.T) {
						if rapid.IntRange(0, 9).Draw(rt, "luck") > 0 {
							return // it takes as long as fifty others
						}
						if err := s.Close(); err != nil {
							rt.Fatal(err)
						}
						var err error
						if s, err = again(); err != nil {
							rt.Fatal(err)
						}
					},
					"": func(rt *rapid.T) {
						q := someQuery.Draw(rt, "query")
						if d := gocmp.Diff(want.answer(&q), gather(t, s.Documents(q)), cmpopts.EquateEmpty()); d != "" {
							rt.Fatalf("%+v (-want +have):\n%s", q, d)
						}
					},
				})
			})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestConformTogether: the entries and the documents of a batch are kept together
// or not at all, whichever of them cannot be.
func TestConformTogether(t *testing.T) {
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			defer s.Close()
			n := newNovel(1)
			good := n.take()
			old := Document{Kind: "workload", Key: "a", Wall: time.Unix(1, 0).UTC(), Body: []byte("old")}
			first, err := s.Append(time.Now(), Batch{Entries: good, Put: []Document{old}})
			if err != nil {
				t.Fatal(err)
			}
			n.page()
			next := n.take()
			drop, put := []Ref{{"workload", "a"}}, []Document{{Kind: "workload", Key: "b"}}
			for what, bad := range map[string]Batch{
				"entry":            {Entries: append(slices.Clone(next), good[len(good)-1], next[0]), Drop: drop, Put: put},
				"document, no key": {Entries: next, Drop: drop, Put: append(put, Document{Kind: "workload"})},
				"document alone":   {Drop: drop, Put: append(put, Document{Key: "c"})},
			} {
				if what == "entry" { // a transfer that is there already
					n.apply(ledger.Transfer{Debit: ledger.Mint().ID, Credit: ledger.Treasury().ID, Amount: 1, Code: ledger.ForFunding})
					twice := n.take()
					bad.Entries = append(twice, twice...)
				}
				if head, err := s.Append(time.Now(), bad); err == nil || head != first {
					t.Errorf("a bad %s: head %v, %v; want %v and an error", what, head, err, first)
				}
				have := gather(t, s.Documents(Query{Kind: "workload"}))
				if d := gocmp.Diff([]Document{old}, have); d != "" || len(read(t, s)) != len(good) {
					t.Errorf("a bad %s left %d records and (-want +have):\n%s", what, len(read(t, s)), d)
				}
			}
			if _, err := s.Append(time.Now(), Batch{Entries: next, Drop: drop, Put: put}); err != nil {
				t.Errorf("after it: %v", err)
			}
			have := gather(t, s.Documents(Query{Kind: "workload"}))
			if len(have) != 1 || have[0].Key != "b" || len(have[0].Body) != 0 {
				t.Errorf("documents %v, want b alone", have)
			}
			for _, err := range s.Documents(Query{}) {
				if err == nil {
					t.Error("documents of no kind")
				}
			}
		})
	}
}

// TestConformTransfers: an account's transfers, or all, are those of the records,
// the newest first, with the names under which the accounts were last opened,
// forgotten ones included.
func TestConformTransfers(t *testing.T) {
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			defer s.Close()
			n := newNovel(11)
			names := map[ledger.ID]string{}
			var want []Posting
			forgot := 0
			for i := range 300 {
				n.page()
				list := n.take()
				wall := time.Unix(int64(i), 0).UTC()
				head, err := s.Append(wall, Batch{Entries: list})
				if err != nil {
					t.Fatal(err)
				}
				for j, e := range list {
					switch e.Change {
					case ledger.Opened:
						names[e.Account.ID] = e.Account.Name
					case ledger.Forgot:
						forgot++
					case ledger.Applied, ledger.Carried:
					}
					for _, c := range e.Chain {
						want = append(want, Posting{Seq: head.Seq - uint64(len(list)-1-j), Wall: wall, Transfer: c})
					}
				}
				if i%70 == 69 {
					if _, err := s.Rotate(wall, n.books.Books()); err != nil {
						t.Fatal(err)
					}
				}
			}
			slices.Reverse(want)
			for i := range want {
				want[i].DebitName, want[i].CreditName = names[want[i].Debit], names[want[i].Credit]
			}
			if forgot == 0 {
				t.Error("no account was forgotten: choose another seed")
			}
			asked := append(slices.Sorted(maps.Values(names)), "")
			for _, name := range asked {
				for _, most := range []int{0, 1, 7} {
					q := TransferQuery{Limit: most}
					if name != "" {
						q.Account = ledger.NameID(name)
					}
					answer := slices.DeleteFunc(slices.Clone(want), func(p Posting) bool {
						return name != "" && p.Debit != q.Account && p.Credit != q.Account
					})
					if most > 0 {
						answer = answer[:min(most, len(answer))]
					}
					have := gather(t, s.Transfers(q))
					if d := gocmp.Diff(answer, have, cmpopts.EquateEmpty()); d != "" {
						t.Errorf("transfers of %q, %d (-want +have):\n%s", name, most, d)
					}
				}
			}
		})
	}
}

// TestConformReadWhileWritten: whoever reads sees the journal as it was when he
// began, in each of his queries, and holds up neither the writer nor other readers.
func TestConformReadWhileWritten(t *testing.T) {
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			defer s.Close()
			n := newNovel(4)
			put := func(i int) {
				n.page()
				_, err := s.Append(time.Now(), Batch{Entries: n.take(), Put: []Document{{Kind: "event", Key: fmt.Sprint(i), Wall: time.Unix(int64(i), 0)}}})
				if err != nil {
					t.Fatal(err)
				}
			}
			for i := range 50 {
				put(i)
			}
			records, seen := len(read(t, s)), 0
			for range s.Records() {
				if seen++; seen > 10 {
					continue
				}
				events := 0
				for range s.Documents(Query{Kind: "event"}) { // a query in a query
					if events++; events == 1 {
						put(49 + seen) // and a batch in both
					}
				}
				if events != 49+seen {
					t.Errorf("%d events in a query that began with %d", events, 49+seen)
				}
			}
			if seen != records {
				t.Errorf("%d records in a query that began with %d", seen, records)
			}
			if have := len(gather(t, s.Documents(Query{Kind: "event"}))); have != 60 {
				t.Errorf("%d events in the end, want 60", have)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 20 {
					gather(t, s.Transfers(TransferQuery{Account: ledger.Heat().ID}))
					if h, err := s.Head(); err != nil || h.Seq < uint64(records) {
						t.Errorf("head %v, %v", h, err)
					}
				}
			}()
			for i := range 50 {
				put(100 + i)
			}
			<-done
			if _, err := Verify(s); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestIndexed asks SQLite how it would answer: no query looks at more rows of a
// table than it yields, or sorts them.
func TestIndexed(t *testing.T) {
	t.Parallel()
	path, _ := written(t, 20)
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	uid := uint32(7)
	for _, test := range []struct {
		query any
		index string // that has to be used
	}{
		{&Query{Kind: "event"}, "document_wall"},
		{&Query{Kind: "event", Newest: true, Limit: 3}, "document_wall"},
		{&Query{Kind: "event", Since: time.Unix(1, 0), Newest: true}, "document_wall"},
		{&Query{Kind: "event", UID: &uid, Limit: 3}, "document_uid"},
		{&Query{Kind: "event", UID: &uid, Since: time.Unix(1, 0), Newest: true}, "document_uid"},
		{&Query{Kind: "event", Key: "a"}, "sqlite_autoindex_document_1"},
		{&Query{Kind: "event", Key: "a", UID: &uid, Since: time.Unix(1, 0), Newest: true}, "sqlite_autoindex_document_1"},
		{&TransferQuery{Account: ledger.Heat().ID}, "transfer_debit"},
		{&TransferQuery{Account: ledger.Heat().ID, Limit: 3}, "transfer_credit"},
		{&TransferQuery{}, "account_id"},
	} {
		var text string
		var args []any
		switch q := test.query.(type) {
		case *Query:
			text, args = q.sql()
		case *TransferQuery:
			text, args = q.sql(version)
		}
		rows, err := s.readers.Query("EXPLAIN QUERY PLAN "+text, args...)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
		have := strings.Join(plan, "\n")
		bad := regexp.MustCompile(`SCAN|TEMP B-TREE FOR (ORDER BY|RIGHT)`)
		if q, ok := test.query.(*TransferQuery); ok && q.Account.IsZero() {
			bad = regexp.MustCompile(`SCAN [^t]|TEMP B-TREE`) // all transfers, by their key
		}
		if bad.MatchString(have) || !strings.Contains(have, test.index) {
			t.Errorf("%+v is answered by\n%s\nwant %s and no scan or sort", test.query, have, test.index)
		}
	}
}

// TestOnlyRead: a journal that is opened for reading takes nothing.
func TestOnlyRead(t *testing.T) {
	t.Parallel()
	path, head := written(t, 5)
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Append(time.Now(), Batch{Put: []Document{{Kind: "a", Key: "b"}}}); err == nil {
		t.Error("it took a document")
	}
	if _, err := s.Prune("a", time.Now(), 0); err == nil {
		t.Error("it was pruned")
	}
	if _, err := s.readers.Exec("DELETE FROM document"); err == nil {
		t.Error("its readers can write")
	}
	if h, err := s.Head(); err != nil || h != head {
		t.Errorf("head %v, %v; want %v", h, err, head)
	}
}

// TestWithoutLog: a copy that SQLite made itself (VACUUM INTO) has no write-ahead
// log; opened for writing it has one again.
func TestWithoutLog(t *testing.T) {
	t.Parallel()
	path, head := written(t, 5)
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "copy.sqlite")
	if _, err := s.readers.Exec("PRAGMA query_only = 0; VACUUM INTO ?", backup); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Create(backup); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2"} {
		var have string
		if err := s.writer.QueryRow("PRAGMA " + pragma).Scan(&have); err != nil || have != want {
			t.Errorf("%s is %s, %v; want %s", pragma, have, err, want)
		}
	}
	if h, _ := s.Head(); h != head {
		t.Errorf("head %v, want %v", h, head)
	}
}
