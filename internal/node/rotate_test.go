package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// TestKeeperRotates: a market whose journal goes on in new files, and one that resumes
// from the newest alone, have the books of one that never did; and the whole series is
// one chain that brings forward what it should.
func TestKeeperRotates(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal.sqlite")
	cfg := demon.Config{
		Cores: 2000, Reference: 10_000_000, Modelled: true, Landauer: price.DefaultLandauer(), Seed: [2]uint64{1, 2}, Journal: true,
	}
	var want map[string]unit.Credits
	now := unit.Instant(0)
	for life := range 3 {
		p, err := recall(file, "boot")
		if err != nil {
			t.Fatal(err)
		}
		var bad error
		d, err := demon.Resume(cfg, now, p.entries(&bad))
		if err = errors.Join(err, bad); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, d.Statement().Accounts); life > 0 && diff != "" {
			t.Errorf("life %d begins with other books (-want +have):\n%s", life, diff)
		}
		k := p.keeper
		k.carry.after = 10
		rotations := 0
		for i := range 25 {
			now++
			if err := d.OpenWallet(now, fmt.Sprintf("team-%d-%d", life, i%4), "", unit.Allowance{}, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := d.FundWallet(now, fmt.Sprintf("team-%d-%d", life, i%4), 5, ledger.MakeID(uint64(life+1), uint64(i+1))); err != nil {
				t.Fatal(err)
			}
			k.hand(d.Entries())
			if err := k.write(); err != nil {
				t.Fatal(err)
			}
			seq, err := k.rotate(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if seq > 0 {
				rotations++
			}
		}
		if rotations < 2 {
			t.Errorf("life %d: %d new files", life, rotations)
		}
		want = d.Statement().Accounts
		if err := k.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := journal.VerifySeries(file, func() journal.Bearer { return demon.NewTally() })
	if err != nil || sum.Missing > 0 || sum.Files < 6 {
		t.Fatalf("%d files, %d records missing, %v", sum.Files, sum.Missing, err)
	}
	if diff := cmp.Diff(want, sum.Report.Books); diff != "" {
		t.Errorf("the series gives other books (-want +have):\n%s", diff)
	}
}

// unready is a journal that does not go on in a new file.
type unready struct {
	journal.Store

	asked int
}

func (u *unready) Rotate(time.Time, ledger.Books) (journal.Head, error) {
	u.asked++
	return journal.Head{}, journal.ErrReading
}

// TestKeeperPutsOff: while somebody reads, it is tried once a minute; and where the
// books do not fit it is never tried, which is said once, and the journal goes on.
func TestKeeperPutsOff(t *testing.T) {
	k, _, err := takeKeeper(filepath.Join(t.TempDir(), "journal.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	disk := &unready{Store: k.store}
	k.store, k.carry = disk, newCarry()
	k.carry.after = 0
	open := func(name string) {
		k.hand([]ledger.Entry{{Change: ledger.Opened, Account: ledger.Wallet(name)}})
		if err := k.write(); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	open("a")
	for i, at := range []time.Duration{0, time.Second, rotateAgain + time.Second} {
		_, err := k.rotate(now.Add(at))
		if tried := i != 1; errors.Is(err, journal.ErrReading) != tried {
			t.Errorf("after %v: %v", at, err)
		}
	}
	if disk.asked != 2 || k.trouble() != nil {
		t.Errorf("asked %d times, trouble %v", disk.asked, k.trouble())
	}
	open("a") // a second time: these are not the books of any market
	open("b")
	for i := range 2 {
		if _, err := k.rotate(now.Add(time.Hour)); (err != nil) != (i == 0) {
			t.Errorf("time %d: %v", i, err)
		}
	}
	if disk.asked != 2 || k.trouble() != nil {
		t.Errorf("asked %d times, trouble %v", disk.asked, k.trouble())
	}
	if err := k.store.Close(); err != nil {
		t.Fatal(err)
	}
}
