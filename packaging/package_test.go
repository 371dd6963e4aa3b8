package packaging

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/internal/config"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			hosttest.Skip(t, host.Feature(tool), err.Error())
		}
	}
}

// run executes a command at the root of the repository and returns what it said.
func run(t *testing.T, environ []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = ".."
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MAKE") && !strings.HasPrefix(e, "MFLAGS") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, environ...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestScriptsAreShell(t *testing.T) {
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		run(t, nil, "sh", "-n", "packaging/"+script)
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte("\nset -e\n")) {
			t.Errorf("%s goes on after a failure", script)
		}
	}
}

// TestRemovalLeavesNothingFrozen: with the program goes whoever could thaw a paused
// workload, so it is thawed before; an upgrade touches nothing.
func TestRemovalLeavesNothingFrozen(t *testing.T) {
	text, err := os.ReadFile("prerm")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	said := filepath.Join(dir, "said")
	for _, tool := range []string{"systemctl", "maxwell"} {
		script := "#!/bin/sh\necho " + tool + " $* >> " + said + "\ntest " + tool + " = systemctl\n"
		if err := os.WriteFile(filepath.Join(dir, tool), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := strings.ReplaceAll(string(text), "/run/systemd/system", dir)
	for do, want := range map[string]string{
		"remove":  "systemctl disable --now maxwell.service\nmaxwell doctor --repair\n",
		"upgrade": "",
	} {
		if err := os.WriteFile(said, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, []string{"DPKG_ROOT=", "PATH=" + dir + ":" + os.Getenv("PATH")}, "sh", "-c", script, "prerm", do)
		if got, err := os.ReadFile(said); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", do, got, err, want)
		}
	}
}

// TestUnitGivesUpWhatItCan: the score stated in the guide is the unit's, and
// nothing in the unit reaches the groups of workloads below it.
func TestUnitGivesUpWhatItCan(t *testing.T) {
	text, err := os.ReadFile("maxwell.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "IPAddressDeny", "IPAddressAllow", "MemoryMax", "CPUQuota"} {
		if regexp.MustCompile(`(?m)^` + key + `=`).Match(text) {
			t.Errorf("%s= would bind all workloads", key)
		}
	}
	need(t, "systemd-analyze")
	out := run(t, nil, "systemd-analyze", "security", "--offline=true", "--no-pager", "packaging/maxwell.service")
	score := regexp.MustCompile(`Overall exposure level for maxwell\.service: ([0-9.]+)`).FindStringSubmatch(out)
	version := strings.Fields(run(t, nil, "systemd-analyze", "--version"))[1]
	if score == nil {
		t.Fatalf("no score in\n%s", out)
	}
	const guide = "../docs/guide/daemon.md"
	page, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	stated := regexp.MustCompile(`exposure \*\*([0-9.]+)\*\* \(systemd (\d+),`).FindSubmatch(page)
	switch {
	case stated == nil:
		t.Errorf("%s does not state the exposure; it is %s with systemd %s", guide, score[1], version)
	case string(stated[2]) == version && string(stated[1]) != score[1]:
		t.Errorf("%s states %s; it is %s with systemd %s", guide, stated[1], score[1], version)
	case score[1] > "4.0" || len(score[1]) != 3: // other versions weigh other things
		t.Errorf("the exposure is %s", score[1])
	}
}

// tree is where the package is installed.
type tree struct {
	t    *testing.T
	root string
}

func (d tree) dpkg(args ...string) {
	d.t.Helper()
	args = append([]string{"--root=" + d.root, "--force-script-chrootless", "--log=/dev/null"}, args...)
	run(d.t, []string{"DEBIAN_FRONTEND=noninteractive"}, "dpkg", args...)
}

func (d tree) path(name string) string { return filepath.Join(d.root, name) }

func (d tree) has(want bool, names ...string) {
	d.t.Helper()
	for _, name := range names {
		if _, err := os.Lstat(d.path(name)); (err == nil) != want {
			d.t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
}

func newTree(t *testing.T) tree {
	t.Helper()
	d := tree{t, t.TempDir()}
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc"} {
		if err := os.MkdirAll(d.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"var/lib/dpkg/status", "var/lib/dpkg/available"} {
		if err := os.WriteFile(d.path(file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// build makes the package of a version and returns its file.
func build(t *testing.T, version string) string {
	t.Helper()
	arch := strings.TrimSpace(run(t, nil, "go", "env", "GOARCH"))
	file := fmt.Sprintf("bin/maxwell_%s_%s.deb", version, arch)
	t.Cleanup(func() { _ = os.Remove("../" + file) })
	run(t, nil, "make", "--no-print-directory", "package", "VERSION="+version)
	return file
}

func TestPackage(t *testing.T) {
	need(t, "dpkg", "make", "systemd-sysusers")
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "dpkg gives files to root")
	}
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	d := newTree(t)
	d.dpkg("--install", build(t, "0.0.1"))
	checkFiles(t, d)
	checkProgram(t, d)
	checkUnits(t, d)
	if text, err := os.ReadFile(d.path("etc/group")); err != nil || !regexp.MustCompile(`(?m)^maxwell:`).Match(text) {
		t.Errorf("no group maxwell: %v\n%s", err, text)
	}

	conf := d.path("etc/maxwell/maxwell.yaml")
	if err := os.WriteFile(conf, []byte("enforce: warn\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	state := d.path("var/lib/maxwell/journal.sqlite")
	if err := os.MkdirAll(filepath.Dir(state), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.dpkg("--force-confold", "--install", build(t, "0.0.2"))
	if c, err := config.Load(conf, nil, nil); err != nil || c.Enforce != config.Warn {
		t.Errorf("an upgrade changed the configuration: %v", err)
	}
	d.dpkg("--remove", "maxwell")
	d.has(false, "usr/bin/maxwell", "usr/lib/systemd/system/maxwell.service")
	d.has(true, "etc/maxwell/maxwell.yaml", "var/lib/maxwell/journal.sqlite")
	d.dpkg("--purge", "maxwell")
	d.has(false, "etc/maxwell", "var/lib/maxwell")

	after, err := os.ReadFile("/etc/group")
	if err != nil || !bytes.Equal(groups, after) {
		t.Errorf("this machine's groups changed: %v", err)
	}
}

func checkFiles(t *testing.T, d tree) {
	t.Helper()
	for name, mode := range map[string]fs.FileMode{
		"usr/bin/maxwell":                                  0o755,
		"usr/lib/systemd/system/maxwell.service":           0o644,
		"usr/lib/systemd/system/maxwell.slice":             0o644,
		"usr/lib/sysusers.d/maxwell.conf":                  0o644,
		"usr/lib/tmpfiles.d/maxwell.conf":                  0o644,
		"etc/maxwell/maxwell.yaml":                         0o644,
		"usr/share/man/man1/maxwell.1.gz":                  0o644,
		"usr/share/man/man1/maxwell-run.1.gz":              0o644,
		"usr/share/man/man5/maxwell.yaml.5.gz":             0o644,
		"usr/share/bash-completion/completions/maxwell":    0o644,
		"usr/share/zsh/vendor-completions/_maxwell":        0o644,
		"usr/share/fish/vendor_completions.d/maxwell.fish": 0o644,
		"usr/share/doc/maxwell/copyright":                  0o644,
		"usr/share/man/man1/maxwell-audit-verify.1.gz":     0o644,
		"usr/share/man/man1/maxwell-completion.1.gz":       0o644,
		"var/lib/dpkg/info/maxwell.postinst":               0o755,
		"var/lib/dpkg/info/maxwell.prerm":                  0o755,
		"var/lib/dpkg/info/maxwell.postrm":                 0o755,
	} {
		info, err := os.Stat(d.path(name))
		if err != nil || info.Mode() != mode || info.Size() == 0 {
			t.Errorf("%s: %v, %v; want mode %v and content", name, err, info, mode)
		}
	}
}

func checkProgram(t *testing.T, d tree) {
	t.Helper()
	program, conf := d.path("usr/bin/maxwell"), d.path("etc/maxwell/maxwell.yaml")
	if out := run(t, nil, program, "version"); !strings.Contains(out, "maxwell") {
		t.Errorf("version says %q", out)
	}
	if out := run(t, nil, "sh", "-c", `ldd "$0" 2>&1 || true`, program); !strings.Contains(out, "not a dynamic executable") {
		t.Errorf("the program needs libraries: %s", out)
	}
	c, err := config.Load(conf, nil, nil)
	if err != nil || c.Enforce != config.Observe {
		t.Errorf("the installed configuration: %v", err)
	}
	if _, err := os.Stat(d.path("usr/share/man/man1/maxwell-daemon.1.gz")); err == nil { // the verb is there
		run(t, nil, program, "daemon", "--check", "--config", conf)
	}
}

// checkUnits asks systemd about the units as they are installed. The scratch tree
// has none of the machine's own targets, which verify misses aloud.
func checkUnits(t *testing.T, d tree) {
	t.Helper()
	need(t, "systemd-analyze")
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--root="+d.root, "maxwell.service", "maxwell.slice")
	out, err := cmd.CombinedOutput()
	if err != nil || regexp.MustCompile(`(?m)^\S*maxwell\.(service|slice)`).Match(out) {
		t.Errorf("verify: %v\n%s", err, out)
	}
}
