//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A kernel's place in its package: before and from Debian's 6.19.
var kernelFile = regexp.MustCompile(`^\./(boot/vmlinuz-.*|usr/lib/modules/[^/]*/vmlinuz)$`)

// pieces is how many dependencies a kernel's name may be away from its package:
// linux-image-cloud-amd64 -> linux-image-6.1.0-56-cloud-amd64 (-> linux-binary-...).
const pieces = 3

// archiveURL has all the suites; a mirror may be named by MAXWELL_VM_MIRROR.
const (
	archiveURL = "http://deb.debian.org/debian"
	keyring    = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// image is a kernel that can be booted.
type image struct {
	file    string
	release string // 6.1.0-56-cloud-amd64
}

// kernel gives the file of a kernel: the name is a file of the host, or a
// package of a suite, possibly one that only depends on the right one.
func kernel(t *testing.T, name string, s settings) image {
	if strings.Contains(name, "/") {
		return image{name, release(t, name)}
	}
	name, a := locate(t, name, s)
	for range pieces {
		out := filepath.Join(t.TempDir(), "vmlinuz")
		if extract(t, a.download(t, name, s.cache), kernelFile, out) {
			return image{out, release(t, out)}
		}
		next := a.dependency(t, name)
		if next == "" {
			break
		}
		t.Logf("%s depends on %s", name, next)
		name = next
	}
	t.Fatalf("package %s has no kernel", name)
	return image{}
}

// release reads a kernel's version out of its boot header
// (Documentation/arch/x86/boot.rst, field kernel_version).
func release(t *testing.T, file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const field, start = 0x20e, 0x200
	if len(b) > field+2 && string(b[0x202:0x206]) == "HdrS" {
		at := start + int(binary.LittleEndian.Uint16(b[field:]))
		if f := strings.Fields(string(b[min(at, len(b)):min(at+200, len(b))])); len(f) > 0 {
			return f[0]
		}
	}
	t.Fatalf("%s is no kernel that boots here: no header", file)
	return ""
}

// apt is the package tool with one suite of its own: what this machine itself
// has configured is neither used nor touched.
type apt struct {
	suite   string
	options []string
}

// locate splits PACKAGE@SUITE and finds the newest package if its name is a
// pattern. Without a suite the machine's own sources are asked.
func locate(t *testing.T, name string, s settings) (string, apt) {
	name, suite, _ := strings.Cut(name, "@")
	a := apt{suite: suite, options: []string{"-o", "APT::Sandbox::User=root"}}
	fresh := true
	if suite != "" {
		fresh = a.isolate(t, s)
	}
	if found := a.newest(t, name); found != "" {
		return found, a
	}
	if suite != "" && !fresh { // an old list: the suite has moved on
		a.update(t)
		if found := a.newest(t, name); found != "" {
			return found, a
		}
	}
	t.Fatalf("no package %s in suite %q: name another by MAXWELL_VM_KERNELS", name, suite)
	return "", a
}

// isolate gives the suite folders of its own in the cache, and reports whether
// its list has just been fetched.
func (a *apt) isolate(t *testing.T, s settings) (fresh bool) {
	if _, err := os.Stat(keyring); err != nil {
		t.Fatalf("suite %s: %v (package debian-archive-keyring)", a.suite, err)
	}
	dir := filepath.Join(s.cache, "apt-"+a.suite)
	for _, d := range []string{"lists/partial", "archives/partial", "none"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	source := filepath.Join(dir, "suite.sources")
	text := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nArchitectures: amd64\nSigned-By: %s\n", s.mirror, a.suite, keyring)
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	a.options = append(a.options,
		"-o", "Dir::State::lists="+filepath.Join(dir, "lists"),
		"-o", "Dir::Cache="+dir,
		"-o", "Dir::Etc::sourcelist="+source,
		"-o", "Dir::Etc::sourceparts="+filepath.Join(dir, "none"),
		"-o", "APT::Architecture=amd64")
	lists, err := filepath.Glob(filepath.Join(dir, "lists", "*Packages*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(lists) == 0 {
		a.update(t)
		return true
	}
	return false
}

func (a *apt) update(t *testing.T) {
	t.Logf("fetch the list of %s", a.suite)
	output(t, "", "apt-get", append(a.options, "update", "-qq")...)
}

// newest is the package of the highest version that a pattern matches.
func (a *apt) newest(t *testing.T, pattern string) string {
	prefix, _, _ := strings.Cut(pattern, "*")
	prefix, _, _ = strings.Cut(prefix, "[")
	best := ""
	for name := range strings.Lines(output(t, "", "apt-cache", append(a.options, "pkgnames", prefix)...)) {
		name = strings.TrimSpace(name)
		ok, err := path.Match(pattern, name)
		if err != nil {
			t.Fatalf("pattern %s: %v", pattern, err)
		}
		if ok && (best == "" || slices.Compare(numbers(name), numbers(best)) > 0) {
			best = name
		}
	}
	return best
}

var digits = regexp.MustCompile(`\d+`)

// numbers are those in a text, in their order: enough to order the releases of
// one family.
func numbers(text string) []int {
	var list []int
	for _, d := range digits.FindAllString(text, -1) {
		n, err := strconv.Atoi(d)
		if err == nil {
			list = append(list, n)
		}
	}
	return list
}

// dependency is the first package with a kernel's name that a package needs.
func (a *apt) dependency(t *testing.T, name string) string {
	for line := range strings.Lines(output(t, "", "apt-cache", append(a.options, "depends", name)...)) {
		dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && (strings.HasPrefix(dep, "linux-image-") || strings.HasPrefix(dep, "linux-binary-")) {
			return dep
		}
	}
	return ""
}

// download fetches a package's newest version, or finds it in the cache.
func (a *apt) download(t *testing.T, name, cache string) string {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	// 'URI' FILE SIZE HASH; nothing where the file lies in the working directory.
	fields := strings.Fields(output(t, t.TempDir(), "apt-get", append(a.options, "download", "--print-uris", "-qq", name)...))
	if len(fields) < 3 {
		t.Fatalf("package %s is not known here: run apt-get update, or name a suite as in %s@bookworm", name, name)
	}
	file := filepath.Join(cache, fields[1])
	if _, err := os.Stat(file); err == nil {
		return file
	}
	// Into a directory of its own, so that a download cut off is not taken for
	// a package later.
	part, err := os.MkdirTemp(cache, "part-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(part)
	output(t, part, "apt-get", append(a.options, "download", "-qq", name)...)
	got, err := filepath.Glob(filepath.Join(part, "*.deb"))
	if err != nil || len(got) != 1 {
		t.Fatalf("download %s: got %v, %v", name, got, err)
	}
	if err := os.Rename(got[0], file); err != nil {
		t.Fatal(err)
	}
	return file
}

// extract copies the first file of a package that matches.
func extract(t *testing.T, deb string, want *regexp.Regexp, to string) bool {
	b, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
	if err != nil {
		t.Fatalf("unpack %s: %v", deb, err)
	}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return false
		}
		if err != nil {
			t.Fatalf("unpack %s: %v", deb, err)
		}
		if h.Typeflag != tar.TypeReg || !want.MatchString(h.Name) {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("unpack %s: %v", deb, err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
		return true
	}
}

// output runs a program of the host.
func output(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", fmt.Sprint(name, args), err, stderr.String())
	}
	return string(out)
}
