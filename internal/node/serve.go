package node

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/api"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/internal/api/metrics"
	"github.com/maxwell-hypervisor/maxwell/internal/container"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/sensor"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// ErrTaken says that another market governs this machine.
var ErrTaken = errors.New("another market governs this machine")

// Go code is given more processors than there are. The loop comes back from its wait at
// real-time priority and then needs one of the runtime's; with as many as the machine
// has, all of them can be held by threads of ours that wait behind a hundred hogs, and
// the loop was late by up to 572 ms (decision 0009).
const (
	spare           = 2
	leastProcessors = 8
)

// spareProcessors gives the loop a processor, unless the administrator has said how many.
func spareProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(runtime.NumCPU()+spare, leastProcessors))
	}
}

// Serve runs the market until its last client leaves or ctx ends. ready is
// told once, when the socket listens or when it never will.
func Serve(ctx context.Context, dir string, s Settings, ready func(error)) error {
	lock, err := takeLock(filepath.Join(dir, LockName))
	// A child of a daemon that has just died holds it until it is another program.
	for began := time.Now(); s.Daemon != nil && errors.Is(err, ErrTaken); {
		away := time.Since(began)
		if away > orphanPatience || away > lockPatience && !host.Orphaned(filepath.Join(dir, LockName)) {
			break
		}
		time.Sleep(lockPause)
		lock, err = takeLock(filepath.Join(dir, LockName))
	}
	if err != nil {
		ready(err)
		return err
	}
	defer func() { _ = lock.Release() }() // also where no market came of it
	spareProcessors()
	if s.Daemon != nil {
		_ = host.RaiseService() // what it may have to take back runs unmetered until then; start tells of a failure
	}
	if s.Daemon == nil {
		_ = os.Truncate(filepath.Join(dir, LogName), 0)
	}
	awaited := awaited(filepath.Join(dir, SocketName))
	if err := errors.Join(removeSockets(dir), expect(dir, s.Daemon != nil)); err != nil {
		ready(err)
		return err
	}
	m, err := open(dir, s, lock.File())
	if err != nil {
		_ = expect(dir, awaited)
		ready(err)
		return err
	}
	// Before the start: the meter is the loop's from then on.
	m.log.Info("market open", "cores", m.settings.Cores.String(), "enforcement", m.enforcer.Describe().Detail,
		"meter", m.meter.Describe().Detail, "energy", m.sensor.Describe().Source.String(), "watts_per_core", m.sensor.Describe().Reference.String())
	m.start()
	socket := m.socket(dir)
	servers, err := m.listen(socket)
	if err != nil {
		ready(err)
		m.breakOff()
		return err
	}
	gauges, err := m.measure()
	if err != nil {
		ready(err)
		m.breakOff()
		return err
	}
	if gauges != nil {
		servers = append(servers, gauges)
	}
	ready(nil)
	m.wait(ctx)
	m.log.Info("market closed", "epochs", m.loop.ticks.Load())
	// Nobody new finds the socket; whoever is still connected gets its answer.
	_ = os.Remove(socket)
	_ = expect(dir, m.durable() && m.waits())
	bye, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, s := range servers {
		err = errors.Join(err, s.Shutdown(bye))
	}
	return err
}

// breakOff ends a market that cannot be called. A daemon's workloads live on.
func (m *Market) breakOff() {
	if m.durable() {
		m.handOver()
		return
	}
	m.shutdownOnce()
}

// expect leaves word that a daemon governs here, or that none does: clients that find
// it away wait for it, and open no market of their own in its place.
func expect(dir string, daemon bool) error {
	name := filepath.Join(dir, DaemonName)
	if daemon {
		return os.WriteFile(name, nil, 0o644)
	}
	if err := os.Remove(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// waits reports whether workloads are left that wait for the next daemon.
func (m *Market) waits() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.names) > 0
}

// socket is where the market listens.
func (m *Market) socket(dir string) string {
	if m.durable() && m.settings.Daemon.Socket != "" {
		return m.settings.Daemon.Socket
	}
	return filepath.Join(dir, SocketName)
}

// How long a daemon waits for the lock of the one before it: at least, as long as its
// maker is dead, and between two tries.
const (
	lockPatience   = time.Second
	orphanPatience = 20 * time.Second
	lockPause      = 10 * time.Millisecond
)

// takeLock makes this process the market of its runtime directory.
func takeLock(path string) (*host.FileLock, error) {
	lock, err := host.LockFile(path)
	switch {
	case errors.Is(err, host.ErrLocked):
		return nil, ErrTaken
	case err != nil:
		return nil, fmt.Errorf("be the only market: %w", err)
	}
	return lock, nil
}

