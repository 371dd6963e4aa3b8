package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// office is a lab whose market is a daemon, on a machine where groups are that
// others made.
type office struct {
	*lab
	file    string // its configuration
	socket  string
	top     string // of the groups that others made, in cgroup2
	name    string // of top
	daemon  *watched
	workers map[string]*exec.Cmd // by path of their group below top
}

var offices atomic.Int32

// newOffice writes a configuration, in which TOP stands for the name of the group
// that this test's others live below.
func newOffice(t *testing.T, rules string) *office {
	t.Helper()
	needCgroups(t)
	o := &office{lab: newLab(t), workers: map[string]*exec.Cmd{}}
	o.name = fmt.Sprintf("mxothers-%d-%d", os.Getpid(), offices.Add(1))
	o.top = filepath.Join(mountsOf("cgroup2")[0], o.name)
	must(t, os.Mkdir(o.top, 0o755))
	t.Cleanup(o.demolish)
	open, err := os.MkdirTemp("", "mxrt-") // as p.dir, but for everybody
	must(t, err)
	must(t, os.Chmod(open, 0o755))
	t.Cleanup(func() { os.RemoveAll(open) })
	o.socket, o.file = filepath.Join(open, "market.sock"), filepath.Join(t.TempDir(), "maxwell.yaml")
	o.rule(t.TempDir(), rules)
	return o
}

// rule writes the configuration anew.
func (o *office) rule(state, rules string) {
	o.t.Helper()
	if state == "" {
		text, err := os.ReadFile(o.file)
		must(o.t, err)
		state, _, _ = strings.Cut(strings.TrimPrefix(string(text), "state: "), "\n")
	}
	text := fmt.Sprintf("state: %s\nsocket: {path: %s}\nnode: {enforcement: cgroup}\n%s\n", state, o.socket, strings.ReplaceAll(rules, "TOP", o.name))
	must(o.t, os.WriteFile(o.file, []byte(text), 0o644)) // a fallback to signals could attach nothing
}

// demolish ends what lives below top and takes it away.
func (o *office) demolish() {
	_ = os.WriteFile(filepath.Join(o.top, "cgroup.kill"), []byte("1"), 0)
	for _, cmd := range o.workers {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if !eventually(prompt, func() bool { return razed(o.top) }) {
		o.t.Errorf("%s is still there", o.top)
	}
}

// razed removes a directory of groups, and reports whether it is gone.
func razed(top string) bool {
	var dirs []string
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		_ = os.Remove(dir)
	}
	_, err := os.Stat(top)
	return err != nil
}

// run runs a command at this daemon to its end.
func (o *office) run(args ...string) result {
	o.t.Helper()
	cmd := o.command(args...)
	cmd.Env = append(cmd.Env, "MAXWELL_SOCKET="+o.socket)
	return o.finish(o.start(cmd))
}

// open starts the daemon. A machine has one: that of a test beside this one ends.
func (o *office) open() {
	o.t.Helper()
	await(o.t, "the daemon to be ready", func() bool {
		d := o.watch("daemon", "--config", o.file)
		o.daemon = d
		return eventually(prompt, func() bool {
			select {
			case <-d.ended:
				if said := d.errors.String(); !strings.Contains(said, "is held by a living daemon") {
					o.t.Fatalf("the daemon ended with %d:\n%s", d.code, said)
				}
				return true
			default:
				return strings.Contains(d.errors.String(), "maxwell: daemon: ready")
			}
		}) && strings.Contains(d.errors.String(), "maxwell: daemon: ready")
	})
}

// crash kills the daemon.
func (o *office) crash() {
	o.t.Helper()
	o.daemon.signal(syscall.SIGKILL)
	o.daemon.end()
}

// close stops the daemon, which leaves everybody as he is.
func (o *office) close() {
	o.t.Helper()
	o.daemon.signal(syscall.SIGTERM)
	if code := o.daemon.end(); code != 0 {
		o.t.Errorf("the daemon ended with %d:\n%s", code, o.daemon.errors.String())
	}
}

// enter runs a command in a group below top, which is made if it is not there.
func (o *office) enter(path string, args ...string) *exec.Cmd {
	o.t.Helper()
	return o.enterAs(path, nil, args...)
}

func (o *office) enterAs(path string, env []string, args ...string) *exec.Cmd {
	o.t.Helper()
	dir := filepath.Join(o.top, path)
	must(o.t, os.MkdirAll(dir, 0o755))
	d, err := os.Open(dir)
	must(o.t, err)
	defer d.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(d.Fd())}
	must(o.t, cmd.Start())
	o.workers[path+" "+strconv.Itoa(cmd.Process.Pid)] = cmd
	return cmd
}

