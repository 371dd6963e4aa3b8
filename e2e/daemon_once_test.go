package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const sleeper = "exec sleep 1000"

// TestDaemonExitWhileAway: how a command ended while no daemon was there is what its
// client tells the next one, and what it used meanwhile is on its bill.
func TestDaemonExitWhileAway(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	name := s.detach("--name", unique("away"), "--", "sh", "-c", `read line <"$0"; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exit 3`, pipeOf(s))
	dir := waitDirectory(t, name)
	s.kill()
	door, err := os.OpenFile(filepath.Join(s.dir, "door"), os.O_WRONLY, 0)
	must(t, err)
	_, err = door.WriteString("on\n")
	must(t, err)
	must(t, door.Close())
	var used int64
	s.waitFor("the command to end", func() bool { used = usage(t, dir).Nanoseconds(); return populated(t, dir) == 0 })
	must(t, os.Remove(filepath.Join(s.dir, "door")))
	used = settled(t, dir).Nanoseconds()
	s.start()
	w := s.dead(name)
	w.whole(t)
	if w.Reason != "exited" || w.Exit != 3 {
		t.Errorf("%s (exit %d), want exited (exit 3)", w.Reason, w.Exit)
	}
	if w.CPU != used || w.Readopted == 0 || w.Readopted > used || w.GapCost == 0 {
		t.Errorf("charged %d ns, %d of them readopted for %d; the kernel counted %d", w.CPU, w.Readopted, w.GapCost, used)
	}
}

// pipeOf makes a named pipe that holds a command back.
func pipeOf(s *daemonLab) string {
	name := filepath.Join(s.dir, "door")
	must(s.t, mkfifo(name))
	return name
}

// TestDaemonOnce delivers every change up to three times and out of order, some of
// them over the end of a daemon: each is made once.
func TestDaemonOnce(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	name := s.detach("--name", unique("once"), "--budget", "100", "--", "sh", "-c", sleeper)
	type delivery struct {
		amount int64
		id     []byte
	}
	for round := range 4 {
		var deliveries []delivery
		var want int64
		for n := range 12 {
			d := delivery{int64(n+1) * 1000, newID()}
			times := rng.IntN(4)
			if times > 0 {
				want += d.amount
			}
			for range times {
				deliveries = append(deliveries, d)
			}
		}
		rng.Shuffle(len(deliveries), func(i, j int) { deliveries[i], deliveries[j] = deliveries[j], deliveries[i] })
		before := s.fresh(name)
		crash := rng.IntN(len(deliveries))
		for i, d := range deliveries {
			if i == crash {
				s.kill()
				s.start()
			}
			_, err := s.definite("Fund", fundRequest{Name: name, Amount: d.amount, ID: d.id}, nil)
			must(t, err)
		}
		after := s.fresh(name)
		if got := after.Budget - before.Budget; got != want {
			t.Errorf("round %d: %d added, want %d", round, got, want)
		}
	}
}

// renew waits until what the daemon shows is newer than everything asked before: a
// snapshot may be 100 ms old, and an epoch lasts 50.
func (s *daemonLab) renew() {
	s.t.Helper()
	from := s.snapshot(false).Node.Epochs
	s.waitFor("the next epochs", func() bool { return s.snapshot(false).Node.Epochs > from+3 })
}

// fresh is a wallet as it is after everything that was asked before.
func (s *daemonLab) fresh(name string) purse {
	s.t.Helper()
	s.renew()
	w, known := s.wallet(name)
	if !known {
		s.t.Fatalf("%s is not there", name)
	}
	return w
}

// TestDaemonOnceUsedID: an id is for one change.
func TestDaemonOnceUsedID(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	name := s.detach("--name", unique("used"), "--budget", "100", "--", "sh", "-c", sleeper)
	id := newID()
	must(t, s.call("Fund", fundRequest{Name: name, Amount: 5, ID: id}, nil))
	for range 2 {
		err := s.call("Fund", fundRequest{Name: name, Amount: 6, ID: id}, nil)
		if no, ok := errors.AsType[*refusal](err); !ok || no.Code != "invalid_argument" {
			t.Errorf("the same id for another change: %v", err)
		}
		s.kill()
		s.start()
	}
}