// Tidy removes the files of a dead market from its runtime directory: its
// lock and its sockets. A living market's lock is held, and then nothing is
// touched.
func Tidy(dir string) error {
	path := filepath.Join(dir, LockName)
	if _, err := os.Stat(path); err != nil {
		return nil // ended in order, or never was
	}
	lock, err := takeLock(path)
	if errors.Is(err, ErrTaken) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(removeSockets(dir), expect(dir, false), lock.Release())
}

// removeSockets removes the market's own socket and those of its groups. The
// caller holds the lock: they are a dead market's.
func removeSockets(dir string) error {
	sockets, err := filepath.Glob(filepath.Join(dir, "*.sock"))
	for _, name := range sockets {
		if gone := os.Remove(name); gone != nil && !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

// open finds out what the machine can do and wires it together.
func open(dir string, s Settings, lock *os.File) (made *Market, err error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	roots, err := host.Open()
	if err != nil {
		return nil, err
	}
	m := &Market{
		settings: s, log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: s.Log})),
		quit: make(chan struct{}), done: make(chan struct{}), closed: make(chan struct{}),
		uid: uint32(os.Getuid()), guests: openGuests(), released: make(map[string]uint64),
		session: make(map[string]*session), names: make(map[string]*member), rooms: make(map[string]*member), faults: make(map[string]time.Time),
		jobs: make(chan func(), 1<<16), burials: make(chan *member, 1<<14), bye: func() {}, toInspect: make(chan struct{}, 1),
	}
	var before *past
	boot := ""
	if m.durable() {
		// Before anything is made: without its books no daemon takes what runs.
		if boot, err = host.BootID(roots); err != nil {
			return nil, err
		}
		if before, err = recall(s.Daemon.Journal, boot); err != nil {
			return nil, err
		}
		m.holds = before.boot && slices.ContainsFunc(before.alive, func(a alive) bool { return a.Directory != "" && !a.Saved.Dead() })
		defer func() {
			if made == nil {
				err = errors.Join(err, before.keeper.store.Close())
			}
		}()
	}
	if err := m.sell(roots); err != nil {
		return nil, err
	}
	if layout, err := host.Discover(roots); err == nil {
		m.unified = layout.V2
	}
	if s.Daemon != nil && s.Daemon.Config.Labelled() {
		m.engines = container.New(s.Daemon.Config.Engines)
	}
	if m.sensor, err = sensor.Open(sensor.Config{WattsPerCore: s.WattsPerCore, Idle: s.IdleWatts}, roots); err != nil {
		return nil, err
	}
	if err := m.enforce(dir, roots, lock, before); err != nil {
		return nil, errors.Join(err, m.sensor.Close())
	}
	m.top = m.enforcer.Describe().Root
	if m.trace, err = openTrace(s.Trace); err == nil {
		m.loop, err = newLoop(m)
	}
	if err == nil {
		m.began = m.loop.clock.Now()
		err = m.begin(before, boot)
	}
	if err != nil {
		return nil, errors.Join(err, m.meter.Close(), m.giveBack(), m.sensor.Close())
	}
	return m, nil
}

// begin makes the demon: an empty one, or of the books that a daemon's journal
// holds.
func (m *Market) begin(before *past, boot string) (err error) {
	if before != nil {
		m.keeper = before.keeper
		if err := m.resume(before, boot); err != nil {
			return err
		}
		return m.takeOver()
	}
	if m.keeper, err = openKeeper(m.settings.Journal); err != nil {
		return err
	}
	m.loop.demon = demon.New(m.terms(), m.began)
	return nil
}

// giveBack closes the enforcement of a market that did not come to be. A daemon's
// workloads are not its own to end.
func (m *Market) giveBack() error {
	if e, ok := m.enforcer.(*cgroup.Enforcer); ok && m.durable() {
		return e.Leave()
	}
	return m.enforcer.Close()
}

// sell decides which processors are for sale: as many as the settings say, the
// first ones this process may run on.
func (m *Market) sell(roots host.Roots) error {
	cpu, err := host.ReadProcessor(roots)
	if err != nil {
		return err
	}
	have := unit.MilliCores(len(cpu.Allowed)) * unit.Core
	if m.settings.Cores == 0 {
		m.settings.Cores = have
	}
	if m.settings.Cores > have {
		return fmt.Errorf("cores %v: this machine lets us use %v; sell at most that", m.settings.Cores, have)
	}
	whole := int((m.settings.Cores + unit.Core - 1) / unit.Core)
	if whole < len(cpu.Online) {
		m.cpus = cpu.Allowed[:whole]
	}
	m.online = unit.MilliCores(len(cpu.Online)) * unit.Core
	return nil
}

