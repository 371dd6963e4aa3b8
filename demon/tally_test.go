package demon

import (
	"testing"

	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// TestTallyOfManyRequests: the newest requests are carried forward, the oldest first,
// also after more than a market remembers.
func TestTallyOfManyRequests(t *testing.T) {
	tally := NewTally()
	const n = mostRequests + 10
	for i := range uint64(n) {
		tally.asked.remember(ledger.MakeID(i+1, 1), request{amount: 1})
	}
	books := tally.Books()
	if len(books.Requests) != mostRequests {
		t.Fatalf("%d requests", len(books.Requests))
	}
	for i, r := range books.Requests {
		if want := ledger.MakeID(uint64(n-mostRequests+i+1), 1); r.ID != want {
			t.Fatalf("request %d is %v, want %v", i, r.ID, want)
		}
	}
	if tally.asked.taken(10) || !tally.asked.taken(11) || !tally.asked.taken(n) {
		t.Error("taken are not those that are remembered")
	}
}
