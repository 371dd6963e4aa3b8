package meter

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// TestGuests: a group elsewhere in the tree is counted from Add on by its own
// files, those below it too, and what runs in it is not the system's any more.
func TestGuests(t *testing.T) {
	w := newWorld(t)
	inner, err := openFiles(Config{Kind: Files, Parent: w.parent}, roots(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := WithGuests(inner, w.parent)
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	own := w.group("own")
	if err := m.Add(0, own); err != nil {
		t.Fatal(err)
	}
	dir := w.parent.Dir + "-guest"
	deep := filepath.Join(dir, "a", "b")
	for _, d := range []string{dir, filepath.Dir(deep), deep} {
		w.mkdir(d)
	}
	w.run(dir, "/bin/sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done") // before: nobody's
	ref, err := host.Ref(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Add(1, ref); err != nil {
		t.Fatal(err)
	}
	refusal(t, m.Add(1, ref), reasonTaken)
	refusal(t, m.Add(-1, ref), reasonRange)
	samples := make([]Sample, 2)
	before, err := m.Read(samples)
	if err != nil || samples[1].Run != 0 {
		t.Fatalf("%v, %v", samples[1], err)
	}
	cmd := w.start(deep, -1, "/bin/sh", "-c", spin)
	ran(t, m, 1, 100*time.Millisecond)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	empty(t, dir)
	after, err := m.Read(samples)
	if err != nil {
		t.Fatal(err)
	}
	run := samples[1].Run
	if system, busy := after.System-before.System, after.Busy-before.Busy; system > busy-run+20*unit.CoreTime(time.Millisecond) {
		t.Errorf("busy %v, guest %v: the system has %v of it", busy, run, system)
	}
	last, err := m.Remove(1)
	if err != nil || last.Run < run {
		t.Errorf("%v, %v: want at least %v", last, err, run)
	}
	gone, err := m.Read(samples)
	if err != nil || gone.System < after.System {
		t.Errorf("the system's time went from %v back to %v: %v", after.System, gone.System, err)
	}
	if _, err := m.Remove(0); err != nil {
		t.Error(err)
	}
}
