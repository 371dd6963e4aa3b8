//go:build vm

package vmtest

import (
	"bufio"
	"cmp"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/vmtest/plan"
)

// settings is what the environment may change.
type settings struct {
	kernels  []string      // MAXWELL_VM_KERNELS: PACKAGE, PACKAGE@SUITE (also a pattern: the newest wins), or a file with a slash in its name
	packages []string      // MAXWELL_VM_PACKAGES: whose tests to run, separated by spaces, as internal/meter
	pattern  string        // MAXWELL_VM_RUN: -test.run of all of them
	tags     string        // MAXWELL_VM_TAGS: build tags
	cache    string        // MAXWELL_VM_CACHE: where downloaded packages are kept
	mirror   string        // MAXWELL_VM_MIRROR: of the Debian archive
	memory   string        // MAXWELL_VM_MEMORY: of the guest, in MiB
	limit    time.Duration // MAXWELL_VM_TIMEOUT: for each package's tests, in the guest's time
	patience time.Duration // MAXWELL_VM_PATIENCE: for a guest, in the host's time
}

// The kernels of a plain run: the oldest that is in use (a CFS scheduler) and
// one with EEVDF and sched_ext. Debian's 6.12 is none of them: with two
// processors it faults under QEMU 7.2's emulation.
const usualKernels = "linux-image-cloud-amd64@bookworm linux-image-6.1[678].*-cloud-amd64@trixie-backports"

// usualPackages are those whose tests touch the kernel.
const usualPackages = "internal/dispatch/cgroup internal/meter e2e"

// usualTests are what a plain run takes of a package whose tests are many: the
// command measures, charges, ends the broke, and leaves nothing behind when it
// or the market is killed.
var usualTests = map[string]string{
	"e2e": "^(TestRunMeasuresOnly|TestDocument|TestBroke|TestClientKilled|TestMarketDies)$/^(cgroup|KILL|kill)$/^cgroup$",
}

// skips are the only tests that a guest may skip: it has root, a full cgroup
// v2 tree and BPF, and neither v1 hierarchies nor a bash.
var skips = map[string]string{
	"TestMachineWithoutCgroup2":                  "the v1 freezer",
	"TestFilesV1":                                "cpuacct of cgroup v1",
	"TestWaitByShares":                           "the cpu controller of cgroup v1",
	"TestSettleStopsTheCounters/without_v2_true": "the v1 freezer",
}

