package ledger

import (
	"fmt"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// BenchmarkApply: one bill of one workload, the window full and forgetting.
func BenchmarkApply(b *testing.B) {
	for _, wallets := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("wallets=%d", wallets), func(b *testing.B) {
			names := make([]string, wallets)
			for i := range names {
				names[i] = fmt.Sprint(i)
			}
			l := funded(b, Config{}, 1e12, names...)
			debits := make([]ID, wallets)
			for i, name := range names {
				debits[i] = Wallet(name).ID
			}
			tr := Transfer{Credit: Heat().ID, Amount: 1, Code: ForEnergy}
			n := 0
			next := func() {
				n++
				tr.ID, tr.Debit, tr.At = MakeID(1, uint64(n)), debits[n%wallets], unit.Instant(n)
				if s := l.Apply(tr); s != OK {
					b.Fatal(s)
				}
			}
			for range 2 * DefaultWindow {
				next()
			}
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "transfers/s")
		})
	}
}

// BenchmarkChain: energy, rent and erasure of one epoch as one chain.
func BenchmarkChain(b *testing.B) {
	l := funded(b, Config{Window: 1 << 12}, 1e15, "a")
	mustOpen(b, l, Entropy())
	chain := []Transfer{
		{Debit: Wallet("a").ID, Credit: Heat().ID, Amount: 1, Code: ForEnergy, Flags: Linked},
		{Debit: Wallet("a").ID, Credit: Treasury().ID, Amount: 1, Code: ForRent, Flags: Linked},
		{Debit: Wallet("a").ID, Credit: Entropy().ID, Amount: 1, Code: ForErasure},
	}
	out := make([]Status, len(chain))
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		for i := range chain {
			n++
			chain[i].ID, chain[i].At = MakeID(1, n), unit.Instant(n)
		}
		if l.ApplyAll(chain, out) != 0 {
			b.Fatal(out)
		}
	}
}
