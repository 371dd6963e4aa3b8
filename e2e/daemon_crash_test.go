package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Commands of the crash test. What they print or leave is read by the test.
const (
	// A third of a core each: the daemon and its clients share the machine with them.
	spinner = `while :; do i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done; sleep 0.05; done`
	forker  = `while :; do sh -c 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done' & sleep 0.1; wait; done`
	briefer = `i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 7`
	// earner says how much work it has reported.
	earner = `n=0; while :; do echo "work 1 piece" >&$MAXWELL_REPORT; n=$((n+1)); echo $n >>"$0"; sleep 0.05; done`
)

// charge is a workload that was acknowledged, and what the test knows of it.
type charge struct {
	name    string
	granted int64    // micro-$J; 0 = open
	ends    []string // reasons with which it may end by itself
	exit    int      // its exit code if it exits

	funded int64   // acknowledged
	maybe  []int64 // asked for; it ended before it was known
	asked  bool    // it was told to stop
	used   time.Duration
}

// week is a daemon's life with its workloads, kept by the test.
type week struct {
	*daemonLab
	seed uint64

	mu       sync.Mutex
	charges  map[string]*charge
	last     map[string]time.Duration // kernel's counter of each group when it was last seen
	failures []string
	started  int
	changes  int
	restarts int
	long     bool // it was once away for longer than clients wait with an end
	logs     string

	top       string // directory of the groups
	tariff    string // file of the grid price
	reference int64  // uW of an average core: the base at a grid factor of 1

	// Of the daemon that was killed last, and of the one before it.
	will      *testament
	found     map[string]time.Duration // kernel's counters when it was dead
	ready     map[string]time.Duration // when the next one was ready; nil = it never was
	inside    int                      // kills inside a write
	gaps      int                      // that were recomputed
	priced    int                      // charges of workloads between two kills, likewise
	overheard int                      // grid prices that were written
}

func (w *week) failf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}

// take notes that a workload was acknowledged.
func (w *week) take(c charge) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.charges[c.name] = &c
	w.started++
}