// leave ends everything in a group and removes it.
func (o *office) leave(path string) {
	o.t.Helper()
	dir := filepath.Join(o.top, path)
	must(o.t, os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0))
	for key, cmd := range o.workers {
		if strings.HasPrefix(key, path+" ") {
			_ = cmd.Wait()
			delete(o.workers, key)
		}
	}
	await(o.t, "group "+path+" to go", func() bool { return razed(dir) })
}

// seen is a workload as ps shows it.
type seen struct {
	Name     string   `json:"name"`
	ID       string   `json:"id"`
	State    string   `json:"state"`
	Reason   string   `json:"reason"`
	UID      uint32   `json:"uid"`
	Client   string   `json:"client"`
	Command  []string `json:"command"`
	Enforce  string   `json:"enforce"`
	Would    string   `json:"would_stop_reason"`
	WouldAt  int64    `json:"would_stop_wall_ns"`
	Still    bool     `json:"would_stop_still"`
	Admitted int64    `json:"admitted_wall_ns"`
	CPU      int64    `json:"cpu_ns"`
	Budget   int64    `json:"budget_ucredits"`
	Spent    int64    `json:"spent_ucredits"`
	Balance  int64    `json:"balance_ucredits"`
	Deposit  int64    `json:"deposit_ucredits"`
	Loss     int64    `json:"loss_ucredits"`
	Bid      int64    `json:"bid_x_milli"`
}

// all are the workloads by the path of their group below top.
func (o *office) all() map[string]seen {
	o.t.Helper()
	r := o.run("ps", "-a", "--json")
	if r.code != 0 {
		o.t.Fatalf("ps: %v", r)
	}
	var list struct{ Workloads []seen }
	must(o.t, json.Unmarshal([]byte(r.stdout), &list))
	by := map[string]seen{}
	for _, w := range list.Workloads {
		if len(w.Command) != 1 {
			continue
		}
		if path, ok := strings.CutPrefix(w.Command[0], "/"+o.name); ok {
			path = strings.TrimPrefix(path, "/")
			if was, twice := by[path]; !twice || was.State == "dead" {
				by[path] = w
			}
		}
	}
	return by
}

// sees waits until a workload is as the test wants it.
func (o *office) sees(path, what string, is func(seen) bool) seen {
	o.t.Helper()
	var w seen
	await(o.t, path+" to be "+what, func() bool {
		var ok bool
		w, ok = o.all()[path]
		return ok && is(w)
	})
	return w
}

func (o *office) do(args ...string) result {
	o.t.Helper()
	r := o.run(args...)
	if r.code != 0 {
		o.t.Fatalf("maxwell %s: %v", strings.Join(args, " "), r)
	}
	return r
}

// counters are the files that the kernel alone writes, and that change while
// anybody runs.
var counters = []string{"cpu.stat", "cpu.stat.local", "cpu.pressure", "memory.pressure", "io.pressure", "irq.pressure", "memory.current", "memory.peak", "memory.stat", "memory.swap.current", "memory.numa_stat", "memory.zswap.current", "pids.current", "pids.peak", "io.stat"}

// picture is everything that can be told of the others' groups and processes. Of
// those that fork, who is in them changes by itself.
func (o *office) picture(forks ...string) map[string]string {
	o.t.Helper()
	all := map[string]string{}
	must(o.t, filepath.WalkDir(o.top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		own := strings.TrimPrefix(strings.TrimPrefix(path, o.top), "/")
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if d.IsDir() {
			all[own+"/"] = fmt.Sprintf("%v %d:%d %d", info.Mode(), st.Uid, st.Gid, st.Ino)
			for name, value := range attributes(o.t, path) {
				all[own+"/ "+name] = value
			}
			for _, mount := range mountsOf("cgroup") { // nothing is made for it in v1
				_, err := os.Stat(filepath.Join(mount, o.name, own))
				all[mount+" "+own] = fmt.Sprint(err != nil)
			}
			return nil
		}
		name, group := filepath.Base(path), filepath.Dir(own)
		if slices.Contains(counters, name) || slices.Contains(forks, group) && slices.Contains([]string{"cgroup.procs", "cgroup.threads"}, name) {
			return nil
		}
		text, err := os.ReadFile(path)
		all[own] = fmt.Sprintf("%v %v %s", info.Mode(), err, sortedLines(text))
		if name == "cgroup.procs" {
			for pid := range strings.FieldsSeq(string(text)) {
				all["process "+pid+" of "+group] = process(pid)
			}
		}
		return nil
	}))
	return all
}

// settings are a picture without what the kernel counts of groups that were stopped,
// or went.
func (o *office) settings() map[string]string {
	o.t.Helper()
	all := o.picture()
	maps.DeleteFunc(all, func(key, _ string) bool { return strings.Contains(filepath.Base(key), "cgroup.stat") })
	return all
}

