package physics

import (
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Books is where the energy of one interval went. Attributed + System + Idle +
// Unattributed = Node, exactly.
type Books struct {
	Node         unit.Microjoules // everything the node burnt
	Attributed   unit.Microjoules // to workloads
	System       unit.Microjoules // to what ran outside of workloads, Maxwell included
	Idle         unit.Microjoules // the price of being switched on
	Unattributed unit.Microjoules // above idle while nothing was seen to run
}

// Plus is the sum of two intervals.
func (b Books) Plus(c Books) Books {
	return Books{
		Node:         b.Node + c.Node,
		Attributed:   b.Attributed + c.Attributed,
		System:       b.System + c.System,
		Idle:         b.Idle + c.Idle,
		Unattributed: b.Unattributed + c.Unattributed,
	}
}

// Balanced says whether the parts sum to the node.
func (b Books) Balanced() bool {
	return b.Attributed+b.System+b.Idle+b.Unattributed == b.Node
}

// Attributor splits the energy of each interval among the slots of workloads by
// core time. It remembers what rounding owes every slot. The zero value is
// ready; Grow makes room ahead, so that Split does not allocate.
type Attributor struct {
	// Index 0 is the system, i+1 is slot i.
	weights []int64
	carry   []int64
	parts   []int64

	rest   uint64 // of idle energy, in 1e-9 uJ
	faults uint64
}

// NewAttributor is an attributor without slots.
func NewAttributor() *Attributor { return new(Attributor) }

// Grow makes room for n slots.
func (a *Attributor) Grow(n int) {
	if missing := n + 1 - len(a.carry); missing > 0 {
		a.weights = append(a.weights, make([]int64, missing)...)
		a.carry = append(a.carry, make([]int64, missing)...)
		a.parts = append(a.parts, make([]int64, missing)...)
	}
}

// Forget ends the life of a slot: what rounding owed it passes to the system,
// and the slot's next owner starts with nothing.
func (a *Attributor) Forget(slot int) {
	if slot+1 < len(a.carry) {
		a.carry[0] += a.carry[slot+1]
		a.carry[slot+1] = 0
	}
}

// Faults is how many negative usages were taken for zero.
func (a *Attributor) Faults() uint64 { return a.faults }

// Split divides the node's energy over dt:
//
//	E_idle = min(energy, idle * dt)
//	E_i    = w_i / (w_system + sum(w)) * (energy - E_idle)
//
// with w_i = used[i], core time now and cycles where a sensor has them. out[i]
// is E_i; the parts sum exactly. Where nobody used anything, the energy above
// idle is unattributed. A negative usage is a meter's fault and counts as zero.
// Negative energy or time, or slices of different lengths, are broken
// invariants and panic.
func (a *Attributor) Split(energy unit.Microjoules, dt time.Duration, idle unit.Microwatts, system unit.CoreTime, used []unit.CoreTime, out []unit.Microjoules) Books {
	if energy < 0 || dt < 0 || idle < 0 || len(used) != len(out) {
		panic(fmt.Sprintf("physics: split %d uJ over %v above %d uW: %d usages, %d parts", energy, dt, idle, len(used), len(out)))
	}
	a.Grow(len(used))
	books := Books{Node: energy, Idle: a.idle(energy, dt, idle)}
	active := energy - books.Idle
	clear(a.weights)
	a.weights[0] = a.weight(system)
	for i, u := range used {
		a.weights[i+1] = a.weight(u)
	}
	if !unit.Apportion(int64(active), a.weights, a.carry, a.parts) {
		clear(out)
		books.Unattributed = active
		return books
	}
	books.System = unit.Microjoules(a.parts[0])
	books.Attributed = active - books.System
	for i := range out {
		out[i] = unit.Microjoules(a.parts[i+1])
	}
	return books
}

func (a *Attributor) weight(t unit.CoreTime) int64 {
	if t < 0 {
		a.faults++
		return 0
	}
	return int64(t)
}

// idle is the idle energy of dt, at most energy. What is less than a microjoule
// is carried; an interval below idle power owes nothing to the next.
func (a *Attributor) idle(energy unit.Microjoules, dt time.Duration, idle unit.Microwatts) unit.Microjoules {
	q, rest := unit.Mul(uint64(idle), uint64(dt)).Add(unit.Wide{Lo: a.rest}).DivRem(uint64(time.Second))
	whole, fits := q.Uint64()
	if !fits || whole > uint64(energy) {
		a.rest = 0
		return energy
	}
	a.rest = rest
	return unit.Microjoules(whole)
}
