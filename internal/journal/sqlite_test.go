package journal

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// TestFull: on a full disk nothing of a batch is there, what was acknowledged is,
// and the journal goes on when there is room again.
func TestFull(t *testing.T) {
	t.Parallel()
	s, err := Create(filepath.Join(t.TempDir(), "journal.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	limit := func(pages int) {
		if _, err := s.writer.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(40) // of 4 KiB
	n := newNovel(5)
	var acknowledged Head
	for {
		for range 20 {
			n.page()
		}
		head, err := s.Append(time.Now(), Batch{Entries: n.entries})
		if err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatalf("full: %v, want %v", err, ErrFull)
			}
			break
		}
		n.take()
		acknowledged = head
	}
	if r, err := Verify(s); err != nil || r.Head != acknowledged {
		t.Errorf("after a refusal it ends at %v, %v; want %v", r.Head, err, acknowledged)
	}
	limit(100_000)
	if _, err := s.Append(time.Now(), Batch{Entries: n.take()}); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if _, err := Verify(s); err != nil {
		t.Error(err)
	}
}

// writerVariable makes the test binary a writer that is going to be killed.
const writerVariable = "MAXWELL_TEST_JOURNAL"

// TestMain runs the writer when asked to: it appends for ever, and says after
// each batch which record is acknowledged.
func TestMain(m *testing.M) {
	path := os.Getenv(writerVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	s, err := Create(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	n := newNovel(uint64(os.Getpid()))
	if head, _ := s.Head(); head.Seq > 0 {
		fmt.Println("not empty")
		os.Exit(1)
	}
	for {
		for range 8 {
			n.page()
		}
		head, err := s.Append(time.Now(), Batch{Entries: n.take()})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(head.Seq, head.Hash)
	}
}

// TestKilled kills writers at moments that nobody chose, mid-commit included:
// whatever they had acknowledged is there, whole, and verifies.
func TestKilled(t *testing.T) {
	t.Parallel()
	const rounds = 25
	dir := t.TempDir()
	for round := range rounds {
		path := filepath.Join(dir, strconv.Itoa(round))
		ctx, kill := context.WithCancel(t.Context())
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), writerVariable+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, last := bufio.NewScanner(out), ""
		for n := 0; lines.Scan(); n++ {
			last = lines.Text()
			if n == round { // then it is somewhere in its next batches
				kill()
			}
		}
		_ = cmd.Wait()
		kill()
		seq, hash, _ := strings.Cut(last, " ")
		acknowledged, err := strconv.ParseUint(seq, 10, 64)
		if err != nil {
			t.Fatalf("the writer said %q", last)
		}
		s, err := Create(path) // a writer again: nothing of the dead one is in the way
		if err != nil {
			t.Fatal(err)
		}
		r, err := Verify(s)
		if err != nil || r.Head.Seq < acknowledged {
			t.Errorf("round %d: %d records, %v; %d were acknowledged", round, r.Head.Seq, err, acknowledged)
		}
		for _, rec := range read(t, s) {
			if rec.Seq == acknowledged && rec.Hash.String() != hash {
				t.Errorf("round %d: record %d has another hash than was acknowledged", round, acknowledged)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkAppend is one durable batch of so many entries, beside a raw write and
// fdatasync of as many bytes in the same run: what the disk alone takes.
func BenchmarkAppend(b *testing.B) {
	for _, batch := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("entries=%d", batch), func(b *testing.B) {
			s, err := Create(filepath.Join(b.TempDir(), "journal.sqlite"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			raw, err := os.Create(filepath.Join(b.TempDir(), "raw"))
			if err != nil {
				b.Fatal(err)
			}
			defer raw.Close()
			n := newNovel(9)
			block := make([]byte, 300*batch)
			var ours, theirs time.Duration
			appended := 0
			for b.Loop() {
				for len(n.entries) < batch {
					n.page()
				}
				list := n.take()
				start := time.Now()
				if _, err := s.Append(start, Batch{Entries: list}); err != nil {
					b.Fatal(err)
				}
				ours += time.Since(start)
				appended += len(list)
				start = time.Now()
				if _, err := raw.Write(block); err != nil {
					b.Fatal(err)
				}
				if err := raw.Sync(); err != nil {
					b.Fatal(err)
				}
				theirs += time.Since(start)
			}
			b.ReportMetric(float64(appended)/ours.Seconds(), "entries/s")
			b.ReportMetric(ours.Seconds()/theirs.Seconds(), "time/raw-sync")
		})
	}
}
