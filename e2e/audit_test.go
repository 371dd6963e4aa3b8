package e2e

import (
	"fmt"
	"math"
	"math/big"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// account is what the auditor knows of one wallet so far.
type account struct {
	name         string
	energy, rent *big.Rat // exact, in micro-$J
	billed       int64    // by the trace
	used, joules int64
	slack        int64 // micro-$J by which the sums may differ: 1 where watts were sold
}

func newAccount(name string) *account {
	return &account{name: name, energy: new(big.Rat), rent: new(big.Rat)}
}

// audit recomputes every bill of a trace, and then what the document must say.
// It returns how many bills had rent in them.
func audit(t *testing.T, rounds []round, d *document) (withRent int) {
	t.Helper()
	accounts := map[uint64]*account{}
	for i := range rounds {
		r := &rounds[i]
		if fault := auditGrid(&rounds[max(0, i-1)], r); fault != "" {
			t.Errorf("epoch %d: %s", r.Epoch, fault)
		}
		auditJoules(t, r)
		auditSpot(t, r)
		for k := range r.Buyers {
			b := &r.Buyers[k]
			a := accounts[b.ID]
			if a == nil {
				a = newAccount(b.Name)
				accounts[b.ID] = a
			}
			auditBill(t, r, b, a)
			if b.Rent > 0 {
				withRent++
			}
		}
	}
	for _, a := range accounts {
		a.close(t, d)
	}
	if len(accounts) != len(d.Workloads) {
		t.Errorf("%d wallets in the trace, %d in the document", len(accounts), len(d.Workloads))
	}
	return withRent
}

// auditBill recomputes one bill. What a bill is short of a micro-$J is carried
// to the next, so both this bill and all of them together are off by less than
// one.
func auditBill(t *testing.T, r *round, b *buyer, a *account) {
	t.Helper()
	energy := new(big.Rat).Mul(ratio(b.Joules, 1), ratio(r.Grid, 1_000_000))
	rent := r.rent(b)
	if off(b.Energy, energy) >= 1 || off(b.Rent, rent) >= 1 || b.Erasure != 0 {
		t.Errorf("epoch %d, %s: billed %d for energy and %d for rent, the auditor finds %s and %s",
			r.Epoch, b.Name, b.Energy, b.Rent, energy.FloatString(3), rent.FloatString(3))
	}
	if paid, bound := rent, bidBound(r, b); paid.Cmp(bound) > 0 {
		t.Errorf("epoch %d, %s: rent of %s above its bid, %s", r.Epoch, b.Name, paid.FloatString(3), bound.FloatString(3))
	}
	if r.inWatts { // energy is in whole nanojoules there: up to 1/100 micro-$J an epoch
		a.slack = 1
	}
	a.energy.Add(a.energy, energy)
	a.rent.Add(a.rent, rent)
	a.billed += b.Energy + b.Rent
	a.used += b.Used
	a.joules += b.Joules
}

// auditGrid says what is wrong with the grid factor of an epoch, of the same process
// as the one before it: the base is the reference power at the factor, rounded up, and
// the factor moves by at most a tenth in a minute.
func auditGrid(before, r *round) string {
	if diff := r.Base*before.Grid - before.Base*r.Grid; max(diff, -diff) > max(r.Grid, before.Grid) {
		return fmt.Sprintf("a base of %d at a grid factor of %d, and of %d at %d", before.Base, before.Grid, r.Base, r.Grid)
	}
	most := math.Pow(1.1, (time.Duration(r.Length) + time.Duration(before.Length)).Minutes())
	if ratio := float64(r.Grid) / float64(before.Grid); ratio > most+1e-5 || ratio < 1/most-1e-5 {
		return fmt.Sprintf("the grid factor went from %d to %d in %v", before.Grid, r.Grid, time.Duration(r.Length))
	}
	return ""
}

// bidBound is the most rent that a bid allows for what was used.
func bidBound(r *round, b *buyer) *big.Rat {
	above := ratio(max(0, b.Bid-b.Reserve), 1_000_000_000)
	return above.Mul(above, ratio(b.Used, 1))
}

// auditJoules splits the epoch's energy among the wallets by their core time.
func auditJoules(t *testing.T, r *round) {
	t.Helper()
	var joules, used int64
	for i := range r.Buyers {
		joules += r.Buyers[i].Joules
		used += r.Buyers[i].Used
	}
	if want := r.Node - r.System - r.Idle - r.Lost; joules != want {
		t.Errorf("epoch %d: the wallets burnt %d uJ, the node has %d for them", r.Epoch, joules, want)
	}
	for i := range r.Buyers {
		b := &r.Buyers[i]
		if used == 0 {
			continue
		}
		// A slot is owed less than a microjoule, and the system may owe all of them one.
		exact := new(big.Rat).Mul(ratio(joules, 1), ratio(b.Used, used))
		if off(b.Joules, exact) > 2 {
			t.Errorf("epoch %d, %s: %d uJ for %d of %d ns of %d uJ", r.Epoch, b.Name, b.Joules, b.Used, used, joules)
		}
	}
}

// auditSpot recomputes the price of the next core-second.
func auditSpot(t *testing.T, r *round) {
	t.Helper()
	rise := new(big.Rat)
	if !r.fits() {
		rise.SetInt(scoreOf(r.without(nil).at(r.sold())))
		if r.inWatts { // per joule: of a core-second of the mean watts wanted
			time, energy := new(big.Rat), new(big.Rat)
			for i := range r.Buyers {
				b := &r.Buyers[i]
				time.Add(time, ratio(b.wanted(), 1))
				energy.Add(energy, new(big.Rat).Mul(ratio(b.wanted(), 1), ratio(b.Watts, 1_000_000)))
			}
			rise.Mul(rise, energy.Quo(energy, time))
		}
	}
	// Spot is shown, not charged: in watts the mean is rounded first.
	slack := 1 + float64(r.Spot)/1_000_000
	if off(r.Spot-r.Base, rise) > slack {
		t.Errorf("epoch %d: spot %d above the base %d, the auditor finds %s", r.Epoch, r.Spot-r.Base, r.Base, rise.FloatString(3))
	}
}

// close holds the document's line of one wallet to the sums: at the end what
// is owed below a micro-$J is rounded up, and what nobody could pay is a loss.
func (a *account) close(t *testing.T, d *document) {
	t.Helper()
	w := d.of(t, a.name)
	energy, rent := ceil(a.energy), ceil(a.rent)
	differ := func(x, y int64) bool { return max(x-y, y-x) > a.slack }
	if differ(w.Energy, energy) && w.Loss == 0 || differ(w.Rent, rent) && w.Loss == 0 || differ(w.Spent+w.Loss, energy+rent) {
		t.Errorf("%s: the document has energy %d + rent %d, loss %d; the auditor finds %d + %d",
			a.name, w.Energy, w.Rent, w.Loss, energy, rent)
	}
	if w.CPU != a.used || w.Joules != a.joules {
		t.Errorf("%s: the document has %d ns and %d uJ, the trace sums to %d and %d", a.name, w.CPU, w.Joules, a.used, a.joules)
	}
}

// audited are fleets whose bills have every part in them. Without watts, with
// watts that do not bind, and with watts that are what is sold.
var audited = map[string]string{
	"cores": `
node: {cores: 1}
workloads:
  high:   {command: [maxwell, work, hash], budget: 60, bid: 8x, grace: 200ms}
  equal:  {command: [maxwell, work, hash], bid: 4x, replicas: 2}
  poor:   {command: [maxwell, work, hash], budget: 16, bid: 3x, grace: 200ms}
  paced:  {command: [maxwell, work, hash], budget: 100, bid: 6x, rate: 4/s}
  auto:   {command: [maxwell, work, hash], budget: 100, bid: auto, horizon: 10s}
  low:    {command: [maxwell, work, hash], bid: 1.5x}
  half:   {command: [sh, -c, "while :; do i=0; while [ $i -lt 9000 ]; do i=$((i+1)); done; sleep 0.01; done"], bid: 5x}
  under:  {command: [maxwell, work, hash], bid: 0.5x}
`,
	"watts": `
node: {cores: 1, watts: 2}
workloads:
  high:   {command: [maxwell, work, hash], bid: 4x}
  low:    {command: [maxwell, work, hash], bid: 2x, replicas: 2}
  earner: {command: [maxwell, work, primes], budget: 30, bid: 3x, income: {per: prime-batch, amount: 10}}
`,
	"no floor": `
node: {cores: 1, watts: 12, floor: 0}
workloads:
  high:   {command: [maxwell, work, hash], bid: 4x}
  low:    {command: [maxwell, work, hash], bid: 2x}
`,
}

// TestAudit runs fleets that compete, and lets the second program find every
// bill again from the trace.
func TestAudit(t *testing.T) {
	t.Parallel()
	for name, fleet := range audited {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needCgroups(t)
			trace := filepath.Join(t.TempDir(), "trace.jsonl")
			r := newPlace(t).run("up", writeFleet(t, fleet), "--for", "3s", "--json", "--trace", trace)
			if r.code != 0 {
				t.Fatal(r)
			}
			d := parse(t, r.stdout)
			identities(t, &d)
			rounds := readTrace(t, trace)
			if withRent := audit(t, rounds, &d); withRent == 0 {
				t.Error("nobody paid rent: the fleet did not compete, and nothing was tried")
			}
			inWatts := slices.ContainsFunc(rounds, func(r round) bool { return r.inWatts })
			if inWatts != (name == "watts") {
				t.Errorf("watts were sold: %v", inWatts)
			}
		})
	}
}

