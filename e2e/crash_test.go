package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// storm is a tree that renews itself, each branch in a session of its own, deaf
// to what can be ignored.
const storm = `trap "" TERM HUP; echo up
for i in 1 2 3 4 5 6; do setsid sh -c 'while :; do (sleep 0.3 & sleep 0.2); done' & done
while :; do sleep 1; done`

// deaf is a command that ignores SIGTERM, and says when one came.
const deaf = `trap "echo deaf" TERM; trap "" INT; echo up; while :; do sleep 0.05; done`

// enforcements tries both, the first where cgroups can be made.
func enforcements(t *testing.T, try func(t *testing.T, enforce string)) {
	t.Helper()
	for _, e := range []string{"cgroup", "signal"} {
		t.Run(e, func(t *testing.T) {
			t.Parallel()
			if e == "cgroup" {
				needCgroups(t)
			}
			try(t, e)
		})
	}
}

// TestRunEndsBySignal sends signals to `maxwell run`: they are the command's,
// and when it has ended nothing is left, with a shell's exit code.
func TestRunEndsBySignal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		signal syscall.Signal
		want   int
	}{
		"INT":                {"echo up; exec sleep 50", syscall.SIGINT, 130},
		"TERM":               {"echo up; exec sleep 50", syscall.SIGTERM, 143},
		"HUP":                {"echo up; exec sleep 50", syscall.SIGHUP, 129},
		"TERM and own code":  {`trap "exit 3" TERM; echo up; while :; do sleep 0.05; done`, syscall.SIGTERM, 3},
		"TERM and children":  {`sleep 50 & setsid sleep 50 & echo up; exec sleep 50`, syscall.SIGTERM, 143},
		"KILL of the client": {storm, syscall.SIGKILL, 137},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			enforcements(t, func(t *testing.T, enforce string) {
				l := newLab(t)
				w := l.watch("run", "--enforcement", enforce, "--", "sh", "-c", c.script)
				w.says("up")
				l.remember()
				w.signal(c.signal)
				if code := w.end(); code != c.want {
					t.Errorf("exit %d, want %d", code, c.want)
				}
				l.clean()
			})
		})
	}
}

// TestRunDeafCommand: as with docker run, a signal is the command's to ignore;
// whoever wants more kills the client.
func TestRunDeafCommand(t *testing.T) {
	t.Parallel()
	enforcements(t, func(t *testing.T, enforce string) {
		l := newLab(t)
		w := l.watch("run", "--enforcement", enforce, "--", "sh", "-c", deaf)
		w.says("up")
		l.remember()
		w.signal(syscall.SIGINT)
		w.signal(syscall.SIGTERM)
		w.says("deaf")
		w.signal(syscall.SIGKILL)
		w.end()
		l.clean()
	})
}

// fleetOf writes a fleet file of workloads whose command is a script.
func fleetOf(t *testing.T, node string, scripts ...string) string {
	t.Helper()
	var b strings.Builder
	if node != "" {
		fmt.Fprintf(&b, "node: %s\n", node)
	}
	b.WriteString("workloads:\n")
	for i, script := range scripts {
		fmt.Fprintf(&b, "  w%d: {command: [sh, -c, %q]}\n", i, script)
	}
	return writeFleet(t, b.String())
}

func writeFleet(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fleet.yaml")
	must(t, os.WriteFile(name, []byte(text), 0o644))
	return name
}

// TestUpEndsBySignal ends a fleet, one part of which is deaf and one a storm:
// the closing statement is printed, and nothing is left.
func TestUpEndsBySignal(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			enforcements(t, func(t *testing.T, enforce string) {
				l := newLab(t)
				logs := t.TempDir()
				w := l.watch("up", "--enforcement", enforce, "--logs", logs, fleetOf(t, "", "echo up; sleep 50", deaf, storm))
				for i := range 3 {
					await(t, fmt.Sprintf("workload %d", i), func() bool {
						text, _ := os.ReadFile(filepath.Join(logs, fmt.Sprintf("w%d.log", i)))
						return strings.Contains(string(text), "up")
					})
				}
				l.remember()
				w.signal(sig)
				if code := w.end(); code != 128+int(sig) {
					t.Errorf("exit %d, want %d", code, 128+int(sig))
				}
				for i := range 3 {
					if !strings.Contains(w.out.String(), fmt.Sprintf("w%d", i)) {
						t.Errorf("no closing statement of w%d", i)
					}
				}
				if !strings.Contains(w.out.String(), "stopped") {
					t.Error("the closing statement does not say that they were stopped")
				}
				l.clean()
			})
		})
	}
}

// TestUpSecondInterrupt does not wait for the dying lane.
func TestUpSecondInterrupt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	logs := t.TempDir()
	w := l.watch("up", "--logs", logs, fleetOf(t, "", deaf))
	await(t, "the workload", func() bool {
		text, _ := os.ReadFile(filepath.Join(logs, "w0.log"))
		return strings.Contains(string(text), "up")
	})
	l.remember()
	w.signal(syscall.SIGINT)
	w.signal(syscall.SIGINT)
	if code := w.end(); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
	if !strings.Contains(w.out.String(), "w0") {
		t.Error("no closing statement")
	}
	l.clean()
}

// toldOnce checks what the client of a dead market says: one line, exit 125.
func toldOnce(t *testing.T, w *watched) {
	t.Helper()
	if code := w.end(); code != 125 {
		t.Errorf("exit %d, want 125", code)
	}
	said := strings.TrimSpace(w.errors.String())
	if strings.Contains(said, "\n") || !strings.HasPrefix(said, "maxwell: ") || !strings.Contains(said, "the market ended unexpectedly; see ") {
		t.Errorf("said %q, want one line that the market ended and where its log is", said)
	}
}

