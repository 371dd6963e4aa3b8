// Package hosttest unpacks recorded machines for tests and holds the one way
// to skip a test.
//
// A recorded machine is a file testdata/NAME.tree in the format of host.Tree.
// Its notes say whether it was recorded by host.Record or made by hand.
package hosttest

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

//go:embed testdata/*.tree
var machines embed.FS

// Names lists the recorded machines.
func Names(t testing.TB) []string {
	t.Helper()
	list, err := fs.Glob(machines, "testdata/*.tree")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range list {
		list[i] = strings.TrimSuffix(filepath.Base(name), ".tree")
	}
	return list
}

// Machine unpacks a recorded machine by name and opens it. It ends with the
// test.
func Machine(t testing.TB, name string) host.Roots {
	t.Helper()
	return Unpack(t, Tree(t, name))
}

// Tree parses a recorded machine without unpacking it, for a test that wants
// to change it first.
func Tree(t testing.TB, name string) host.Tree {
	t.Helper()
	text, err := machines.ReadFile("testdata/" + name + ".tree")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := host.ParseTree(text)
	if err != nil {
		t.Fatalf("parse %s: %v", name, err)
	}
	return tree
}

// Unpack writes a tree into a temporary directory and opens it.
func Unpack(t testing.TB, tree host.Tree) host.Roots {
	t.Helper()
	base := t.TempDir()
	must(t, os.Chmod(filepath.Dir(base), 0o755)) // TempDir closes it, and AsUser must pass
	for _, dir := range []string{base, filepath.Join(base, "proc"), filepath.Join(base, "sys")} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	for _, e := range tree.Entries {
		write(t, base, e)
	}
	// Directory modes last, or files could not be made in a closed one.
	for _, e := range tree.Entries {
		if e.Mode.IsDir() {
			at := filepath.Join(base, e.Path)
			must(t, os.Chmod(at, e.Mode.Perm()))
			t.Cleanup(func() { _ = os.Chmod(at, 0o755) }) // or TempDir could not be removed
		}
	}
	r, err := host.OpenAt(base)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func write(t testing.TB, base string, e host.Entry) {
	t.Helper()
	at := filepath.Join(base, e.Path)
	must(t, os.MkdirAll(filepath.Dir(at), 0o755))
	switch {
	case e.Mode.IsDir():
		must(t, os.MkdirAll(at, 0o755))
	case e.Mode&fs.ModeSymlink != 0:
		must(t, os.Symlink(e.Target, at))
	default:
		must(t, os.WriteFile(at, e.Content, 0o600))
		must(t, os.Chmod(at, e.Mode.Perm())) // the umask does not apply
	}
}

// Write replaces the content of a file of an unpacked machine, read-only ones
// included: a counter that moves.
func Write(t testing.TB, r host.Roots, kernelPath, content string) {
	t.Helper()
	at := r.Path(kernelPath)
	info, err := os.Stat(at)
	must(t, err)
	must(t, os.Chmod(at, 0o600))
	must(t, os.WriteFile(at, []byte(content), 0o600))
	must(t, os.Chmod(at, info.Mode().Perm()))
}

// AsUser makes the kernel check this test's access to the unpacked machine as
// for an ordinary user until the test ends: a file of mode 0400 is then really
// refused. Where root runs the tests the thread becomes uid 65534 for files,
// which binds the test to its thread; where an ordinary user does, the files
// are its own, so those that are closed to others are closed to it too.
func AsUser(t testing.TB, r host.Roots) {
	t.Helper()
	if os.Geteuid() != 0 {
		if !r.Real() {
			closeToOwner(t, r.Path("/"))
		}
		return
	}
	const nobody = 65534
	runtime.LockOSThread()
	_ = unix.Setfsgid(nobody)
	_ = unix.Setfsuid(nobody)
	t.Cleanup(func() {
		_ = unix.Setfsuid(0)
		_ = unix.Setfsgid(0)
		runtime.UnlockOSThread()
	})
}

func closeToOwner(t testing.TB, base string) {
	t.Helper()
	must(t, filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode().Perm()&0o004 != 0 {
			return err
		}
		return os.Chmod(path, 0)
	}))
}

// Skip skips a test for a feature that this machine lacks, and says so in one
// form that a script can count. There is no other way to skip a test in this
// project. A feature is one of host's, or what only tests need: root, bash,
// terminal, quiet-processors, a tool's name.
func Skip(t testing.TB, f host.Feature, reason string) {
	t.Helper()
	if strings.Trim(string(f), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || f == "" {
		t.Fatalf("skipped for %q, which is no feature's name", f)
	}
	t.Skipf("maxwell-skip: %s: %s", f, reason)
}

// Need skips the test if err says that a feature is missing, and fails it on
// any other error.
func Need(t testing.TB, f host.Feature, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if u, ok := errors.AsType[*host.Unavailable](err); ok {
		Skip(t, f, u.Reason)
	}
	t.Fatalf("probe %s: %v", f, err)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
