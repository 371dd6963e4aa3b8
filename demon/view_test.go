package demon

import (
	"fmt"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// TestPostTouched: what makes one caller's change durable is about that one alone,
// and a posting of everybody leaves nothing to it.
func TestPostTouched(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Journal = true })
	one := b.admit(Admission{Name: "one", Budget: 500 * dollar})
	other := b.admit(Admission{Name: "other", Budget: 500 * dollar})
	run := map[int32]time.Duration{one: tick / 2, other: tick / 2}
	b.pass(tick, run) // what they turn to is saved at once
	b.step()
	b.d.Entries()
	b.d.Saves()
	b.pass(tick, run)
	b.step()
	if news := b.d.Entries(); len(news) > 0 {
		t.Fatalf("posted within a second: %+v", news)
	}
	for what, change := range map[string]func() error{
		"fund":    func() error { _, err := b.d.Fund(one, dollar); return err },
		"bid":     func() error { return b.d.SetBid(one, 3000) },
		"enforce": func() error { return b.d.SetEnforce(one, EnforceWarn) },
		"stop":    func() error { b.d.Stop(one, 0); return nil },
	} {
		if err := change(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	b.d.PostTouched()
	wallet := ledger.Wallet("other").ID
	entries := b.d.Entries()
	for _, e := range entries {
		for _, x := range e.Chain {
			if x.Debit == wallet || x.Credit == wallet {
				t.Errorf("the other wallet was posted: %+v", x)
			}
		}
	}
	saves := b.d.Saves()
	if len(entries) == 0 || len(saves) != 1 || saves[0].Terms.Name != "one" || saves[0].Terms.Bid != 3000 {
		t.Errorf("%d entries, saved %+v", len(entries), saves)
	}
	if _, err := b.d.Fund(one, dollar); err != nil {
		t.Fatal(err)
	}
	b.d.Post()
	b.d.Entries()
	b.d.PostTouched()
	if again := b.d.Entries(); len(again) > 0 {
		t.Errorf("posted again: %+v", again)
	}
}

// BenchmarkView is a look at a market of 1,000 that remembers 10,000 dead; posting is
// what every look did before.
func BenchmarkView(b *testing.B) {
	d := New(Config{Cores: 2000, Reference: 10_000_000, Modelled: true, Seed: [2]uint64{1, 2}}, 0)
	for i := range keepDead {
		slot, err := d.Admit(0, Admission{Name: fmt.Sprint("dead", i), Budget: 500 * dollar})
		if err != nil {
			b.Fatal(err)
		}
		w := d.slots[slot]
		w.dead = true
		d.money.post(w)
		d.Release(slot)
	}
	for i := range 1000 {
		if _, err := d.Admit(0, Admission{Name: fmt.Sprint("living", i), Budget: 500 * dollar}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("living", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d.View(false)
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d.View(true)
		}
	})
	b.Run("posting", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d.Statement()
		}
	})
}
