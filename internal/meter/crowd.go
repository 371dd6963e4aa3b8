package meter

import "github.com/maxwell-hypervisor/maxwell/internal/meter/bpf"

// crowd follows one cell's crowd word, in which the kernel half keeps the
// number of runnable tasks n and the integral I of that number over time, in
// ticks of 1,024 ns since loading:
//
//	word = n * (2^48 - now) + I   (modulo 2^64)
//
// I outgrows 48 bits (a thousand tasks do that in three days), so it is kept
// here in 64 bits and only its growth since the last look is taken out of the
// word. That growth must stay below 2^48 - now - slack: looking once a day is
// enough for a thousand tasks, once a minute for a million.
type crowd struct {
	integral uint64
}

const (
	crowdSpan = uint64(1) << bpf.CrowdShift

	// slack lets the integral seem to shrink between two looks. It does when
	// a task left just before the "now" of a look but after its load: the look
	// counted the task to the end. 2^32 ticks are 73 minutes of one task.
	slack = uint64(1) << 32

	// maxCrowd is the most runnable tasks believed. The word itself cannot
	// hold 2^16; values just below stand for a negative number, which exists
	// for the instant between the two halves of an event seen out of order.
	maxCrowd = 60_000

	// lastTick is the end of the meter's life: 2^47 ticks are 4.5 years. After
	// it the growth that can be told apart would shrink towards nothing.
	lastTick = uint64(1) << 47
)

// look decodes a word loaded at tick now. It is false if the word makes no
// sense yet, or any more; the caller keeps what it had.
func (c *crowd) look(word, now uint64) (runnable int32, ok bool) {
	if now >= lastTick {
		return 0, false
	}
	base := c.integral - slack // modulo 2^64, as the word
	rest := word - base
	span := crowdSpan - now
	n := rest / span
	if n > maxCrowd {
		return 0, false
	}
	c.integral = base + rest%span
	return int32(n), true
}
