package journal

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// written makes a journal of so many pages and returns its path and its head.
func written(t testing.TB, pages int) (string, Head) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.sqlite")
	s, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	n := newNovel(3)
	for range pages {
		n.page()
		if _, err := s.Append(time.Now(), Batch{Entries: n.take()}); err != nil {
			t.Fatal(err)
		}
	}
	head, err := s.Head()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path, head
}

func verifyFile(t testing.TB, path string) (Report, error) {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return Verify(s)
}

// TestTampering changes the file in every way that SQL allows: the first record
// that is not what it was is named.
func TestTampering(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sql string
		seq uint64 // that is named
		why string
	}{
		"an amount":          {"UPDATE transfer SET amount = amount + 1 WHERE seq = 9", 9, "changed after it was written"},
		"a purpose":          {"UPDATE transfer SET purpose = 3 WHERE seq = 9", 9, "changed after it was written"},
		"a time":             {"UPDATE record SET wall = wall + 1 WHERE seq = 9", 9, "changed after it was written"},
		"a name":             {"UPDATE account SET name = 'wallet:mine' WHERE seq = 5", 5, "changed after it was written"},
		"a hash":             {"UPDATE record SET hash = zeroblob(32) WHERE seq = 9", 9, "changed after it was written"},
		"a transfer dropped": {"DELETE FROM transfer WHERE seq = 9 AND part = 0", 9, "changed after it was written"},
		"a record dropped":   {"DELETE FROM transfer WHERE seq = 9; DELETE FROM record WHERE seq = 9", 10, "1 are missing"},
		"the first dropped":  {"DELETE FROM account WHERE seq = 1; DELETE FROM record WHERE seq = 1", 2, "1 are missing"},
		"two swapped": {`UPDATE transfer SET seq = -9 WHERE seq = 9; UPDATE transfer SET seq = 9 WHERE seq = 10;
			UPDATE transfer SET seq = 10 WHERE seq = -9`, 9, "changed after it was written"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, _ := written(t, 60)
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec("PRAGMA ignore_check_constraints = 1; " + test.sql); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := verifyFile(t, path)
			broken, ok := errors.AsType[*BrokenError](err)
			if !ok || broken.Seq != test.seq || !strings.Contains(broken.Why, test.why) {
				t.Errorf("verify: %v; want record %d: ... %s", err, test.seq, test.why)
			}
			if want := test.seq - 1; ok && r.Head.Seq > want {
				t.Errorf("%d records before it hold, want at most %d", r.Head.Seq, want)
			}
		})
	}
}

// TestForgedHistory: who writes another history and recomputes every hash is found
// out by the books, where they do not fit, and by a head that was noted elsewhere.
func TestForgedHistory(t *testing.T) {
	t.Parallel()
	path, head := written(t, 60)
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := Create(filepath.Join(t.TempDir(), "forged.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer forged.Close()
	for _, r := range read(t, s) {
		for i := range r.Chain {
			if r.Chain[i].Code == ledger.ForEnergy {
				r.Chain[i].Amount *= 1_000_000 // nobody had that much
			}
		}
		if _, err := forged.Append(r.Wall, Batch{Entries: []ledger.Entry{r.Entry}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(forged); !strings.Contains(fmt.Sprint(err), "does not fit the books") {
		t.Errorf("verify: %v, want books that do not fit", err)
	}
	if h, _ := forged.Head(); h.Seq != head.Seq || h.Hash == head.Hash {
		t.Errorf("another history has the head %v of this one", h)
	}
}

// TestNotAJournal: other files are refused, and left as they were.
func TestNotAJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("these are no books\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.sqlite")
	db, err := sql.Open("sqlite", other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE pets (name TEXT)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{text, other} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Create(path); !errors.Is(err, ErrForeign) {
			t.Errorf("create over %s: %v, want %v", path, err, ErrForeign)
		}
		if _, err := Open(path); !errors.Is(err, ErrForeign) {
			t.Errorf("open %s: %v, want %v", path, err, ErrForeign)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("%s was changed: %v", path, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) || strings.Count(err.Error(), "none") != 1 {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestNewerVersion: a later Maxwell's journal is refused, with the remedy.
func TestNewerVersion(t *testing.T) {
	t.Parallel()
	path, _ := written(t, 5)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 7"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for what, open := range map[string]func(string) (*SQLite, error){"create": Create, "open": Open} {
		_, err := open(path)
		if e, ok := errors.AsType[*NewerError](err); !ok || e.Have != 7 || e.Know != version {
			t.Errorf("%s: %v, want version 7 refused", what, err)
		}
	}
}
