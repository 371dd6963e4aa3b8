package demon

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// BenchmarkStep is one tick of a market: n workloads, a tenth of them hogs
// whose bids change, the rest asleep.
func BenchmarkStep(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkStep(b, n) })
	}
}

func benchmarkStep(b *testing.B, n int) {
	d := New(Config{
		Cores: 8000, Reference: 10_000_000, Modelled: true, Sigma: 500_000,
		Landauer: price.DefaultLandauer(), Seed: [2]uint64{1, 2},
	}, 0)
	var in Input
	var out Decisions
	in.Usage = make([]Usage, n)
	for i := range n {
		slot, err := d.Admit(0, Admission{Name: fmt.Sprint("w", i), Bid: unit.Price(1100 + 37*(i%200)), Budget: 1 << 44})
		if err != nil {
			b.Fatal(err)
		}
		in.Usage[slot].Populated = true
		d.Started(slot)
	}
	const length = 100 * time.Millisecond
	step := func(tick int) {
		in.Now += unit.Instant(length)
		busy := unit.CoreTime(0)
		for i := 0; i < n; i += 10 {
			run := unit.CoreTime(8*length) / unit.CoreTime((n+9)/10)
			in.Usage[i].Run += run
			in.Usage[i].Wait += unit.CoreTime(length) - run
			busy += run
			if (i/10+tick)%10 == 0 {
				if err := d.SetBid(int32(i), unit.Price(1100+(i+tick*31)%7000)); err != nil {
					b.Fatal(err)
				}
			}
		}
		in.Busy += busy
		in.Reading = physics.Reading{Energy: in.Reading.Energy + unit.Microjoules(busy/100), Source: physics.SourceGeneric}
		d.Step(&in, &out)
	}
	for tick := range 30 {
		step(tick)
	}
	b.ReportAllocs()
	tick := 30
	for b.Loop() {
		step(tick)
		tick++
	}
	perTick := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
	b.ReportMetric(perTick/float64(n), "ns/workload")
	b.ReportMetric(100*perTick/float64(length), "%core@100ms")
}

// BenchmarkResume is what a restart computes, without the disk: so many records of ten
// wallets that pay, replayed; and the books that stand for them.
func BenchmarkResume(b *testing.B) {
	cfg := Config{Cores: 8000, Reference: 10_000_000, Modelled: true, Landauer: price.DefaultLandauer(), Seed: [2]uint64{1, 2}, Journal: true}
	for _, records := range []int{1_000, 10_000} {
		entries := busy(b, cfg, records)
		tally := NewTally()
		for i := range entries {
			if status := tally.Replay(&entries[i]); status != ledger.OK {
				b.Fatal(status)
			}
		}
		books := tally.Books()
		for name, list := range map[string][]ledger.Entry{"replayed": entries, "carried": {{Change: ledger.Carried, Books: &books}}} {
			b.Run(fmt.Sprintf("records=%d/%s", records, name), func(b *testing.B) {
				for b.Loop() {
					if _, err := Resume(cfg, 0, slices.Values(list)); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(records*b.N)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// busy is what a market of ten hogs hands over, until there are so many records.
func busy(b *testing.B, cfg Config, records int) (entries []ledger.Entry) {
	d := New(cfg, 0)
	in, out := Input{Usage: make([]Usage, 10)}, Decisions{}
	for i := range in.Usage {
		slot, err := d.Admit(0, Admission{Name: fmt.Sprint("w", i), Bid: 2000, Budget: 1 << 50})
		if err != nil {
			b.Fatal(err)
		}
		in.Usage[slot].Populated = true
		d.Started(slot)
	}
	const length = 100 * time.Millisecond
	for len(entries) < records {
		in.Now += unit.Instant(length)
		for i := range in.Usage {
			in.Usage[i].Run += unit.CoreTime(8*length) / 10
			in.Busy += unit.CoreTime(8*length) / 10
		}
		in.Reading = physics.Reading{Energy: unit.Microjoules(in.Busy / 100), Source: physics.SourceGeneric}
		d.Step(&in, &out)
		entries = append(entries, d.Entries()...)
		d.Saves()
	}
	return entries[:records]
}
