package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/api"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/signal"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/meter"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// enforce opens the best enforcement this machine has, or the one asked for,
// and the meter that goes with it.
func (m *Market) enforce(dir string, roots host.Roots, lock *os.File, before *past) error {
	var refused error
	if m.settings.Enforce != "signal" {
		refused = m.enforceByCgroup(roots, lock, before)
		if refused == nil {
			return nil
		}
		if m.settings.Enforce == "cgroup" || before.root() != "" {
			// Workloads that live in groups are not to be lost for want of them.
			return fmt.Errorf("enforce cgroup: %w", refused)
		}
	}
	if m.holds && refused != nil {
		return fmt.Errorf("workloads of the daemon before run in cgroups, and those cannot be had: %w", refused)
	}
	m.why = refused
	return m.enforceBySignal(dir, roots)
}

// enforceByCgroup makes the market's directories, guards them and counts what
// runs in them. What a dead market of the same user left behind goes first.
// A daemon goes on in the directories that its journal names: others may be called
// as it would have called its own.
func (m *Market) enforceByCgroup(roots host.Roots, lock *os.File, before *past) error {
	cfg := cgroup.Config{Cores: m.settings.Cores}
	if m.durable() {
		cfg.Mode, cfg.Name, cfg.Adopt = cgroup.ModeThaw, before.root(), before.root() != ""
	} else if err := m.repair(roots); err != nil {
		return err
	}
	e, err := cgroup.Open(cfg, roots)
	if err != nil {
		return err
	}
	if m.durable() { // what it takes over must not be taken for a dead one's
		if err := m.repair(roots); err != nil {
			return errors.Join(err, e.Leave())
		}
	}
	m.meter, err = meter.Open(meter.Config{Kind: m.settings.Meter, Parent: e.Parent()}, roots)
	if err == nil && m.durable() {
		m.meter = meter.WithGuests(m.meter, e.Parent())
	}
	if err != nil && m.durable() {
		return errors.Join(err, e.Leave())
	}
	if err != nil {
		return errors.Join(err, e.Close())
	}
	m.enforcer = e
	if m.durable() { // once it has taken back what runs: until then an earlier watchdog has the duty
		m.watch = func() error { return m.guard(e, roots, lock) }
		return nil
	}
	if err := m.guard(e, roots, lock); err != nil {
		return errors.Join(err, m.meter.Close(), e.Close())
	}
	return nil
}

// repair removes what dead markets of the same user left behind. What a dead daemon
// left is for the next one.
func (m *Market) repair(roots host.Roots) error {
	repaired, err := cgroup.Repair(roots, cgroup.ModeThaw)
	for _, a := range repaired {
		if a.Outcome == cgroup.Removed || a.Outcome == cgroup.Broken {
			m.log.Info("repair", "what", a.String())
		}
	}
	return err
}

// guard starts the watchdog. It inherits the market's lock, so that a client
// who waits for the lock after a crash waits for the clean-up; but not a daemon's,
// which the next one is not to wait for.
func (m *Market) guard(e *cgroup.Enforcer, roots host.Roots, lock *os.File) error {
	if err := inheritable(lock, !m.durable()); err != nil {
		return err
	}
	dog, err := e.Guard([]string{"/proc/self/exe", WatchdogVerb}, roots)
	if err = errors.Join(err, inheritable(lock, false)); err != nil {
		return err
	}
	m.bye = func() {
		leave := dog.Farewell
		if m.durable() {
			leave = dog.Handover
		}
		if err := leave(); err != nil {
			m.log.Warn("dismiss the watchdog", "err", err)
		}
	}
	if m.durable() {
		m.dog = dog
	}
	return nil
}

// entrust tells a daemon's watchdog of the broke: they stay stopped while nobody
// governs. Called on the loop's thread.
func (m *Market) entrust(mem *member, e *demon.Event) {
	d, ok := mem.group.(directory)
	if m.dog == nil || !ok || mem.guest != "" {
		return
	}
	var err error
	switch e.Kind {
	case demon.EventBroke:
		err = m.dog.Hold(d.Directory(), e.At+unit.Instant(e.Left))
	case demon.EventPaused:
		err = m.dog.Hold(d.Directory(), 0)
	case demon.EventDying: // a crash must not let it live on
		err = m.dog.Hold(d.Directory(), e.At+unit.Instant(e.Left))
	case demon.EventFunded, demon.EventDead:
		err = m.dog.Free(d.Directory())
	default:
	}
	if err != nil {
		m.fault("tell the watchdog of "+mem.name, err)
	}
}

// WatchdogVerb is the hidden verb of the watchdog.
const WatchdogVerb = "watchdog"

