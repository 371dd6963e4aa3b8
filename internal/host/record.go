package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// recorded lists what Maxwell reads, as patterns of path.Match below "/". A
// link that a pattern meets on its way is recorded and followed.
func recorded() []string {
	return []string{
		"/proc/cpuinfo", "/proc/stat", "/proc/meminfo",
		"/proc/self/mountinfo", "/proc/self/cgroup", "/proc/self/status", "/proc/1/cgroup",
		"/proc/sys/kernel/osrelease", "/proc/sys/kernel/random/boot_id",
		"/proc/sys/kernel/perf_event_paranoid", "/proc/sys/kernel/unprivileged_bpf_disabled",
		"/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
		"/proc/sys/kernel/sched_rt_runtime_us", "/proc/sys/user/max_user_namespaces",
		"/sys/devices/system/cpu/online", "/sys/devices/system/cpu/possible",
		"/sys/devices/system/cpu/cpu*/topology/*_id", "/sys/devices/system/cpu/cpu*/topology/*_siblings_list",
		"/sys/devices/system/cpu/cpu*/cpufreq/scaling_*_freq",
		"/sys/class/powercap/*/name", "/sys/class/powercap/*/enabled", "/sys/class/powercap/*/*_uj",
		"/sys/class/powercap/*/constraint_*",
		"/sys/class/hwmon/*/name", "/sys/class/hwmon/*/temp*", "/sys/class/hwmon/*/power*_*", "/sys/class/hwmon/*/energy*_*",
		"/sys/class/thermal/thermal_zone*/type", "/sys/class/thermal/thermal_zone*/temp", "/sys/class/thermal/thermal_zone*/trip_point_*",
		"/sys/class/power_supply/*/type", "/sys/class/power_supply/*/status", "/sys/class/power_supply/*/power_now",
		"/sys/class/power_supply/*/energy_now",
		"/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name", "/sys/class/dmi/id/chassis_type",
		"/sys/hypervisor/type", "/sys/kernel/sched_ext/state", "/sys/kernel/security/lsm",
	}
}

// present lists what is recorded without content: that it exists is all that
// Maxwell asks.
func present() []string { return []string{"/sys/kernel/btf/vmlinux", "/run/systemd/system"} }

// recordLimit cuts a file: /proc/cpuinfo of a large machine repeats itself,
// nothing else comes near.
const recordLimit = 64 << 10

// Record captures the files that Maxwell would read on this machine, with
// identities masked (see mask), so that an operator can attach the machine to
// a report and it becomes a test. Files that cannot be read are recorded with
// their mode and a note, and no content.
func Record(r Roots) (Tree, error) {
	l, err := Discover(r)
	if err != nil {
		return Tree{}, err
	}
	rec := recorder{r: r, seen: map[string]bool{}, mask: newMask()}
	for _, pattern := range recorded() {
		rec.match("/", strings.Split(pattern[1:], "/"))
	}
	rec.cgroups(l)
	for _, p := range present() {
		if info, err := os.Stat(r.Path(p)); err == nil {
			rec.entry(Entry{Path: p, Mode: info.Mode() & (fs.ModeDir | fs.ModePerm)})
		}
	}
	for i := range rec.tree.Entries {
		rec.mask.entry(&rec.tree.Entries[i])
	}
	rec.tree.sortEntries()
	return rec.tree, nil
}

type recorder struct {
	r    Roots
	tree Tree
	seen map[string]bool
	mask *mask
}

// match walks one pattern from a real directory. Errors end a branch quietly:
// a file that is not there is what the recording says by silence.
func (c *recorder) match(dir string, pattern []string) {
	list, err := os.ReadDir(c.r.Path(dir))
	if err != nil {
		return
	}
	for _, d := range list {
		if ok, _ := path.Match(pattern[0], d.Name()); ok {
			c.step(path.Join(dir, d.Name()), pattern[1:])
		}
	}
}

func (c *recorder) step(at string, rest []string) {
	info, err := os.Lstat(c.r.Path(at))
	if err != nil {
		return
	}
	switch {
	case at == "/proc/self":
		// A link to the number of the recording process: recorded as a
		// directory.
		c.match(at, rest)
	case info.Mode()&fs.ModeSymlink != 0:
		c.link(at, rest)
	case len(rest) > 0 && info.IsDir():
		c.match(at, rest)
	case len(rest) == 0 && info.Mode().IsRegular():
		c.file(at, info.Mode().Perm())
	}
}

