package journal

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maxwell-hypervisor/maxwell/ledger"
)

var update = flag.Bool("update", false, "write testdata/version3.sqlite anew: only before that version is released")

// goldens are files that each version wrote, and what is in them. When the schema
// changes, the old ones stay, and have to be read still.
var goldens = []struct {
	file      string
	version   int
	head      string
	records   uint64
	documents []string
}{
	{"version1.sqlite", 1, "f2bd0f95b4defad8b09316c4dbbf8288fa0cd913e3db46623d5463adb387bc54", 22, nil},
	{"version2.sqlite", 2, "b7aa0156c0df5f7038caed8634708fc5c2698f310406f385f3c613c68980ed71", 30, []string{
		`2 of 1000: {"number": 3}`, `last of 0: {}`, `4 of 1000: {"number": 5}`,
	}},
	{"version3.sqlite", 3, "f30beb63f450027e5d3aaa81dd4ef56f506633d4f3101e20bd027b7965ab4940", 31, []string{ // the second file of its journal
		`2 of 1000: {"number": 3}`, `last of 0: {}`, `4 of 1000: {"number": 5}`,
	}},
}

// golden copies a file to a directory of its own, under a name that is hard to get
// right in a URL.
func golden(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "old, 100 % of it?.sqlite")
	if err := os.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// events are the documents that the golden files have.
func events(t *testing.T, s Store) (list []string) {
	t.Helper()
	for _, d := range gather(t, s.Documents(Query{Kind: "event"})) {
		list = append(list, fmt.Sprintf("%s of %d: %s", d.Key, d.UID, d.Body))
	}
	return list
}

// TestGolden reads a file of each version without changing it.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	for _, g := range goldens {
		t.Run(g.file, func(t *testing.T) {
			path := golden(t, g.file)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Verify(s)
			if err != nil || r.Head.Hash.String() != g.head || r.Head.Seq != g.records {
				t.Errorf("record %d, head %s, %v", r.Head.Seq, r.Head.Hash, err)
			}
			if d := cmp.Diff(g.documents, events(t, s)); d != "" || s.version != g.version {
				t.Errorf("version %d, want %d; documents (-want +have):\n%s", s.version, g.version, d)
			}
			if n := len(gather(t, s.Transfers(TransferQuery{}))); n != r.Transfers {
				t.Errorf("%d transfers of %d are found", n, r.Transfers)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if list, _ := os.ReadDir(filepath.Dir(path)); len(list) != 1 {
				t.Errorf("reading left something: %v", list)
			}
			if after, err := os.ReadFile(path); err != nil || !slices.Equal(before, after) {
				t.Errorf("reading changed it: %v", err)
			}
		})
	}
}

// TestUpgrade writes to a file of each version: it becomes one of this version, like
// a new one in every table, with the records that it had, and goes on from them.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	fresh, _ := written(t, 0)
	want := tables(t, fresh)
	for _, g := range goldens {
		t.Run(g.file, func(t *testing.T) {
			path := golden(t, g.file)
			s, err := Create(path)
			if err != nil {
				t.Fatal(err)
			}
			if h, err := s.Head(); err != nil || h.Hash.String() != g.head || h.Seq != g.records {
				t.Errorf("upgraded it ends at record %d, %s, %v", h.Seq, h.Hash, err)
			}
			n := resumeNovel(t, s, 1)
			for range 20 {
				n.page()
			}
			more := n.take()
			head, err := s.Append(time.Now(), Batch{Entries: more, Put: []Document{{Kind: "event", Key: "new"}}})
			if err != nil || head.Seq != g.records+uint64(len(more)) {
				t.Errorf("after the upgrade: head %d, %v", head.Seq, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, tables(t, path)); d != "" {
				t.Errorf("upgraded it has other tables than a new one (-new +upgraded):\n%s", d)
			}
			if s, err = Create(path); err != nil { // nothing is left to do
				t.Fatal(err)
			}
			defer s.Close()
			r, err := Verify(s)
			if err != nil || r.Head != head {
				t.Errorf("record %d, %v; want %d", r.Head.Seq, err, head.Seq)
			}
			if d := cmp.Diff(append(slices.Clone(g.documents), "new of 0: "), events(t, s)); d != "" {
				t.Errorf("documents (-want +have):\n%s", d)
			}
		})
	}
}

// TestUpgradeRefused: what cannot be upgraded (here for want of space, half-way) is
// left at its version, whole, and is upgraded later.
func TestUpgradeRefused(t *testing.T) {
	t.Parallel()
	path := golden(t, "version1.sqlite")
	db, err := connect(path, writing)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	s := &SQLite{path: path, writer: db, version: 1}
	if _, err := db.Exec("PRAGMA max_page_count = 8"); err != nil {
		t.Fatal(err)
	}
	if err := s.upgrade(); !errors.Is(err, ErrFull) || s.version != 1 {
		t.Errorf("upgrade without room: %v, version %d", err, s.version)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := verifyFile(t, path); err != nil || r.Head.Hash.String() != goldens[0].head {
		t.Errorf("after it: head %v, %v", r.Head, err)
	}
	if s, err = Create(path); err != nil {
		t.Fatal(err)
	}
	if s.version != version {
		t.Errorf("with room it has version %d", s.version)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// tables is the schema of a file.
func tables(t *testing.T, path string) []string {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rows, err := s.readers.Query("SELECT name || ': ' || coalesce(sql, '') FROM sqlite_schema ORDER BY name")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	list := []string{fmt.Sprint("version ", s.version)}
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		list = append(list, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// writeGolden writes the file of this version: some records, and documents that
// were put, replaced and dropped.
func writeGolden(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.sqlite")
	s, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	n := newNovel(2)
	var list []ledger.Entry
	for len(list) < 30 {
		n.page()
		list = append(list, n.take()...)
	}
	after4 := ledger.New(ledger.Config{}) // batches
	for i := range 20 {
		if status := after4.Replay(&list[i]); status != ledger.OK {
			t.Fatal(status)
		}
	}
	books := after4.Books()
	books.Highest, books.Prefixes = 1<<63-1, []uint64{1, 1<<64 - 1}
	books.Requests = []ledger.Request{{ID: ledger.MakeID(5, 6), Debit: ledger.Mint().ID, Credit: ledger.Wallet("a").ID, Amount: 7}}
	for i := range 6 {
		b := Batch{Entries: list[5*i : 5*i+5]}
		wall := time.Unix(1_795_000_000, int64(i)).UTC()
		b.Put = append(b.Put, Document{Kind: "event", Key: fmt.Sprint(i / 2 * 2), UID: 1000, Body: fmt.Appendf(nil, `{"number": %d}`, i)},
			Document{Kind: "event", Key: "last", Body: []byte(`{}`)})
		if i == 3 {
			b.Drop = []Ref{{"event", "0"}, {"event", "last"}}
		}
		head, err := s.Append(wall, b)
		if err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			head, err = s.Rotate(wall, books)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Log(head)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join("testdata", fmt.Sprintf("version%d.sqlite", version)), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
