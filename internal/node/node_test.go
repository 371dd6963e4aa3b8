package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
)

// join enters a market of its own in a temporary runtime directory.
func join(t *testing.T, s Settings) *Session {
	t.Helper()
	return joinIn(t, t.TempDir(), s)
}

func joinIn(t *testing.T, dir string, s Settings) *Session {
	t.Helper()
	session, err := Join(t.Context(), JoinOptions{Dir: dir, Client: "test", Settings: s})
	if err != nil {
		t.Fatalf("join: %v%s", err, logOf(dir))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if _, err := session.Leave(ctx); err != nil {
			t.Errorf("leave: %v%s", err, logOf(dir))
		}
		if t.Failed() {
			t.Log(logOf(dir))
		}
	})
	go func() {
		for range session.Events() {
		}
	}()
	return session
}

func logOf(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, LogName))
	return "\nlog of the market:\n" + string(text)
}

// TestRunToTheEnd runs one command without a budget: it is measured, charged
// to an open wallet, and its own exit code comes back.
func TestRunToTheEnd(t *testing.T) {
	s := join(t, Settings{})
	r, err := s.Start(t.Context(), Workload{
		Terms: &v1.AdmitRequest{Name: "spin"},
		Spec:  launch.Spec{Args: []string{"sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo work 3 lap >&3; exit 7"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Result()
	if err != nil {
		t.Fatal(err)
	}
	w := out.GetWorkload()
	if w.GetExitCode() != 7 || w.GetReason() != "exited" || w.GetState() != "dead" {
		t.Errorf("ended as %s %s with %d, want dead exited with 7", w.GetState(), w.GetReason(), w.GetExitCode())
	}
	if w.GetCpuNs() <= 0 || w.GetEnergyUj() <= 0 || w.GetSpentUcredits() <= 0 {
		t.Errorf("nothing was charged: %v", w)
	}
	if w.GetWork() != 3 {
		t.Errorf("reported 3 units, %d arrived", w.GetWork())
	}
	if got := w.GetEnergyUcredits() + w.GetRentUcredits() + w.GetErasureUcredits() + w.GetOtherUcredits(); got != w.GetSpentUcredits() {
		t.Errorf("parts sum to %d, spent %d", got, w.GetSpentUcredits())
	}
}

// hog is a command that burns one core until it is stopped.
var hog = []string{"sh", "-c", "while :; do :; done"}

func start(t *testing.T, s *Session, terms *v1.AdmitRequest, args []string) *Running {
	t.Helper()
	r, err := s.Start(t.Context(), Workload{Terms: terms, Spec: launch.Spec{Args: args}})
	if err != nil {
		t.Fatalf("start %s: %v", terms.GetName(), err)
	}
	return r
}

// used returns the processor time of each workload of the session.
func used(t *testing.T, s *Session) map[string]*v1.Workload {
	t.Helper()
	snap, err := s.Snapshot(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*v1.Workload)
	for _, w := range snap.GetWorkloads() {
		out[w.GetName()] = w
	}
	return out
}

// TestJoinWhileTheLastLeaves: who comes in while the market's last client leaves
// finds that one closing, or its socket just gone, and gets a market all the same.
func TestJoinWhileTheLastLeaves(t *testing.T) {
	dir := t.TempDir()
	for round := range 20 {
		first, err := Join(t.Context(), JoinOptions{Dir: dir, Client: "first", Settings: Settings{Enforce: "signal"}})
		if err != nil {
			t.Fatalf("round %d: %v%s", round, err, logOf(dir))
		}
		left := make(chan error)
		go func() {
			_, err := first.Leave(context.Background())
			left <- err
		}()
		second, err := Join(t.Context(), JoinOptions{Dir: dir, Client: "second", Settings: Settings{Enforce: "signal"}})
		if err != nil {
			t.Fatalf("round %d: came in as the last one left: %v%s", round, err, logOf(dir))
		}
		if err := <-left; err != nil {
			t.Errorf("round %d: leave: %v", round, err)
		}
		if _, err := second.Leave(context.Background()); err != nil {
			t.Errorf("round %d: leave: %v", round, err)
		}
	}
}

// TestLateWordsAreNobodyElses: what is said about a workload after its burial
// (a report that was under way, a signal to stop, a bid) does not fall to
// whoever sits in its slot by then.
func TestLateWordsAreNobodyElses(t *testing.T) {
	s := join(t, Settings{})
	old := start(t, s, &v1.AdmitRequest{Name: "old"}, []string{"true"})
	if _, err := old.Result(); err != nil {
		t.Fatal(err)
	}
	start(t, s, &v1.AdmitRequest{Name: "young", BudgetUcredits: 1e9, IncomeUcredits: 1e6}, hog)
	ctx := t.Context()
	if _, err := s.rpc.Report(ctx, &v1.ReportRequest{Token: s.token, Name: "old", Units: 5}); err != nil {
		t.Errorf("a late report is an error: %v", err)
	}
	if _, err := s.rpc.SetBid(ctx, &v1.SetBidRequest{Token: s.token, Name: "old", BidMilli: 5000}); err == nil {
		t.Errorf("the bid of a buried workload can be set")
	}
	if _, err := s.rpc.Exited(ctx, &v1.ExitedRequest{Token: s.token, Name: "old", ChildExit: 3}); err != nil {
		t.Errorf("told twice of its end: %v", err)
	}
	if err := s.Suspend(ctx, false); err != nil { // returns after a tick
		t.Fatal(err)
	}
	w := used(t, s)["young"]
	if w.GetWork() != 0 || w.GetIncomeUcredits() != 0 || w.GetBidMilli() != 2000 || w.GetState() == "dead" {
		t.Errorf("words about the old one reached the young one: %v", w)
	}
}

// TestHigherBidRuns sells one core to two hogs at 2x and 8x, and judges what
// they did with the time that this machine left to them.
func TestHigherBidRuns(t *testing.T) {
	s := join(t, Settings{Cores: 1000})
	start(t, s, &v1.AdmitRequest{Name: "poor", BidMilli: 2000}, hog)
	start(t, s, &v1.AdmitRequest{Name: "rich", BidMilli: 8000}, hog)
	ran := func() (poor, rich int64) {
		w := used(t, s)
		return w["poor"].GetCpuNs(), w["rich"].GetCpuNs()
	}
	until := func(ns int64, fromPoor, fromRich int64) (poor, rich int64) {
		for {
			poor, rich = ran()
			if poor+rich-fromPoor-fromRich >= ns {
				return poor, rich
			}
			<-time.After(20 * time.Millisecond) // between two looks
		}
	}
	poor0, rich0 := until(int64(time.Second/2), 0, 0) // the first shares settle
	poor, rich := until(int64(2*time.Second), poor0, rich0)
	poor, rich = poor-poor0, rich-rich0
	share := float64(poor) / float64(poor+rich)
	t.Logf("the poor one got %.1f %%", 100*share)
	if share > 0.2 {
		t.Errorf("the poor one got %.1f %%, want little more than its floor of 1 %%", 100*share)
	}
}

// TestBrokeStops lets two hogs spend what they have.
func TestBrokeStops(t *testing.T) {
	s := join(t, Settings{Cores: 1000})
	a := start(t, s, &v1.AdmitRequest{Name: "a", BidMilli: 2000, BudgetUcredits: 20_000_000, GraceNs: int64(time.Second)}, hog)
	start(t, s, &v1.AdmitRequest{Name: "b", BidMilli: 2000, BudgetUcredits: 90_000_000, GraceNs: int64(time.Second)}, hog)
	out, err := a.Result()
	if err != nil {
		t.Fatal(err)
	}
	w := out.GetWorkload()
	if w.GetExitCode() != 122 || w.GetReason() != "insolvent" || w.GetLossUcredits() != 0 {
		t.Errorf("ended %s with %d and a loss of %d", w.GetReason(), w.GetExitCode(), w.GetLossUcredits())
	}
	if w.GetSpentUcredits() > w.GetBudgetUcredits() || w.GetRemedy() != "fund a" {
		t.Errorf("statement %v", w)
	}
	if b := used(t, s)["b"]; b.GetState() == "dead" {
		t.Errorf("the solvent one is %v", b)
	}
}

// marketOf finds the market process of a runtime directory by its arguments.
func marketOf(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		args := strings.Split(string(text), "\x00")
		if err != nil || len(args) < 3 || args[1] != NodeVerb || !slices.Contains(args, dir) {
			continue
		}
		pid, err := strconv.Atoi(e.Name())
		if err == nil {
			return pid
		}
	}
	t.Fatal("no market process")
	return 0
}

// directories lists what the market of a child made in every hierarchy, with
// the inodes: other markets of this machine may use the same names later. The
// signal enforcement makes none.
func directories(t *testing.T, r *Running) map[string]uint64 {
	t.Helper()
	child, ok := r.proc.(*launch.Process)
	if !ok {
		return nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", child.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]uint64)
	for line := range strings.Lines(string(text)) {
		path := strings.TrimSpace(line[strings.LastIndex(line, ":")+1:])
		root := filepath.Base(filepath.Dir(path)) // maxwell-2/w-hog
		if !strings.HasPrefix(root, "maxwell") {
			continue
		}
		for _, pattern := range []string{"/sys/fs/cgroup/" + root, "/sys/fs/cgroup/*/" + root} {
			list, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, dir := range list {
				found[dir] = inode(dir)
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("the workload is in no market's group:\n%s", text)
	}
	return found
}

func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// ended waits until a process is gone.
func ended(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for unix.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatalf("process %d still lives", pid)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestSuddenDeath kills the market in every way there is: its workloads end,
// its directories go, and its clients are told.
func TestSuddenDeath(t *testing.T) {
	for name, s := range map[string]Settings{
		"kill -9":             {},
		"kill -9, by signals": {Enforce: "signal"},
		"panic in the loop":   {PanicAtTick: 40, PanicIn: "loop"},
		"panic in a worker":   {PanicAtTick: 40, PanicIn: "worker"},
		"panic in a call":     {PanicAtTick: 40, PanicIn: "rpc"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			session, err := Join(t.Context(), JoinOptions{Dir: dir, Client: "test", Settings: s})
			if err != nil {
				t.Fatal(err)
			}
			pid := marketOf(t, dir)
			started, err := session.Start(t.Context(), Workload{
				Terms: &v1.AdmitRequest{Name: "hog"}, Spec: launch.Spec{Args: hog},
			})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for range session.Events() {
				}
			}()
			made := directories(t, started)
			if s.PanicAtTick == 0 {
				if err := unix.Kill(pid, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			for running := true; running; {
				select {
				case <-session.Gone():
					running = false
				default:
					_, _ = session.Snapshot(t.Context(), true) // the call to panic in
				}
			}
			if _, err := started.Result(); !errors.Is(err, ErrMarketDied) {
				t.Errorf("the workload's client was told %v", err)
			}
			if code := started.Code(); code != 128+9 {
				t.Errorf("the workload ended with %d, want a kill", code)
			}
			if _, err := session.Leave(t.Context()); !errors.Is(err, ErrMarketDied) {
				t.Errorf("leave said %v", err)
			}
			ended(t, pid)
			for dir, ino := range made {
				if inode(dir) == ino {
					t.Errorf("left behind: %s", dir)
				}
			}
		})
	}
}

// TestClientDies ends the workloads of a client whose connection breaks, and
// leaves the other client's alone.
func TestClientDies(t *testing.T) {
	dir := t.TempDir()
	stays := joinIn(t, dir, Settings{})
	start(t, stays, &v1.AdmitRequest{Name: "stays"}, hog)
	goes, err := Join(t.Context(), JoinOptions{Dir: dir, Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if goes.First() {
		t.Error("the second client thinks it is the first")
	}
	r := start(t, goes, &v1.AdmitRequest{Name: "goes"}, hog)
	goes.cancel() // what the kernel does to a killed client's socket
	<-r.Done()
	if code := r.Code(); code != 128+9 {
		t.Errorf("the dead client's workload ended with %d, want a kill", code)
	}
	if w := used(t, stays)["stays"]; w.GetState() == "dead" {
		t.Errorf("the other client's workload is %v", w)
	}
}

// TestNobodyTakesADaemonsPlace: while a daemon is to come back, whoever comes waits for
// it, longer than for a socket that is left, and opens no market: that would have the
// lock that the daemon needs.
func TestNobodyTakesADaemonsPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, DaemonName), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), daemonPatience+time.Second)
	defer cancel()
	s, err := Join(ctx, JoinOptions{Dir: dir, Client: "test", Program: filepath.Join(dir, "no-market")})
	if s != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("joined %v: %v, want to be still waiting", s, err)
	}
}
