package meter

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func openProcessesMeter(t testing.TB) *processes {
	t.Helper()
	m, err := Open(Config{Kind: Processes, Sweep: 10 * time.Millisecond}, roots(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m.(*processes)
}

// tracked starts a command in a process group of its own and tracks it.
func tracked(t testing.TB, p *processes, slot int, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	if err := p.Add(slot, host.CgroupRef{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Track(slot, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func reap(t testing.TB, p *processes, slot int, cmd *exec.Cmd) unit.CoreTime {
	t.Helper()
	_ = cmd.Wait()
	used := unit.CoreTime(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
	if err := p.Reaped(slot, used); err != nil {
		t.Fatal(err)
	}
	return used
}

// TestProcessesSpin: a process's own clock is exact.
func TestProcessesSpin(t *testing.T) {
	p := openProcessesMeter(t)
	cmd := tracked(t, p, 2, spin)
	samples := make([]Sample, 3)
	eventually(t, "50 ms of running", func() bool {
		_, err := p.Read(samples)
		return err == nil && samples[2].Run > 50*unit.CoreTime(time.Millisecond) && samples[2].Runnable == 1
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	used := reap(t, p, 2, cmd)
	s, err := p.Remove(2)
	if err != nil {
		t.Fatal(err)
	}
	if off := s.Run - used; off > unit.CoreTime(2*time.Microsecond) || off < -unit.CoreTime(2*time.Microsecond) {
		t.Errorf("run %v, wait4 says %v", s.Run, used)
	}
	node, err := p.Read(samples)
	if err != nil {
		t.Fatal(err)
	}
	if node.Busy-node.System != s.Run || samples[2] != (Sample{}) {
		t.Errorf("node %+v and %v after removal of %v", node, samples, s)
	}
}

// TestProcessesNeverMoreThanTheTruth runs a tree with children that are waited
// for, double forks and new sessions, inside a cgroup that knows the truth.
func TestProcessesNeverMoreThanTheTruth(t *testing.T) {
	w := newWorld(t)
	p := openProcessesMeter(t)
	g := w.group("g")
	const work = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"
	cmd := w.start(g.Dir, -1, "/bin/sh", "-c", storm(3)+"; ("+work+"); setsid sh -c '"+work+"; ("+work+" & )' ; ( ("+work+") & ); "+work)
	if err := p.Add(0, host.CgroupRef{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Track(0, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	samples := make([]Sample, 1)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for alive := true; alive; {
		before := samples[0]
		if _, err := p.Read(samples); err != nil {
			t.Fatal(err)
		}
		if samples[0].Run < before.Run || samples[0].Wait < before.Wait {
			t.Fatalf("went from %v to %v", before, samples[0])
		}
		if truth, err := usage(g.Dir); err != nil || time.Duration(samples[0].Run) > truth+testTolerance {
			t.Fatalf("run %v, the truth is %v (%v)", samples[0].Run, truth, err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			alive = false
		case <-time.After(3 * time.Millisecond):
		}
	}
	used := unit.CoreTime(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
	if err := p.Reaped(0, used); err != nil {
		t.Fatal(err)
	}
	empty(t, g.Dir)
	s, err := p.Remove(0)
	if err != nil {
		t.Fatal(err)
	}
	truth, err := usage(g.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("run %v of %v, wait4 %v", s.Run, truth, used)
	if time.Duration(s.Run) > truth+testTolerance || s.Run < used {
		t.Errorf("run %v: want between %v and %v", s.Run, used, truth)
	}
}

// TestProcessesKeepsTreesApart: two trees under one parent.
func TestProcessesKeepsTreesApart(t *testing.T) {
	p := openProcessesMeter(t)
	tracked(t, p, 0, "sleep 100 & "+spin+" & wait")
	tracked(t, p, 1, "exec sleep 100")
	samples := make([]Sample, 2)
	grown := func(what string, by time.Duration) (first, last [2]Sample) {
		first = [2]Sample(samples)
		eventually(t, what, func() bool {
			_, err := p.Read(samples)
			return err == nil && time.Duration(samples[0].Run-first[0].Run) > by && samples[1].Runnable == 0
		})
		return first, [2]Sample(samples)
	}
	grown("a child runs and the sleeper sleeps", 10*time.Millisecond)
	first, last := grown("a child has run 60 ms more", 60*time.Millisecond)
	if last[1].Run-first[1].Run > (last[0].Run-first[0].Run)/2 {
		t.Errorf("beside a spinner, %v to %v, a sleeper went from %v to %v", first[0], last[0], first[1], last[1])
	}
	if s, err := p.ReadOne(0); err != nil || s.Run < samples[0].Run {
		t.Errorf("read one: %v %v after %v", s, err, samples[0])
	}
	refusal(t, p.Track(5, 1), reasonEmpty)
	if err := p.Add(5, host.CgroupRef{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Track(5, 1<<30); err == nil {
		t.Error("tracked a process that cannot be")
	}
}