// inheritable sets whether a child gets f.
func inheritable(f *os.File, yes bool) error {
	flags := unix.FD_CLOEXEC
	if yes {
		flags = 0
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, flags); err != nil {
		return fmt.Errorf("share the market's lock: %w", err)
	}
	return nil
}

// enforceBySignal holds trees by signals and counts their processes.
func (m *Market) enforceBySignal(dir string, roots host.Roots) error {
	e, err := signal.Open(signal.Config{Dir: dir, Namespace: signal.Probe() == nil, CPUs: m.cpus})
	if err != nil {
		return err
	}
	m.meter, err = meter.Open(meter.Config{Kind: meter.Processes}, roots)
	if err != nil {
		return errors.Join(err, e.Close())
	}
	m.enforcer, m.duty = e, true
	return nil
}

// owns reports whether a process is one that a user may have metered as its own:
// a market of root must not be told of anybody's. A process that has ended is
// nobody's, and costs nothing.
func (m *Market) owns(uid uint32, pid int) bool {
	if _, tracks := m.meter.(meter.Tracker); !tracks || pid <= 0 || m.admin(uid) {
		return true
	}
	info, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return true
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == uid
}

// entrance is a group into which the market can move a process.
type entrance interface {
	Enter(pid int, lives func() bool) error
}

// moves reports whether the market has to put mem's process into its group: a user
// cannot put one into a group of root's.
func (m *Market) moves(mem *member) bool {
	_, can := mem.group.(entrance)
	return can && mem.guest == "" && mem.uid != m.uid
}

// placementOf tells a client where to start.
func (m *Market) placementOf(mem *member) *v1.Placement {
	p := mem.group.Placement()
	if m.moves(mem) {
		p.Moved, p.Cgroup, p.Tasks, p.Home = true, "", nil, nil
	}
	return placement(p, m.cpus)
}

// move puts a process into mem's group, if it is one that the caller has just made:
// his own child, his own user's, and in no workload's group. It is pinned meanwhile.
func (m *Market) move(ctx context.Context, mem *member, pid int) error {
	denied := func(why string) error {
		return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("process %d %s; start the command by maxwell run", pid, why))
	}
	c, err := api.CallerOf(ctx)
	if err != nil {
		return connect.NewError(connect.CodeUnauthenticated, err)
	}
	if pid <= 1 {
		return denied("is no command")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return denied("is not there")
	}
	defer unix.Close(fd)
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return denied("is not there")
	}
	parent, uids := parentage(string(text))
	if parent != c.PID || len(uids) != 4 || slices.ContainsFunc(uids, func(id string) bool { return id != strconv.FormatUint(uint64(mem.uid), 10) }) {
		return denied("is not a child of the caller's and of the same user")
	}
	text, err = os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return denied("is not there")
	}
	of, err := host.ParseMembership(text)
	if err != nil {
		return connect.NewError(connect.CodeInternal, err)
	}
	switch inside, room := m.roomOf(of.V2); {
	case inside && room == mem:
		return nil // a second delivery
	case inside:
		return denied("is in a workload already")
	}
	lives := func() bool { return unix.PidfdSendSignal(fd, 0, nil, 0) == nil }
	if !lives() {
		return denied("is not there")
	}
	switch err := mem.group.(entrance).Enter(pid, lives); {
	case err == nil:
	case errors.Is(err, cgroup.ErrGone):
		return denied("is not there any more")
	default:
		return connect.NewError(connect.CodeInternal, err)
	}
	return nil
}

// parentage reads the parent and the four user ids of /proc/PID/status.
func parentage(status string) (parent int, uids []string) {
	for line := range strings.Lines(status) {
		switch name, rest, _ := strings.Cut(line, ":"); name {
		case "PPid":
			parent, _ = strconv.Atoi(strings.TrimSpace(rest))
		case "Uid":
			uids = strings.Fields(rest)
		}
	}
	return parent, uids
}

// track tells a meter of processes where a workload's tree begins.
func (m *Market) track(mem *member, pid int) {
	t, ok := m.meter.(meter.Tracker)
	if !ok || pid <= 0 {
		return
	}
	m.hw.Lock()
	defer m.hw.Unlock()
	if err := t.Track(int(mem.slot), pid); err != nil {
		m.fault("track "+mem.name, err)
	}
}

// caveat is one line on what this market could not or cannot hold, for people.
// Called on the loop's thread or after its end.
// unheld is what was not held, which names workloads.
func (m *Market) caveat(d dispatch.Description, unheld []string) string {
	parts := slices.Concat(unheld, d.Missing)
	said := slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(s, "lower bound") })
	if about := m.meter.Describe(); about.LowerBound && !said {
		parts = append(parts, "charges are a lower bound")
	}
	return strings.Join(parts, "; ")
}