// any is one of the workloads that keep accepts.
func (w *week) any(rng *rand.Rand, keep func(*charge) bool) *charge {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name, c := range w.charges {
		if keep(c) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return w.charges[names[rng.IntN(len(names))]]
}

// background starts a detached command and takes it when it was acknowledged.
func (w *week) background(c charge, args ...string) {
	r := w.tryRun(append([]string{"run", "-d", "--name", c.name}, args...)...)
	if r.code != 0 || strings.TrimSpace(r.stdout) != c.name {
		w.failf("run -d %s: %v", c.name, r)
		return
	}
	w.take(c)
}

// tryRun is run for other goroutines than the test's: it fails nothing.
func (w *week) tryRun(args ...string) (r result) {
	cmd := w.command(args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r.stdout, r.stderr = out.String(), errs.String()
	if err != nil {
		r.code = max(1, cmd.ProcessState.ExitCode())
	}
	return r
}

// TestDaemonCrashes kills the daemon at random moments while more than twenty
// workloads run, start and end, are funded, bid and stopped: no money is made or
// lost, no processor time is charged twice or not at all, nobody is forgotten.
func TestDaemonCrashes(t *testing.T) {
	kills, most := 12, 40*time.Second
	if os.Getenv("MAXWELL_LONG") != "" {
		kills, most = 100, 30*time.Minute
	}
	tariff := filepath.Join(t.TempDir(), "price")
	must(t, setGrid(tariff, "1x"))
	s := newDaemonLab(t, "--set", "grid.file="+tariff)
	defer s.close()
	w := &week{daemonLab: s, tariff: tariff, seed: rand.Uint64(), charges: map[string]*charge{}, last: map[string]time.Duration{}, logs: t.TempDir()}
	t.Logf("seed %d", w.seed)
	if text := os.Getenv("MAXWELL_CRASH_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		must(t, err)
		w.seed = seed
	}
	rng := rand.New(rand.NewPCG(w.seed, 0))
	w.top = filepath.Join(mountsOf("cgroup2")[0], s.root)
	root := w.top
	price := w.snapshot(false).Price
	if w.reference = price.Base; price.Grid != 1_000_000 {
		t.Fatalf("it begins with a grid factor of %d", price.Grid)
	}
	w.populate()
	must(t, setGrid(tariff, "3x"))
	w.waitFor("the grid price to move", func() bool { return w.snapshot(false).Price.Grid > 1_003_000 })

	over, ended := make(chan struct{}), make(chan struct{})
	var crew, eye sync.WaitGroup
	stop := sync.OnceFunc(func() { close(over); crew.Wait() })
	defer stop() // also where a check ends the test
	defer eye.Wait()
	defer close(ended)
	eye.Go(func() { w.observeGroups(ended) })
	for i := range 2 {
		crew.Go(func() { w.churn(rand.New(rand.NewPCG(w.seed, uint64(i+1))), over) })
	}
	began, done, early := time.Now(), 0, 0
	for ; done < kills && time.Since(began) < most; done++ {
		// The moment is what is tried: any.
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		if rng.IntN(3) == 0 {
			w.killInside()
		} else {
			w.kill()
		}
		away := time.Now()
		w.restarts++
		w.lost()
		switch rng.IntN(8) {
		case 0: // long enough for the watchdog to act
			time.Sleep(2500 * time.Millisecond)
		case 1, 2:
			time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		}
		if rng.IntN(4) == 0 { // and while it is coming
			w.daemonLab.begin()
			time.Sleep(time.Duration(rng.Int64N(int64(1500 * time.Millisecond))))
			w.kill()
			w.restarts++
			w.lost()
			done++
			early++
		}
		w.start()
		w.ready = w.counters()
		w.long = w.long || time.Since(away) > 8*time.Second
		w.check()
	}
	stop()
	t.Logf("%d kills (%d while it started, %d inside a write) in %v: %d workloads, %d changes, %d grid prices, now %d; recomputed %d gaps and %d bills",
		done, early, w.inside, time.Since(began).Round(time.Second), w.started, w.changes, w.overheard, w.will.grid, w.gaps, w.priced)
	if w.gaps == 0 || w.priced == 0 || w.will.grid == 1_000_000 || w.inside == 0 && done >= 100 {
		t.Error("no gap, no bill, no other grid price, or in a hundred kills none inside a write: this test tests little")
	}
	w.atRest(root)
}

// observeGroups reads the kernel's counters until it is over: those of a group stay
// for a moment after its last process.
func (w *week) observeGroups(over <-chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		now := w.counters()
		w.mu.Lock()
		maps.Copy(w.last, now)
		w.mu.Unlock()
	}
}

// populate starts those that are there from the beginning.
func (w *week) populate() {
	w.t.Helper()
	const J = 1_000_000
	w.background(charge{name: "anchor"}, "--", "sh", "-c", sleeper)
	for i := range 5 {
		w.background(charge{name: fmt.Sprintf("sleep%d", i)}, "--", "sh", "-c", sleeper)
	}
	for i, bid := range []string{"1x", "3x", "8x"} {
		w.background(charge{name: fmt.Sprintf("busy%d", i)}, "--bid", bid, "--", "sh", "-c", spinner)
	}
	w.background(charge{name: "rich", granted: 100_000 * J}, "--budget", "100k", "--bid", "auto", "--", "sh", "-c", spinner)
	for i := range 2 {
		w.background(charge{name: fmt.Sprintf("fork%d", i)}, "--", "sh", "-c", forker)
		w.background(charge{name: fmt.Sprintf("pause%d", i), granted: 40 * J}, "--budget", "40", "--cores", "1", "--bid", "6x", "--when-broke", "pause", "--", "sh", "-c", spinner)
		w.background(charge{name: fmt.Sprintf("broke%d", i), granted: 40 * J, ends: []string{"insolvent"}},
			"--budget", "40", "--cores", "1", "--bid", "6x", "--grace", "1500ms", "--", "sh", "-c", spinner)
		w.background(charge{name: fmt.Sprintf("cap%d", i), ends: []string{"cap:cpu"}}, "--bid", "4x", "--max-cpu", "2s", "--", "sh", "-c", spinner)
	}
	// Two clients in the foreground.
	w.watch("run", "--name", "front", "--", "sh", "-c", spinner)
	w.take(charge{name: "front"})
	var fleet strings.Builder
	fleet.WriteString("workloads:\n")
	for i := range 3 {
		name := fmt.Sprintf("earn%d", i)
		fmt.Fprintf(&fleet, "  %s: {command: [sh, -c, %q, %q], budget: 200, income: {per: piece, amount: 0.5}}\n", name, earner, filepath.Join(w.logs, name))
		w.take(charge{name: name, granted: 200 * J})
	}
	fmt.Fprintf(&fleet, "  nap: {command: [sh, -c, %q]}\n", sleeper)
	w.take(charge{name: "nap"})
	w.watch("up", writeFleet(w.t, fleet.String()))
	for _, name := range []string{"front", "earn0", "earn1", "earn2", "nap"} {
		w.waitFor("the directory of "+name, func() bool { return w.directory(name) != "" })
	}
	w.report()
}

// watch is lab.watch with the environment of the service.
func (w *week) watch(args ...string) *watched {
	cmd := w.command(args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	return w.observe(cmd)
}

// report fails the test for what went wrong on other goroutines.
func (w *week) report() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.failures {
		w.t.Error(f)
	}
	if len(w.failures) > 0 {
		w.t.FailNow()
	}
}

// churn changes the market until it is over.
func (w *week) churn(rng *rand.Rand, over <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-over:
			return
		default:
		}
		switch rng.IntN(11) {
		case 0, 1:
			w.rebid(rng)
		case 10:
			w.reprice(rng)
		case 2, 3, 4:
			w.fund(rng)
		case 5, 6:
			c := charge{name: fmt.Sprintf("brief-%d-%d", rng.Uint32(), n), ends: []string{"exited"}, exit: 7}
			w.background(c, "--", "sh", "-c", briefer)
		case 7:
			c := charge{name: fmt.Sprintf("poor-%d-%d", rng.Uint32(), n), granted: 40_000_000, ends: []string{"insolvent"}}
			w.background(c, "--budget", "40", "--grace", "500ms", "--cores", "1", "--bid", "6x", "--", "sh", "-c", spinner)
		case 8:
			w.halt(rng)
		case 9:
			name := fmt.Sprintf("fore-%d-%d", rng.Uint32(), n)
			if r := w.tryRun("run", "-q", "--name", name, "--", "sh", "-c", briefer); r.code != 7 {
				w.failf("run %s: %v", name, r)
			}
			w.take(charge{name: name, ends: []string{"exited"}, exit: 7})
		}
		w.mu.Lock()
		w.changes++
		w.mu.Unlock()
	}
}

