package signal

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

func TestWireRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(t, "period")
		o := order{
			Version: wireVersion, Flags: rapid.Uint32Range(0, orderMask).Draw(t, "flags"),
			Seq: rapid.Uint32().Draw(t, "seq"), Signal: rapid.Int32Range(0, maxSignal).Draw(t, "signal"),
			Window: Window{
				Period: time.Duration(period),
				Offset: time.Duration(rapid.Int64Range(0, period-1).Draw(t, "offset")),
				Run:    time.Duration(rapid.Int64Range(0, period).Draw(t, "run")),
			},
			Memory: rapid.Int64Min(0).Draw(t, "memory"), Pids: rapid.Int64Min(0).Draw(t, "pids"),
		}
		back, err := decodeOrder(o.encode())
		if err != nil || back != o {
			t.Fatalf("got %+v, %v\nwant %+v", back, err, o)
		}
		r := report{
			Version: wireVersion, Flags: rapid.Uint32Range(0, reportMask).Draw(t, "flags"),
			CPU: rapid.Int64Min(0).Draw(t, "cpu"), Oom: rapid.Int32Min(0).Draw(t, "oom"),
		}
		if got, err := decodeReport(r.encode()); err != nil || got != r {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, r)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(order{Version: wireVersion, Window: always}.encode())
	f.Add(report{Version: wireVersion, CPU: 1}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := decodeOrder(b); err == nil {
			if !o.Window.valid() || cmp.Diff(o.encode(), b) != "" {
				t.Errorf("accepted %x as %+v", b, o)
			}
		}
		if r, err := decodeReport(b); err == nil && (r.CPU < 0 || cmp.Diff(r.encode(), b) != "") {
			t.Errorf("accepted %x as %+v", b, r)
		}
	})
}

func TestParseStat(t *testing.T) {
	p, ok := parseStat([]byte("7 (a) b) T 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 999 1000 2 3"))
	if !ok {
		t.Fatal("not accepted")
	}
	if p.state != 'T' || p.parent != 1 || p.waited != 15*tick || p.threads != 3 || p.start != 999 || p.resident == 0 {
		t.Errorf("got %+v", p)
	}
}

// A window says the same as counting the time by hand, and its next edge is a
// time at which its answer changes.
func TestWindowEdges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := rapid.IntRange(1000, 100_000).Draw(t, "period")
		w := Window{
			Period: time.Duration(period) * time.Microsecond,
			Offset: time.Duration(rapid.IntRange(0, period-1).Draw(t, "offset")) * time.Microsecond,
			Run:    time.Duration(rapid.IntRange(0, period).Draw(t, "run")) * time.Microsecond,
		}
		at := unit.Instant(rapid.Int64Range(0, 1<<50).Draw(t, "at"))
		run, next := w.at(at)
		phase := ((int64(at)-int64(w.Offset))%int64(w.Period) + int64(w.Period)) % int64(w.Period)
		if want := phase < int64(w.Run); run != want {
			t.Fatalf("%+v at %d: %v, want %v", w, at, run, want)
		}
		if next == 0 {
			if w.Run != 0 && w.Run != w.Period {
				t.Fatalf("%+v at %d has no edge", w, at)
			}
			return
		}
		before, _ := w.at(next - 1)
		after, _ := w.at(next)
		if next <= at || before != run || after == run {
			t.Fatalf("%+v at %d: %v until %d, but %v before and %v after", w, at, run, next, before, after)
		}
	})
}

