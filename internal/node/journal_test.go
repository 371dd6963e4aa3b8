package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// fussy is a journal whose disk takes nothing while it is full.
type fussy struct {
	journal.Store

	full bool
}

func (f *fussy) Append(wall time.Time, b journal.Batch) (journal.Head, error) {
	if f.full {
		return journal.Head{}, journal.ErrFull
	}
	return f.Store.Append(wall, b)
}

// TestKeeper: while the journal cannot be written there is trouble, once reported;
// nothing is lost meanwhile, and when it can be written again the trouble is over.
func TestKeeper(t *testing.T) {
	file := filepath.Join(t.TempDir(), "books.sqlite")
	k, err := openKeeper(file)
	if err != nil {
		t.Fatal(err)
	}
	disk := &fussy{Store: k.store}
	k.store = disk
	hand := func(accounts ...ledger.Account) {
		for _, a := range accounts {
			k.hand([]ledger.Entry{{Change: ledger.Opened, Account: a}})
		}
	}
	hand(ledger.Mint())
	if err := k.write(); err != nil || k.trouble() != nil {
		t.Fatalf("write: %v, trouble: %v", err, k.trouble())
	}
	disk.full = true
	for i, name := range []string{"a", "b", "c"} {
		hand(ledger.Wallet(name))
		if err := k.write(); errors.Is(err, journal.ErrFull) != (i == 0) {
			t.Errorf("write %d on a full disk reports %v; want it said once", i, err)
		}
		if !errors.Is(k.trouble(), journal.ErrFull) {
			t.Errorf("trouble on a full disk: %v", k.trouble())
		}
	}
	disk.full = false
	hand(ledger.Wallet("d"))
	if err := k.write(); err != nil || k.trouble() != nil {
		t.Errorf("with room again: %v, trouble %v", err, k.trouble())
	}
	r, err := journal.Verify(k.store)
	if err != nil || r.Accounts != 5 {
		t.Errorf("%d accounts, %v; want 5", r.Accounts, err)
	}
	if err := k.store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeeper(file); err == nil || !strings.Contains(err.Error(), "earlier market") {
		t.Errorf("a journal that has records: %v", err)
	}
	k, err = openKeeper(file + ".new") // the refusal left it usable
	if err != nil {
		t.Fatal(err)
	}
	k.waiting = make([]ledger.Entry, mostWaiting)
	hand(ledger.Mint())
	if len(k.waiting) != mostWaiting || !k.lost {
		t.Errorf("%d wait, lost %v: want the bound to hold and the loss to be known", len(k.waiting), k.lost)
	}
	if err := k.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNothingLostIsAcknowledged: when more was dropped than waits for a full disk, nothing
// after it is ever said to be kept, and what came before is written.
func TestNothingLostIsAcknowledged(t *testing.T) {
	k, err := openKeeper(filepath.Join(t.TempDir(), "books.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.store.Close() }()
	disk := &fussy{Store: k.store, full: true}
	k.store = disk
	k.hand([]ledger.Entry{{Change: ledger.Opened, Account: ledger.Mint()}})
	k.hand(make([]ledger.Entry, mostWaiting))
	if err := k.write(); !errors.Is(err, journal.ErrFull) || !errors.Is(k.trouble(), journal.ErrFull) || k.over() {
		t.Errorf("on a full disk: %v, trouble %v, over %v", err, k.trouble(), k.over())
	}
	disk.full = false
	if err := k.write(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.settled(t.Context(), nil); !errors.Is(err, errLost) || !errors.Is(k.trouble(), errLost) || !k.over() {
			t.Errorf("settled: %v, trouble: %v, over %v", err, k.trouble(), k.over())
		}
		k.hand([]ledger.Entry{{Change: ledger.Opened, Account: ledger.Heat()}})
		if err := k.write(); err != nil {
			t.Fatal(err)
		}
	}
	if head, err := disk.Head(); err != nil || head.Seq != 1 {
		t.Errorf("%d records, %v; want the one from before the loss", head.Seq, err)
	}
}

// TestASlowDiskHoldsUpNoKill: while the journal does not come to an end with a write,
// the dead wait to be buried, and who is to be ended is.
func TestASlowDiskHoldsUpNoKill(t *testing.T) {
	n := openNursery(t)
	m := n.m
	var dying []*member
	for i := range workers + buriers + 1 {
		name := fmt.Sprint("dying", i)
		if _, err := n.rpc.Admit(t.Context(), &v1.AdmitRequest{Token: n.token, Name: name, BidMilli: 2000}); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		dying = append(dying, m.names[name])
		m.mu.Unlock()
	}
	m.keeper.writing.Lock()
	m.loop.hasten(func() {
		for _, mem := range dying {
			mem.ending = true
			m.loop.demon.Gone(mem.slot, false)
		}
	})
	for left := len(dying); left > 0; { // until all are to be buried
		m.loop.through(func() {
			left = 0
			for _, mem := range dying {
				if !mem.over {
					left++
				}
			}
		})
	}
	killed := make(chan struct{})
	m.work(func() { close(killed) })
	select {
	case <-killed:
	case <-time.After(20 * time.Second):
		t.Error("no worker is free while burials wait for the disk")
	}
	select {
	case <-dying[0].buried:
		t.Error("buried before the journal had its end")
	default:
	}
	m.keeper.writing.Unlock()
	for _, mem := range dying {
		<-mem.buried
	}
}

// TestAnAdmissionThatIsNotKeptEndsNobodyElse: it may be buried before the disk says no,
// and its slot be another's by then.
func TestAnAdmissionThatIsNotKeptEndsNobodyElse(t *testing.T) {
	n := openNursery(t)
	m := n.m
	admit := func(name string) (mem *member) {
		if _, err := n.rpc.Admit(t.Context(), &v1.AdmitRequest{Token: n.token, Name: name, BidMilli: 2000}); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.names[name]
	}
	first := admit("first")
	if _, err := n.rpc.Exited(t.Context(), &v1.ExitedRequest{Token: n.token, Name: "first"}); err != nil {
		t.Fatal(err)
	}
	second := admit("second")
	if first.slot != second.slot {
		t.Fatalf("slots %d and %d, want the same", first.slot, second.slot)
	}
	disk := &fussy{Store: m.keeper.store, full: true}
	m.keeper.writing.Lock()
	m.keeper.store = disk
	m.keeper.writing.Unlock()
	req := &v1.AdmitRequest{Token: n.token, Name: "first", RequestId: drawID()}
	if err := m.promise(t.Context(), first, req, &v1.AdmitResponse{}); !errors.Is(err, journal.ErrFull) {
		t.Errorf("promised on a full disk: %v", err)
	}
	m.loop.through(func() {})
	m.loop.do(func() {
		if second.over || !m.loop.has(second) {
			t.Error("who has its slot now is buried")
		}
	})
	m.keeper.writing.Lock()
	m.keeper.store = disk.Store
	m.keeper.writing.Unlock()
}
