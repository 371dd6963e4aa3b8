package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Modes of a market, written on its directories: what the watchdog and repair
// do when its maker is dead.
const (
	ModeKill = "up"     // the workloads die with it
	ModeThaw = "daemon" // they go on, thawed and unweighted
)

const (
	enforcementName = "cgroup"
	defaultName     = "maxwell"
	groupPrefix     = "w-"            // of a workload's directory
	killPatience    = 5 * time.Second // for a whole market to die at Close
)

// Config is how to open the rung.
type Config struct {
	Name        string          // of the market's directories; "maxwell" if empty, numbered if taken
	Mode        string          // ModeKill (the default) or ModeThaw
	Adopt       bool            // ModeThaw: go on with what a dead daemon of this very name left
	Cores       unit.MilliCores // cores sold; 0 or all of them means the whole machine
	Descriptors int             // that others keep open for each workload (the file meter)

	hideV2 bool // tests: as on a machine without a cgroup2 mount
}

// Enforcer is the market's directories and the groups below them.
type Enforcer struct {
	plan  plan
	roots []rooted // one for each place
	home  []string // the node's own group in each place
	name  string
	mode  string
	boot  string
	mount string // of the cgroup2 hierarchy; empty if there is none
	self  caller
	sold  []int // processors to start workloads on; nil means all
	room  room

	mu      sync.Mutex // guards what follows; taken before a Group's mu
	closed  bool
	groups  []*Group // by slot
	names   map[string]bool
	found   map[string]bool // of names: left by a dead daemon, neither adopted nor discarded
	balance balance
	dogs    []int   // watchdogs
	deaths  *deaths // nil where the kernel gives no notice
}

var (
	_ dispatch.Keeper  = (*Enforcer)(nil)
	_ dispatch.Lasting = (*Group)(nil)
)

// Open makes the market's directories. *host.Unavailable says why this
// machine does not have the rung.
func Open(cfg Config, roots host.Roots) (e *Enforcer, err error) {
	if cfg.Name == "" {
		cfg.Name = defaultName
	}
	if cfg.Mode == "" {
		cfg.Mode = ModeKill
	}
	if cfg.Adopt && cfg.Mode != ModeThaw {
		return nil, errors.New("adopt: only a daemon's workloads outlive it")
	}
	layout, err := host.Discover(roots)
	if err != nil {
		return nil, err
	}
	if cfg.hideV2 {
		layout.V2, layout.Offered = host.Hierarchy{}, nil
	}
	processor, err := host.ReadProcessor(roots)
	if err != nil {
		return nil, err
	}
	boot, err := host.BootID(roots)
	if err != nil {
		return nil, err
	}
	e = &Enforcer{mode: cfg.Mode, boot: boot, mount: layout.V2.Mount, self: observe(roots), names: map[string]bool{}, found: map[string]bool{}}
	if e.plan, err = lay(layout, e.self); err != nil {
		return nil, err
	}
	e.home = homes(layout, &e.plan)
	e.sold = soldProcessors(cfg.Cores, processor.Allowed, len(processor.Online))
	e.balance.span = spanV1()
	if e.plan.places[e.plan.find(host.CPU)].v2 {
		e.balance.span = spanV2()
	}
	e.balance.span.narrow = !forgiving(roots)
	defer func() {
		if err != nil {
			err = errors.Join(err, e.giveUp())
			e = nil
		}
	}()
	if err = e.settle(cfg, host.Mark{Boot: boot, UID: e.self.uid, Mode: cfg.Mode}); err != nil {
		return e, err
	}
	if err = e.prepare(cfg, len(processor.Online)); err != nil {
		return e, err
	}
	e.room = measure(roots, cfg, &e.plan)
	if err = e.seek(); err != nil {
		return e, err
	}
	if e.plan.unified() {
		if e.deaths, err = openDeaths(); err != nil {
			return e, err
		}
	}
	return e, nil
}

