package node

import (
	"slices"
	"sync"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

// session is one client of the market.
type session struct {
	token  string
	client string
	uid    uint32 // whose it is: members belong to the same user

	mu      sync.Mutex
	process process            // its client
	joined  bool               // its client is there
	streams int                // how often it came: the last of them is the one that counts
	members map[string]*member // alive
	dead    []*member          // buried, oldest first
	events  []*v1.Event        // not yet sent; bounded by maxEvents
	missed  bool               // events were dropped
	ready   chan struct{}      // has room for one note that events wait
}

// maxEvents bounds what waits for a client that does not read. The oldest are
// dropped: what happened last matters most.
const maxEvents = 4096

// keepBuried bounds a session's memory of its dead; a long-lived fleet that
// restarts its workloads keeps the statements of the last ones.
const keepBuried = 10_000

func newSession(token, client string, uid uint32) *session {
	return &session{
		token: token, client: client, uid: uid,
		members: make(map[string]*member), ready: make(chan struct{}, 1),
	}
}

// push queues an event. It never waits: the loop calls it.
func (s *session) push(e *v1.Event) {
	s.mu.Lock()
	if len(s.events) >= maxEvents {
		s.events = s.events[maxEvents/4:]
		s.missed = true
	}
	s.events = append(s.events, e)
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// take returns the events that wait.
func (s *session) take() []*v1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.events
	s.events = nil
	return list
}

// here reports whether its client is there.
func (s *session) here() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joined
}

// made is the process of its client.
func (s *session) made() process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

func (s *session) add(mem *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[mem.name] = mem
}

// lost moves a buried member to the dead.
func (s *session) lost(mem *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members[mem.name] == mem {
		delete(s.members, mem.name)
	}
	if len(s.dead) >= keepBuried {
		s.dead = append(s.dead[:0], s.dead[keepBuried/10:]...)
	}
	s.dead = append(s.dead, mem)
}

// find returns the session's living or last dead member of that name.
func (s *session) find(name string) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mem := s.members[name]; mem != nil {
		return mem
	}
	for _, mem := range slices.Backward(s.dead) {
		if mem.name == name {
			return mem
		}
	}
	return nil
}

// living returns the members that are not buried.
func (s *session) living() []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*member, 0, len(s.members))
	for _, mem := range s.members {
		list = append(list, mem)
	}
	return list
}

// buried returns the session's dead, oldest first.
func (s *session) buried() []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*member(nil), s.dead...)
}

// endMembers ends a session's workloads at once and waits until they are paid
// for. They are dying for being stopped before they are killed, so that this
// is the reason on their receipts.
func (m *Market) endMembers(s *session) {
	living := s.living()
	if len(living) == 0 {
		return
	}
	m.loop.through(func() {
		for _, mem := range living {
			if m.loop.has(mem) {
				m.loop.demon.Stop(mem.slot, mem.reason())
			}
		}
	})
	for _, mem := range living {
		m.try("kill", mem, mem.group.Kill)
	}
	m.loop.do(func() {
		for _, mem := range living {
			mem.ending = true
			if m.loop.has(mem) {
				m.loop.demon.Gone(mem.slot, false)
			}
		}
		m.loop.hurry = true
	})
	for _, mem := range living {
		select {
		case <-mem.buried:
		case <-m.done:
			return
		}
	}
}

// end ends a session's workloads and forgets the session.
func (m *Market) end(s *session) {
	m.endMembers(s)
	m.mu.Lock()
	delete(m.session, s.token)
	m.mu.Unlock()
}

// leave ends s and, if it was the last, the market.
func (m *Market) leave(s *session) {
	m.end(s)
	m.mu.Lock()
	last := len(m.session) == 0 && !m.closing && !m.durable()
	if last {
		m.closing = true
	}
	m.mu.Unlock()
	if last {
		m.shutdownOnce()
	}
}
