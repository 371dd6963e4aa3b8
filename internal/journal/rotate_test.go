package journal

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// rotated makes a journal of so many files of 12 pages each, and returns its path.
func rotated(t testing.TB, files int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.sqlite")
	s, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	n := newNovel(4)
	n.open(ledger.Entropy()) // nobody pays it
	for file := range files {
		for range 12 {
			n.page()
		}
		if _, err := s.Append(time.Now(), Batch{Entries: n.take()}); err != nil {
			t.Fatal(err)
		}
		if file < files-1 {
			if _, err := s.Rotate(time.Now(), n.books.Books()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func verifySeries(path string) (Series, error) {
	return VerifySeries(path, func() Bearer { return ledger.New(ledger.Config{}) })
}

// TestSeries changes the files of a series in every way that touches more than one of
// them: what is wrong is named, with the file. A file alone cannot tell it.
func TestSeries(t *testing.T) {
	t.Parallel()
	tamper := func(t *testing.T, path, text string) {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("PRAGMA ignore_check_constraints = 1; " + text); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// forge writes the last file anew, from other books and with hashes that fit.
	forge := func(spoil func(b *ledger.Books)) func(t *testing.T, path string, closed []closedFile) {
		return func(t *testing.T, path string, closed []closedFile) {
			s, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			list := read(t, s)
			origin := s.origin
			if err := errors.Join(s.Close(), os.Remove(path)); err != nil {
				t.Fatal(err)
			}
			b := list[0].Books
			spoil(b)
			rec := list[0]
			rec.Hash = seal(origin.Hash, rec.Seq, rec.Wall, &rec.Entry)
			old := &SQLite{path: closed[len(closed)-1].path}
			if err := old.begin(origin.Hash, &rec); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(old.path+nextSuffix, path); err != nil {
				t.Fatal(err)
			}
		}
	}
	wallet := func(b *ledger.Books) *ledger.Account {
		i := slices.IndexFunc(b.Accounts, func(a ledger.Account) bool { return strings.HasPrefix(a.Name, "wallet:") })
		return &b.Accounts[i]
	}
	for name, test := range map[string]struct {
		change func(t *testing.T, path string, closed []closedFile)
		why    string // empty: it holds
		alone  bool   // the newest file alone tells it as well
	}{
		"nothing":          {func(*testing.T, string, []closedFile) {}, "", false},
		"the oldest gone":  {func(_ *testing.T, _ string, c []closedFile) { os.Remove(c[0].path) }, "", false},
		"one between gone": {func(_ *testing.T, _ string, c []closedFile) { os.Remove(c[1].path) }, "are missing: a file between is not there", false},
		"an amount in an old file": {func(t *testing.T, _ string, c []closedFile) {
			tamper(t, c[1].path, "UPDATE transfer SET amount = amount + 1")
		}, "was changed after it was written", false},
		"the end of an old file": {func(t *testing.T, _ string, c []closedFile) {
			tamper(t, c[1].path, "PRAGMA foreign_keys = 0; DELETE FROM record WHERE seq = (SELECT max(seq) FROM record)")
		}, "and 0 more are missing", false},
		"a balance": {func(t *testing.T, path string, _ []closedFile) {
			tamper(t, path, "UPDATE carried_account SET credits_posted = x'00000000000000000000000000000001'")
		}, "was changed after it was written", true},
		"the origin": {func(t *testing.T, path string, _ []closedFile) {
			tamper(t, path, "UPDATE carried SET before = zeroblob(32)")
		}, "it does not follow from the hash of the record before it", true},
		"the books left out": {func(t *testing.T, path string, _ []closedFile) {
			tamper(t, path, "DELETE FROM carried")
		}, "are missing", true},
		"money brought to another": {forge(func(b *ledger.Books) {
			mint := &b.Accounts[slices.IndexFunc(b.Accounts, func(a ledger.Account) bool { return a.Name == "mint" })]
			mint.DebitsPosted.Lo += 5
			wallet(b).CreditsPosted.Lo += 5
		}), "differ in mint from what the files before it give", false},
		"an account more": {forge(func(b *ledger.Books) {
			b.Accounts = append(b.Accounts, ledger.Wallet("zz"))
		}), "have wallet:zz, which the files before it lack", false},
		"an account less": {forge(func(b *ledger.Books) {
			b.Accounts = slices.DeleteFunc(b.Accounts, func(a ledger.Account) bool { return a.Name == "entropy" })
		}), "lack entropy, which the files before it have", false},
		"another time": {forge(func(b *ledger.Books) { b.Last-- }), "are not those that the files before it give", false},
		"a request":    {forge(func(b *ledger.Books) { b.Requests = []ledger.Request{{Amount: 1}} }), "are not those that the files before it give", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := rotated(t, 4)
			closed, err := closedFiles(path)
			if err != nil || len(closed) != 3 {
				t.Fatalf("%d closed, %v", len(closed), err)
			}
			whole, err := verifySeries(path)
			if err != nil {
				t.Fatal(err)
			}
			test.change(t, path, closed)
			sum, err := verifySeries(path)
			broken, ok := errors.AsType[*BrokenError](err)
			if test.why == "" {
				if gone := whole.Files - sum.Files; err != nil || sum.Head != whole.Head || sum.Missing != uint64(gone)*closed[0].last {
					t.Errorf("%+v, %v", sum, err)
				}
			} else if _, named := errors.AsType[*FileError](err); !ok || !named || !strings.Contains(broken.Why, test.why) {
				t.Errorf("verify: %v; want ... %s", err, test.why)
			}
			if _, err := verifyFile(t, path); (err != nil) != test.alone {
				t.Errorf("the newest file alone: %v", err)
			}
		})
	}
}

// TestRotateWhileRead: who reads puts it off, in this process and in another one, and
// harms nothing; it is done when he has ended.
func TestRotateWhileRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.sqlite")
	s, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := newNovel(8)
	page := func() {
		n.page()
		if _, err := s.Append(time.Now(), Batch{Entries: n.take()}); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(who string) {
		page()
		before, _ := s.Head()
		if head, err := s.Rotate(time.Now(), n.books.Books()); !errors.Is(err, ErrReading) || head != before {
			t.Errorf("while %s reads: head %v, %v; want %v, %v", who, head, err, before, ErrReading)
		}
		page()
		if r, err := Verify(s); err != nil || r.Origin.Seq != 0 {
			t.Errorf("after it: begins after %d, %v", r.Origin.Seq, err)
		}
		if list, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(list) > 4 { // file, log, index, lock
			t.Errorf("it left %v", list)
		}
	}
	page()
	for _, err := range s.Records() {
		if err != nil {
			t.Fatal(err)
		}
		refused("this process")
		break
	}
	other, err := connect(path, reading) // as another process does: it shares nothing with s
	if err != nil {
		t.Fatal(err)
	}
	var records int
	if err := other.QueryRow("SELECT count(*) FROM record").Scan(&records); err != nil {
		t.Fatal(err)
	}
	refused("another")
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	before, _ := s.Head()
	if head, err := s.Rotate(time.Now(), n.books.Books()); err != nil || head.Seq != before.Seq+1 {
		t.Errorf("when nobody reads: head %d, %v", head.Seq, err)
	}
	page()
	if sum, err := verifySeries(path); err != nil || sum.Files != 2 {
		t.Errorf("%d files, %v", sum.Files, err)
	}
}

// TestRotateRefused: what cannot be done (here its name is taken, or there is nothing)
// leaves the journal as it was, and it goes on.
func TestRotateRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.sqlite")
	s, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := newNovel(8)
	if _, err := s.Rotate(time.Now(), n.books.Books()); err == nil {
		t.Error("an empty journal goes on in a new file")
	}
	page := func() Head {
		n.page()
		head, err := s.Append(time.Now(), Batch{Entries: n.take()})
		if err != nil {
			t.Fatal(err)
		}
		return head
	}
	head := page()
	taken := closedName(path, 1, head.Seq)
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if h, err := s.Rotate(time.Now(), n.books.Books()); !errors.Is(err, os.ErrExist) || h != head {
		t.Errorf("a name that is taken: head %v, %v", h, err)
	}
	if _, err := os.Stat(path + nextSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it left its file: %v", err)
	}
	if _, err := s.Append(time.Now(), Batch{Entries: []ledger.Entry{{Change: ledger.Carried}}}); err == nil {
		t.Error("books are carried forward in the middle of a file")
	}
	page()
	if _, err := Verify(s); err != nil {
		t.Error(err)
	}
	if r, err := Open(path); err != nil {
		t.Error(err)
	} else if _, err := r.Rotate(time.Now(), n.books.Books()); err == nil {
		t.Error("a journal that is only read goes on in a new file")
	} else if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestRotateConnectsAgain: where the new file cannot be opened, nothing is lost, and
// the next that is written opens it.
func TestRotateConnectsAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.sqlite")
	s, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	n := newNovel(8)
	n.page()
	if _, err := s.Append(time.Now(), Batch{Entries: n.take()}); err != nil {
		t.Fatal(err)
	}
	hidden := path + ".hidden"
	s.reached = func(step string) {
		if step == "renamed" {
			if err := os.Rename(path, hidden); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := s.Rotate(time.Now(), n.books.Books()); err == nil {
		t.Error("no error, though the new file is not there")
	}
	n.page()
	b := Batch{Entries: n.take()}
	if _, err := s.Append(time.Now(), b); err == nil {
		t.Error("appended to what is not there")
	}
	for _, err := range s.Records() {
		if err == nil {
			t.Error("read what is not there")
		}
	}
	for _, err := range s.Transfers(TransferQuery{}) {
		if err == nil {
			t.Error("read what is not there")
		}
	}
	if err := os.Rename(hidden, path); err != nil {
		t.Fatal(err)
	}
	if head, err := s.Append(time.Now(), b); err != nil {
		t.Errorf("head %d, %v", head.Seq, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if sum, err := verifySeries(path); err != nil || sum.Files != 2 {
		t.Errorf("%d files, %v", sum.Files, err)
	}
}

// TestClosedFiles: they are found by their names, dropped by their age, and never needed;
// but no journal is begun anew beside them.
func TestClosedFiles(t *testing.T) {
	t.Parallel()
	path := rotated(t, 4)
	dir := filepath.Dir(path)
	for _, name := range []string{"journal-1-2.sqlite", "journal-000000000001-x.sqlite", "journal--.sqlite", "journal-000000000001-000000000002.sqlite.bak", "other-000000000001-000000000002.sqlite"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	closed, err := closedFiles(path)
	if err != nil || len(closed) != 3 || closed[0].first != 1 || closed[1].first != closed[0].last+1 || closed[2].first != closed[1].last+1 {
		t.Fatalf("%+v, %v", closed, err)
	}
	if info, err := os.Stat(closed[0].path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v: it is its owner's alone", info.Mode(), err)
	}
	now := time.Now()
	for i, f := range closed {
		if err := os.Chtimes(f.path, now, now.Add(time.Duration(i-3)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	all := gather(t, s.Transfers(TransferQuery{}))
	if n, err := s.DropClosed(now.Add(-90 * time.Minute)); n != 2 || err != nil {
		t.Errorf("%d dropped, %v; want the two that are older", n, err)
	}
	if few := gather(t, s.Transfers(TransferQuery{})); len(few) == 0 || len(few) >= len(all) || few[len(few)-1].Seq <= closed[1].last {
		t.Errorf("%d transfers of %d are found when two files are gone", len(few), len(all))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if sum, err := verifySeries(path); err != nil || sum.Files != 2 || sum.Missing != closed[1].last {
		t.Errorf("%d files, %d missing, %v", sum.Files, sum.Missing, err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path); err == nil || !strings.Contains(err.Error(), "put it back") {
		t.Errorf("a new journal beside the old one's files: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the refusal left %v", err)
	}
}

// BenchmarkRotate is how long the keeper is away: a market of so many wallets, with
// receipts and events as they are after some days.
func BenchmarkRotate(b *testing.B) {
	for _, wallets := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("wallets=%d", wallets), func(b *testing.B) {
			s, err := Create(filepath.Join(b.TempDir(), "journal.sqlite"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			books := ledger.New(ledger.Config{Accounts: 2*wallets + 10})
			list := yearOf(wallets, 3*wallets+10)
			for i := range list {
				if status := books.Replay(&list[i]); status != ledger.OK {
					b.Fatal(status)
				}
			}
			docs := make([]Document, 10*wallets)
			for i := range docs {
				docs[i] = Document{Kind: "event", Key: fmt.Sprint(i), Wall: time.Unix(int64(i), 0), Body: make([]byte, 300)}
			}
			if _, err := s.Append(time.Now(), Batch{Entries: list, Put: docs}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := s.Rotate(time.Now(), books.Books()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(unit.Instant(b.Elapsed().Milliseconds()))/float64(b.N), "ms/rotation")
		})
	}
}