// terms is the demon's configuration for this machine.
func (m *Market) terms() demon.Config {
	about := m.sensor.Describe()
	l := price.DefaultLandauer()
	m.landauer = unit.Credits(l.Per(8 << 30))
	return demon.Config{
		Cores: m.settings.Cores, Online: m.online, Watts: m.settings.Watts, Reference: about.Reference, Idle: about.Idle,
		Sigma: about.Sigma, Modelled: about.Modelled, Floor: m.settings.Floor, Epoch: m.settings.Epoch,
		Duty: m.duty, Landauer: l, Seed: m.seed(), Journal: m.keeper != nil,
	}
}

// seed draws the secret of the market's offsets.
func (m *Market) seed() [2]uint64 {
	if m.settings.Seed != 0 {
		return [2]uint64{m.settings.Seed, 0}
	}
	var raw [16]byte
	_, _ = crand.Read(raw[:]) // never fails (crypto/rand)
	return [2]uint64{binary.LittleEndian.Uint64(raw[:8]), binary.LittleEndian.Uint64(raw[8:])}
}

// server is one way in to the API.
type server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
}

// listen serves the API on the socket and, where a daemon is told to, to other
// machines.
func (m *Market) listen(path string) (servers []server, err error) {
	var who api.Access
	var remote *api.Remote
	if m.durable() {
		who, remote = m.settings.Daemon.Access, m.settings.Daemon.Remote
	}
	l, err := api.Listen(path, who)
	if err != nil {
		return nil, err
	}
	h := m.deadly(m.handler())
	local := api.NewService(h, m.trusted, m.log)
	servers = append(servers, local)
	if remote != nil {
		far, err := api.ListenRemote(*remote)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		away := api.NewRemoteService(h, m.log)
		servers = append(servers, away)
		m.log.Info("other machines may call", "address", far.Addr().String())
		m.spawn("api for other machines", func() { m.serve(away, far) })
	}
	m.spawn("api", func() { m.serve(local, l) })
	return servers, nil
}

// handler answers the API's calls.
func (m *Market) handler() http.Handler {
	mux := http.NewServeMux()
	// No compression: both ends are on this machine, and nothing is to be unpacked.
	mux.Handle(maxwellv1connect.NewMarketServiceHandler(service{m: m},
		connect.WithCompression("gzip", nil, nil), connect.WithReadMaxBytes(api.MaxRequest), connect.WithInterceptors(remedies())))
	return mux
}

// trusted are the users who are held to no bounds: whoever could end the market
// anyway, and admins.
func (m *Market) trusted(uid uint32) bool { return m.admin(uid) }

// remedyHeader carries the part of an error's text that says what to do.
const remedyHeader = "Maxwell-Remedy"

// remedies sends what an error's text says to do in a header of its own too, for
// programs: texts are "what is wrong; what to do".
func remedies() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			out, err := next(ctx, req)
			if c, ok := errors.AsType[*connect.Error](err); ok {
				if _, remedy, found := strings.Cut(c.Message(), "; "); found && printable(remedy) {
					own := connect.NewError(c.Code(), errors.New(c.Message())) // c may be everybody's
					own.Meta().Set(remedyHeader, remedy)
					err = own
				}
			}
			return out, err
		}
	}
}

// printable reports whether a text may be a header's.
func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// measure serves the metrics at the address that the configuration names. They are
// the operator's: they name every workload.
func (m *Market) measure() (server, error) {
	if !m.durable() || m.settings.Daemon.Config.Metrics.Listen.Network == "" {
		return nil, nil
	}
	at := m.settings.Daemon.Config.Metrics.Listen
	var l net.Listener
	var err error
	if at.Network == "unix" {
		l, err = api.Listen(at.Text, api.Access{})
	} else {
		l, err = net.Listen(at.Network, at.Text)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(func(context.Context) (*v1.Snapshot, error) { return m.view(), nil }))
	gauges := api.NewPlainService(m.deadly(mux), m.log)
	m.spawn("metrics", func() { m.serve(gauges, l) })
	return gauges, nil
}

// deadly lets a panic in a call end the process, as everywhere in the market:
// net/http would recover it and go on with whatever was half done.
func (m *Market) deadly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer m.lastWords("rpc")
		m.loop.maybePanic("rpc")
		h.ServeHTTP(w, r)
	})
}

// serve accepts connections. Owner: Market; end: Shutdown.
func (m *Market) serve(server server, l net.Listener) {
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		m.fault("serve the API", err)
	}
}