// TestAuditFindsFaults hands the auditor its own copy of a trace in which one
// number is wrong by as little as it must notice.
func TestAuditFindsFaults(t *testing.T) {
	t.Parallel()
	r := round{
		Length: 100, Supply: 100, Unit: "cores", Grid: 1_000_000, Base: 1000, Spot: 1000,
		Buyers: []buyer{
			{Name: "a", ID: 1, Bid: 8_000_000, Bucket: 1000, Demand: 100, Cap: 1 << 50, Used: 98},
			{Name: "b", ID: 2, Bid: 4_000_000, Bucket: 900, Demand: 100, Cap: 1 << 50, Used: 2},
		},
	}
	// a used [2, 100) of what b wanted all of: 98 units at b's score.
	want := new(big.Rat).Mul(ratio(98, 1_000_000_000), new(big.Rat).SetInt(scoreOf(900)))
	if got := r.rent(&r.Buyers[0]); got.Cmp(want) != 0 {
		t.Errorf("rent %s, want %s", got.FloatString(9), want.FloatString(9))
	}
	// b's two units were worth a's score to a, but nobody pays more than it bid.
	want = new(big.Rat).Mul(ratio(2, 1_000_000_000), new(big.Rat).SetInt(scoreOf(900)))
	if got := r.rent(&r.Buyers[1]); got.Cmp(want) != 0 {
		t.Errorf("rent %s, want %s", got.FloatString(9), want.FloatString(9))
	}
	later := r
	if fault := auditGrid(&r, &later); fault != "" {
		t.Error(fault)
	}
	for _, wrong := range []round{{Grid: 1_000_000, Base: 1002}, {Grid: 1_000_100, Base: 1001}, {Grid: 999_900, Base: 1000}} {
		wrong.Length = r.Length
		if auditGrid(&r, &wrong) == "" {
			t.Errorf("a factor of %d and a base of %d are not found", wrong.Grid, wrong.Base)
		}
	}
	r.Buyers[0].Floor = 98 // what is floor is free of rent
	if got := r.rent(&r.Buyers[0]); got.Sign() != 0 {
		t.Errorf("rent %s on the floor", got.FloatString(9))
	}
	r.Supply = 200
	if got := r.rent(&r.Buyers[1]); got.Sign() != 0 {
		t.Errorf("rent %s where there was enough for all", got.FloatString(9))
	}
	for bucket, floor := range map[int64]int64{0: 0, 63: 0, 64: 1, 128: 2, 64 * 11: 1024, 64*11 + 32: 1449} {
		if got := scoreOf(bucket); got.Int64() != floor {
			t.Errorf("bucket %d begins at %v, want %d", bucket, got, floor)
		}
	}
}
