package meter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// checkDescendantsAreCharged: a governed process may make cgroups of its own
// below its wallet's.
func checkDescendantsAreCharged(t *testing.T, w *world, k *kernel) {
	g := w.group("g")
	if err := k.Add(0, g); err != nil {
		t.Fatal(err)
	}
	deep := g.Dir
	for range 3 {
		deep = filepath.Join(deep, "deeper")
		w.mkdir(deep)
	}
	cmd := w.start(deep, -1, "/bin/sh", "-c", spin)
	ran(t, k, 0, 30*time.Millisecond)
	if s, err := k.ReadOne(0); err != nil || k.waits() && s.Runnable != 1 {
		t.Errorf("%v %v: want one runnable", s, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	empty(t, g.Dir)
	settled(t, k, 0, g.Dir)
	s, err := k.Remove(0)
	if err != nil {
		t.Fatal(err)
	}
	exact(t, s, g.Dir)
}

// checkSystemAndSelf: time of nobody's tasks is the system's, and ours is also
// shown by itself.
func checkSystemAndSelf(t *testing.T, w *world, k *kernel) {
	g := w.group("g")
	if err := k.Add(0, g); err != nil {
		t.Fatal(err)
	}
	w.start(g.Dir, -1, "/bin/sh", "-c", spin)
	w.stranger(-1, "/bin/sh", "-c", spin)
	ran(t, k, 0, 10*time.Millisecond)

	samples := make([]Sample, 1)
	first, err := k.Read(samples)
	if err != nil {
		t.Fatal(err)
	}
	run, self, begin := samples[0].Run, mustSelf(t), time.Now()
	for mustSelf(t)-self < 50*unit.CoreTime(time.Millisecond) {
		continue // our own time, on purpose
	}
	last, err := k.Read(samples)
	if err != nil {
		t.Fatal(err)
	}
	// A tick's worth may have run before the first read and be added after.
	const tick = 10 * unit.CoreTime(time.Millisecond)
	most := (unit.CoreTime(time.Since(begin)) + tick) * unit.CoreTime(len(k.counters.Cores))
	used := mustSelf(t) - self
	if have := last.Self - first.Self; have < used-tick || have > used+tick {
		t.Errorf("self %v, our own clock %v", have, used)
	}
	if have := last.System - first.System; have < last.Self-first.Self || have > most {
		t.Errorf("system %v: want between self %v and %v", have, last.Self-first.Self, most)
	}
	if have, want := last.Busy-last.System-(first.Busy-first.System), samples[0].Run-run; have != want {
		t.Errorf("busy - system grew by %v, the only wallet by %v", have, want)
	}
}

func mustSelf(t testing.TB) unit.CoreTime {
	t.Helper()
	self, err := selfTime()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func refusal(t *testing.T, err error, reason string) {
	t.Helper()
	if e, ok := errors.AsType[*SlotError](err); !ok || e.Reason != reason {
		t.Errorf("have %v, want %s", err, reason)
	}
}

func TestSlotRefusals(t *testing.T) {
	w := newWorld(t)
	k := openKernel(t, w, 2)
	f, err := Open(Config{Kind: Files, Parent: w.parent}, roots(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, m := range []Meter{k, f} {
		t.Run(string(m.Describe().Kind), func(t *testing.T) {
			a := w.group("a" + string(m.Describe().Kind))
			refusal(t, m.Add(-1, a), reasonRange)
			refusal(t, m.Add(MaxSlots, a), reasonRange)
			refusal(t, m.Add(0, w.parent), reasonDir)
			if err := m.Add(7, a); err != nil {
				t.Fatal(err)
			}
			refusal(t, m.Add(7, a), reasonTaken)
			_, err := m.ReadOne(6)
			refusal(t, err, reasonEmpty)
			if _, err := m.Remove(7); err != nil {
				t.Error(err)
			}
			_, err = m.Remove(7)
			refusal(t, err, reasonEmpty)
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if _, err := m.Read(nil); !errors.Is(err, errClosed) {
				t.Errorf("read after close: %v", err)
			}
			if err := m.Add(0, a); !errors.Is(err, errClosed) {
				t.Errorf("add after close: %v", err)
			}
			if err := m.Close(); err != nil {
				t.Errorf("second close: %v", err)
			}
		})
	}
}

// TestCellIsNotReusedWhileCounted: a wallet removed alive leaves tasks that
// are still counted in its cell; a new wallet must not inherit them.
func TestCellIsNotReusedWhileCounted(t *testing.T) {
	w := newWorld(t)
	k := openKernel(t, w, 1)
	w.waiting(k)
	a, b := w.group("a"), w.group("b")
	if err := k.Add(0, a); err != nil {
		t.Fatal(err)
	}
	cmd := w.start(a.Dir, -1, "/bin/sh", "-c", spin)
	ran(t, k, 0, 10*time.Millisecond)
	write(t, a.Dir, "cgroup.freeze", 1)
	eventually(t, "frozen", func() bool { s, err := k.ReadOne(0); return err == nil && s.Runnable == 0 })
	frozen, err := k.Remove(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Add(1, b); err != nil {
		t.Fatal(err) // nobody is runnable: the cell is free
	}
	if s, err := k.ReadOne(1); err != nil || s != (Sample{}) {
		t.Errorf("a new wallet begins with %v, %v", s, err)
	}
	if _, err := k.Remove(1); err != nil {
		t.Fatal(err)
	}
	// Governed again, and removed while it runs.
	if err := k.Add(0, a); err != nil {
		t.Fatal(err)
	}
	write(t, a.Dir, "cgroup.freeze", 0)
	ran(t, k, 0, 10*time.Millisecond)
	again, err := k.Remove(0)
	if err != nil {
		t.Fatal(err)
	}
	added := k.Add(1, b)
	if added != nil {
		refusal(t, added, reasonFull)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if added != nil {
		eventually(t, "the cell is free", func() bool { return k.Add(1, b) == nil })
	}
	if s, err := k.ReadOne(1); err != nil || s != (Sample{}) {
		t.Errorf("a new wallet begins with %v, %v", s, err)
	}
	if frozen.Run == 0 || again.Run == 0 {
		t.Errorf("samples %v and %v", frozen, again)
	}
}

// checkLastMicroseconds: a process still runs when its parent already knows
// that it is dead. Remove waits for that.
func checkLastMicroseconds(t *testing.T, w *world, k *kernel) {
	w.waiting(k)
	for i := range 30 {
		g := w.group(fmt.Sprint("last", i))
		if err := k.Add(0, g); err != nil {
			t.Fatal(err)
		}
		cmd := w.start(g.Dir, -1, "/bin/sh", "-c", "(:)")
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		have, err := k.Remove(0)
		if err != nil {
			t.Fatal(err)
		}
		if have.Runnable != 0 {
			continue // more than two milliseconds late: a machine this busy proves nothing
		}
		empty(t, g.Dir)
		exact(t, have, g.Dir)
	}
}

// TestThousandsOfWallets adds, reads and removes wallets of which a few run.
func TestThousandsOfWallets(t *testing.T) {
	w := newWorld(t)
	const n = 2000
	k := openKernel(t, w, n)
	refs := make([]host.CgroupRef, n)
	for slot := range refs {
		refs[slot] = w.group(fmt.Sprintf("w%d", slot))
		if err := k.Add(slot, refs[slot]); err != nil {
			t.Fatal(err)
		}
	}
	refusal(t, k.Add(n, w.group("late")), reasonFull)
	start, err := k.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	for slot := 0; slot < n; slot += n / 20 {
		w.run(refs[slot].Dir, "/bin/sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done")
		settled(t, k, slot, refs[slot].Dir)
	}
	samples := make([]Sample, n)
	end, err := k.Read(samples)
	if err != nil {
		t.Fatal(err)
	}
	var sum unit.CoreTime
	for slot, s := range samples {
		sum += s.Run
		if slot%(n/20) == 0 {
			exact(t, s, refs[slot].Dir)
		} else if s.Run != 0 || s.Wait != 0 {
			t.Errorf("slot %d: %v without a process", slot, s)
		}
	}
	if have := end.Busy - end.System - (start.Busy - start.System); have != sum {
		t.Errorf("busy - system is %v, the wallets' sum %v", have, sum)
	}
	for slot := range refs {
		if _, err := k.Remove(slot); err != nil {
			t.Fatal(err)
		}
	}
	after, err := k.Read(samples)
	if err != nil {
		t.Fatal(err)
	}
	if have := after.Busy - after.System - (start.Busy - start.System); have != sum {
		t.Errorf("after all are removed busy - system is %v, want %v", have, sum)
	}
	d := k.Describe()
	t.Logf("read of %d: %s on average of %d", n, d.Cost, d.Reads)
}

// TestOpenFallsBack: without a place to count in, Open takes what is left and
// says why.
func TestOpenFallsBack(t *testing.T) {
	m, err := Open(Config{}, roots(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d := m.Describe()
	if d.Kind != Processes || !d.LowerBound || len(d.Refused) != 2 {
		t.Errorf("%+v", d)
	}
	for _, err := range d.Refused {
		if !errors.Is(err, host.ErrUnavailable) {
			t.Errorf("refusal without a class: %v", err)
		}
	}
	// A directory that is no cgroup: BPF cannot place it, files cannot read it.
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "market"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{Kind: BPF, Parent: host.CgroupRef{Dir: filepath.Join(dir, "market")}}, roots(t))
	if u, ok := errors.AsType[*host.Unavailable](err); !ok || u.Feature != host.FeatureBPF || u.Reason == "" {
		t.Errorf("BPF in a plain directory: %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	for name, c := range map[string]Config{
		"kind":   {Kind: "psychic"},
		"parent": {Kind: BPF},
		"slots":  {Slots: -1},
		"many":   {Slots: MaxSlots + 1},
		"sweep":  {Sweep: -1},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s: %+v accepted", name, c)
		}
		if _, err := Open(c, host.Roots{}); err == nil {
			t.Errorf("%s: %+v opened", name, c)
		}
	}
}