func readSettings(t *testing.T) settings {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return settings{
		kernels:  strings.Fields(env("MAXWELL_VM_KERNELS", usualKernels)),
		packages: strings.Fields(env("MAXWELL_VM_PACKAGES", usualPackages)),
		pattern:  env("MAXWELL_VM_RUN", ""),
		tags:     env("MAXWELL_VM_TAGS", "kernel"),
		cache:    env("MAXWELL_VM_CACHE", filepath.Join(cache, "maxwell", "vm")),
		mirror:   env("MAXWELL_VM_MIRROR", archiveURL),
		memory:   env("MAXWELL_VM_MEMORY", "1536"),
		limit:    duration(t, "MAXWELL_VM_TIMEOUT", 5*time.Minute),
		patience: duration(t, "MAXWELL_VM_PATIENCE", 20*time.Minute),
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func duration(t *testing.T, name string, otherwise time.Duration) time.Duration {
	d, err := time.ParseDuration(env(name, otherwise.String()))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}

// TestGuest boots each kernel and runs each package's tests in it as root.
func TestGuest(t *testing.T) {
	s := readSettings(t)
	dir := t.TempDir()
	var images []image
	for _, name := range s.kernels {
		images = append(images, kernel(t, name, s))
	}
	disk := filepath.Join(dir, "initrd")
	steps := pack(t, s, dir, disk)
	for _, i := range images {
		t.Run(i.release, func(t *testing.T) {
			t.Parallel() // an emulated guest fills one processor
			results := run(t, s, i, disk)
			for _, step := range steps {
				t.Run(step.Name, func(t *testing.T) { results[step.Name].judge(t, s) })
			}
		})
	}
}

// result is how a step ended; nil if it did not.
type result struct {
	code    int
	took    string
	empty   bool
	skipped []string
}

func (r *result) judge(t *testing.T, s settings) {
	switch {
	case r == nil:
		t.Fatal("did not run, or did not end: see the guest's output")
	case r.code == 124:
		t.Fatalf("late: ended after %v", s.limit)
	case r.code != 0:
		t.Fatalf("exit status %d after %s s", r.code, r.took)
	case r.empty:
		t.Fatal("ran no test")
	}
	for _, name := range r.skipped {
		if skips[name] == "" {
			t.Errorf("%s was skipped, and this guest lacks nothing that it needs", name)
		}
	}
	t.Logf("passed in %s s of the guest's time", r.took)
}

// pack builds everything and writes the ram disk.
func pack(t *testing.T, s settings, dir, disk string) []plan.Step {
	root := output(t, "", "go", "list", "-m", "-f", "{{.Dir}}")
	root = strings.TrimSpace(root)
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	a := &archive{w: w}
	furnish(t, a, s, dir)
	a.tree("/src/examples", filepath.Join(root, "examples"))
	var steps []plan.Step
	for i, p := range s.packages {
		bin := "/tests/" + strconv.Itoa(i) + ".test"
		a.file(bin, build(t, filepath.Join(dir, strconv.Itoa(i)+".test"), "test", s.tags, "./"+p))
		// Tests find their data beside them, as under go test.
		at := "/src/" + p
		a.dir(at)
		a.tree(at+"/testdata", filepath.Join(root, p, "testdata"))
		pattern := cmp.Or(s.pattern, usualTests[p], ".")
		steps = append(steps, plan.Step{
			Name: p, Dir: at, Env: guestEnv(), TimeoutMS: (s.limit + 5*time.Second).Milliseconds(),
			Args: []string{bin, "-test.v", "-test.run=" + pattern, "-test.timeout=" + s.limit.String(), "-test.parallel=1"},
		})
	}
	b, err := json.Marshal(steps)
	if err != nil {
		t.Fatal(err)
	}
	a.bytes("/plan.json", 0o644, b)
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return steps
}

// program is where the guest has the program under test.
const program = "/usr/bin/maxwell"

// furnish puts in what every guest has: devices, users, busybox, the first
// process and the program.
func furnish(t *testing.T, a *archive, s settings, dir string) {
	a.device("/dev/console", 5, 1)
	a.device("/dev/null", 1, 3)
	a.bytes("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	a.bytes("/etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	for _, d := range []string{"/proc", "/sys", "/tmp", "/run", "/root", "/sbin", "/usr/bin", "/usr/sbin"} {
		a.dir(d)
	}
	busybox := filepath.Join(dir, "busybox")
	name, from := locate(t, "busybox-static@bookworm", s)
	if !extract(t, from.download(t, name, s.cache), regexp.MustCompile(`^\./(usr/)?bin/busybox$`), busybox) {
		t.Fatal("package busybox-static has no busybox")
	}
	a.file("/bin/busybox", busybox)
	a.file("/init", build(t, filepath.Join(dir, "init"), "build", s.tags, "./internal/vmtest/init"))
	a.file(program, build(t, filepath.Join(dir, "maxwell"), "build", s.tags, "./cmd/maxwell"))
}

// build makes a static binary of a package of this module: the program, or its
// tests.
func build(t *testing.T, to, what, tags, pkg string) string {
	t.Helper()
	args := []string{what, "-o", to, "-tags", tags, "-ldflags=-s -w"}
	if what == "test" {
		args = append(args, "-c")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, pkg)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	if _, err := os.Stat(to); err != nil {
		t.Fatalf("build %s: package without tests", pkg)
	}
	return to
}

// guestEnv is the environment of the tests: Maxwell's own variables pass.
func guestEnv() []string {
	out := []string{
		"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "TMPDIR=/tmp", "TERM=dumb", "MAXWELL_VM=1", "MAXWELL_E2E_BINARY=" + program,
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "MAXWELL_") && !strings.HasPrefix(v, "MAXWELL_VM") {
			out = append(out, v)
		}
	}
	return out
}

// disaster is what a healthy kernel never prints.
var disaster = regexp.MustCompile(`Kernel panic|BUG: |Oops: |double fault|soft lockup|hung task|general protection fault`)

// parallelBoot is the first kernel that brings up its second processor without
// waiting for it in a loop. An older one waits for ever where only one
// processor is emulated at a time.
var parallelBoot = []int{6, 5}

// processors of the guest: two, because placement is a part of what is tested.
func (i image) processors() int {
	if slices.Compare(numbers(i.release), parallelBoot) < 0 {
		return 1
	}
	return 2
}

// run boots the guest and follows its console to the end.
func run(t *testing.T, s settings, i image, disk string) map[string]*result {
	cmd := exec.CommandContext(t.Context(), "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-monitor", "none", "-no-reboot",
		// The guest's clock counts instructions (2 ns each) and skips what it
		// sleeps: see doc.go.
		"-M", "q35", "-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off",
		"-cpu", "max", "-smp", strconv.Itoa(i.processors()), "-m", s.memory,
		"-net", "none", "-sandbox", "on", "-kernel", i.file, "-initrd", disk,
		// no_timer_check: a timer that looks late to the check is no broken
		// timer. oops=panic: no test passes on a damaged kernel.
		"-append", "console=ttyS0 rdinit=/init panic=-1 oops=panic softlockup_panic=1 loglevel=4 no_timer_check mitigations=off random.trust_cpu=on")
	cmd.Stdin, cmd.WaitDelay = nil, 5*time.Second
	from, to := io.Pipe()
	cmd.Stdout, cmd.Stderr = to, to
	if err := cmd.Start(); err != nil {
		t.Fatalf("start qemu-system-x86_64 (package qemu-system-x86): %v", err)
	}
	late := time.AfterFunc(s.patience, func() { _ = cmd.Process.Kill() })
	ended := make(chan error, 1)
	go func() { // ends with qemu; the receive below waits for it
		err := cmd.Wait()
		to.Close()
		ended <- err
	}()
	c := console{t: t, results: map[string]*result{}}
	for lines := bufio.NewReader(from); ; {
		line, err := lines.ReadString('\n')
		if line != "" {
			c.line(strings.TrimRight(line, "\r\n"))
		}
		if err != nil {
			break
		}
	}
	err := <-ended
	switch {
	case !late.Stop():
		t.Errorf("the guest was still up after %v", s.patience)
	case err != nil:
		t.Errorf("qemu: %v", err)
	case !c.done:
		t.Error("the guest went down before its plan was done")
	}
	return c.results
}

// console understands the guest's lines.
type console struct {
	t       *testing.T
	results map[string]*result
	now     result // of the step that runs
	done    bool
}

func (c *console) line(line string) {
	_, _ = io.WriteString(c.t.Output(), line+"\n")
	// A test that prints without a new line at its end shares the line.
	_, own, ok := strings.Cut(line, plan.Mark+" ")
	if !ok {
		if disaster.MatchString(line) {
			c.t.Errorf("kernel: %s", line)
		}
		c.now.empty = c.now.empty || strings.Contains(line, "no tests to run")
		if _, name, ok := strings.Cut(line, "--- SKIP: "); ok {
			name, _, _ = strings.Cut(name, " ")
			c.now.skipped = append(c.now.skipped, name)
		}
		return
	}
	f := strings.Fields(own)
	switch {
	case len(f) == 2 && f[0] == "begin":
		c.now = result{}
	case len(f) == 4 && f[0] == "end":
		code, err := strconv.Atoi(f[2])
		if err != nil {
			c.t.Errorf("guest: %s", line)
		}
		ended := c.now
		ended.code, ended.took = code, f[3]
		c.results[f[1]] = &ended
	case f[0] == "failed":
		c.t.Errorf("guest: %s", own)
	case f[0] == "done":
		c.done = true
	}
}