// Single threads are never laid on more cores than there are, if their sum
// fits.
func TestLayNeverDoubleBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const period = 50 * time.Millisecond
		cores := rapid.IntRange(1, 8).Draw(t, "cores")
		var runs []time.Duration
		for left := period * time.Duration(cores); left > 0 && len(runs) < 40; {
			run := min(left, time.Duration(rapid.IntRange(1, 50_000).Draw(t, "run"))*time.Microsecond)
			runs = append(runs, run)
			left -= run
		}
		widths, out := make([]float64, len(runs)), make([]Window, len(runs))
		for i := range widths {
			widths[i] = 1
		}
		lay(period, runs, widths, out)
		for _, edge := range out { // the number only rises where one begins
			n := 0
			for _, w := range out {
				if !w.valid() {
					t.Fatalf("invalid %+v", w)
				}
				if run, _ := w.at(unit.Instant(period + edge.Offset)); run {
					n++
				}
			}
			if n > cores {
				t.Fatalf("%d run at once on %d cores at %v: %v", n, cores, edge.Offset, out)
			}
		}
	})
}

// A hog that shares its core gets its grant in the end, by a wider window.
func TestPaceMakesUpForASharedCore(t *testing.T) {
	const period = 50 * time.Millisecond
	const granted = unit.CoreTime(period / 4)
	var p pace
	var cpu, allowed int64
	for range 60 {
		run := p.window(granted, period)
		cpu += int64(run) / 2 // half of the core belongs to another
		allowed += int64(run)
		p.settle(cpu, allowed, period, 1)
	}
	before := cpu
	for range 20 {
		run := p.window(granted, period)
		cpu += int64(run) / 2
		allowed += int64(run)
		p.settle(cpu, allowed, period, 1)
	}
	if got, want := cpu-before, 20*int64(granted); got < want*95/100 || got > want*105/100 {
		t.Errorf("got %v in 20 epochs, want %v", time.Duration(got), time.Duration(want))
	}
}

func TestPaceOfTheOutbid(t *testing.T) {
	var p pace
	p.settle(0, 0, 50*time.Millisecond, 1)
	p.credit = 100e6
	if run := p.window(0, 50*time.Millisecond); run != 0 {
		t.Errorf("granted nothing, but may run %v", run)
	}
	// Half a millisecond an epoch is saved until it is worth a window.
	p = pace{}
	total, cpu := time.Duration(0), int64(0)
	for range 100 {
		run := p.window(500_000, 50*time.Millisecond)
		if run != 0 && run < minWindow {
			t.Fatalf("window of %v", run)
		}
		total += run
		cpu += int64(run)
		p.settle(cpu, cpu, 50*time.Millisecond, 1)
	}
	if total < 45*time.Millisecond || total > 55*time.Millisecond {
		t.Errorf("ran %v of 50 ms granted in 100 epochs", total)
	}
}

func TestFrame(t *testing.T) {
	for _, c := range []struct{ old, elapsed, want time.Duration }{
		{0, 50123 * time.Microsecond, 50 * time.Millisecond},
		{50 * time.Millisecond, 58 * time.Millisecond, 50 * time.Millisecond},
		{50 * time.Millisecond, 101 * time.Millisecond, 100 * time.Millisecond},
		{0, time.Microsecond, 20 * time.Millisecond},
		{50 * time.Millisecond, time.Hour, time.Second},
	} {
		if got := frame(c.old, c.elapsed); got != c.want {
			t.Errorf("frame(%v, %v) = %v, want %v", c.old, c.elapsed, got, c.want)
		}
	}
}

// Time of children that nobody waits for is not lost with them, and time that
// a parent accounts for is not counted twice.
func TestAdoptBooksTheLost(t *testing.T) {
	tr := newTree("/nonexistent", 1, false)
	tr.live = map[int]*process{
		10: {start: 1, parent: 1, waited: 0},
		11: {start: 2, parent: 10, cpu: 50_000_000},
		12: {start: 3, parent: 10, cpu: 70_000_000},
	}
	tr.adopt(map[int]*process{10: {start: 1, parent: 1, waited: 60_000_000}})
	if want := int64(120_000_000 - 60_000_000 - 2*tick); tr.lost != want {
		t.Errorf("lost %d, want %d", tr.lost, want)
	}
}
