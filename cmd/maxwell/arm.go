package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/internal/sensor"
	"github.com/maxwell-hypervisor/maxwell/internal/work"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// arm is one way to run the scientist and its leeches on one core.
type arm interface {
	// Start starts the fleet.
	Start(ctx context.Context) error
	// Wait lets it run for d.
	Wait(ctx context.Context, d time.Duration) error
	// Stop ends it and tells what it did. It may be called after a failed
	// Start, and then only cleans up.
	Stop() (armResult, error)
}

// armResult is what an arm did.
type armResult struct {
	report.Tally
	after   *report.Tally // Maxwell: after the last leech died
	noAfter string        // why there is no after
	diedAt  time.Duration
}

// runArm runs an arm for d and always cleans up.
func runArm(ctx context.Context, a arm, d time.Duration) (armResult, error) {
	err := a.Start(ctx)
	if err == nil {
		err = a.Wait(ctx, d)
	}
	result, stopErr := a.Stop()
	return result, errors.Join(err, stopErr)
}

// contest is what all arms share.
type contest struct {
	program string // this binary
	leeches int
	cpu     int
	share   unit.PPM // of the core that the machine leaves to the fleet, last seen
	roots   host.Roots
	sensor  sensor.Sensor
	began   time.Time
	environ []string
}

// command is a built-in workload's command line.
func (c *contest) command(work string) []string { return []string{c.program, "work", work} }

// plain runs the fleet without a market: as the stock scheduler would, with
// the leeches set idle by an operator who knows them, or with equal quotas.
type plain struct {
	*contest
	idle  bool // the oracle
	quota bool

	enforcer *cgroup.Enforcer // quota by cgroup; nil: by turns
	groups   []dispatch.Group
	procs    []*launch.Process // the scientist first
	report   *os.File
	before   machineBooks
}

// turn is how long each runs where quotas are enforced by stopping the others.
const turn = 50 * time.Millisecond

func (p *plain) Start(context.Context) error {
	var err error
	if p.report, err = os.CreateTemp("", "maxwell-report-"); err != nil {
		return fmt.Errorf("make report: %w", err)
	}
	if p.quota {
		// Without cgroups the quota is held by turns; the result says which.
		if e, err := cgroup.Open(cgroup.Config{Name: "maxwell-quota"}, p.roots); err == nil {
			p.enforcer = e
		}
	}
	if p.before, err = p.books(); err != nil {
		return err
	}
	for i := range p.leeches + 1 {
		if err := p.spawn(i); err != nil {
			return err
		}
	}
	return nil
}

// method names how the quota is held.
func (p *plain) method() string {
	if p.enforcer != nil {
		return "cgroup"
	}
	return "turns"
}

func (p *plain) spawn(i int) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	spec := launch.Spec{Args: p.command("hash"), Env: p.environ, Files: [3]*os.File{null, null, null}}
	if i == 0 {
		spec.Args, spec.Report = p.command("primes"), p.report
		spec.Env = append(slices.Clip(spec.Env), "MAXWELL_REPORT="+strconv.Itoa(launch.ReportFD))
	}
	place := dispatch.Placement{CPUs: []int{p.cpu}}
	if p.enforcer != nil {
		share := unit.Core / unit.MilliCores(p.leeches+1)
		g, err := p.enforcer.Open(i, "arm-"+strconv.Itoa(i), dispatch.Limits{Cores: share})
		if err != nil {
			return fmt.Errorf("open quota group: %w", err)
		}
		p.groups = append(p.groups, g)
		place = g.Placement()
		place.CPUs = []int{p.cpu}
	}
	proc, err := launch.Start(spec, place)
	if err != nil {
		return err
	}
	p.procs = append(p.procs, proc)
	if p.idle && i > 0 {
		return setIdle(proc.Pid)
	}
	return nil
}

// setIdle gives every thread of a process what the others leave.
func setIdle(pid int) error {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		// Threads made later inherit the policy of the one that makes them.
		err = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("set thread %d idle: %w", tid, err)
		}
	}
	return nil
}

func (p *plain) Wait(ctx context.Context, d time.Duration) error {
	over := time.After(d)
	if !p.quota || p.enforcer != nil {
		select {
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, proc := range p.procs {
		if err := proc.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
	}
	next := time.NewTicker(turn)
	defer next.Stop()
	for i := 0; ; i++ {
		proc := p.procs[i%len(p.procs)]
		if err := proc.Signal(syscall.SIGCONT); err != nil {
			return err
		}
		select {
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		}
		if err := proc.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
	}
}

func (p *plain) Stop() (armResult, error) {
	var r armResult
	var errs []error
	for _, proc := range p.procs { // the scientist ends first and in order
		errs = append(errs, proc.Signal(syscall.SIGTERM), proc.Signal(syscall.SIGCONT))
	}
	for _, proc := range p.procs {
		for {
			st, err := proc.Wait()
			if err != nil {
				errs = append(errs, err)
				break
			}
			if st.Ended() {
				r.CPU += unit.CoreTime(st.User + st.System)
				break
			}
		}
	}
	after, err := p.books()
	errs = append(errs, err)
	r.Energy = attribute(p.before, after, r.CPU, p.sensor.Describe().Idle)
	for _, g := range p.groups {
		errs = append(errs, g.Kill(), g.Remove())
	}
	if p.enforcer != nil {
		errs = append(errs, p.enforcer.Close())
	}
	if p.report != nil {
		text, err := os.ReadFile(p.report.Name())
		errs = append(errs, err, p.report.Close(), os.Remove(p.report.Name()))
		r.Work = work.Sum(text, work.PrimeBatch)
	}
	return r, errors.Join(errs...)
}

// machineBooks is the machine at one instant: its energy and its busy time.
type machineBooks struct {
	at     time.Duration
	energy unit.Microjoules
	busy   unit.CoreTime
}

// books reads the machine as the market's own books do: energy of the node,
// core time of everybody.
func (c *contest) books() (machineBooks, error) {
	text, err := c.roots.Proc.ReadFile("stat")
	if err != nil {
		return machineBooks{}, err
	}
	busy, err := busyTime(text)
	if err != nil {
		return machineBooks{}, err
	}
	at := time.Since(c.began)
	reading, err := c.sensor.Read(unit.Instant(at), busy)
	if err != nil {
		return machineBooks{}, err
	}
	return machineBooks{at, reading.Energy, busy}, nil
}

// userTick is the unit of /proc/stat: USER_HZ is 100 on every architecture that
// Go runs on.
const userTick = 10 * time.Millisecond

// busyTime is the core time of /proc/stat's first line that was not idle; guest
// time is already in user.
func busyTime(stat []byte) (unit.CoreTime, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, errors.New("read /proc/stat: no cpu line")
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7} { // user nice system irq softirq
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/int64(userTick)-ticks {
			return 0, fmt.Errorf("read /proc/stat: %q is not a count", fields[i])
		}
		ticks += n
	}
	return unit.CoreTime(ticks) * unit.CoreTime(userTick), nil
}

// attribute gives a fleet its share of the energy above idle: by its share of
// the machine's busy time, as the market's own books do.
func attribute(before, after machineBooks, fleet unit.CoreTime, idle unit.Microwatts) unit.Microjoules {
	energy := after.energy - before.energy
	rest := unit.Microjoules(unit.MulDivSat(int64(idle), int64(after.at-before.at), int64(time.Second)))
	dynamic := max(0, energy-rest)
	busy := max(after.busy-before.busy, fleet)
	if busy <= 0 {
		return 0
	}
	return unit.Microjoules(unit.MulDiv(int64(dynamic), int64(fleet), int64(busy)))
}
