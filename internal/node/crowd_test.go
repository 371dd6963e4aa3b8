package node

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

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
