package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/market"
)

// playDelegate is a node without privilege inside a subtree that was handed to
// it. It says "ok" or what went wrong.
func playDelegate() {
	if err := delegate(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func delegate() error {
	roots, err := host.Open()
	if err != nil {
		return err
	}
	e, err := Open(Config{Name: "maxwell-test-user"}, roots)
	if err != nil {
		return err
	}
	opened, err := e.Open(0, "w", dispatch.Limits{Pids: 50, Memory: 64 << 20})
	if err != nil {
		return errors.Join(err, e.Close())
	}
	g := opened.(*Group)
	p, err := launch.Start(launch.Spec{Args: []string{"sh", "-c", "setsid sh -c 'while :; do sleep 0.01; done' & while :; do :; done"}}, g.Placement())
	if err != nil {
		return errors.Join(err, e.Close())
	}
	err = errors.Join(
		e.Apply(50*time.Millisecond, []dispatch.Share{{Class: uint8(market.Loser), Tier: 3}}),
		e.Apply(50*time.Millisecond, []dispatch.Share{{Class: uint8(market.Margin), Granted: 50e6}}),
		g.Freeze(), g.Lane(true), g.Thaw(), g.Kill(), g.Await(5*time.Second))
	_, waited := p.Wait()
	return errors.Join(err, waited, g.Remove(), e.Close())
}

// TestDelegatedSubtree hands a subtree to an ordinary user, as systemd does
// for a user's session, and lets it run a market there.
func TestDelegatedSubtree(t *testing.T) {
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "only root can hand over a subtree")
	}
	layout, err := host.Discover(realRoots(t))
	if err != nil {
		t.Fatal(err)
	}
	offered, err := controllers(filepath.Join(layout.V2.Mount, "cgroup.controllers"))
	if err != nil || !slices.Contains(offered, "cpu") {
		hosttest.Skip(t, "cgroup2-cpu", "the cpu controller is not on cgroup v2 here")
	}
	const nobody = 65534
	control := filepath.Join(layout.V2.Mount, subtreeControl)
	already, err := controllers(control)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.WriteOnce(control, "+cpu +memory +pids"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(layout.V2.Mount, testName()+"-handed")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = killTree(dir, true)
		if err := removeTree(dir, sweepPatience); err != nil {
			t.Error(err)
		}
		for _, c := range []string{"cpu", "memory", "pids"} {
			if slices.Contains(already, c) {
				continue
			}
			if err := host.WriteOnce(control, "-"+c); err != nil {
				t.Error(err)
			}
		}
	})
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads", subtreeControl} {
		if err := unix.Chown(filepath.Join(dir, name), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := launch.Start(launch.Spec{
		Args: []string{"/proc/self/exe"}, Env: append(os.Environ(), roleVariable+"=delegate"), Dir: "/",
		Files:      [3]*os.File{1: w, 2: w},
		Credential: &launch.Identity{UID: nobody, GID: nobody},
	}, dispatch.Placement{Cgroup: dir})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Signal(syscall.SIGKILL) })
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if s := finish(t, p); s.Code != 0 || strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("the user's market: exit %d, %s", s.Code, out)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if entry.IsDir() {
			t.Errorf("%s is left behind", entry.Name())
		}
	}
}