func (w *week) rebid(rng *rand.Rand) {
	c := w.any(rng, func(c *charge) bool { return strings.HasPrefix(c.name, "busy") || strings.HasPrefix(c.name, "fork") })
	if _, err := w.definite("SetBid", bidRequest{c.name, 1000 + rng.Int64N(8000), newID()}, nil); err != nil {
		w.failf("bid of %s: %v", c.name, err)
	}
}

// reprice makes energy dearer or cheaper; now and then what is written is no price.
func (w *week) reprice(rng *rand.Rand) {
	text := fmt.Sprintf("%d.%03dx\n", rng.IntN(11), rng.IntN(1000))
	if rng.IntN(8) == 0 {
		text = "dear\n"
	}
	w.mu.Lock() // one at a time
	defer w.mu.Unlock()
	if err := setGrid(w.tariff, text); err != nil {
		w.failures = append(w.failures, err.Error())
	}
	w.overheard++
}

func (w *week) fund(rng *rand.Rand) {
	c := w.any(rng, func(c *charge) bool { return c.granted > 0 && !c.asked })
	amount := 1 + rng.Int64N(3_000_000)
	in := fundRequest{c.name, amount, newID()}
	for range 1 + rng.IntN(2) { // and perhaps once more than needed
		unsure, err := w.definite("Fund", in, nil)
		w.mu.Lock()
		no, answered := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			w.mu.Unlock()
			continue
		case !answered || no.Code != "not_found" && no.Code != "invalid_argument":
			w.failures = append(w.failures, fmt.Sprintf("fund %s: %v", c.name, err))
		case unsure:
			c.maybe = append(c.maybe, amount)
		}
		w.mu.Unlock()
		return
	}
	w.mu.Lock()
	c.funded += amount
	w.mu.Unlock()
}

// halt stops one of those that come and go.
func (w *week) halt(rng *rand.Rand) {
	c := w.any(rng, func(c *charge) bool { return strings.HasPrefix(c.name, "poor") && !c.asked })
	if c == nil {
		return
	}
	w.mu.Lock()
	c.asked = true
	w.mu.Unlock()
	_, err := w.definite("Stop", stopRequest{Name: c.name, Now: rng.IntN(2) == 0, ID: newID()}, nil)
	if no, ok := errors.AsType[*refusal](err); err != nil && (!ok || no.Code != "not_found") {
		w.failf("stop %s: %v", c.name, err)
	}
}

