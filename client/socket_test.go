package client

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestPlaces: the order in which sockets are tried, which is the command's.
func TestPlaces(t *testing.T) {
	machine := "/run/maxwell/market.sock"
	for _, c := range []struct {
		name   string
		env    map[string]string
		uid    int
		closed []string
		want   []string
	}{
		{"workload", map[string]string{"MAXWELL_SOCKET": "/s", "MAXWELL_RUNTIME_DIR": "/d"}, 1000, nil, []string{"/s"}},
		{"test", map[string]string{"MAXWELL_RUNTIME_DIR": "/d"}, 0, nil, []string{"/d/market.sock"}},
		{"root", nil, 0, nil, []string{machine}},
		{"root without /run", nil, 0, []string{"/tmp/maxwell-0"}, []string{machine, "/tmp/maxwell-0/market.sock"}},
		{"session", map[string]string{"XDG_RUNTIME_DIR": "/x"}, 1000, []string{"/x", "/run/user/1000"}, []string{machine, "/x/maxwell/market.sock"}},
		{"another's session", map[string]string{"XDG_RUNTIME_DIR": "/x"}, 1000, []string{"/run/user/1000"}, []string{machine, "/run/user/1000/maxwell/market.sock"}},
		{"relative session", map[string]string{"XDG_RUNTIME_DIR": "x"}, 1000, []string{"x", "/tmp/maxwell-1000"}, []string{machine, "/tmp/maxwell-1000/market.sock"}},
		{"trap in /tmp", nil, 1000, nil, []string{machine}},
	} {
		got := places(func(k string) string { return c.env[k] }, c.uid, func(dir string, _ int) bool { return slices.Contains(c.closed, dir) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestClosedDir: only a real directory of ours that is closed to others.
func TestClosedDir(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"closed": 0o700, "open": 0o755} {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(at, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(at, at+".link"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	me := os.Geteuid()
	for name, want := range map[string]bool{"closed": true, "open": false, "closed.link": false, "file": false, "missing": false} {
		if got := closedDir(filepath.Join(dir, name), me); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if closedDir(filepath.Join(dir, "closed"), me+1) {
		t.Error("another's directory counts as ours")
	}
}