// link records a link and goes on at its target; absolute links are left out,
// because Root refuses them too.
func (c *recorder) link(at string, rest []string) {
	target, err := os.Readlink(c.r.Path(at))
	if err != nil || path.IsAbs(target) {
		return
	}
	c.entry(Entry{Path: at, Mode: fs.ModeSymlink | 0o777, Target: target})
	c.step(path.Join(path.Dir(at), target), rest)
}

func (c *recorder) file(at string, mode fs.FileMode) {
	if c.seen[at] || mode&0o444 == 0 && mode != 0 {
		return // seen, or made to be written only
	}
	f, err := os.Open(c.r.Path(at))
	if err != nil {
		c.unread(at, mode, err)
		return
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, recordLimit))
	if err != nil {
		c.unread(at, mode, err)
		return
	}
	if i := bytes.LastIndexByte(text, '\n'); len(text) == recordLimit && i >= 0 {
		text = text[:i+1]
	}
	c.entry(Entry{Path: at, Mode: mode, Content: keep(at, text)})
}

func (c *recorder) unread(at string, mode fs.FileMode, err error) {
	c.tree.Notes = append(c.tree.Notes, fmt.Sprintf("not read: %s: %v", at, plain(err)))
	c.entry(Entry{Path: at, Mode: mode})
}

func (c *recorder) entry(e Entry) {
	if !c.seen[e.Path] {
		c.seen[e.Path] = true
		c.tree.Entries = append(c.tree.Entries, e)
	}
}

// cgroups records the interface files of the own group in each hierarchy.
func (c *recorder) cgroups(l Layout) {
	dirs := []string{l.V2.Mount, l.V2.Own}
	for _, h := range l.V1 {
		dirs = append(dirs, h.Mount, h.Own)
	}
	names := []string{
		"cgroup.controllers", "cgroup.subtree_control", "cgroup.type", "cgroup.events", "cgroup.stat",
		"cpu.stat", "cpu.max", "cpu.weight", "cpu.shares", "cpu.cfs_*_us", "cpuacct.usage",
		"memory.max", "memory.current", "memory.limit_in_bytes", "pids.max", "pids.current",
	}
	for _, dir := range dirs {
		rel, err := filepath.Rel(c.r.Path("/"), dir)
		if dir == "" || err != nil {
			continue
		}
		c.entry(Entry{Path: "/" + rel, Mode: fs.ModeDir | 0o755})
		for _, name := range names {
			c.match("/"+rel, []string{name})
		}
	}
}

// keep drops the lines that Maxwell does not read and that say most about a
// machine's owner: mounts outside the kernel's trees, most of a process
// status, the time of boot.
func keep(at string, text []byte) []byte {
	var want func(line string) bool
	switch at {
	case "/proc/self/mountinfo":
		want = func(line string) bool {
			m, err := parseMount(line)
			return err == nil && (m.Point == "/" || within(m.Point, "/proc") || within(m.Point, "/sys"))
		}
	case "/proc/self/status":
		want = func(line string) bool {
			key, _, _ := strings.Cut(line, ":")
			return key == "Uid" || key == "CapEff" || key == "NoNewPrivs" || key == "Seccomp" || strings.HasPrefix(key, "Cpus_allowed")
		}
	case "/proc/meminfo":
		want = func(line string) bool { return strings.HasPrefix(line, "MemTotal:") }
	case "/proc/stat":
		want = func(line string) bool { return strings.HasPrefix(line, "cpu") }
	default:
		return text
	}
	var kept []byte
	for line := range bytes.Lines(text) {
		if want(string(line)) {
			kept = append(kept, line...)
		}
	}
	return kept
}

// mask replaces what identifies a machine: uuids and hexadecimal names of 16
// digits or more (boot, container, session and disk ids), the same one always
// by the same number, so that paths still agree with each other.
type mask struct {
	pattern *regexp.Regexp
	number  map[string]string
}

func newMask() *mask {
	return &mask{
		pattern: regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{16,}\b`),
		number:  map[string]string{},
	}
}

func (m *mask) entry(e *Entry) {
	e.Path, e.Target = m.text(e.Path), m.text(e.Target)
	if strings.HasSuffix(e.Path, "/status") {
		return // its long hexadecimal numbers are masks of capabilities and processors
	}
	e.Content = []byte(m.text(string(e.Content)))
}

func (m *mask) text(s string) string {
	return m.pattern.ReplaceAllStringFunc(s, func(id string) string {
		if !strings.ContainsAny(id, "abcdef-") {
			return id // a large decimal number, such as a v1 limit
		}
		if m.number[id] == "" {
			m.number[id] = fmt.Sprintf("masked-%d", len(m.number)+1)
		}
		return m.number[id]
	})
}

// errNotReal is the answer of a probe on a recorded machine.
var errNotReal = errors.New("this is a recording: nothing can be tried on it")