// settle makes the roots under the first free name, a name being free if no
// hierarchy has it, or adopts those of a dead daemon.
func (e *Enforcer) settle(cfg Config, mark host.Mark) error {
	const tries = 100
	base := cfg.Name
	if cfg.Adopt {
		if adopted, err := e.adopt(base, mark); adopted || err != nil {
			return err
		}
	}
	for n := range tries {
		e.name = base
		if n > 0 {
			e.name = fmt.Sprintf("%s-%d", base, n+1)
		}
		err := e.settleAs(mark)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return fmt.Errorf("make the market's directory: %s to %s-%d are taken; maxwell doctor --repair removes dead ones", base, base, tries)
}

func (e *Enforcer) settleAs(mark host.Mark) error {
	for i := range e.plan.places {
		if _, err := os.Stat(filepath.Join(e.plan.places[i].parent, e.name)); err == nil {
			return fs.ErrExist
		}
	}
	for i := range e.plan.places {
		r, err := settleIn(&e.plan.places[i], e.name, mark)
		if err != nil {
			// Another node took the name between the look and the make.
			return errors.Join(err, e.abandon())
		}
		e.roots = append(e.roots, r)
	}
	return nil
}

// prepare passes the controllers down and sizes the market.
func (e *Enforcer) prepare(cfg Config, online int) error {
	for i := range e.roots {
		if err := e.roots[i].enable(&e.plan.places[i]); err != nil {
			return err
		}
	}
	return e.roots[e.plan.find(host.CPU)].weigh(cfg.Cores, online)
}

// abandon takes the roots away again, in reverse.
func (e *Enforcer) abandon() error {
	var errs []error
	for i := len(e.roots) - 1; i >= 0; i-- {
		r := &e.roots[i]
		err := removeTree(r.Dir, sweepPatience)
		if err == nil {
			err = r.restore()
		}
		errs = append(errs, err, r.lock.Close())
		if e.plan.places[i].leaf {
			leaveLeaf(e.plan.places[i].parent)
		}
	}
	e.roots = nil
	return errors.Join(errs...)
}

// soldProcessors chooses the processors that workloads start on when only a
// part of the machine is sold: a quota alone is pooled over all processors and
// would give each of two hogs half of it whatever they pay. The last ones of
// the node's own are taken; the node itself stays free.
func soldProcessors(cores unit.MilliCores, allowed []int, online int) []int {
	if cores <= 0 || cores >= unit.MilliCores(online)*1000 {
		return nil
	}
	n := min(int((cores+999)/1000), len(allowed))
	if n == online {
		return nil
	}
	return slices.Clone(allowed[len(allowed)-n:])
}

// homes are the groups that this process belongs to, one for each place.
func homes(l host.Layout, p *plan) []string {
	dirs := make([]string, len(p.places))
	for i, q := range p.places {
		if q.v2 {
			dirs[i] = l.V2.Own
			continue
		}
		dirs[i] = l.V1[q.carries[0]].Own
	}
	return dirs
}

// Open makes the group of a workload, unfrozen and at the highest weight: the
// price is applied after its start. An exec into a group that is light beside
// its neighbours blocks the caller (for 7.5 s, measured), and the weight that
// the kernel gives a new group is light beside those of winners.
func (e *Enforcer) Open(slot int, name string, l dispatch.Limits) (dispatch.Group, error) {
	if slot < 0 {
		return nil, fmt.Errorf("open group %s: slot %d is negative", name, slot)
	}
	if err := e.supports(l); err != nil {
		return nil, err
	}
	if err := e.Admit(1); err != nil {
		return nil, err
	}
	unique, err := e.reserve(slot, name)
	if err != nil {
		return nil, err
	}
	g := &Group{market: e, slot: slot, name: unique, limits: l, written: e.balance.span.usual, fresh: true}
	if err := g.make(); err != nil {
		e.mu.Lock()
		delete(e.names, unique)
		e.mu.Unlock()
		return nil, errors.Join(fmt.Errorf("open group %s: %w", name, err), g.unmake())
	}
	e.seat(g)
	return g, nil
}

// seat gives a finished group its slot.
func (e *Enforcer) seat(g *Group) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.groups) <= g.slot {
		e.groups = append(e.groups, nil)
	}
	e.groups[g.slot] = g
	if !g.isObserved() { // whose use is no delivery of ours
		e.balance.open(g.slot)
	}
}

