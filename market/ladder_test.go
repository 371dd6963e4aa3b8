package market

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// list is the obvious book: orders in order of arrival.
type list []struct {
	slot   int32
	bucket Bucket
	q      unit.CoreTime
}

func (l *list) set(slot int32, b Bucket, q unit.CoreTime) {
	for i := range *l {
		if (*l)[i].slot == slot && (*l)[i].bucket == b {
			(*l)[i].q = q
			return
		}
	}
	l.remove(slot)
	*l = append(*l, struct {
		slot   int32
		bucket Bucket
		q      unit.CoreTime
	}{slot, b, q})
}

func (l *list) remove(slot int32) {
	*l = slices.DeleteFunc(*l, func(o struct {
		slot   int32
		bucket Bucket
		q      unit.CoreTime
	},
	) bool {
		return o.slot == slot
	})
}

// above sums what rests in buckets above b.
func (l list) above(b Bucket) (sum unit.CoreTime) {
	for _, o := range l {
		if o.bucket > b {
			sum += o.q
		}
	}
	return sum
}

func (l list) in(b Bucket) (slots []int32) {
	for _, o := range l {
		if o.bucket == b {
			slots = append(slots, o.slot)
		}
	}
	return slots
}

func (l list) best(below Bucket) Bucket {
	best := Bucket(-1)
	for _, o := range l {
		if o.bucket < below {
			best = max(best, o.bucket)
		}
	}
	return best
}

func TestLadderAgainstList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ladder, naive := NewLadder(rapid.IntRange(0, 5000).Draw(t, "capacity")), list{}
		slots := rapid.SampledFrom([]int32{0, 1, 2, 3, 4095, 4096, 9000})
		buckets := rapid.SampledFrom([]Bucket{0, 63, 64, 65, 127, 128, 2000, 4094, 4095})
		quantity := rapid.Int64Range(0, 100)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				s, b, q := slots.Draw(t, "slot"), buckets.Draw(t, "bucket"), unit.CoreTime(quantity.Draw(t, "q"))
				ladder.Set(s, b, q)
				naive.set(s, b, q)
			},
			"remove": func(t *rapid.T) {
				s := slots.Draw(t, "slot")
				ladder.Remove(s)
				naive.remove(s)
			},
			"": func(t *rapid.T) { compareBooks(t, ladder, naive, unit.CoreTime(quantity.Draw(t, "supply"))) },
		})
	})
}

func compareBooks(t *rapid.T, ladder *Ladder, naive list, supply unit.CoreTime) {
	if ladder.Len() != len(naive) || ladder.Total() != naive.above(-1) {
		t.Fatalf("%d orders of %d ns, want %d of %d", ladder.Len(), ladder.Total(), len(naive), naive.above(-1))
	}
	walked := Bucket(Buckets)
	for b, ok := ladder.Best(); ; b, ok = ladder.Below(b) {
		if want := naive.best(walked); want != b && (ok || want >= 0) {
			t.Fatalf("below bucket %d comes %d, want %d", walked, b, want)
		}
		if !ok {
			break
		}
		walked = b
		var slots []int32
		for slot, q := range ladder.Orders(b) {
			slots = append(slots, slot)
			if have, has, found := ladder.Order(slot); !found || have != b || has != q {
				t.Fatalf("slot %d: in bucket %d of %d ns, but Order says %d, %d, %v", slot, b, q, have, has, found)
			}
		}
		if diff := cmp.Diff(naive.in(b), slots); diff != "" {
			t.Fatalf("bucket %d (-want +got):\n%s", b, diff)
		}
		if have, want := ladder.Above(b), naive.above(b); have != want {
			t.Fatalf("above bucket %d: %d ns, want %d", b, have, want)
		}
		if have, want := ladder.Depth(b), naive.above(b-1)-naive.above(b); have != want {
			t.Fatalf("bucket %d is %d ns deep, want %d", b, have, want)
		}
	}
	b, left, rationed := ladder.Clear(supply)
	switch {
	case !rationed && (naive.above(-1) > supply || left != supply-naive.above(-1)):
		t.Fatalf("Clear(%d): all fits, %d left of a demand of %d", supply, left, naive.above(-1))
	case rationed && (naive.above(b)+left != supply || naive.above(b-1) <= supply):
		t.Fatalf("Clear(%d) = bucket %d with %d left, but %d ns are above it and %d in it",
			supply, b, left, naive.above(b), naive.above(b-1)-naive.above(b))
	}
}

func TestLadderRefusesNonsense(t *testing.T) {
	t.Parallel()
	ladder := NewLadder(4)
	for name, call := range map[string]func(){
		"slot":     func() { ladder.Set(-1, 0, 0) },
		"bucket":   func() { ladder.Set(0, Buckets, 0) },
		"negative": func() { ladder.Set(0, -1, 0) },
		"quantity": func() { ladder.Set(0, 0, -1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: Set did not panic", name)
				}
			}()
			call()
		}()
	}
	ladder.Remove(-1)
	ladder.Remove(1 << 30)
	if _, _, ok := ladder.Order(-1); ok {
		t.Error("an order stands in slot -1")
	}
}
