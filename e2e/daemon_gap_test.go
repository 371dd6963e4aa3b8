package e2e

import (
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	_ "modernc.org/sqlite"
)

// testament is what a daemon that was killed has left in its journal, read from a
// copy of the file by a program that knows nothing of the market but the keys.
type testament struct {
	at     time.Time
	grid   int64           // factor last in force, 1e-6
	living map[string]will // by workload
	inside bool            // it was killed while it wrote
}

// will is the part of a workload's document that bills are checked with.
type will struct {
	ID    uint64 `json:"id"`
	Terms struct {
		Name string `json:"name"`
	} `json:"terms"`
	Open  bool  `json:"open"`
	Run   int64 `json:"run_ns"`
	Joule int64 `json:"energy_uj"`
	Loss  int64 `json:"loss_ucredits"`
	Spent struct {
		Energy int64 `json:"energy_ucredits"`
	} `json:"spent"`
	Carry struct {
		Energy int64 `json:"energy_pcredits"`
	} `json:"carry"`
	Gaps struct {
		Times int64 `json:"times"`
		CPU   int64 `json:"cpu_ns"`
		Joule int64 `json:"energy_uj"`
		Cost  int64 `json:"cost_ucredits"`
		Loss  int64 `json:"loss_ucredits"`
	} `json:"readopted"`
}

// readTestament reads a dead daemon's journal. The next daemon is to find the files as
// they were left, so that it is a copy that is opened.
func readTestament(t testing.TB, journal string) (m testament) {
	t.Helper()
	m = testament{at: time.Now(), grid: 1_000_000, living: make(map[string]will)}
	copied := filepath.Join(t.TempDir(), "journal.sqlite")
	for _, suffix := range []string{"", "-wal"} {
		text, err := os.ReadFile(journal + suffix)
		if os.IsNotExist(err) {
			continue
		}
		must(t, err)
		must(t, os.WriteFile(copied+suffix, text, 0o600))
		if suffix != "" {
			m.inside = unfinished(text)
		}
	}
	db, err := sql.Open("sqlite", "file:"+copied)
	must(t, err)
	defer func() {
		must(t, db.Close())
		must(t, os.RemoveAll(filepath.Dir(copied)))
	}()
	rows, err := db.Query("SELECT kind, body FROM document WHERE kind IN ('workload', 'grid')")
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var kind string
		var body []byte
		must(t, rows.Scan(&kind, &body))
		var d struct {
			Saved  will  `json:"saved"`
			Factor int64 `json:"factor_ppm"`
		}
		must(t, json.Unmarshal(body, &d))
		if kind == "grid" {
			m.grid = d.Factor
		} else {
			m.living[d.Saved.Terms.Name] = d.Saved
		}
	}
	must(t, rows.Err())
	return m
}

// unfinished reports whether a write-ahead log of SQLite ends in a transaction that
// was not finished: frames after the last that ends one, or half of a frame
// (sqlite.org/fileformat2.html, section 4). What is left of the log before it began
// anew has another salt.
func unfinished(wal []byte) bool {
	const head, frame = 32, 24
	if len(wal) < head {
		return len(wal) > 0
	}
	var order binary.ByteOrder = binary.BigEndian
	if binary.BigEndian.Uint32(wal)&1 == 0 {
		order = binary.LittleEndian
	}
	page := int(binary.BigEndian.Uint32(wal[8:]))
	salt := string(wal[16:24])
	s0, s1 := walSum(order, 0, 0, wal[:24])
	open := false
	for at := head; at < len(wal); at += frame + page {
		f := wal[at:]
		if len(f) >= frame && string(f[8:16]) != salt {
			return open
		}
		if len(f) < frame+page {
			return true
		}
		s0, s1 = walSum(order, s0, s1, f[:8])
		s0, s1 = walSum(order, s0, s1, f[frame:frame+page])
		if s0 != binary.BigEndian.Uint32(f[16:]) || s1 != binary.BigEndian.Uint32(f[20:]) {
			return true // its head is there, its page is not
		}
		open = binary.BigEndian.Uint32(f[4:]) == 0
	}
	return open
}

func walSum(order binary.ByteOrder, s0, s1 uint32, b []byte) (uint32, uint32) {
	for ; len(b) >= 8; b = b[8:] {
		s0 += order.Uint32(b) + s1
		s1 += order.Uint32(b[4:]) + s0
	}
	return s0, s1
}

// TestUnfinished: what a log says of its end, for a log of two pages.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "x.sqlite")
	db, err := sql.Open("sqlite", "file:"+name+"?_pragma=journal_mode(wal)")
	must(t, err)
	defer db.Close()
	_, err = db.Exec("CREATE TABLE x (y); INSERT INTO x VALUES (zeroblob(9000))")
	must(t, err)
	wal, err := os.ReadFile(name + "-wal")
	must(t, err)
	frame := 24 + int(binary.BigEndian.Uint32(wal[8:]))
	if n := (len(wal) - 32) / frame; n < 4 {
		t.Fatalf("%d frames", n)
	}
	last := len(wal) - frame
	torn := append([]byte(nil), wal...)
	torn[last+100]++
	stale := append([]byte(nil), wal[:last]...)
	stale[8+32+frame*0]++ // of an earlier log: nothing is in this one
	for what, test := range map[string]struct {
		wal  []byte
		want bool
	}{
		"whole": {wal, false}, "none": {nil, false}, "its head alone": {wal[:32], false}, "half a head": {wal[:20], true},
		"without its end": {wal[:last], true}, "half a frame": {wal[:last+100], true}, "a torn frame": {torn, true}, "an old one": {stale, false},
	} {
		if got := unfinished(test.wal); got != test.want {
			t.Errorf("%s: unfinished %v", what, got)
		}
	}
}