// TestMarketDies ends the market in every sudden way: its watchdog ends the
// trees and removes the directories, and the clients say so.
func TestMarketDies(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{
		"panic in the loop": {"--panic-at-tick", "20", "--panic-in", "loop"},
		"panic in a worker": {"--panic-at-tick", "20", "--panic-in", "worker"},
		"panic in a call":   {"--panic-at-tick", "20", "--panic-in", "rpc"},
		"kill":              nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			enforcements(t, func(t *testing.T, enforce string) {
				l := newLab(t)
				w := l.watch(append(append([]string{"run", "--enforcement", enforce}, flags...), "--", "sh", "-c", storm)...)
				if flags == nil {
					w.says("up")
					l.remember()
					must(t, syscall.Kill(l.verb("node"), syscall.SIGKILL))
				} else {
					l.until(w)
				}
				toldOnce(t, w)
				l.clean()
			})
		})
	}
}

// TestMarketToldToStop ends everything in order, and the clients get their
// closing lines.
func TestMarketToldToStop(t *testing.T) {
	t.Parallel()
	enforcements(t, func(t *testing.T, enforce string) {
		l := newLab(t)
		w := l.watch("run", "--enforcement", enforce, "--", "sh", "-c", storm)
		w.says("up")
		l.remember()
		must(t, syscall.Kill(l.verb("node"), syscall.SIGTERM))
		if code := w.end(); code != 137 || !strings.Contains(w.errors.String(), "stopped (exit 137)") {
			t.Errorf("exit %d without closing lines, want 137 with them", code)
		}
		l.clean()
	})
}

// until remembers the lab's groups, and makes calls, until w has ended.
func (l *lab) until(w *watched) {
	for running := true; running; {
		select {
		case <-w.ended:
			running = false
		default:
			l.remember()
			l.run("fund", "nobody", "1") // a call to panic in
		}
	}
}

// TestUpMarketDies is the same for a fleet.
func TestUpMarketDies(t *testing.T) {
	t.Parallel()
	enforcements(t, func(t *testing.T, enforce string) {
		l := newLab(t)
		w := l.watch("up", "--enforcement", enforce, "--panic-at-tick", "30", "--panic-in", "loop", fleetOf(t, "", deaf, storm))
		await(t, "the market", func() bool { l.remember(); return l.verb("node") != 0 })
		l.until(w)
		toldOnce(t, w)
		l.clean()
	})
}

// TestMarketAndWatchdogDie leaves what nobody could clean; the next start, or
// the doctor, does, and touches nothing that is not marked.
func TestMarketAndWatchdogDie(t *testing.T) {
	for name, cure := range map[string][]string{
		"next start": {"run", "-q", "--", "true"},
		"doctor":     {"doctor", "--repair"},
	} {
		t.Run(name, func(t *testing.T) {
			needCgroups(t)
			stranger := filepath.Join(mountsOf("cgroup2")[0], fmt.Sprintf("maxwell-test-stranger-%d", os.Getpid()))
			must(t, os.Mkdir(stranger, 0o755))
			defer os.Remove(stranger)
			l := newLab(t)
			w := l.watch("run", "--enforcement", "cgroup", "--", "sh", "-c", storm)
			w.says("up")
			l.remember()
			if len(l.groups) == 0 {
				t.Fatal("no groups to remember")
			}
			dog, market := l.verb("watchdog"), l.verb("node")
			must(t, syscall.Kill(dog, syscall.SIGKILL))
			must(t, syscall.Kill(market, syscall.SIGKILL))
			toldOnce(t, w)
			if len(l.remaining()) == 0 {
				t.Fatal("nothing was left: this test tests nothing")
			}
			if r := l.run(cure...); r.code != 0 {
				t.Errorf("%v: %v", cure, r)
			}
			l.clean()
			if _, err := os.Stat(stranger); err != nil {
				t.Errorf("a directory that is not Maxwell's: %v", err)
			}
		})
	}
}

// TestClientKilled ends the workload of a killed client, and no other; the
// market goes on with whom is left, even when its founder goes.
func TestClientKilled(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{"KILL": syscall.SIGKILL, "HUP": syscall.SIGHUP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			enforcements(t, func(t *testing.T, enforce string) {
				l := newLab(t)
				goes := l.watch("run", "--enforcement", enforce, "--name", "goes", "--", "sh", "-c", "echo up; exec sleep 51")
				goes.says("up")
				door, keeper := newDoor(t)
				cmd := l.command("run", "--name", "stays", "--", "sh", "-c", "echo up; read line; echo got $line; exit 4")
				cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
				cmd.Stdin = door
				stays := l.observe(cmd)
				stays.says("up")
				market := l.verb("node")
				l.remember()
				goes.signal(sig)
				goes.end()
				await(t, "the killed client's workload to end", func() bool { return len(l.workers("sleep 51")) == 0 })
				if l.verb("node") != market || len(l.workers("read line")) == 0 {
					t.Error("the other workload or its market ended too")
				}
				_, err := keeper.WriteString("on\n")
				must(t, err)
				if code := stays.end(); code != 4 || !strings.Contains(stays.out.String(), "got on") {
					t.Errorf("the other workload ended with %d", code)
				}
				l.clean()
			})
		})
	}
}

// newDoor is a pipe that holds a command back until the test lets it go on.
func newDoor(t *testing.T) (inside, outside *os.File) {
	t.Helper()
	inside, outside, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { inside.Close(); outside.Close() })
	return inside, outside
}