// check holds what must be true at any moment, with a market that has just come
// back.
func (w *week) check() {
	w.t.Helper()
	w.report()
	w.verify(w.journal())
	w.mu.Lock()
	known := maps.Clone(w.charges)
	w.mu.Unlock()
	before := make(map[string]time.Duration)
	for name := range known {
		if dir := w.directory(name); dir != "" {
			if u, err := usageOf(dir); err == nil {
				before[name] = u
			}
		}
	}
	w.renew()
	snap := w.snapshot(true)
	if snap.Ledger.Sum != 0 {
		w.t.Errorf("the books add up to %d", snap.Ledger.Sum)
	}
	found := make(map[string]purse)
	for _, p := range snap.Workloads {
		p.whole(w.t)
		found[p.Name] = p
	}
	for name, c := range known {
		p, ok := found[name]
		if !ok {
			w.t.Errorf("%s was acknowledged and is forgotten", name)
			continue
		}
		w.mu.Lock()
		c.used = max(c.used, before[name])
		asked := c.asked
		w.mu.Unlock()
		if p.State == "dead" {
			w.ended(c, &p, asked)
			continue
		}
		w.bounds(&p, before[name])
	}
	w.stopOnFailure()
}

func (w *week) stopOnFailure() {
	w.t.Helper()
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// ended checks how a workload ended.
func (w *week) ended(c *charge, p *purse, asked bool) {
	w.t.Helper()
	if w.long && p.Reason == "lost" && slices.Contains(c.ends, "exited") {
		return // its client has waited for 10 s and left
	}
	if !slices.Contains(c.ends, p.Reason) && !(asked && p.Reason == "stopped") {
		w.t.Errorf("%s ended: %s (exit %d), want %v", c.name, p.Reason, p.Exit, c.ends)
	}
	if p.Reason == "exited" && p.Exit != c.exit {
		w.t.Errorf("%s exited with %d, want %d", c.name, p.Exit, c.exit)
	}
	if time.Duration(p.CPU) < c.used-w.rounding()-afterDeath {
		w.t.Errorf("%s was charged %v, the kernel had counted %v", c.name, time.Duration(p.CPU), c.used)
	}
}

// rounding is what a counter of microseconds can be off by for each start of the
// daemon: it reads it once.
func (w *week) rounding() time.Duration { return time.Duration(w.restarts+2) * time.Microsecond }

// afterDeath is what a killed task may still have to be counted for when its group says
// that it is empty and the market takes the last reading: the kernel counts at the
// scheduler's tick, 4 ms at 250 Hz, and the meter waits 2 ms for a task that another one
// keeps off the processor. 1.5 ms were seen on a busy machine.
const afterDeath = 5 * time.Millisecond

// unsettled is how much a running workload may have used that the newest statement
// does not have yet: its two cores, for an epoch and a statement's age, on a machine
// that is full.
const unsettled = 2 * 500 * time.Millisecond

// bounds compares what a running workload was charged with the kernel's counter
// before and after.
func (w *week) bounds(p *purse, before time.Duration) {
	w.t.Helper()
	dir := w.directory(p.Name)
	after, err := usageOf(dir)
	if dir == "" || err != nil || before == 0 {
		return
	}
	charged := time.Duration(p.CPU)
	if charged > after+w.rounding() || charged < before-unsettled {
		w.t.Errorf("%s was charged %v, the kernel counted %v to %v", p.Name, charged, before, after)
	}
}

// directory is the directory of a workload of this daemon; "" while there is none.
func (w *week) directory(name string) string {
	dir := filepath.Join(w.top, "w-"+name)
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// usageOf is usage of a group that may go.
func usageOf(dir string) (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "usage_usec ")
	us, err := strconv.ParseInt(strings.Fields(rest + " x")[0], 10, 64)
	return time.Duration(us) * time.Microsecond, err
}

// atRest stops every process where it is, so that nothing is used any more, and
// compares to the unit; then ends all, and compares the sum of all receipts with
// what the kernel counted for the whole market.
func (w *week) atRest(root string) {
	w.t.Helper()
	w.report()
	w.waitFor("those that come and go to end", func() bool {
		for _, p := range w.snapshot(false).Workloads {
			if strings.HasPrefix(p.Name, "brief") || strings.HasPrefix(p.Name, "fore") {
				return false
			}
		}
		return true
	})
	dirs := make(map[string]string)
	for _, p := range w.snapshot(false).Workloads {
		if dir := w.directory(p.Name); dir != "" {
			dirs[p.Name] = dir
			w.halted(dir)
		}
	}
	used := make(map[string]time.Duration)
	for name, dir := range dirs {
		if u, stands := w.settled(dir); stands {
			used[name] = u
		}
	}
	w.renew()
	snap := w.snapshot(true)
	w.t.Logf("%d alive, %d dead at the end", len(dirs), len(snap.Workloads)-len(dirs))
	readopted := 0
	for _, p := range snap.Workloads {
		p.whole(w.t)
		if p.Readopted > 0 {
			readopted++
		}
		if u, alive := used[p.Name]; alive && p.State != "dead" && abs(time.Duration(p.CPU)-u) > w.rounding() {
			w.t.Errorf("%s was charged %v, the kernel counted %v", p.Name, time.Duration(p.CPU), u)
		}
		w.budget(&p)
	}
	if readopted == 0 {
		w.t.Error("nothing was readopted: this test tests nothing")
	}
	w.waitFor("what was reported to be counted", func() bool { // it passes through the client
		for _, p := range w.snapshot(true).Workloads {
			if strings.HasPrefix(p.Name, "earn") && p.Work < w.said(p.Name) {
				return false
			}
		}
		return true
	})
	w.earned(w.snapshot(true).Workloads)
	w.check()
	w.endAll()
	total := settled(w.t, root)
	sum := time.Duration(0)
	list := w.snapshot(true).Workloads
	for _, p := range list {
		sum += time.Duration(p.CPU)
		w.mu.Lock()
		if last := w.last[p.Name]; time.Duration(p.CPU) < last-w.rounding()-afterDeath {
			w.t.Errorf("%s was charged %v, the kernel counted %v: %+v", p.Name, time.Duration(p.CPU), last, p)
		}
		w.mu.Unlock()
	}
	w.t.Logf("charged %v in %d receipts, the kernel counted %v", sum, len(list), total)
	// Below the same root each daemon tries its meter on children of its own: 7 ms.
	most := time.Duration(w.restarts+1) * 30 * time.Millisecond
	if off := time.Duration(len(list)) * w.rounding(); sum > total+off || sum < total-most {
		w.t.Errorf("all receipts charge %v, the kernel counted %v", sum, total)
	}
	if v := w.verify(w.journal()); v.Sum != 0 {
		w.t.Errorf("the journal adds up to %d", v.Sum)
	}
}

// settled is settled of a group that may go: one that is broke ends when its grace is
// over, at rest or not.
func (w *week) settled(dir string) (used time.Duration, stands bool) {
	w.t.Helper()
	last, same := time.Duration(-1), 0
	stands = true
	w.waitFor(dir+" to come to rest", func() bool {
		now, err := usageOf(dir)
		if err != nil {
			stands = false
			return true
		}
		if now != last {
			last, same = now, 0
		}
		same++
		return same > 20 // a tenth of a second
	})
	return last, stands
}

// halted stops all processes of a group, those that are being made too.
func (w *week) halted(dir string) {
	w.t.Helper()
	w.waitFor(dir+" to stand still", func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		still := true
		for field := range strings.FieldsSeq(string(text)) {
			pid, _ := strconv.Atoi(field)
			if state := stateOf(pid); !strings.Contains("TDZ", state) {
				still = false
				_ = syscall.Kill(pid, syscall.SIGSTOP)
			}
		}
		return still || frozen(dir)
	})
}