// TestDaemonOnceStop: a stop that is delivered late ends whom it was meant for, and
// not the next one of that name.
func TestDaemonOnceStop(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	name := unique("again")
	for round, now := range []bool{true, false, true} {
		s.detach("--name", name, "--", "sh", "-c", sleeper)
		id := newID()
		must(t, s.call("Stop", stopRequest{Name: name, Now: now, ID: id}, nil))
		s.dead(name)
		s.detach("--name", name, "--", "sh", "-c", sleeper)
		if round == 2 {
			s.kill()
			s.start()
		}
		if err := s.call("Stop", stopRequest{Name: name, Now: now, ID: id}, nil); err != nil {
			t.Errorf("the second delivery: %v", err)
		}
		if w := s.fresh(name); w.State == "dead" || w.State == "dying" || len(s.workers("sleep 1000")) == 0 {
			t.Errorf("round %d: the next one of its name was ended by the last one's stop: %+v", round, w)
		}
		must(t, s.call("Stop", stopRequest{Name: name, Now: true, ID: newID()}, nil))
		s.dead(name)
	}
}

// TestDaemonOnceBid: an old bid that comes late does not replace a newer one.
func TestDaemonOnceBid(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	name := s.detach("--name", unique("bids"), "--", "sh", "-c", sleeper)
	first, second := bidRequest{name, 3000, newID()}, bidRequest{name, 5000, newID()}
	must(t, s.call("SetBid", first, nil))
	must(t, s.call("SetBid", second, nil))
	for round := range 2 {
		must(t, s.call("SetBid", first, nil))
		if w := s.fresh(name); w.Bid != 5000 {
			t.Errorf("round %d: bids %d, want the newer 5000", round, w.Bid)
		}
		s.kill()
		s.start()
	}
}

// TestDaemonOnceAdmit: an admission whose answer was lost is answered again, also by
// the next daemon, and there is one workload.
func TestDaemonOnceAdmit(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	token, _ := s.join("")
	name := unique("twice")
	admit := map[string]any{"token": token, "name": name, "requestId": newID()}
	var first, again struct {
		Name      string `json:"name"`
		Placement struct {
			Cgroup string `json:"cgroup"`
		} `json:"placement"`
	}
	must(t, s.call("Admit", admit, &first))
	for round := range 3 {
		again.Placement.Cgroup = ""
		if err := s.call("Admit", admit, &again); err != nil {
			t.Fatalf("round %d: delivered again: %v", round, err)
		}
		if again != first {
			t.Errorf("round %d: %+v, want the same answer: %+v", round, again, first)
		}
		if _, err := os.Stat(again.Placement.Cgroup); err != nil {
			t.Errorf("round %d: its place: %v", round, err)
		}
		count := 0
		for _, w := range s.snapshot(true).Workloads {
			if strings.HasPrefix(w.Name, name) {
				count++
			}
		}
		if count != 1 {
			t.Errorf("round %d: %d workloads, want 1", round, count)
		}
		if round == 1 {
			s.kill()
			s.start()
			token, _ = s.join(token)
		}
	}
	must(t, s.call("Leave", map[string]string{"token": token}, nil))
	if w := s.dead(name); w.Spent != 0 {
		t.Errorf("it cost %d and never ran", w.Spent)
	}
}

// TestDaemonStartedKept: a command that `run -d` said is started outlives the daemon
// at any moment after.
func TestDaemonStartedKept(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	for round := range 4 {
		name := s.detach("--name", unique(fmt.Sprintf("kept%d", round)), "--", "sh", "-c", sleeper)
		s.kill()
		s.start()
		if w, known := s.wallet(name); !known || w.State == "dead" {
			t.Errorf("round %d: lost: %+v", round, w)
		}
	}
}

// TestDaemonClientInGap: who comes while the daemon is away waits for it, and opens
// no market of its own in its place.
func TestDaemonClientInGap(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	s.detach("--name", unique("stays"), "--", "sh", "-c", sleeper)
	s.kill()
	w := s.observe(s.command("run", "--name", unique("gap"), "--", "true"))
	early := s.observe(s.command("run", "-d", "--name", unique("gapd"), "--", "true"))
	if eventually(time.Second, func() bool { return s.verb("node") != 0 }) {
		t.Error("a client of a daemon that is away has opened a market in its place")
	}
	s.start()
	if code := w.end(); code != 0 {
		t.Errorf("exit %d: %s", code, w.errors.String())
	}
	if code := early.end(); code != 0 {
		t.Errorf("exit %d: %s", code, early.errors.String())
	}
}
