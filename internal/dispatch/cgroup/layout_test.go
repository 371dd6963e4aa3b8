package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// relative prints a plan without the place where the machine was unpacked.
func relative(r host.Roots, p plan) string {
	var words []string
	for _, q := range p.places {
		var word strings.Builder
		word.WriteString(strings.TrimPrefix(q.parent, r.Path("/sys/fs/cgroup")))
		if q.v2 {
			word.WriteString("@2")
		}
		if q.leaf {
			word.WriteString("!")
		}
		for _, c := range q.carries {
			word.WriteString(" " + string(c))
		}
		words = append(words, word.String())
	}
	return strings.Join(words, "; ")
}

func TestLayoutsOfRecordedMachines(t *testing.T) {
	root, systemd := caller{uid: 0}, caller{uid: 0, systemd: true}
	user := caller{uid: 1000, systemd: true}
	for _, c := range []struct {
		machine string
		who     caller
		change  func(host.Roots, *host.Layout)
		want    string // the plan, or the feature that is missing
	}{
		{"vm-hybrid", root, nil, "/unified@2; /cpu cpu; /memory memory; /pids pids"},
		{"vm-hybrid", systemd, nil, "/unified@2; /cpu cpu; /memory memory; /pids pids"},
		{"vm-hybrid", user, nil, "missing cgroup-create"},
		{
			"vm-hybrid", root, func(_ host.Roots, l *host.Layout) { l.V2 = host.Hierarchy{} },
			"/freezer freezer; /cpu cpu; /memory memory; /pids pids; /cpuacct cpuacct",
		},
		{
			"vm-hybrid", root, func(_ host.Roots, l *host.Layout) { l.V1[host.CPUAcct] = l.V1[host.CPU]; l.V2 = host.Hierarchy{} },
			"/freezer freezer; /cpu cpu cpuacct; /memory memory; /pids pids",
		},
		{
			"vm-hybrid", root, func(_ host.Roots, l *host.Layout) { delete(l.V1, host.Memory) },
			"/unified@2; /cpu cpu; /pids pids",
		},
		{"vm-hybrid", root, func(_ host.Roots, l *host.Layout) { delete(l.V1, host.CPU) }, "missing cgroup-cpu"},
		{
			"vm-hybrid", root, func(_ host.Roots, l *host.Layout) { l.V2 = host.Hierarchy{}; delete(l.V1, host.Freezer) },
			"missing cgroup-freeze",
		},
		{"systemd-v2", root, nil, "@2 cpu memory pids"},
		{"systemd-v2", systemd, nil, "missing cgroup-create"},
		{
			"systemd-v2", systemd, func(_ host.Roots, l *host.Layout) { l.Delegated = true },
			"/system.slice/maxwell.service@2! cpu memory pids",
		},
		{"systemd-v2", user, nil, "missing cgroup-create"},
		{"systemd-v2", root, func(_ host.Roots, l *host.Layout) { l.V2.ReadOnly = true }, "missing cgroup-cpu"},
		// A container: the visible top is a group like any other.
		{"systemd-v2", root, func(r host.Roots, _ *host.Layout) {
			_ = os.WriteFile(r.Path("/sys/fs/cgroup/cgroup.type"), []byte("domain\n"), 0o600)
		}, "@2! cpu memory pids"},
		{
			"amd-laptop", user, func(_ host.Roots, l *host.Layout) { l.Delegated = true },
			"/user.slice/user-1000.slice/user@1000.service/app.slice/app-terminal.scope@2! cpu memory pids",
		},
	} {
		r := hosttest.Machine(t, c.machine)
		l, err := host.Discover(r)
		if err != nil {
			t.Fatal(err)
		}
		if l.Delegated {
			_ = os.WriteFile(filepath.Join(l.V2.Own, "cgroup.type"), []byte("domain\n"), 0o600)
		}
		if c.change != nil {
			c.change(r, &l)
		}
		if l.Delegated {
			if err := os.WriteFile(filepath.Join(l.V2.Own, "cgroup.type"), []byte("domain\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, err := lay(l, c.who)
		have := relative(r, p)
		if u, ok := errors.AsType[*host.Unavailable](err); ok {
			have = "missing " + string(u.Feature)
			if u.Hint == "" {
				t.Errorf("%s, %+v: no hint: %v", c.machine, c.who, u)
			}
		} else if err != nil {
			have = err.Error()
		}
		if have != c.want {
			t.Errorf("%s, %+v:\nhave %s\nwant %s", c.machine, c.who, have, c.want)
		}
	}
}

func TestForgivingKernels(t *testing.T) {
	for release, want := range map[string]bool{
		"6.18.44-fc": true, "6.6.0": true, "7.0.1": true, "10.1": true,
		"6.5.13": false, "6.1.0-56-cloud-amd64": false, "5.15.0": false, "": false, "six": false, "6": false,
	} {
		r := hosttest.Machine(t, "vm-hybrid")
		if err := os.MkdirAll(r.Path("/proc/sys/kernel"), 0o755); err != nil {
			t.Fatal(err)
		}
		hosttest.Write(t, r, "/proc/sys/kernel/osrelease", release+"\n")
		if have := forgiving(r); have != want {
			t.Errorf("%q: %v, want %v", release, have, want)
		}
	}
}

func TestSoldProcessors(t *testing.T) {
	all := []int{0, 1, 2, 3}
	for _, c := range []struct {
		cores   unit.MilliCores
		allowed []int
		want    []int
	}{
		{0, all, nil},
		{4000, all, nil},
		{9000, all, nil},
		{3500, all, nil}, // four processors and a quota
		{1000, all, []int{3}},
		{1500, all, []int{2, 3}},
		{100, all, []int{3}},
		{2000, []int{1}, []int{1}},
	} {
		if have := soldProcessors(c.cores, c.allowed, len(all)); !slices.Equal(have, c.want) {
			t.Errorf("%d of %v: %v, want %v", c.cores, c.allowed, have, c.want)
		}
	}
}
