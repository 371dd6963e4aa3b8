package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// BenchmarkAppend is one durable batch of so many entries, beside a raw write and
// fdatasync of as many bytes as their encoding has, in turn in the same run: what
// the disk alone takes.
func BenchmarkAppend(b *testing.B) {
	for _, batch := range []int{1, 10, 100, 1000} {
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
			var ours, theirs time.Duration
			appended, written := 0, 0
			for b.Loop() {
				for len(n.entries) < batch {
					n.page()
				}
				list := n.take()
				block := make([]byte, 0, 300*batch)
				for i := range list {
					block = encode(block, Hash{}, 1, time.Time{}, &list[i])
				}
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
				if err := syscall.Fdatasync(int(raw.Fd())); err != nil {
					b.Fatal(err)
				}
				theirs += time.Since(start)
				written += len(block)
			}
			b.ReportMetric(float64(appended)/ours.Seconds(), "entries/s")
			b.ReportMetric(float64(written)/float64(appended), "B/entry")
			b.ReportMetric(ours.Seconds()/theirs.Seconds(), "x/raw")
		})
	}
}

// yearOf is what a daemon with so many paying wallets writes: each second each of
// them releases its hold, pays energy and rent, and is held again.
func yearOf(wallets, records int) []ledger.Entry {
	books, seq, at := ledger.New(ledger.Config{}), uint64(0), unit.Instant(0)
	list := make([]ledger.Entry, 0, records)
	open := func(a ledger.Account) ledger.ID {
		if books.Open(a) == ledger.OK {
			list = append(list, ledger.Entry{Change: ledger.Opened, Account: a})
		}
		return a.ID
	}
	apply := func(chain ...ledger.Transfer) ledger.ID {
		at += 100_000_000
		for i := range chain {
			seq++
			chain[i].ID, chain[i].At, chain[i].UserData = ledger.MakeID(0x9e3779b97f4a7c15, seq), at, 7
			if i < len(chain)-1 {
				chain[i].Flags |= ledger.Linked
			}
		}
		list = append(list, ledger.Entry{Change: ledger.Applied, Chain: chain})
		return chain[len(chain)-1].ID
	}
	mint, heat, treasury := open(ledger.Mint()), open(ledger.Heat()), open(ledger.Treasury())
	lease := open(ledger.Lease("node"))
	const second = 12_345_678 // what a wallet pays
	type wallet struct {
		id, hold ledger.ID
		left     unit.Credits
	}
	all := make([]wallet, wallets)
	for len(list) < records {
		for i := range all {
			w := &all[i]
			var chain []ledger.Transfer
			if w.id.IsZero() {
				w.id, w.left = open(ledger.Wallet(fmt.Sprint("agent-", i))), unit.Credits(second*records)
				chain = []ledger.Transfer{{Debit: mint, Credit: w.id, Amount: w.left, Code: ledger.ForFunding}}
			} else {
				w.left -= second
				chain = []ledger.Transfer{
					{PendingID: w.hold, Flags: ledger.Void},
					{Debit: w.id, Credit: heat, Amount: second - 345_678, Code: ledger.ForEnergy},
					{Debit: w.id, Credit: treasury, Amount: 345_678, Code: ledger.ForRent},
				}
			}
			w.hold = apply(append(chain, ledger.Transfer{Debit: w.id, Credit: lease, Amount: w.left, Code: ledger.ForLease, Flags: ledger.Pending})...)
		}
	}
	return list[:records]
}

// BenchmarkReplay is what a restart and an audit take: a journal of so many records,
// read from its first one into empty books.
func BenchmarkReplay(b *testing.B) {
	for _, records := range []int{1_000, 10_000, 50_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "journal.sqlite")
			s, err := Create(path)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			list := yearOf(10, records)
			for from := 0; from < len(list); from += 1000 {
				if _, err := s.Append(time.Now(), Batch{Entries: list[from:min(from+1000, len(list))]}); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := s.writer.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
				b.Fatal(err)
			}
			size, err := os.Stat(path)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := Verify(s); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(records*b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(size.Size())/float64(records), "B/record")
		})
	}
}