func sortedLines(text []byte) string {
	lines := strings.Split(string(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func attributes(t *testing.T, path string) map[string]string {
	t.Helper()
	var names, value [4096]byte
	n, err := unix.Llistxattr(path, names[:])
	must(t, err)
	all := map[string]string{}
	for _, name := range strings.FieldsFunc(string(names[:n]), func(r rune) bool { return r == 0 }) {
		n, err := unix.Lgetxattr(path, name, value[:])
		must(t, err)
		all[name] = string(value[:n])
	}
	return all
}

// process is how a process is treated.
func process(pid string) string {
	id, _ := strconv.Atoi(pid)
	var b strings.Builder
	a, err := unix.SchedGetAttr(id, 0)
	if err == nil {
		fmt.Fprintf(&b, "policy %d nice %d priority %d flags %d", a.Policy, a.Nice, a.Priority, a.Flags)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(id, &set); err == nil {
		fmt.Fprintf(&b, " processors %d", set.Count())
	}
	if io, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(id), 0); errno == 0 {
		fmt.Fprintf(&b, " io %d", io)
	}
	for _, name := range []string{"cgroup", "oom_score_adj", "limits", "autogroup"} {
		text, _ := os.ReadFile("/proc/" + pid + "/" + name)
		fmt.Fprintf(&b, "\n%s", text)
	}
	return b.String()
}

// differs says what is not as it was.
func differs(before, after map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if is, ok := after[key]; !ok || is != before[key] {
			fmt.Fprintf(&b, "%s was %q and is %q\n", key, before[key], is)
		}
	}
	for key := range after {
		if _, ok := before[key]; !ok {
			fmt.Fprintf(&b, "%s is new: %q\n", key, after[key])
		}
	}
	return b.String()
}

// Loads of others.
var (
	busyLoad   = []string{"sh", "-c", "while :; do :; done"}
	burstyLoad = []string{"sh", "-c", "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.03; done"}
	idleLoad   = []string{"sleep", "1000"}
)

// TestObserveChangesNothing: a daemon that only observes or warns, its crash, its
// restart and its end leave everything as it was, of groups that it would have
// stopped, too.
func TestObserveChangesNothing(t *testing.T) {
	for _, mode := range []string{"observe", "warn"} {
		t.Run(mode, func(t *testing.T) {
			o := newOffice(t, "enforce: "+mode+"\nrules:\n  - match: {cgroup: TOP/ruled-*}\n    wallet: {memory: 1M, bid: 4x}\n")
			o.enter("ruled-busy", busyLoad...)
			nice := o.enter("ruled-busy/nested/deep", idleLoad...)
			must(t, unix.Setpriority(unix.PRIO_PROCESS, nice.Process.Pid, 7))
			one := unix.CPUSet{}
			one.Set(0)
			must(t, unix.SchedSetaffinity(nice.Process.Pid, &one))
			o.enter("ruled-bursty", burstyLoad...)
			o.enter("ruled-idle", idleLoad...)
			o.enter("free", busyLoad...) // no rule has it
			o.enter("asked", busyLoad...)
			must(t, os.MkdirAll(filepath.Join(o.top, "ruled-empty"), 0o755))
			must(t, unix.Setxattr(o.top, "trusted.owner", []byte("somebody"), 0))
			look := func() map[string]string { return o.picture("ruled-bursty") }
			before := look()
			check := func(when string) {
				t.Helper()
				if diff := differs(before, look()); diff != "" {
					t.Errorf("%s:\n%s", when, diff)
				}
			}
			busy := func(w seen) bool { return w.CPU > int64(200*time.Millisecond) && w.Enforce == mode }
			o.open()
			for _, path := range []string{"ruled-busy", "ruled-bursty"} {
				o.sees(path, "counted", busy)
			}
			o.sees("ruled-idle", "seen", func(w seen) bool { return w.Enforce == mode })
			o.do("attach", "--cgroup", o.top+"/asked", "--budget", "15", "--cores", "1", "--grace", "0.2s")
			o.sees("asked", "what would have been stopped", func(w seen) bool { return w.Would == "insolvent" && w.Still && w.Loss > 0 })
			check("with one that would have been stopped")
			o.crash()
			check("after a crash")
			o.open()
			after := o.sees("asked", "taken back", func(w seen) bool { return w.Enforce == mode && w.Still })
			if after.State == "dead" {
				t.Errorf("the crash has ended it: %+v", after)
			}
			o.sees("ruled-busy", "taken back", busy)
			check("after a restart")
			for path, w := range o.all() {
				if !strings.HasPrefix(path, "ruled-") && path != "asked" || path == "ruled-empty" {
					t.Errorf("%q was attached: %+v", path, w)
				}
			}
			o.do("detach", o.all()["ruled-idle"].Name)
			check("after a detach")
			o.close()
			check("at the end")
		})
	}
}
