package node

import (
	"slices"
	"sync"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

// chronicle is what the market remembers of what happened, for those who ask
// later or watch: the last events and the last dead.
type chronicle struct {
	mu     sync.Mutex
	events []happening // oldest first
	first  uint64      // number of events[0]
	news   chan struct{}
	dead   []*member // oldest first
}

// happening is an event and whom it concerns.
type happening struct {
	uid uint32
	e   *v1.Event
}

// The memory of a market without a journal.
const (
	mostEvents = 10_000
	mostDead   = 10_000
)

// add notes an event. It never waits: the loop calls it.
func (c *chronicle) add(uid uint32, e *v1.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.events) >= mostEvents {
		c.events = append(c.events[:0], c.events[mostEvents/4:]...)
		c.first += mostEvents / 4
	}
	c.events = append(c.events, happening{uid, e})
	if c.news != nil {
		close(c.news)
		c.news = nil
	}
}

// atOnce is how many events a watcher takes at a time: one that does not read on
// holds no more of them, and finds what is older than the memory gone.
const atOnce = 256

// after returns what happened since number n, at most atOnce of it, the number after
// that, and a channel that is closed when more happens; nil if more has.
func (c *chronicle) after(n uint64) (list []happening, next uint64, news <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(max(n, c.first), c.first+uint64(len(c.events)))
	rest := c.events[n-c.first:]
	list = slices.Clone(rest[:min(len(rest), atOnce)])
	next = n + uint64(len(list))
	if len(list) < len(rest) {
		return list, next, nil
	}
	if c.news == nil {
		c.news = make(chan struct{})
	}
	return list, next, c.news
}

// last is the number of the next event.
func (c *chronicle) last() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first + uint64(len(c.events))
}

// buried notes a dead one.
func (c *chronicle) buried(mem *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.dead) >= mostDead {
		c.dead = append(c.dead[:0], c.dead[mostDead/10:]...)
	}
	c.dead = append(c.dead, mem)
}

// before notes those who died before all that are noted, newest first.
func (c *chronicle) before(list []*member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Reverse(list)
	c.dead = append(list, c.dead...)
}

// graves are the dead, newest first, that keep accepts; at most limit.
func (c *chronicle) graves(limit int, keep func(*member) bool) []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*member
	for _, mem := range slices.Backward(c.dead) {
		if len(list) == limit {
			break
		}
		if keep(mem) {
			list = append(list, mem)
		}
	}
	return list
}

// remember takes a buried member from the living to the dead.
func (m *Market) remember(mem *member) {
	m.mu.Lock()
	if m.names[mem.name] == mem {
		delete(m.names, mem.name)
	}
	m.mu.Unlock()
	m.vacate(mem)
	m.chronicle.buried(mem)
	m.changes.Add(1)
}
