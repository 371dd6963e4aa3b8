//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A kernel's place in its package: before and from Debian's 7.3.
var kernelFile = regexp.MustCompile(`^\./(boot/vmlinuz-.*|usr/lib/modules/[^/]*/vmlinuz)$`)

// pieces is how many dependencies a kernel's name may be away from its package:
// linux-image-cloud-amd64 -> linux-image-6.1.0-56-cloud-amd64 (-> linux-binary-...).
const pieces = 3

// kernel gives the file of a kernel: the name is a file of the host or a Debian
// package, possibly one that only depends on the right one.
func kernel(t *testing.T, name, cache string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for range pieces {
		out := filepath.Join(t.TempDir(), "vmlinuz")
		deb := download(t, name, cache)
		if extract(t, deb, kernelFile, out) {
			return out
		}
		next := dependency(t, name)
		if next == "" {
			break
		}
		t.Logf("%s depends on %s", name, next)
		name = next
	}
	t.Fatalf("package %s has no kernel", name)
	return ""
}

// dependency is the first package with a kernel's name that a package needs.
func dependency(t *testing.T, name string) string {
	for line := range strings.Lines(output(t, "", "apt-cache", "depends", name)) {
		dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && (strings.HasPrefix(dep, "linux-image-") || strings.HasPrefix(dep, "linux-binary-")) {
			return dep
		}
	}
	return ""
}

// download fetches a package's newest version, or finds it in the cache.
func download(t *testing.T, name, cache string) string {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	// 'URI' FILE SIZE HASH; nothing where the file lies in the working directory.
	fields := strings.Fields(output(t, t.TempDir(), "apt-get", "download", "--print-uris", "-qq", name))
	if len(fields) < 3 {
		t.Fatalf("package %s is not known here: run apt-get update, or name another by MAXWELL_VM_KERNEL", name)
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
	output(t, part, "apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name)
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
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", fmt.Sprint(name, args), err, stderr.String())
	}
	return string(out)
}
