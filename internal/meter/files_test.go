package meter

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func openFilesMeter(t testing.TB, w *world) *files {
	t.Helper()
	m, err := Open(Config{Kind: Files, Parent: w.parent}, roots(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m.(*files)
}

func (w *world) pressure(f *files) {
	w.t.Helper()
	if f.noPSI != nil {
		w.t.Logf("waiting is not counted here: %v", f.noPSI)
	}
}

// TestFilesAgainstTheirSource counts a spinner and a small storm by files.
func TestFilesAgainstTheirSource(t *testing.T) {
	w := newWorld(t)
	f := openFilesMeter(t, w)
	for slot, script := range []string{spin, storm(10)} {
		g := w.group(fmt.Sprint("g", slot))
		if err := f.Add(slot, g); err != nil {
			t.Fatal(err)
		}
		cmd := w.start(g.Dir, -1, "/bin/sh", "-c", script)
		if slot == 0 {
			ran(t, f, slot, 50*time.Millisecond)
			kill(g.Dir)
		}
		_ = cmd.Wait()
		empty(t, g.Dir)
		s, err := f.Remove(slot)
		if err != nil {
			t.Fatal(err)
		}
		exact(t, s, g.Dir)
	}
}

// TestFilesWait: of two spinners on one processor each waits when the other
// runs; a lower bound must not be more than the truth.
func TestFilesWait(t *testing.T) {
	w := newWorld(t)
	f := openFilesMeter(t, w)
	w.pressure(f)
	cpu := lastCPU(t)
	for slot, name := range []string{"a", "b"} {
		g := w.group(name)
		if err := f.Add(slot, g); err != nil {
			t.Fatal(err)
		}
		w.start(g.Dir, cpu, "/bin/sh", "-c", spin)
	}
	ran(t, f, 0, 30*time.Millisecond)
	ran(t, f, 1, 30*time.Millisecond)
	for slot, s := range watch(t, f, 400*time.Millisecond, 2) {
		t.Log(slot, s)
		if s.run+s.wait > s.elapsed*101/100+s.slack+10*time.Millisecond {
			t.Errorf("slot %d: %v: more than the time", slot, s)
		}
		if f.noPSI == nil && s.run+s.wait < (s.elapsed-s.slack)*9/10 {
			t.Errorf("slot %d: %v: a lone waiter is seen in full", slot, s)
		}
		if s.runnable != Unknown {
			t.Errorf("slot %d: %v: runnable cannot be known", slot, s)
		}
	}
}

// TestFilesFindsColdMovers: with many cold wallets, those that run are found
// by the market's counter within a few reads, and nothing is lost.
func TestFilesFindsColdMovers(t *testing.T) {
	w := newWorld(t)
	f := openFilesMeter(t, w)
	const n = 600
	refs := make([]host.CgroupRef, n)
	for slot := range refs {
		refs[slot] = w.group(fmt.Sprint("w", slot))
		if err := f.Add(slot, refs[slot]); err != nil {
			t.Fatal(err)
		}
	}
	samples := make([]Sample, n)
	for range warm + 1 {
		if _, err := f.Read(samples); err != nil {
			t.Fatal(err)
		}
	}
	hot := func() (n int) {
		for _, s := range f.slots {
			if s.heat > 0 {
				n++
			}
		}
		return n
	}
	if h := hot(); h != 0 {
		t.Errorf("%d of %d idle wallets are hot after %d reads", h, n, warm+1)
	}
	for _, slot := range []int{599, 3, 300} {
		w.run(refs[slot].Dir, "/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
		empty(t, refs[slot].Dir)
		reads := 0
		for samples[slot].Run == 0 {
			if _, err := f.Read(samples); err != nil {
				t.Fatal(err)
			}
			reads++
		}
		// A quarter of the wallets in each read, beginning anywhere.
		if reads > searchShare+1 {
			t.Errorf("slot %d was found after %d reads", slot, reads)
		}
		exact(t, samples[slot], refs[slot].Dir)
	}
	if h := hot(); h > 3 {
		t.Errorf("%d wallets are hot, three ran", h)
	}
	node, err := f.Read(samples)
	if err != nil {
		t.Fatal(err)
	}
	var sum unit.CoreTime
	for _, s := range samples {
		sum += s.Run
	}
	if node.Busy-node.System != sum {
		t.Errorf("busy - system is %v, the wallets' sum %v", node.Busy-node.System, sum)
	}
	if d := f.Describe(); d.Reads == 0 || d.Cost <= 0 || d.Slots != n {
		t.Errorf("no cost stated: %+v", d)
	}
}

// TestFilesFindsTheStarved: a wallet that waits moves no run counter; the
// rotation finds it.
func TestFilesFindsTheStarved(t *testing.T) {
	w := newWorld(t)
	f := openFilesMeter(t, w)
	if f.noPSI != nil {
		w.pressure(f)
		return // nothing to find
	}
	g := w.group("g")
	if err := f.Add(0, g); err != nil {
		t.Fatal(err)
	}
	for slot := 1; slot < 200; slot++ {
		if err := f.Add(slot, w.group(fmt.Sprint("w", slot))); err != nil {
			t.Fatal(err)
		}
	}
	samples := make([]Sample, 200)
	for range warm + 1 {
		if _, err := f.Read(samples); err != nil {
			t.Fatal(err)
		}
	}
	cpu := lastCPU(t)
	w.stranger(cpu, "/bin/sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
	w.start(g.Dir, cpu, "/bin/sh", "-c", spin)
	eventually(t, "the waiting of slot 0 is seen", func() bool {
		f.debt = -1 << 60 // the market's counter tells nothing: only the rotation can find it
		_, err := f.Read(samples)
		return err == nil && samples[0].Wait > 0
	})
}

// TestFilesWithoutDescriptors: what is not kept open is opened for the read.
func TestFilesWithoutDescriptors(t *testing.T) {
	w := newWorld(t)
	f := openFilesMeter(t, w)
	f.keep = 1
	g := w.group("g")
	if err := f.Add(0, g); err != nil {
		t.Fatal(err)
	}
	if f.kept != 0 {
		t.Errorf("%d descriptors kept", f.kept)
	}
	w.run(g.Dir, "/bin/sh", "-c", storm(5))
	empty(t, g.Dir)
	s, err := f.Remove(0)
	if err != nil {
		t.Fatal(err)
	}
	exact(t, s, g.Dir)
}

// TestFilesV1 counts by cpuacct alone, as on a machine without cgroup2.
func TestFilesV1(t *testing.T) {
	w := newWorld(t, host.CPUAcct)
	only := w.parent
	only.Dir = ""
	m, err := Open(Config{Kind: Files, Parent: only}, roots(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	g := w.group("g")
	ref := g
	ref.Dir = ""
	if err := m.Add(0, ref); err != nil {
		t.Fatal(err)
	}
	cmd := w.start(g.Dir, -1, "/bin/sh", "-c", spin)
	write(t, g.V1[host.CPUAcct], "tasks", cmd.Process.Pid)
	samples := make([]Sample, 1)
	var node Node
	eventually(t, "50 ms of running", func() bool {
		node, err = m.Read(samples)
		return err == nil && samples[0].Run > 50*unit.CoreTime(time.Millisecond)
	})
	if node.Busy < node.System || node.Busy-node.System != samples[0].Run {
		t.Errorf("node %+v with %v", node, samples[0])
	}
	kill(g.Dir)
	_ = cmd.Wait()
	s, err := m.Remove(0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(g.V1[host.CPUAcct], accountName))
	if err != nil {
		t.Fatal(err)
	}
	if want, err := host.ParseInt(b); err != nil || int64(s.Run) != want {
		t.Errorf("run %d, cpuacct %d", s.Run, want)
	}
	if d := m.Describe(); d.Wait != "not counted" || len(d.Refused) != 1 {
		t.Errorf("%+v", d)
	}
}
