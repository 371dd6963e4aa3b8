package cgroup

import (
	"bytes"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

const (
	groupDescriptors = 2   // kept for each group: weight and freeze
	spareDescriptors = 512 // sockets, pipes and files of the rest of the program
	mostMemoryGroups = 65535
)

// limit is one thing a machine can run out of, counted in workloads.
type limit struct {
	name string
	most int64
	hint string
}

// room is how many workloads this machine has place for.
type room struct{ limits []limit }

// measure reads the limits that many workloads run into first.
func measure(r host.Roots, cfg Config, p *plan) room {
	var m room
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		each := int64(groupDescriptors + cfg.Descriptors)
		have := int64(min(files.Cur, math.MaxInt32))
		m.add("open files (RLIMIT_NOFILE)", (have-spareDescriptors)/each, "raise it with ulimit -n or LimitNOFILE=")
	}
	if v, ok := procNumber(r, "sys/kernel/pid_max"); ok {
		m.add("process numbers (kernel.pid_max)", v-1024, "sysctl kernel.pid_max=4194304")
	}
	if v, ok := procNumber(r, "sys/kernel/threads-max"); ok {
		m.add("threads (kernel.threads-max)", v-1024, "sysctl kernel.threads-max")
	}
	if v, ok := procNumber(r, "sys/fs/inotify/max_user_watches"); ok && p.unified() {
		m.add("inotify watches (fs.inotify.max_user_watches)", v, "sysctl fs.inotify.max_user_watches")
	}
	if p.find(host.Memory) >= 0 {
		m.add("memory groups of the kernel", mostMemoryGroups-1024, "")
	}
	for i := range p.places {
		if p.places[i].v2 {
			m.addFile(filepath.Join(p.places[i].parent, "cgroup.max.descendants"), "cgroups (cgroup.max.descendants)")
		}
		if p.places[i].has(host.Pids) {
			m.addFile(filepath.Join(p.places[i].parent, "pids.max"), "processes (pids.max of the parent group)")
		}
	}
	return m
}

func (m *room) add(name string, most int64, hint string) {
	m.limits = append(m.limits, limit{name: name, most: max(most, 0), hint: hint})
}

// addFile adds a limit that a cgroup file holds; "max" and absence mean none.
func (m *room) addFile(path, name string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	if v, err := host.ParseInt(bytes.TrimSpace(b)); err == nil && v < math.MaxInt64 {
		m.add(name, v, "raise "+path)
	}
}

func procNumber(r host.Roots, name string) (int64, bool) {
	b, err := r.Proc.ReadFile(name)
	if err != nil {
		return 0, false
	}
	v, err := host.ParseInt(b)
	return v, err == nil
}

// tightest is the limit that binds first.
func (m *room) tightest() (limit, bool) {
	var best limit
	found := false
	for _, l := range m.limits {
		if !found || l.most < best.most {
			best, found = l, true
		}
	}
	return best, found
}

// Admit says whether n more workloads have place on this machine;
// *dispatch.LimitError names the limit that binds. Ask it before the first of
// a fleet is started.
func (e *Enforcer) Admit(n int) error {
	e.mu.Lock()
	have := int64(len(e.names))
	e.mu.Unlock()
	l, ok := e.room.tightest()
	if !ok || have+int64(n) <= l.most {
		return nil
	}
	return &dispatch.LimitError{Limit: l.name, Need: have + int64(n), Have: l.most, Hint: l.hint}
}
