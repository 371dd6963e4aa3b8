package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// deposit is what a workload of one core at a bid of 2x locks with nobody
// competing, from the manual: 173 ms blind at twice the reference power (the
// band of the model is 50 %) and one base price of rent, and the dying lane's
// 250 ms at a fifth of a core.
func deposit(base int64) int64 {
	return base*3*173/1000 + base*250/1000/5
}

// noticed waits until a call's standard error holds a text, and says when.
func (w *watched) noticed(text string) time.Time {
	w.t.Helper()
	await(w.t, fmt.Sprintf("%q on standard error", text), func() bool { return strings.Contains(w.errors.String(), text) })
	return time.Now()
}

// stays fails if a frozen group uses a hundredth of a core or more over d.
func stays(t *testing.T, dir string, d time.Duration) {
	t.Helper()
	begun, before := time.Now(), usage(t, dir)
	<-time.After(d)
	used, length := usage(t, dir)-before, time.Since(begun)
	t.Logf("frozen: %v in %v", used, length.Round(time.Millisecond))
	if used > length/100 {
		t.Errorf("a frozen group used %v in %v, 1 %% of a core is %v", used, length, length/100)
	}
}

// TestBroke runs a hog until its money is gone. It must be frozen at the
// moment that its balance predicts, stay frozen for its grace by the kernel's
// own count, and end with 122 and a receipt that says so.
func TestBroke(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	l := newLab(t)
	name, files := unique("hog"), t.TempDir()
	file, trace := filepath.Join(files, "receipt.json"), filepath.Join(files, "trace.jsonl")
	const budget, grace = 25_000_000, 6 * time.Second
	hog := l.watch("run", "--name", name, "--budget", "25", "--cores", "1", "--grace", grace.String(),
		"--receipt", file, "--trace", trace, "--", "sh", "-c", "while :; do :; done")
	dir := waitDirectory(t, name)
	hog.noticed("is broke and paused; ends in 6 s unless funded")
	stays(t, dir, grace-500*time.Millisecond)
	if code := hog.end(); code != 122 {
		t.Errorf("exit %d, want 122", code)
	}
	text, err := os.ReadFile(file)
	must(t, err)
	const first = `{"reason":"insolvent","retryable":true,"exit_code":122,"child_exit":143,"remedy":"fund `
	if !strings.HasPrefix(string(text), first+name+`"`) {
		t.Errorf("the receipt begins otherwise than %s%s\":\n%s", first, name, text)
	}
	got := parseReceipt(t, string(text))
	if got.Spent > got.Budget || got.Budget != budget {
		t.Errorf("spent %d of %d", got.Spent, got.Budget)
	}
	for _, percent := range []string{"80", "95"} {
		if !strings.Contains(hog.errors.String(), "has spent "+percent+" % of 25 $J") {
			t.Errorf("no warning at %s %%", percent)
		}
	}
	predicted(t, readTrace(t, trace), name, budget)
}

// predicted compares what a hog was billed until it was frozen with the
// balance that it had: its budget less the deposit. Above it is overdraft,
// which the deposit pays; more than an epoch's worth would be too late.
func predicted(t *testing.T, rounds []round, name string, budget int64) {
	t.Helper()
	var billed, total, quiet, base int64
	var frozen bool
	for i := range rounds {
		r := &rounds[i]
		base, quiet = r.Base, quiet+r.Length
		for _, b := range r.Buyers {
			if b.Name != name || b.Used == 0 {
				continue
			}
			frozen = frozen || quiet > int64(time.Second)
			if !frozen {
				billed += b.Energy + b.Rent
			}
			total += b.Energy + b.Rent
			quiet = 0
		}
	}
	over := billed - (budget - deposit(base))
	late := time.Duration(over * int64(time.Second) / base) // core time at the base price
	t.Logf("frozen %v of core time after the balance was gone; %d of %d micro-$J in all", late, total, budget)
	if late > 50*time.Millisecond || late < -5*time.Millisecond {
		t.Errorf("frozen %v of core time off the predicted moment", late)
	}
	if total > budget {
		t.Errorf("billed %d of %d micro-$J: the operator lost the rest", total, budget)
	}
}

// stubborn is a tree that forks for ever, in sessions of its own, from parents
// that are gone, and deaf to SIGTERM.
const stubborn = `trap "" TERM HUP INT
(setsid sh -c 'trap "" TERM; while :; do (sleep 0.2 & sleep 0.1); done' &)
setsid sh -c 'trap "" TERM; (while :; do :; done) & while :; do (:); done' &
while :; do sh -c ':' & sleep 0.02; done`

// TestBrokeTree lets such a tree go broke: within a second after its grace no
// process of it is left.
func TestBrokeTree(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	l := newLab(t)
	name, file := unique("tree"), filepath.Join(t.TempDir(), "receipt.json")
	const grace = time.Second
	call := l.watch("run", "--name", name, "--budget", "30", "--cores", "1", "--grace", grace.String(),
		"--receipt", file, "--", "sh", "-c", stubborn)
	own := waitDirectory(t, name)
	broke := call.noticed("is broke and paused")
	stays(t, own, grace/2)
	await(t, "the tree's last process to end", func() bool { return len(l.tree()) == 0 })
	took := time.Since(broke)
	t.Logf("dead %v after the notice, with a grace of %v", took.Round(time.Millisecond), grace)
	if took > grace+time.Second {
		t.Errorf("the tree lived for %v after the notice, want at most %v", took, grace+time.Second)
	}
	if code := call.end(); code != 122 {
		t.Errorf("exit %d, want 122", code)
	}
	if got := readReceipt(t, file); got.Spent > got.Budget || got.Reason != "insolvent" {
		t.Errorf("receipt %+v", got)
	}
}

// tree lists the processes of the lab that are not Maxwell's own.
func (l *lab) tree() []int {
	var pids []int
	for _, pid := range l.processes() {
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && program != maxwell(l.t) && stateOf(pid) != "Z" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestPausedUntilFunded: with --when-broke pause a tree stays frozen for as
// long as nobody pays, and goes on to its own end when somebody does.
func TestPausedUntilFunded(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	l := newLab(t)
	name := unique("saver")
	call := l.watch("run", "--name", name, "--budget", "15", "--cores", "1", "--when-broke", "pause", "--",
		"sh", "-c", "i=0; while [ $i -lt 2500000 ]; do i=$((i+1)); done; echo done")
	dir := waitDirectory(t, name)
	call.noticed("is broke and paused until funded: maxwell fund " + name)
	stays(t, dir, time.Second)
	if r := l.run("fund", name, "100"); r.code != 0 {
		t.Fatal(r)
	}
	call.noticed("was funded and runs on")
	if code := call.end(); code != 0 || call.out.String() != "done\n" {
		t.Errorf("exit %d and %q, want 0 and \"done\"", code, call.out.String())
	}
	if r := l.run("fund", name, "100"); r.code != 125 || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("the dead cannot be funded, in one line and with 125:\n%v", r)
	}
}