// supports refuses caps that no controller of this machine can hold.
func (e *Enforcer) supports(l dispatch.Limits) error {
	if l.Memory > 0 && e.plan.find(host.Memory) < 0 {
		return &host.Unavailable{Feature: host.FeatureCgroupMemory, Reason: "no writable hierarchy has the memory controller"}
	}
	if l.Pids > 0 && e.plan.find(host.Pids) < 0 {
		return &host.Unavailable{Feature: host.FeatureCgroupPids, Reason: "no writable hierarchy has the pids controller"}
	}
	return nil
}

// reserve turns a workload's name into a directory name that nobody has.
func (e *Enforcer) reserve(slot int, name string) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return "", dispatch.ErrClosed
	}
	if err := e.vacantLocked(slot, name); err != nil {
		return "", err
	}
	base := directoryName(name)
	unique := base
	for n := 2; e.names[unique]; n++ {
		unique = fmt.Sprintf("%s-%d", base, n)
	}
	e.names[unique] = true
	return unique, nil
}

// vacantLocked refuses a slot that another group has.
func (e *Enforcer) vacantLocked(slot int, name string) error {
	if slot < len(e.groups) && e.groups[slot] != nil {
		return fmt.Errorf("open group %s: slot %d is taken by %s", name, slot, e.groups[slot].name)
	}
	return nil
}

// directoryName keeps what is safe in a path. It starts with groupPrefix, so that it
// never meets a file of the kernel (tasks, cpu.max).
func directoryName(name string) string {
	const longest = 64
	clean := strings.Map(func(r rune) rune {
		if plain(r) {
			return r
		}
		return '_'
	}, name)
	return groupPrefix + clean[:min(len(clean), longest)]
}

func plain(r rune) bool {
	return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// make makes the directories, the cgroup2 one first, and writes the caps.
func (g *Group) make() error {
	e := g.market
	for i := range e.plan.places {
		dir := filepath.Join(e.roots[i].Dir, g.name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, bare(err))
		}
		g.join(&e.plan.places[i], dir)
	}
	if err := g.identify(); err != nil {
		return err
	}
	if err := g.cap(); err != nil {
		return err
	}
	if g.pids.dir != "" && !g.pids.v2 && g.limits.Pids == 1 {
		// The thread that forks the first process is in the group itself then.
		g.spare = true
		if err := g.capPids(2); err != nil {
			return err
		}
	}
	return g.open()
}

// join gives the group its directory of one hierarchy.
func (g *Group) join(p *place, dir string) {
	g.dirs = append(g.dirs, dir)
	if p.v2 {
		g.unified = dir
	}
	for _, c := range p.carries {
		g.attach(c, actuator{dir: dir, v2: p.v2})
		if p.v2 {
			continue
		}
		if g.ref.V1 == nil {
			g.ref.V1 = map[host.Controller]string{}
		}
		g.ref.V1[c] = dir
	}
}

// identify finds the name by which the meter knows a group that has joined
// every hierarchy.
func (g *Group) identify() (err error) {
	if g.unified != "" {
		g.ref, err = host.Ref(g.unified, g.ref.V1)
	}
	return err
}

func (g *Group) attach(c host.Controller, a actuator) {
	switch c {
	case host.CPU:
		g.cpu = a
	case host.Memory:
		g.memory = a
	case host.Pids:
		g.pids = a
	case host.Freezer:
		g.freezer = a
	case host.CPUAcct:
		g.usage = a
	case host.CPUSet: // never planned for
	}
}