// frozen reports whether a group stands still because the market stopped it.
func frozen(dir string) bool {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	return strings.Contains(string(text), "frozen 1")
}

// budget checks that a wallet was given what was acknowledged, once.
func (w *week) budget(p *purse) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.charges[p.Name]
	if c == nil || c.granted == 0 {
		return
	}
	possible := []int64{c.granted + c.funded}
	for _, amount := range c.maybe {
		for _, sum := range slices.Clone(possible) {
			possible = append(possible, sum+amount)
		}
	}
	if !slices.Contains(possible, p.Budget) {
		w.t.Errorf("%s has a budget of %d, was given %d and funded %d (unsure: %v)", p.Name, p.Budget, c.granted, c.funded, c.maybe)
	}
}

// said is how many pieces of work a workload has noted.
func (w *week) said(name string) int64 {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.logs, name))
	must(w.t, err)
	return int64(strings.Count(string(text), "\n"))
}

// earned checks that what was reported was paid, once.
func (w *week) earned(list []purse) {
	w.t.Helper()
	for _, p := range list {
		if !strings.HasPrefix(p.Name, "earn") {
			continue
		}
		said := w.said(p.Name)
		// It is stopped anywhere between its report and its note of it.
		if p.Work < said || p.Work > said+1 {
			w.t.Errorf("%s reported %d pieces, %d were counted", p.Name, said, p.Work)
		}
		if want := p.Work * 500_000; p.Income != want {
			w.t.Errorf("%s earned %d for %d pieces, want %d", p.Name, p.Income, p.Work, want)
		}
	}
}

func abs(d time.Duration) time.Duration { return max(d, -d) }
