package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/container"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/meter"
	"github.com/maxwell-hypervisor/maxwell/internal/sensor"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Market is the one market of a machine while it lives.
type Market struct {
	settings Settings
	uid      uint32             // whom the market runs as
	unified  host.Hierarchy     // of cgroup2, to find callers by their group
	engines  *container.Engines // nil = no rule asks for labels
	top      string             // directory of the groups; "" without cgroups
	log      *slog.Logger
	began    unit.Instant

	sensor    sensor.Sensor
	enforcer  dispatch.Enforcer
	cpus      []int // that are sold; nil = all
	online    unit.MilliCores
	duty      bool       // enforcement stops and goes, and counts a lower bound
	why       error      // why a better enforcement was refused; nil = there is none better
	hw        sync.Mutex // guards meter and the opening of groups
	meter     meter.Meter
	trace     *trace
	keeper    *keeper // of the journal; nil = none
	loop      *loop
	jobs      chan func()
	burials   chan *member                 // whose trees are gone and whose books are closed
	inspected atomic.Int64                 // members whose counters are read while they live
	toInspect chan struct{}                // has room for one note that there is one
	self      atomic.Int64                 // processor time of the market itself, ns
	tariff    atomic.Pointer[demon.Tariff] // for the next tick; nil = nothing new is known
	landauer  unit.Credits                 // per GiB, for display

	quit      chan struct{} // closed when everything but the loop must end
	done      chan struct{} // closed when the loop has ended
	crew      sync.WaitGroup
	hands     sync.WaitGroup   // the workers and buriers among the crew
	bye       func()           // farewell to the watchdog
	watch     func() error     // starts the watchdog of a daemon, once; nil = none is to be
	dog       *cgroup.Watchdog // of a daemon; nil = none
	holds     bool             // the journal knows of groups that may live
	answers   answers
	chronicle chronicle
	users     users
	seen      glance
	departed  departed
	rates     rates
	changes   atomic.Uint64 // births, burials and what was changed about the living

	attaching sync.Mutex // one group at a time becomes a guest: they must not overlap

	mu       sync.Mutex
	told     uint64 // events kept; the loop's
	session  map[string]*session
	guests   *session           // whose workloads have no client
	released map[string]uint64  // groups that were let go, by directory
	ceiling  demon.Enforce      // the most that is done to anybody
	names    map[string]*member // the living
	rooms    map[string]*member // the living by their cgroup2 directory
	wallets  map[string]wallet  // standing
	closing  bool
	closed   chan struct{} // closed when every trace of the market is gone
	faults   map[string]time.Time
}

// workers carry out what may block. Two, so that one storm does not hold up
// another's end. A burial waits for the journal: it has workers of its own, so that a
// slow disk holds up nobody's end.
const (
	workers = 2
	buriers = 2
)

// idleExit ends a market that nobody joined: its first client died before it
// came.
const idleExit = 10 * time.Second

// spawn starts a goroutine of the market. A panic in it ends the process: the
// watchdog restores the machine, which no code in a broken process should try.
func (m *Market) spawn(name string, f func()) {
	m.crew.Go(func() {
		defer m.lastWords(name)
		f()
	})
}

// lastWords reports a panic and ends the process at once.
func (m *Market) lastWords(name string) {
	if p := recover(); p != nil {
		m.log.Error("panic", "in", name, "what", fmt.Sprint(p), "stack", string(debug.Stack()))
		os.Exit(2)
	}
}

// work hands f to a worker. The queue holds every job there can be, one term and
// one kill for each of the demon's 16,384 workloads (and that of burials one for
// each): were the loop to wait here while a worker waits for the loop, both would
// wait for ever.
func (m *Market) work(f func()) { m.jobs <- f }

// worker carries out jobs. Owner: Market; end: the queue is closed.
func (m *Market) worker() {
	defer m.hands.Done()
	for f := range m.jobs {
		f()
	}
}

// burier buries. Owner: Market; end: the queue is closed.
func (m *Market) burier() {
	defer m.hands.Done()
	for mem := range m.burials {
		m.bury(mem)
	}
}

// rest ends the workers, after what is left to do: the loop has ended.
func (m *Market) rest() {
	close(m.jobs)
	close(m.burials)
	m.hands.Wait()
}

