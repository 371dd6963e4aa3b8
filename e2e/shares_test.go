package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// actVariable makes the test binary a workload.
const actVariable = "E2E_ACT"

// act is what the test binary does as a workload.
func act(what string) {
	switch what {
	case "half":
		halfAsleep()
	case "memory":
		grow()
	case "ask":
		askMarket()
	case "replay":
		replay()
	}
}

// beat is the period of a workload that sleeps for half of its time.
const beat = 20 * time.Millisecond

// halfAsleep wants half a core, whoever else wants it: in each beat it burns
// half a beat of processor time and sleeps until the next. What it did not get
// in its beat it no longer wants.
func halfAsleep() {
	for start := time.Now(); ; start = start.Add(beat) {
		for burnt := spent(); spent()-burnt < beat/2 && time.Since(start) < beat; {
		}
		if behind := time.Since(start) - beat; behind > 0 {
			start = start.Add(behind.Truncate(beat))
		}
		time.Sleep(time.Until(start.Add(beat)))
	}
}

// spent is the processor time of this process.
func spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// contender is one bidder for one core.
type contender struct {
	bid  int   // in thousandths of 1x
	half bool  // wants half a core, not all of it
	run  int64 // us of processor time in the window, by the kernel
}

// contests are bids whose outcome `maxwell clear` knows. The one who sleeps
// must win: a loser waits through its sleep, and then wants all of the core by
// the market's count, run and runnable, whatever it would have wanted.
var contests = map[string][]contender{
	"equal bids":           {{bid: 2000}, {bid: 2000}, {bid: 2000}},
	"2x against 8x":        {{bid: 2000}, {bid: 8000}},
	"a half-asleep winner": {{bid: 8000, half: true}, {bid: 4000}, {bid: 2000}},
}

// window is how long shares are measured, as the promise is worded.
const window = 4 * time.Second

// enough is the least share of the core that the market must have had for a
// window to prove anything.
const enough = 0.9

// points is how far a share may be from what the book says.
const points = 0.03

// TestShares measures who got what of one core over four seconds, by the
// groups' own counters, and compares with what the auditors' verb says for the
// same bids. Shares are of the time that the market got. A window in which
// other programs took the market's core proves nothing and is repeated.
func TestShares(t *testing.T) {
	needCgroups(t)
	for name, bids := range contests {
		t.Run(name, func(t *testing.T) {
			var worst float64
			for range 5 { // what else runs for a moment moves the rare share most
				got, alone := compete(t, bids)
				if !alone {
					hosttest.Skip(t, quietProcessors, "other programs take more than a tenth of the core")
				}
				if worst = distance(t, bids, got); worst <= points {
					return
				}
			}
			t.Errorf("a share is %.1f points off, want at most %.0f", 100*worst, 100*points)
		})
	}
}

// compete runs the contenders on one core and reads their counters around a
// window. alone is false if the market did not have the core to itself.
func compete(t *testing.T, bids []contender) (got []contender, alone bool) {
	t.Helper()
	l := newLab(t)
	var fleet strings.Builder
	fleet.WriteString("node: {cores: 1}\nworkloads:\n")
	names := make([]string, len(bids))
	for i, b := range bids {
		names[i] = unique("c" + strconv.Itoa(i))
		command := `[sh, -c, "while :; do :; done"]`
		if b.half {
			command = fmt.Sprintf("[%s], env: {%s: half}", os.Args[0], actVariable)
		}
		fmt.Fprintf(&fleet, "  %s: {command: %s, bid: %d.%03dx}\n", names[i], command, b.bid/1000, b.bid%1000)
	}
	up := l.watch("up", writeFleet(t, fleet.String()), "--json", "--enforcement", "cgroup")
	defer func() { // also when the window is not worth waiting for
		up.signal(syscall.SIGTERM)
		up.end()
	}()
	dirs := make([]string, len(names))
	for i, name := range names {
		dirs[i] = waitDirectory(t, name)
		await(t, name+" to run", func() bool { return usage(t, dirs[i]) > 0 })
	}
	<-time.After(time.Second) // the first bids of newcomers have been ranked, their demand is known
	for range 3 {             // looks for a moment in which the core is left to the market
		if _, had := measure(t, bids, dirs, time.Second/2); had < enough {
			continue
		}
		if got, had := measure(t, bids, dirs, window); had >= enough {
			return got, true
		}
	}
	return nil, false
}

// measure reads what everybody used in a window, and returns the share of one
// core that the market had.
func measure(t *testing.T, bids []contender, dirs []string, length time.Duration) (got []contender, had float64) {
	t.Helper()
	got = slices.Clone(bids)
	begun := time.Now()
	for i := range got {
		got[i].run = -usage(t, dirs[i]).Microseconds()
	}
	<-time.After(length)
	took := time.Since(begun)
	var sum int64
	for i := range got {
		got[i].run += usage(t, dirs[i]).Microseconds()
		sum += got[i].run
	}
	had = float64(sum) / float64(took.Microseconds())
	t.Logf("the market had %.1f %% of a core for %v", 100*had, took.Round(time.Millisecond))
	return got, had
}

// distance clears the same bids over the time that the market got, and returns
// the greatest difference of a share.
func distance(t *testing.T, bids, got []contender) float64 {
	t.Helper()
	var supply int64
	for _, g := range got {
		supply += g.run
	}
	cleared := clearing(t, bids, supply)
	worst := 0.0
	for i, g := range got {
		is, want := float64(g.run)/float64(supply), float64(cleared[i])/float64(supply)
		t.Logf("bid %d: %.1f %%, cleared %.1f %%", g.bid, 100*is, 100*want)
		worst = max(worst, is-want, want-is)
	}
	return worst
}

// clearing asks the auditors' verb who gets what of a supply of core time.
func clearing(t *testing.T, bids []contender, supply int64) []int64 {
	t.Helper()
	const base = 10_000_000
	book := map[string]any{"rule": "vickrey", "supply_core_us": supply, "seed": 1, "floor_ppm": 20_000}
	var list []map[string]any
	for i, b := range bids {
		demand := window.Microseconds()
		if b.half {
			demand /= 2
		}
		list = append(list, map[string]any{
			"id": strconv.Itoa(i), "demand_core_us": demand, "bid_ucredits_per_core_s": base / 1000 * b.bid,
			"reserve_ucredits_per_core_s": base, "deposit_ucredits": 1_000_000,
		})
	}
	book["bids"] = list
	text, err := json.Marshal(book)
	must(t, err)
	file := filepath.Join(t.TempDir(), "book.json")
	must(t, os.WriteFile(file, text, 0o600))
	r := newPlace(t).run("clear", "--json", file)
	var answer struct {
		Allocations []struct {
			ID   string `json:"id"`
			Time int64  `json:"core_us"`
		} `json:"allocations"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &answer); err != nil || len(answer.Allocations) != len(bids) {
		t.Fatalf("clear: %v\n%v", err, r)
	}
	out := make([]int64, len(bids))
	for i, a := range answer.Allocations {
		out[i] = a.Time
	}
	return out
}