// cap writes the hard caps, once.
func (g *Group) cap() error {
	if q := quotaOf(g.limits.Cores, capPeriod); q.budget > 0 {
		if err := writeQuota(g.cpu.dir, g.cpu.v2, q); err != nil {
			return err
		}
	}
	if g.limits.Pids > 0 {
		if err := g.capPids(g.limits.Pids); err != nil {
			return err
		}
	}
	if g.limits.Memory <= 0 {
		return nil
	}
	most := fmt.Sprint(int64(g.limits.Memory))
	if !g.memory.v2 {
		err := host.WriteOnce(g.memory.file("memory.limit_in_bytes"), most)
		return errors.Join(err, optional(g.memory.file("memory.memsw.limit_in_bytes"), most))
	}
	return errors.Join(
		host.WriteOnce(g.memory.file("memory.max"), most),
		optional(g.memory.file("memory.swap.max"), "0"),
		optional(g.memory.file("memory.oom.group"), "1"))
}

func (g *Group) capPids(most int64) error {
	return host.WriteOnce(g.pids.file("pids.max"), fmt.Sprint(most))
}

// optional writes a file that not every kernel has.
func optional(path, text string) error {
	err := host.WriteOnce(path, text)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// open opens the two files that an epoch may write, and gives a new group the
// weight of its start. Nobody else has the group.
func (g *Group) open() error {
	if err := g.openKnobs(); err != nil {
		return err
	}
	return g.weighLocked(target{weight: g.market.balance.span.most})
}

func (g *Group) openKnobs() (err error) {
	name := "cpu.shares"
	if g.cpu.v2 {
		name = "cpu.weight"
	}
	if g.weight, err = host.OpenKnob(g.cpu.file(name)); err != nil {
		return err
	}
	path := filepath.Join(g.unified, "cgroup.freeze")
	if g.unified == "" {
		path = g.freezer.file("freezer.state")
	}
	g.stop, err = host.OpenKnob(path)
	return err
}

// closeKnobs closes what openKnobs opened.
func (g *Group) closeKnobs() error {
	var errs []error
	for _, k := range []*host.Knob{g.weight, g.stop} {
		if k != nil {
			errs = append(errs, k.Close())
		}
	}
	return errors.Join(errs...)
}

// unmake takes back a group that was not finished.
func (g *Group) unmake() error {
	errs := []error{g.closeKnobs()}
	for _, dir := range g.dirs {
		errs = append(errs, removeTree(dir, sweepPatience))
	}
	return errors.Join(errs...)
}

func (e *Enforcer) forget(g *Group) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if g.slot < 0 || e.groups[g.slot] != g {
		return
	}
	e.groups[g.slot] = nil
	e.balance.close(g.slot)
	delete(e.names, g.name)
	if e.deaths != nil {
		e.deaths.unwatch(g.slot)
	}
}

