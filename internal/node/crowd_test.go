package node

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// TestOneUsersWalletsAreBounded: who has many standing wallets opens no more, others and
// admins do.
func TestOneUsersWalletsAreBounded(t *testing.T) {
	h := hostMarket(t)
	eve, ctx := h.as(1003), t.Context()
	var crew sync.WaitGroup
	for k := range 16 {
		crew.Go(func() {
			for i := range mostWallets / 16 {
				if _, err := eve.CreateWallet(ctx, &v1.CreateWalletRequest{Name: fmt.Sprintf("w%d-%d", k, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	crew.Wait()
	if _, err := eve.CreateWallet(ctx, &v1.CreateWalletRequest{Name: "more"}); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	if _, err := eve.CreateWallet(ctx, &v1.CreateWalletRequest{Name: "w0-0", Change: true, Parent: "w1-0"}); err != nil {
		t.Errorf("change one: %v", err)
	}
	for _, uid := range []int{1001, 0} {
		if _, err := h.as(uid).CreateWallet(ctx, &v1.CreateWalletRequest{Name: fmt.Sprint("of", uid)}); err != nil {
			t.Errorf("%d: %v", uid, err)
		}
	}
}

// TestATickIsNotHeldUpByCommands: of a full queue a few run before a tick that is due,
// and the loop comes back for the rest by itself.
func TestATickIsNotHeldUpByCommands(t *testing.T) {
	l, err := newLoop(&Market{})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l.wake)
	ran := 0
	fill := func() {
		for range queueLength {
			l.queue <- func() { ran++ }
		}
	}
	fill()
	l.last = l.clock.Now()
	l.next = l.last // due
	if l.commands(); ran != commandsWhenDue || l.deadline() > l.clock.Now() {
		t.Errorf("%d commands ran before the tick, and the loop sleeps until %v", ran, l.deadline())
	}
	l.next = l.clock.Now() + unit.Instant(1<<62) // not due
	if l.commands(); ran != queueLength || l.deadline() != l.next {
		t.Errorf("%d commands ran while nothing was due, and the loop comes back at %v", ran, l.deadline())
	}
	fill()
	l.next, l.ending = l.last, true
	if l.commands(); ran != 2*queueLength {
		t.Errorf("%d commands ran by the end", ran)
	}
}

// TestNobodyPushesOutOthersAnswers: whoever makes any number of changes, others' answers
// are remembered while they have fewer; in all there is a bound; what is never right is
// not remembered.
func TestNobodyPushesOutOthersAnswers(t *testing.T) {
	var all answers
	key := func(uid uint32, n int) (k onceKey) {
		k.uid = uid
		binary.LittleEndian.PutUint64(k.id[:], uint64(n))
		return k
	}
	asked := [32]byte{1}
	for n := range 100 {
		all.take(key(1001, n), asked)
	}
	dropped := key(1002, 1<<40)
	for n := range 3 * mostAnswers {
		all.take(key(1003, n), asked)
		all.take(dropped, asked)
		all.drop(dropped)
		if len(all.known) > mostAnswers || all.count != len(all.known) {
			t.Fatalf("%d are remembered, counted as %d", len(all.known), all.count)
		}
	}
	for n := range 100 {
		if _, first := all.take(key(1001, n), asked); first {
			t.Fatalf("the answer to change %d was pushed out", n)
		}
	}
	if _, first := all.take(key(1003, 0), asked); !first {
		t.Error("who has most forgets nothing")
	}
	if _, first := all.take(key(1003, 3*mostAnswers-1), asked); first {
		t.Error("the newest was forgotten")
	}
}

// TestARefusalOfFormIsNotRemembered: terms that are never right leave nothing behind.
func TestARefusalOfFormIsNotRemembered(t *testing.T) {
	h := hostMarket(t)
	eve := h.as(1003)
	req := &v1.AdmitRequest{Token: h.session(eve), Name: "-", BidMilli: -1, RequestId: drawID()}
	if _, err := eve.Admit(t.Context(), req); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a bid below zero: %v", err)
	}
	req.Name, req.BidMilli = "job", 2000
	if _, err := eve.Admit(t.Context(), req); err != nil {
		t.Errorf("the id of what was never tried: %v", err)
	}
}

// TestNobodyFillsTheDisk: a user changes the market at once as often as he may have
// workloads, and then so often a second; others and admins do not notice, and what stops
// work is never put off.
func TestNobodyFillsTheDisk(t *testing.T) {
	var r rates
	now := time.Now()
	for i := range changesAtOnce {
		if wait := r.take(1, now); wait != 0 {
			t.Fatalf("change %d waits %v", i, wait)
		}
	}
	if wait := r.take(1, now); wait != changeEvery {
		t.Errorf("one more waits %v, want %v", wait, changeEvery)
	}
	for range 3 {
		if now = now.Add(changeEvery); r.take(1, now) != 0 || r.take(1, now) == 0 {
			t.Error("later it is not one for each time that passed")
		}
	}
	if wait := r.take(2, now); wait != 0 {
		t.Errorf("another user waits %v", wait)
	}
	for uid := range uint32(5000) { // who has done nothing since is not remembered
		now = now.Add(changeEvery)
		r.take(10+uid, now)
	}
	if wait := r.take(1, now); len(r.at) > 1001 || wait != 0 {
		t.Errorf("%d users are remembered, and the first waits %v", len(r.at), wait)
	}

	m := openNursery(t).m
	own := unknownUser - 1 // no user of this machine
	m.rates.mu.Lock()
	m.rates.at = map[uint32]time.Time{own: time.Now().Add(2 * changesAtOnce * changeEvery)}
	m.rates.mu.Unlock()
	want := func(what string, err error, code connect.Code) {
		t.Helper()
		if err == nil && code != 0 || err != nil && connect.CodeOf(err) != code {
			t.Errorf("%s: %v, want %v", what, err, code)
		}
	}
	want("too often", m.mayChange(own, &v1.SetBidRequest{}), connect.CodeResourceExhausted)
	want("too often, and stops", m.mayChange(own, &v1.StopRequest{}), 0)
	want("an admin", m.mayChange(0, &v1.SetBidRequest{}), 0)
	trouble := func(err error) {
		m.keeper.mu.Lock()
		m.keeper.err = err
		m.keeper.mu.Unlock()
	}
	trouble(errLost)
	want("on a full disk", m.mayChange(0, &v1.SetBidRequest{}), connect.CodeUnavailable)
	want("on a full disk, and stops", m.mayChange(own, &v1.StopRequest{}), 0)
	want("on a full disk, and disarms", m.mayChange(0, &v1.SetEnforceRequest{}), 0)
	trouble(nil)
}

// TestAFloodOfChangesIsRefused: a user who changes his bid without end is refused, and an
// admin's change is made.
func TestAFloodOfChangesIsRefused(t *testing.T) {
	h := hostMarket(t)
	eve, ctx := h.as(1003), t.Context()
	h.admit(eve, h.session(eve), "hers", 1000e6)
	var refused atomic.Bool
	var crew sync.WaitGroup
	for range 16 {
		crew.Go(func() {
			for range changesAtOnce / 4 { // four times as many as are let
				if refused.Load() {
					return
				}
				_, err := eve.SetBid(ctx, &v1.SetBidRequest{Name: "hers", BidMilli: 3000})
				switch {
				case connect.CodeOf(err) == connect.CodeResourceExhausted:
					refused.Store(true)
				case err != nil:
					t.Error(err)
					return
				}
			}
		})
	}
	crew.Wait()
	if !refused.Load() {
		t.Error("nobody was refused")
	}
	if _, err := h.as(0).SetBid(ctx, &v1.SetBidRequest{Name: "hers", BidMilli: 2000}); err != nil {
		t.Errorf("an admin: %v", err)
	}
	if _, err := eve.Stop(ctx, &v1.StopRequest{Name: "hers"}); err != nil {
		t.Errorf("stop: %v", err)
	}
}
