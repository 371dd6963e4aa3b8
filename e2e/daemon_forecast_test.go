package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// replay is a recorded load: bursts and pauses of lengths that E2E_SEED tells. A
// burst is so much processor time, however long it takes to get it; the pauses follow
// the recording's own clock, so that a stop or a crowd moves what comes after it.
func replay() {
	seed, _ := strconv.ParseUint(os.Getenv("E2E_SEED"), 10, 64)
	busy, _ := strconv.ParseInt(os.Getenv("E2E_BUSY"), 10, 64) // percent of a core
	rng := rand.New(rand.NewPCG(seed, 0))
	for {
		burst := time.Duration(10+rng.Int64N(50)) * time.Millisecond
		for from := spent(); spent()-from < burst; {
		}
		if busy < 100 {
			time.Sleep(burst * time.Duration(100-busy) / time.Duration(busy))
		}
	}
}

// replayed starts a recorded load in a group.
func (o *office) replayed(path string, seed, busy int) {
	o.t.Helper()
	self, err := os.Executable()
	must(o.t, err)
	o.enterAs(path, []string{actVariable + "=replay", fmt.Sprintf("E2E_SEED=%d", seed), fmt.Sprintf("E2E_BUSY=%d", busy), "GOMAXPROCS=1"}, self)
}

// stop is when and with what a load was stopped, or would have been.
type stop struct {
	after time.Duration // it was attached
	cpu   time.Duration
	spent int64
}

// stopOf finds the event of a stop.
func (o *office) stopOf(w seen, kind string) stop {
	o.t.Helper()
	for line := range strings.Lines(o.do("events", w.Name, "--json").stdout) {
		var e struct {
			At    int64  `json:"at_wall_ns"`
			ID    string `json:"id"`
			Kind  string `json:"kind"`
			CPU   int64  `json:"cpu_ns"`
			Spent int64  `json:"spent_ucredits"`
		}
		must(o.t, json.Unmarshal([]byte(line), &e))
		if e.Kind == kind && e.ID == w.ID {
			return stop{time.Duration(e.At - w.Admitted), time.Duration(e.CPU), e.Spent}
		}
	}
	o.t.Fatalf("no %s of %s", kind, w.Name)
	return stop{}
}

// part is one of the loads of a recording.
type part struct {
	seed, busy int
	terms      []string
}

// play attaches loads under a mode and tells how each of them came to its stop.
func (o *office) play(mode string, parts []part) []stop {
	o.t.Helper()
	list := make([]stop, len(parts))
	for i, p := range parts {
		o.replayed(fmt.Sprintf("%s-%d", mode, i), p.seed, p.busy)
	}
	for i, p := range parts {
		o.do(append([]string{"attach", "--cgroup", fmt.Sprintf("%s/%s-%d", o.top, mode, i), "--enforce", mode, "--when-broke", "pause"}, p.terms...)...)
	}
	for i := range parts {
		path := fmt.Sprintf("%s-%d", mode, i)
		await(o.t, path+" to come to its stop", func() bool {
			w := o.all()[path]
			switch {
			case mode == "on" && w.State == "paused":
				list[i] = o.stopOf(w, "paused")
			case mode == "on" && w.State == "dead":
				list[i] = o.stopOf(w, "dying")
			case mode != "on" && w.Still:
				list[i] = o.stopOf(w, "would-stop")
				if said := time.Duration(w.WouldAt - w.Admitted); (said - list[i].after).Abs() > 100*time.Millisecond {
					o.t.Errorf("ps says that it would have been stopped after %v, the event %v", said, list[i].after)
				}
			default:
				return false
			}
			return true
		})
	}
	for i := range parts {
		o.leave(fmt.Sprintf("%s-%d", mode, i))
	}
	return list
}

// recordings are loads whose stop is foretold.
var recordings = map[string][]part{
	"half busy": {{1, 50, []string{"--budget", "16", "--cores", "1"}}},
	"busy":      {{2, 100, []string{"--budget", "20", "--cores", "1"}}},
	"poor beside rich": {
		{3, 50, []string{"--budget", "16", "--cores", "1", "--bid", "1x"}},
		{4, 50, []string{"--budget", "30", "--cores", "1", "--bid", "4x"}},
	},
	"capped": {{5, 50, []string{"--max-cpu", "1s"}}},
}

// TestObserveForetells: a recorded load is stopped by on when and with what observe
// had said that it would be. What the machine takes from a load by itself, which is
// more or less each time, is no error of the forecast: the moment is compared on the
// load's own clock always, and on the wall where the machine gave it the same.
func TestObserveForetells(t *testing.T) {
	for name, parts := range recordings {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, "enforce: observe")
			o.open()
			told, came := o.play("observe", parts), o.play("on", parts)
			o.close()
			for i := range parts {
				// The moment hangs on what others take from the load meanwhile: it is told,
				// and no test of a shared machine can hold it.
				t.Logf("%d: foretold %+v, stopped %+v", i, told[i], came[i])
				foretold(t, "core time", int64(told[i].cpu), int64(came[i].cpu))
				foretold(t, "money", told[i].spent, came[i].spent)
			}
		})
	}
}

// foretold fails if a forecast is off by more than a tenth of what came.
func foretold(t *testing.T, what string, told, came int64) {
	t.Helper()
	if off := 100 * float64(told-came) / float64(came); off > 10 || off < -10 {
		t.Errorf("%s foretold %d, came %d: %.1f %% off", what, told, came, off)
	}
}