// Apply enforces one epoch: it corrects the weights by what was delivered in
// the one that ended, writes those that changed, and freezes and thaws by
// class. A neutral one gets back the weight that the kernel gave it, and is not of the
// market whose weights are balanced. Groups that were removed meanwhile are passed
// over. It does not allocate unless a write fails.
func (e *Enforcer) Apply(elapsed time.Duration, shares []dispatch.Share) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return dispatch.ErrClosed
	}
	for i := range shares {
		e.enlistLocked(&shares[i])
	}
	e.balance.settle(elapsed, shares)
	e.balance.survey(elapsed, shares)
	var failed error
	for i := range shares {
		s := &shares[i]
		if s.Slot < 0 || s.Slot >= len(e.groups) || e.groups[s.Slot] == nil {
			continue
		}
		g := e.groups[s.Slot]
		var err error
		if s.Neutral {
			err = g.neutral()
		} else {
			err = g.enforce(market.Class(s.Class) == market.Frozen, e.balance.aim(s), e.balance.slack)
		}
		if err != nil && !host.Gone(err) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// enlistLocked takes a group into the balance whose share is enforced, and out of it
// one whose is not.
func (e *Enforcer) enlistLocked(s *dispatch.Share) {
	if s.Slot < 0 || s.Slot >= len(e.groups) || e.groups[s.Slot] == nil {
		return
	}
	switch live := e.balance.at(s.Slot) != nil; {
	case s.Neutral && live:
		e.balance.close(s.Slot)
	case !s.Neutral && !live && !e.groups[s.Slot].isObserved():
		e.balance.open(s.Slot)
	}
}

// Roots are the market's directories, for the watchdog.
func (e *Enforcer) Roots() []Root {
	list := make([]Root, len(e.roots))
	for i := range e.roots {
		list[i] = e.roots[i].Root
	}
	return list
}

// Describe says what the rung holds here.
func (e *Enforcer) Describe() dispatch.Description {
	d := dispatch.Description{Enforcement: enforcementName, Trees: true, Caps: []string{"cpu"}}
	cpu := e.plan.places[e.plan.find(host.CPU)]
	switch {
	case cpu.v2:
		d.Detail = "v2"
	case e.plan.unified():
		d.Detail = "v1 controllers, v2 identity"
	default:
		d.Detail = "v1"
	}
	if e.self.uid == 0 {
		d.Detail += ", as root"
	} else {
		d.Detail += ", delegated"
		d.Missing = append(d.Missing, "a workload of the same user can leave its group")
	}
	for _, c := range []host.Controller{host.Memory, host.Pids} {
		if e.plan.find(c) < 0 {
			d.Missing = append(d.Missing, "no "+string(c)+" controller: no "+string(c)+" cap")
			continue
		}
		d.Caps = append(d.Caps, string(c))
	}
	if e.balance.span.narrow {
		d.Missing = append(d.Missing, "before Linux 6.6 busy losers together still get some percent of a core")
	}
	if e.sold != nil {
		d.Missing = append(d.Missing, "a workload may leave the processors that are sold; the quota on all of them holds")
	}
	if len(e.roots) > 0 {
		d.Root = e.roots[0].Dir
	}
	return d
}

// Close ends every workload, takes the market's directories away and gives
// the parent back what it had.
func (e *Enforcer) Close() error {
	errs := []error{e.shut(false)}
	if errors.Is(errs[0], dispatch.ErrClosed) {
		return errs[0]
	}
	for i := range e.roots {
		errs = append(errs, empty(&e.roots[i].Root))
	}
	return errors.Join(append(errs, e.abandon())...)
}

// shut closes every file and group; left says that the groups live on without
// us.
func (e *Enforcer) shut(left bool) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return dispatch.ErrClosed
	}
	e.closed = true
	groups := slices.Clone(e.groups)
	watch := e.deaths
	e.deaths = nil
	e.mu.Unlock()
	var errs []error
	if watch != nil {
		errs = append(errs, watch.close())
	}
	for _, g := range groups {
		if g == nil {
			continue
		}
		g.mu.Lock()
		g.left = left
		if !g.closed {
			g.closed = true
			errs = append(errs, g.releaseGuestLocked(), g.closeKnobs())
		}
		g.mu.Unlock()
	}
	return errors.Join(errs...)
}

// empty ends every process below a market's root.
func empty(r *Root) error {
	if err := killTree(r.Dir, r.V2); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if !r.V2 {
		// The thawed die, and so do those that left the identity but not this hierarchy.
		_, err := sweep(r.Dir, unix.SIGKILL, killPatience)
		return err
	}
	if !emptied(true, func() bool {
		populated, err := event(r.Dir, "populated")
		return err != nil || !populated
	}, r.Dir) {
		return fmt.Errorf("empty %s: %w", r.Dir, dispatch.ErrPopulated)
	}
	return nil
}
