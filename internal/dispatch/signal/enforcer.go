package signal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Config says where and how the rung works.
type Config struct {
	Dir       string // private directory for the sockets, made if missing
	Namespace bool   // user and pid namespaces work here: see Probe
	CPUs      []int  // processors that are sold; empty means all of this process
	IdleAfter time.Duration
}

// idleAfter is how long a command on a terminal must lose before it gets
// SCHED_IDLE, which cannot be taken back: long enough not to answer a spike.
const idleAfter = 2 * time.Second

// Enforcer is the rung. Apply is called by one goroutine; the groups may be
// used by any.
type Enforcer struct {
	dir       string
	namespace bool
	cpus      []int
	cores     int
	idleAfter time.Duration

	mu     sync.Mutex // guards what follows; taken before a group's own
	groups map[int]*Group
	made   int // groups made, for the names of their sockets
	closed bool

	period time.Duration
	seq    uint32
	runs   []time.Duration
	widths []float64
	rated  []*Group
	laid   []Window
}

// maxPath is what fits into a sockaddr_un with its final zero.
const maxPath = 107

// Open makes the rung.
func Open(c Config) (*Enforcer, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of sockets: %w", err)
	}
	if n := len(c.Dir) + len("/signal-4294967295-99999999.sock"); n > maxPath {
		return nil, &dispatch.LimitError{
			Limit: "length of a socket's path", Need: int64(n), Have: maxPath,
			Hint: "use a shorter runtime directory",
		}
	}
	cores := len(c.CPUs)
	if cores == 0 {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			return nil, fmt.Errorf("read own processors: %w", err)
		}
		cores = set.Count()
	}
	e := &Enforcer{
		dir: c.Dir, namespace: c.Namespace, cpus: slices.Clone(c.CPUs), cores: cores,
		idleAfter: c.IdleAfter, groups: map[int]*Group{},
	}
	if e.idleAfter == 0 {
		e.idleAfter = idleAfter
	}
	return e, nil
}

// Open makes the group of a workload: a socket on which its shim will call.
func (e *Enforcer) Open(slot int, name string, l dispatch.Limits) (dispatch.Group, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, dispatch.ErrClosed
	}
	if old, ok := e.groups[slot]; ok {
		if !old.isRemoved() {
			return nil, fmt.Errorf("open group %s: slot %d is taken by %s", name, slot, old.name)
		}
		delete(e.groups, slot)
	}
	e.made++
	path := filepath.Join(e.dir, "signal-"+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(e.made)+".sock")
	// A socket of that name is left from a dead node whose number we got.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	place := dispatch.Placement{Enforcement: Name, Namespace: e.namespace, CPUs: e.soldTo(l)}
	g, err := openGroup(slot, name, path, l, place)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return nil, outOfFiles(len(e.groups))
	}
	if err != nil {
		return nil, err
	}
	e.groups[slot] = g
	return g, nil
}

// soldTo is the processors of a workload: a cap of cores binds it to as many,
// spread by slot so that two capped ones do not meet on the same.
func (e *Enforcer) soldTo(l dispatch.Limits) []int {
	if l.Cores <= 0 || int(l.Cores) >= 1000*e.cores {
		return e.cpus
	}
	all := e.cpus
	if len(all) == 0 {
		var set unix.CPUSet
		if unix.SchedGetaffinity(0, &set) != nil {
			return nil
		}
		for cpu := range len(set) * 64 {
			if set.IsSet(cpu) {
				all = append(all, cpu)
			}
		}
	}
	n := (int(l.Cores) + 999) / 1000
	out := make([]int, 0, n)
	for i := range n {
		out = append(out, all[(e.made+i)%len(all)])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func outOfFiles(have int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = 0
	}
	return &dispatch.LimitError{
		Limit: "open files (RLIMIT_NOFILE)", Need: 2 * int64(have+1), Have: int64(limit.Cur),
		Hint: "raise it with ulimit -n",
	}
}

// Apply enforces one epoch: it takes the reports of the last, works out the
// windows and sends them, with a question for the next. It does not wait.
func (e *Enforcer) Apply(elapsed time.Duration, shares []dispatch.Share) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return dispatch.ErrClosed
	}
	e.period = frame(e.period, elapsed)
	e.seq++
	e.runs, e.widths, e.rated = e.runs[:0], e.widths[:0], e.rated[:0]
	for _, s := range shares {
		g, ok := e.groups[s.Slot]
		if !ok {
			return fmt.Errorf("apply shares: no group in slot %d", s.Slot)
		}
		e.consider(g, s)
	}
	e.laid = slices.Grow(e.laid[:0], len(e.runs))[:len(e.runs)]
	lay(e.period, e.runs, e.widths, e.laid)
	for i, g := range e.rated {
		g.mu.Lock()
		g.want.Window = e.laid[i]
		g.mu.Unlock()
	}
	for slot, g := range e.groups {
		g.mu.Lock()
		switch {
		case g.removed:
			delete(e.groups, slot)
		case g.control >= 0:
			g.ask(e.seq)
		default:
			g.pollLocked() // the shim may have come
		}
		g.mu.Unlock()
	}
	return nil
}

