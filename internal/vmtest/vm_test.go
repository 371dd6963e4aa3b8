//go:build vm

package vmtest

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/vmtest/plan"
)

const module = "github.com/maxwell-hypervisor/maxwell"

// settings is what the environment may change.
type settings struct {
	kernel   string        // MAXWELL_VM_KERNEL: a Debian package, or a file with a slash in its name
	packages []string      // MAXWELL_VM_PACKAGES: whose tests to run, separated by spaces, as internal/meter
	pattern  string        // MAXWELL_VM_RUN: -test.run of all of them
	tags     string        // MAXWELL_VM_TAGS: build tags
	program  string        // MAXWELL_VM_PROGRAM: the program that is packed too; "none" leaves it out
	cache    string        // MAXWELL_VM_CACHE: where downloaded packages are kept
	memory   string        // MAXWELL_VM_MEMORY: of the guest, in MiB
	limit    time.Duration // MAXWELL_VM_TIMEOUT: for each package's tests
}

func readSettings(t *testing.T) settings {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	limit, err := time.ParseDuration(env("MAXWELL_VM_TIMEOUT", "120s"))
	if err != nil {
		t.Fatalf("MAXWELL_VM_TIMEOUT: %v", err)
	}
	return settings{
		kernel:   env("MAXWELL_VM_KERNEL", "linux-image-cloud-amd64"),
		packages: strings.Fields(env("MAXWELL_VM_PACKAGES", "internal/dispatch/cgroup internal/meter")),
		pattern:  env("MAXWELL_VM_RUN", "."),
		tags:     env("MAXWELL_VM_TAGS", "kernel"),
		program:  env("MAXWELL_VM_PROGRAM", "cmd/maxwell"),
		cache:    env("MAXWELL_VM_CACHE", filepath.Join(cache, "maxwell", "vm")),
		memory:   env("MAXWELL_VM_MEMORY", "1536"),
		limit:    limit,
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// TestGuest boots the kernel and runs each package's tests in it as root.
func TestGuest(t *testing.T) {
	s := readSettings(t)
	dir := t.TempDir()
	boot := kernel(t, s.kernel, s.cache)
	disk := filepath.Join(dir, "initrd")
	steps := pack(t, s, dir, disk)
	results := run(t, s, boot, disk, time.Duration(len(steps))*s.limit+time.Minute)
	for _, step := range steps {
		t.Run(step.Name, func(t *testing.T) {
			got, ok := results[step.Name]
			switch {
			case !ok:
				t.Fatal("did not run, or did not end: see the guest's output")
			case got.code == 124:
				t.Fatalf("late: ended after %v", s.limit)
			case got.code != 0:
				t.Fatalf("exit status %d after %s s", got.code, got.took)
			case got.empty:
				t.Fatal("ran no test")
			}
			t.Logf("passed in %s s", got.took)
		})
	}
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
	a.device("/dev/console", 5, 1)
	a.device("/dev/null", 1, 3)
	a.bytes("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	a.bytes("/etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	for _, d := range []string{"/proc", "/sys", "/tmp", "/run", "/root", "/sbin", "/usr/bin", "/usr/sbin"} {
		a.dir(d)
	}
	busybox := filepath.Join(dir, "busybox")
	if !extract(t, download(t, "busybox-static", s.cache), regexp.MustCompile(`^\./(usr/)?bin/busybox$`), busybox) {
		t.Fatal("package busybox-static has no busybox")
	}
	a.file("/bin/busybox", busybox)
	a.file("/init", build(t, filepath.Join(dir, "init"), "build", s.tags, "./internal/vmtest/init"))
	environ := guestEnv()
	if s.program != "none" {
		a.file("/usr/bin/maxwell", build(t, filepath.Join(dir, "maxwell"), "build", s.tags, "./"+s.program))
		environ = append(environ, "MAXWELL_BINARY=/usr/bin/maxwell")
	}
	var steps []plan.Step
	for i, p := range s.packages {
		bin := "/tests/" + strconv.Itoa(i) + ".test"
		a.file(bin, build(t, filepath.Join(dir, strconv.Itoa(i)+".test"), "test", s.tags, "./"+p))
		// Tests find their data beside them, as under go test.
		at := "/src/" + p
		a.dir(at)
		a.tree(at+"/testdata", filepath.Join(root, p, "testdata"))
		steps = append(steps, plan.Step{
			Name: p, Dir: at, Env: environ, TimeoutMS: (s.limit + 5*time.Second).Milliseconds(),
			Args: []string{bin, "-test.v", "-test.run=" + s.pattern, "-test.timeout=" + s.limit.String()},
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
		"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "TMPDIR=/tmp", "TERM=dumb", "MAXWELL_VM=1",
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "MAXWELL_") && !strings.HasPrefix(v, "MAXWELL_VM") {
			out = append(out, v)
		}
	}
	return out
}

// result is how a step ended.
type result struct {
	code  int
	took  string
	empty bool
}

// disaster is what a healthy kernel never prints.
var disaster = regexp.MustCompile(`Kernel panic|BUG: |Oops: |double fault|soft lockup|hung task|general protection fault`)

// run boots the guest and follows its console to the end.
func run(t *testing.T, s settings, boot, disk string, limit time.Duration) map[string]result {
	cmd := exec.CommandContext(t.Context(), "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-monitor", "none", "-no-reboot",
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", s.memory,
		"-net", "none", "-sandbox", "on", "-kernel", boot, "-initrd", disk,
		// no_timer_check: an emulated timer that is late under load is no
		// broken timer. oops=panic: no test passes on a damaged kernel.
		"-append", "console=ttyS0 rdinit=/init panic=-1 oops=panic softlockup_panic=1 loglevel=4 no_timer_check mitigations=off random.trust_cpu=on")
	cmd.Stdin, cmd.WaitDelay = nil, 5*time.Second
	from, to := io.Pipe()
	cmd.Stdout, cmd.Stderr = to, to
	if err := cmd.Start(); err != nil {
		t.Fatalf("start qemu-system-x86_64 (package qemu-system-x86): %v", err)
	}
	late := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	ended := make(chan error, 1)
	go func() { // ends with qemu; the receive below waits for it
		err := cmd.Wait()
		to.Close()
		ended <- err
	}()
	c := console{t: t, results: map[string]result{}}
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
		t.Errorf("the guest was still up after %v", limit)
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
	results map[string]result
	empty   bool
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
		if strings.Contains(line, "no tests to run") {
			c.empty = true
		}
		return
	}
	f := strings.Fields(own)
	switch {
	case len(f) == 2 && f[0] == "begin":
		c.empty = false
	case len(f) == 4 && f[0] == "end":
		code, err := strconv.Atoi(f[2])
		if err != nil {
			c.t.Errorf("guest: %s", line)
		}
		c.results[f[1]] = result{code: code, took: f[3], empty: c.empty}
	case f[0] == "failed":
		c.t.Errorf("guest: %s", own)
	case f[0] == "done":
		c.done = true
	}
}