// fault logs a failure once a second for each kind: a machine that refuses
// something refuses it at every tick.
func (m *Market) fault(what string, err error) {
	m.mu.Lock()
	now := time.Now()
	quiet := now.Sub(m.faults[what]) < time.Second
	if !quiet {
		if len(m.faults) > 1000 {
			clear(m.faults)
		}
		m.faults[what] = now
	}
	m.mu.Unlock()
	if !quiet {
		m.log.Warn("fault", "what", what, "err", err)
	}
}

// start begins the loop, the workers and the inspector.
func (m *Market) start() {
	if err := host.RaiseService(); err != nil {
		m.log.Info("threads stay at normal priority", "why", err)
	}
	m.hands.Add(workers + buriers)
	for range workers {
		m.spawn("worker", m.worker)
	}
	for range buriers {
		m.spawn("burier", m.burier)
	}
	m.spawn("loop", func() {
		defer close(m.done)
		m.loop.run()
	})
	m.spawn("inspector", m.inspector)
	if m.keeper != nil {
		m.spawn("keeper", m.keep)
	}
	if !m.durable() {
		m.spawn("idle exit", m.leaveIfAlone)
		return
	}
	m.mu.Lock()
	waiting := slices.Collect(maps.Values(m.session))
	m.mu.Unlock()
	for _, s := range waiting { // of the process before
		m.parted(s, resumeAfterRestart, s.made())
	}
	if d := m.settings.Daemon; len(d.Config.Rules) > 0 {
		m.spawn("surveyor", m.surveyor)
	}
	if d := m.settings.Daemon; d.Config.Grid.File != "" {
		m.spawn("grid reader", m.gridReader)
	}
	if d := m.settings.Daemon; d.Pulse > 0 && d.Notify != nil {
		m.spawn("pulse", m.pulse)
	}
}

// leaveIfAlone ends a market whose first client never came. Owner: Market;
// end: the timer or quit.
func (m *Market) leaveIfAlone() {
	select {
	case <-m.quit:
		return
	case <-time.After(idleExit):
	}
	m.mu.Lock()
	alone := len(m.session) == 0
	if alone {
		m.closing = true
	}
	m.mu.Unlock()
	if alone {
		m.shutdownOnce()
	}
}

// shutdownOnce ends the loop and removes everything the market made.
func (m *Market) shutdownOnce() {
	m.mu.Lock()
	select {
	case <-m.quit:
		m.mu.Unlock()
		<-m.closed
		return
	default:
	}
	close(m.quit)
	m.mu.Unlock()
	m.loop.do(func() { m.loop.ending = true })
	<-m.done
	m.rest()
	m.endJournal()
	err := errors.Join(m.enforcer.Close(), m.meter.Close(), m.sensor.Close(), m.trace.close())
	if err != nil {
		m.log.Warn("close", "err", err)
	}
	m.bye()
	close(m.closed)
}

// wait blocks until the market has ended, or ctx asks it to.
func (m *Market) wait(ctx context.Context) {
	select {
	case <-m.closed:
	case <-ctx.Done():
		if m.durable() {
			m.handOver()
			return
		}
		m.endAll()
		m.shutdownOnce()
	}
}

// leavePatience is how long a market that was told to stop waits for its
// clients to read what became of their workloads.
const leavePatience = 2 * time.Second

// endAll ends every session's workloads, and lets the clients leave by
// themselves: the market was told to stop.
func (m *Market) endAll() {
	m.mu.Lock()
	m.closing = true
	list := make([]*session, 0, len(m.session))
	for _, s := range m.session {
		list = append(list, s)
	}
	m.mu.Unlock()
	for _, s := range list {
		m.endMembers(s)
	}
	patience := time.After(leavePatience)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for m.clients() > 0 {
		select {
		case <-patience:
			return
		case <-look.C:
		}
	}
}

func (m *Market) clients() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.session)
}

// durable reports whether the market goes on without its clients, and what it
// keeps goes on without its process.
func (m *Market) durable() bool { return m.settings.Daemon != nil }

// watched reports whether somebody counts the ticks: the service manager, who restarts
// a market that has none, or a test that asked for a panic at one of them.
func (m *Market) watched() bool {
	d := m.settings.Daemon
	return m.settings.PanicAtTick > 0 || d != nil && d.Pulse > 0 && d.Pulse < 2*idleEpoch
}
