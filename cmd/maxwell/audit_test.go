package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// state is a daemon's directory with a journal of three files of five records each,
// beside the one that carries forward.
func state(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := journal.Create(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	tally, wall := demon.NewTally(), time.Unix(1_795_000_000, 0)
	write := func(e ledger.Entry) {
		if status := tally.Replay(&e); status != ledger.OK {
			t.Fatal(status)
		}
		if _, err := s.Append(wall, journal.Batch{Entries: []ledger.Entry{e}}); err != nil {
			t.Fatal(err)
		}
	}
	write(ledger.Entry{Change: ledger.Opened, Account: ledger.Mint()})
	write(ledger.Entry{Change: ledger.Opened, Account: ledger.Wallet("a")})
	for i := range 13 {
		write(ledger.Entry{Change: ledger.Applied, Chain: []ledger.Transfer{{
			ID: ledger.MakeID(7, uint64(i+1)), Debit: ledger.Mint().ID, Credit: ledger.Wallet("a").ID, Amount: 1_000_000, Code: ledger.ForFunding,
			UserData: 1, At: unit.Instant(i + 1),
		}}})
		if i == 2 || i == 7 {
			if _, err := s.Rotate(wall, tally.Books()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestAuditOfManyFiles: the newest file, all of them, and a directory.
func TestAuditOfManyFiles(t *testing.T) {
	dir := state(t)
	newest := filepath.Join(dir, journalName)
	closed, err := filepath.Glob(filepath.Join(dir, "journal-*.sqlite"))
	if err != nil || len(closed) != 2 {
		t.Fatalf("%v, %v", closed, err)
	}
	verify := func(args ...string) verified {
		t.Helper()
		o := newFakeMarket().run(append([]string{"audit", "verify", "--json"}, args...)...)
		var v verified
		if err := json.Unmarshal([]byte(o.out), &v); err != nil {
			t.Fatalf("%v: %s", err, o.err)
		}
		if v.Holds != (o.code == 0) || !v.Holds && o.code != exitBroken {
			t.Errorf("%v: code %d: %s", args, o.code, o.err)
		}
		return v
	}
	one, all, whole := verify(newest), verify("--all", newest), verify(dir)
	if !one.Holds || one.Files != 1 || one.After != 11 || one.Records != 17 || one.Transfers != 5 || one.Accounts != 0 {
		t.Errorf("the newest file: %+v", one)
	}
	if !all.Holds || all.Files != 3 || all.After != 0 || all.Records != 17 || all.Transfers != 13 || all.Accounts != 2 ||
		all.Head != one.Head || all.Balances["wallet:a"] != 13_000_000 || all.Minted != one.Minted {
		t.Errorf("all files: %+v", all)
	}
	if whole.Files != 3 || whole.Head != all.Head {
		t.Errorf("the directory: %+v", whole)
	}
	for what, arg := range map[string]string{"6 records, ": newest, "17 records in 3 files, ": dir} { // the books, and five
		if o := newFakeMarket().run("audit", "verify", arg); o.code != 0 || !strings.Contains(o.out, " holds: "+what) {
			t.Errorf("%s: %s%s", arg, o.out, o.err)
		}
	}
	if err := os.Remove(closed[0]); err != nil {
		t.Fatal(err)
	}
	if v := verify(dir); !v.Holds || v.Files != 2 || v.After != 5 {
		t.Errorf("without the oldest file: %+v", v)
	}
	if o := newFakeMarket().run("audit", "verify", dir); !strings.Contains(o.out, "  after     record 5, ") || !strings.Contains(o.out, "\n  wallet:a  13 $J\n") {
		t.Errorf("it does not say where it begins: %s", o.out)
	}
	if err := os.Truncate(closed[1], 0); err != nil {
		t.Fatal(err)
	}
	if o := newFakeMarket().run("audit", "verify", dir); o.code != exitUsage || !strings.Contains(o.err, filepath.Base(closed[1])) || strings.Count(o.err, "\n") != 1 {
		t.Errorf("an empty file between: %d, %s", o.code, o.err)
	}
	if err := os.Remove(closed[1]); err != nil {
		t.Fatal(err)
	}
	if v := verify(dir); !v.Holds || v.Files != 1 || v.After != 11 {
		t.Errorf("without any closed file: %+v", v)
	}
	if err := os.Remove(newest); err != nil {
		t.Fatal(err)
	}
	if o := newFakeMarket().run("audit", "verify", dir); o.code != exitUsage || strings.Count(o.err, "\n") != 1 {
		t.Errorf("a directory without a journal: %d, %s", o.code, o.err)
	}
}