// consider decides one group's window, or puts it on the list of those that
// have to be laid out.
func (e *Enforcer) consider(g *Group, s dispatch.Share) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pollLocked()
	g.pace.settle(g.last.CPU, g.last.Allowed, e.period, e.cores)
	if s.Neutral { // nobody's price holds it
		s.Class = uint8(market.Served)
	}
	lost := market.Class(s.Class) == market.Loser
	switch {
	case g.last.Flags&reportTerminal != 0:
		e.weigh(g, lost)
		fallthrough
	case g.cores == 0 && !rationed(s):
		g.pace.forgive()
		g.want.Window = always
		return
	case market.Class(s.Class) == market.Frozen:
		g.pace.forgive()
		g.want.Window = Window{Period: e.period}
		return
	}
	granted := s.Granted
	if g.cores > 0 {
		capped := unit.CoreTime(int64(e.period) * int64(g.cores) / 1000)
		if granted = min(granted, capped); !rationed(s) {
			granted = capped
		}
	}
	run := g.pace.window(granted, e.period)
	if run == 0 || run == e.period {
		g.want.Window = Window{Period: e.period, Run: run}
		return
	}
	e.rated = append(e.rated, g)
	e.runs = append(e.runs, run)
	e.widths = append(e.widths, g.pace.width)
}

// weigh gives SCHED_IDLE to a command on a terminal that keeps losing. There is
// no way back, so a moment is not enough.
func (e *Enforcer) weigh(g *Group, lost bool) {
	switch {
	case !lost:
		g.since = time.Time{}
	case g.since.IsZero():
		g.since = time.Now()
	case time.Since(g.since) >= e.idleAfter:
		g.want.Flags |= orderIdle
	}
}

// Describe says what this rung holds.
func (e *Enforcer) Describe() dispatch.Description {
	d := dispatch.Description{
		Enforcement: Name, Trees: e.namespace, Root: e.dir,
		Detail: "user and pid namespace, stopped and continued by signals",
		Caps:   []string{"cpu", "memory", "pids"},
		Missing: []string{
			"charges are a lower bound: children whose parent ignores SIGCHLD are seen only while they live",
			"a command on a terminal is not stopped for its price, only weighed by SCHED_IDLE after losing for 2 s, which cannot be taken back",
			"the memory cap is looked at every 20 ms, not held by the kernel",
			"setuid programs (sudo, ping) do not work inside",
		},
	}
	if os.Geteuid() == 0 {
		d.Missing[3] = "the pids cap is looked at each epoch: the kernel does not count root's processes"
	}
	if !e.namespace {
		d.Detail = "process groups and sweeps through /proc, best effort"
		d.Missing = append(d.Missing[:3],
			"no namespace: a tree that forks fast, or kills its shim, gets away",
			"the pids cap is looked at each epoch")
	}
	return d
}

// Close ends every tree and removes the sockets.
func (e *Enforcer) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	var errs error
	for _, g := range e.groups {
		errs = errors.Join(errs, g.end())
	}
	clear(e.groups)
	return errs
}

// closePatience bounds how long Close waits for one tree.
const closePatience = time.Second

// end kills the tree and closes the group. Closing alone would do it too, but
// a namespace dies at once with its shim.
func (g *Group) end() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.removed {
		return nil
	}
	g.pollLocked() // a shim that has called and was not let in yet
	pidfd := -1
	if g.pidfd >= 0 {
		if g.last.Flags&reportSwept == 0 {
			_ = unix.PidfdSendSignal(g.pidfd, unix.SIGKILL, nil, 0)
		}
		pidfd, g.pidfd = g.pidfd, -1
	}
	err := g.closeLocked() // without a namespace the shim sweeps now
	if pidfd >= 0 {
		if !readable(pidfd, closePatience) {
			err = errors.Join(err, fmt.Errorf("end group %s: shim %d lives", g.name, g.shim))
		}
		unix.Close(pidfd)
	}
	return err
}

func (g *Group) isRemoved() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.removed
}