// killInside kills the daemon when it is seen to write into its journal.
func (w *week) killInside() {
	w.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	must(w.t, err)
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, w.journal()+"-wal", unix.IN_MODIFY)
	must(w.t, err)
	wait := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		// It writes at least once a second; should it not, any moment is as good.
		if _, err := unix.Poll(wait, int(5*time.Second/time.Millisecond)); err != unix.EINTR {
			break
		}
	}
	w.kill()
}

// lost takes over what a daemon that was killed has left, and checks it against what
// the one before it had left.
func (w *week) lost() {
	w.t.Helper()
	m := readTestament(w.t, w.journal())
	if m.inside {
		w.inside++
	}
	if w.will != nil {
		w.reckon(w.will, &m)
	}
	w.will, w.found, w.ready = &m, w.counters(), nil
	w.stopOnFailure()
}

// counters are the kernel's counters of all groups there are.
func (w *week) counters() map[string]time.Duration {
	all := make(map[string]time.Duration)
	dirs, _ := filepath.Glob(filepath.Join(w.top, "w-*"))
	for _, dir := range dirs {
		if u, err := usageOf(dir); err == nil {
			all[strings.TrimPrefix(filepath.Base(dir), "w-")] = u
		}
	}
	return all
}

// reckon checks what the daemon between two kills has charged: for each workload that
// both testaments know, the gap before it as one line by the kernel's counter and the
// factor that was last in force, to the unit, and what ran under it at the factors
// that can have been in force.
func (w *week) reckon(a, b *testament) {
	w.t.Helper()
	life := b.at.Sub(a.at)
	slew := math.Pow(1.1, life.Minutes())
	if r := float64(b.grid) / float64(a.grid); r > slew+1e-5 || r < 1/slew-1e-5 {
		w.t.Errorf("the grid factor went from %d to %d in %v", a.grid, b.grid, life)
	}
	least, most := float64(min(a.grid, b.grid))/slew/1e6, float64(max(a.grid, b.grid))*slew/1e6
	for name, after := range b.living {
		before, old := a.living[name]
		if !old || before.ID != after.ID {
			if after.Gaps.Times != 0 {
				w.t.Errorf("%s is new and was away %d times", name, after.Gaps.Times)
			}
			continue
		}
		switch after.Gaps.Times - before.Gaps.Times {
		case 0: // killed before it took it back
			if after.Run != before.Run || after.Spent != before.Spent {
				w.t.Errorf("%s was charged and not taken back: %+v, then %+v", name, before, after)
			}
			continue
		case 1:
		default:
			w.t.Errorf("%s was taken back %d times by one daemon", name, after.Gaps.Times-before.Gaps.Times)
			continue
		}
		w.gaps++
		w.gap(a, name, &before, &after)
		cpu, joule := after.Gaps.CPU-before.Gaps.CPU, after.Gaps.Joule-before.Gaps.Joule
		paid := after.Gaps.Cost - before.Gaps.Cost + after.Gaps.Loss - before.Gaps.Loss
		if after.Loss > 0 || after.Run == before.Run+cpu {
			continue // a loss may be of rent
		}
		energy := float64(after.Joule - before.Joule - joule)
		cost := float64(after.Spent.Energy - before.Spent.Energy - paid)
		if cost < energy*least-2 || cost > energy*most+2 {
			w.t.Errorf("%s: %.0f uJ cost %.0f micro-$J, the grid factor was %.4f to %.4f", name, energy, cost, least, most)
		}
		w.priced++
	}
}

// gap recomputes one readopted line.
func (w *week) gap(a *testament, name string, before, after *will) {
	w.t.Helper()
	cpu := after.Gaps.CPU - before.Gaps.CPU
	joule := after.Gaps.Joule - before.Gaps.Joule
	paid := after.Gaps.Cost - before.Gaps.Cost + after.Gaps.Loss - before.Gaps.Loss
	if want := w.reference * cpu / 1_000_000_000; joule != want { // 10 W for some seconds is far below 2^63
		w.t.Errorf("%s: a gap of %v was taken for %d uJ, want %d", name, time.Duration(cpu), joule, want)
	}
	if want := (joule*a.grid + before.Carry.Energy) / 1_000_000; paid != want {
		w.t.Errorf("%s: a gap of %d uJ at a grid factor of %d cost %d, want %d", name, joule, a.grid, paid, want)
	}
	read := time.Duration(before.Run + cpu)
	low, was := w.found[name]
	high, ready := w.ready[name]
	if was && read < low-time.Microsecond || ready && read > high+time.Microsecond {
		w.t.Errorf("%s: charged up to %v when it was taken back, the kernel counted %v before and %v after", name, read, low, high)
	}
}
