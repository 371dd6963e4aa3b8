package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lab is a place whose calls are watched while they run, and whose groups are
// remembered, so that what a test broke on purpose can be told from what is
// another market's.
type lab struct {
	*place
	t        *testing.T
	who      *syscall.Credential // who calls; nil: the test itself
	groups   map[string]uint64   // inode of each directory of ours, by path
	settings map[string]string   // of groups that are nobody's market, before
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return &lab{place: newPlace(t), t: t, groups: map[string]uint64{}, settings: neighbours()}
}

// prompt bounds waits for what takes milliseconds on a quiet machine.
const prompt = 20 * time.Second

// watch starts a call in a session of its own, so that no terminal of the
// test's is in the way, and returns at once.
func (l *lab) watch(args ...string) *watched {
	l.t.Helper()
	cmd := l.command(args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: l.who}
	cmd.Dir = "/"
	return l.observe(cmd)
}

// observe starts a command whose output is read while it runs.
func (l *lab) observe(cmd *exec.Cmd) *watched {
	l.t.Helper()
	w := &watched{t: l.t, cmd: cmd, ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &w.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &w.errors
	}
	cmd.WaitDelay = time.Second // for tests that leave somebody behind who holds the pipe
	must(l.t, cmd.Start())
	go func() { // ends with the process
		defer close(w.ended)
		_ = cmd.Wait()
		if s := cmd.ProcessState; s != nil {
			w.code = s.ExitCode()
			if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				w.code = 128 + int(ws.Signal())
			}
		}
	}()
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-w.ended
		if l.t.Failed() {
			l.t.Logf("maxwell %s: exit %d\nstdout: %s\nstderr: %s", strings.Join(cmd.Args[1:], " "), w.code,
				tail(w.out.String()), tail(w.errors.String()))
		}
	})
	return w
}

// watched is a call while it runs.
type watched struct {
	t           *testing.T
	cmd         *exec.Cmd
	out, errors transcript
	ended       chan struct{}
	code        int // after ended, as a shell shows it
}

// transcript is what a process has printed so far.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func tail(s string) string {
	const most = 2000
	if len(s) > most {
		return "..." + s[len(s)-most:]
	}
	return s
}

// end waits for the call's end and returns its exit code.
func (w *watched) end() int {
	w.t.Helper()
	select {
	case <-w.ended:
	case <-time.After(prompt):
		w.t.Fatalf("%v has not ended within %v", w.cmd.Args[1:], prompt)
	}
	return w.code
}

// says waits until standard output holds a text.
func (w *watched) says(text string) {
	w.t.Helper()
	await(w.t, fmt.Sprintf("%q on standard output", text), func() bool {
		select {
		case <-w.ended:
			if !strings.Contains(w.out.String(), text) {
				w.t.Fatalf("%v ended with %d and never said %q", w.cmd.Args[1:], w.code, text)
			}
		default:
		}
		return strings.Contains(w.out.String(), text)
	})
}

func (w *watched) signal(sig syscall.Signal) {
	w.t.Helper()
	must(w.t, w.cmd.Process.Signal(sig))
}

// await waits until a condition holds, or fails the test.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !eventually(prompt, holds) {
		t.Fatalf("waited %v for %s", prompt, what)
	}
}

// stateOf is the state letter of a process, "" when it is gone.
func stateOf(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	end := bytes.LastIndexByte(text, ')')
	if err != nil || end < 0 || len(text) < end+3 {
		return ""
	}
	return string(text[end+2 : end+3])
}

// verb is the lab's process that runs a hidden verb, 0 if there is none.
func (l *lab) verb(name string) int {
	for _, pid := range l.processes() {
		if args := strings.Fields(commandLine(pid)); len(args) > 1 && args[1] == name {
			return pid
		}
	}
	return 0
}

// workers lists the lab's processes whose command line holds a text.
func (l *lab) workers(text string) []int {
	var pids []int
	for _, pid := range l.processes() {
		line := commandLine(pid)
		if strings.Contains(line, text) && !strings.Contains(line, " run ") && !strings.Contains(line, " shim ") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// remember notes the directories that the lab's processes are in.
func (l *lab) remember() {
	for _, pid := range l.processes() {
		for _, dir := range groupsOf(pid) {
			var st unix.Stat_t
			if unix.Stat(dir, &st) == nil {
				l.groups[dir] = st.Ino
			}
		}
	}
}

// remaining lists the remembered directories that still are.
func (l *lab) remaining() []string {
	var list []string
	for dir, ino := range l.groups {
		var st unix.Stat_t
		if unix.Stat(dir, &st) == nil && st.Ino == ino {
			list = append(list, dir)
		}
	}
	slices.Sort(list)
	return list
}

// clean checks that nothing of the lab is left now: no process, running or
// stopped, no directory, no setting of others, no file but the log.
func (l *lab) clean() {
	l.t.Helper()
	await(l.t, "the lab's last process to end", func() bool { return len(l.processes()) == 0 })
	if left := l.remaining(); len(left) > 0 {
		l.t.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	after := neighbours()
	for file, was := range l.settings {
		if is, ok := after[file]; ok && is != was {
			l.t.Errorf("%s was %q and is %q", file, was, is)
		}
	}
	files, err := os.ReadDir(l.dir)
	must(l.t, err)
	for _, f := range files {
		if f.Name() != "market.log" {
			l.t.Errorf("left in the runtime directory: %s", f.Name())
		}
	}
}

// groupsOf lists the directories of markets that a process is in: its own and
// those above it.
func groupsOf(pid int) []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		path := part[2] + "/"
		for i := range path {
			if path[i] != '/' || !strings.Contains(path[:i], "/maxwell") {
				continue
			}
			for _, mount := range cgroupMounts() { // where it is not, there is nothing to remember
				list = append(list, mount+path[:i])
			}
		}
	}
	return list
}

// neighbours reads what a market could change of groups that are nobody's
// market.
func neighbours() map[string]string {
	settings := map[string]string{}
	for _, mount := range cgroupMounts() {
		_ = filepath.WalkDir(mount, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // gone meanwhile
			}
			if d.IsDir() && strings.HasPrefix(d.Name(), "maxwell") {
				return filepath.SkipDir
			}
			switch d.Name() {
			case "cpu.shares", "cpu.weight", "cpu.idle", "cpu.cfs_quota_us", "cpu.max", "freezer.state", "cgroup.freeze":
				if text, err := os.ReadFile(path); err == nil {
					settings[path] = string(text)
				}
			}
			return nil
		})
	}
	return settings
}
