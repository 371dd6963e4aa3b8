package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// leafName is where the node itself lives in a delegated subtree: cgroup v2
// allows no processes in a group that passes controllers to children.
const leafName = "maxwell-node"

// place is one hierarchy in which the market has a root directory.
type place struct {
	parent  string            // existing directory, to be opened as it stands
	v2      bool              // the cgroup2 hierarchy
	carries []host.Controller // what it actuates for us
	leaf    bool              // the own process moves to parent/leafName first
}

func (p *place) has(c host.Controller) bool { return slices.Contains(p.carries, c) }

// plan says in which hierarchies the market works. The identity is the first: the
// cgroup2 one, or the v1 freezer's where there is none.
type plan struct {
	places []place
}

// find is the place that actuates a controller, or -1.
func (p *plan) find(c host.Controller) int {
	return slices.IndexFunc(p.places, func(q place) bool { return q.has(c) })
}

func (p *plan) unified() bool { return len(p.places) > 0 && p.places[0].v2 }

// survey facts that a recorded machine cannot show by its files.
type caller struct {
	uid     int
	systemd bool // pid 1 is systemd
}

func observe(r host.Roots) caller {
	comm, err := r.Proc.ReadText("1/comm")
	return caller{uid: os.Geteuid(), systemd: err == nil && comm == "systemd"}
}

// lay chooses the hierarchies. Controllers are taken from cgroup v2 where it
// offers them and from v1 otherwise; a machine may have both.
func lay(l host.Layout, c caller) (plan, error) {
	var p plan
	if l.V2.Mount != "" && !l.V2.ReadOnly {
		v2, err := layV2(l, c)
		if err != nil {
			return plan{}, err
		}
		p.places = append(p.places, v2)
	}
	wanted := []host.Controller{host.CPU, host.Memory, host.Pids}
	if !p.unified() {
		wanted = []host.Controller{host.Freezer, host.CPU, host.Memory, host.Pids, host.CPUAcct}
	}
	for _, controller := range wanted {
		p.layV1(l, c, controller)
	}
	if p.find(host.CPU) < 0 {
		return plan{}, &host.Unavailable{
			Feature: host.FeatureCgroupCPU,
			Reason:  "no writable cgroup hierarchy has the cpu controller",
			Hint:    containerHint,
		}
	}
	if !p.unified() && p.find(host.Freezer) < 0 {
		return plan{}, &host.Unavailable{
			Feature: host.FeatureCgroupFreeze,
			Reason:  "no cgroup2 mount and no freezer hierarchy",
			Hint:    "mount -t cgroup2 none /sys/fs/cgroup/unified",
		}
	}
	return p, nil
}

const containerHint = "in a container: give it a writable cgroup namespace (docker run --cgroupns=private --privileged)"

// layV2 finds the directory under which the market's root may be made:
// a subtree that was delegated to us, else, for root on a machine that no
// manager runs, the top of the hierarchy.
func layV2(l host.Layout, c caller) (place, error) {
	p := place{parent: l.V2.Mount, v2: true}
	switch {
	case l.Delegated && !l.V2.Outside:
		p.parent = l.V2.Own
	case c.uid != 0:
		return place{}, &host.Unavailable{
			Feature: host.FeatureCgroupCreate,
			Reason:  "the cgroup of this process is not delegated to uid " + strconv.Itoa(c.uid),
			Hint:    strings.Join(scopeCommand(c.uid), " ") + " maxwell ...",
			Class:   host.ErrDenied,
		}
	case c.systemd && l.Mode == host.ModeUnified:
		return place{}, &host.Unavailable{
			Feature: host.FeatureCgroupCreate,
			Reason:  "systemd manages this hierarchy and has not delegated a part of it",
			Hint:    strings.Join(scopeCommand(c.uid), " ") + " maxwell ...",
			Class:   host.ErrDenied,
		}
	}
	offered, err := controllers(filepath.Join(p.parent, "cgroup.controllers"))
	if err != nil {
		return place{}, err
	}
	for _, controller := range []host.Controller{host.CPU, host.Memory, host.Pids} {
		if slices.Contains(offered, string(controller)) {
			p.carries = append(p.carries, controller)
		}
	}
	// The true root of the hierarchy has no cgroup.type and may hold processes
	// beside children; every other group may not.
	_, err = os.Stat(filepath.Join(p.parent, "cgroup.type"))
	p.leaf = err == nil && len(p.carries) > 0
	return p, nil
}

// layV1 adds a controller of a v1 hierarchy, at the top of its mount: there is
// one market on the machine, and repair has to find it whoever looks. In a
// container the top of the mount is the container's own group.
func (p *plan) layV1(l host.Layout, c caller, controller host.Controller) {
	h, mounted := l.V1[controller]
	if p.find(controller) >= 0 || !mounted || h.ReadOnly || c.uid != 0 {
		return
	}
	for i := range p.places {
		if p.places[i].parent == h.Mount { // mounted together: cpu,cpuacct
			p.places[i].carries = append(p.places[i].carries, controller)
			return
		}
	}
	p.places = append(p.places, place{parent: h.Mount, carries: []host.Controller{controller}})
}

// controllers reads a space-separated file such as cgroup.controllers.
func controllers(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, bare(err))
	}
	return strings.Fields(string(b)), nil
}

// scopeCommand asks the service manager for a delegated scope and runs what
// follows inside it.
func scopeCommand(uid int) []string {
	command := []string{"systemd-run", "--quiet", "--collect", "--scope"}
	if uid == 0 {
		command = append(command, "--slice=maxwell.slice")
	} else {
		command = append(command, "--user")
	}
	return append(command, "--property=Delegate=yes")
}

// Delegation says how to start the node so that the cgroup rung works: an
// empty prefix where it works as it is, otherwise the command to put before
// the node's own. It is asked once, by whoever starts the node; a node that
// was started so finds its scope delegated.
func Delegation(r host.Roots) (prefix []string, err error) {
	l, err := host.Discover(r)
	if err != nil {
		return nil, err
	}
	c := observe(r)
	_, err = lay(l, c)
	if err == nil {
		return nil, nil
	}
	if !errors.Is(err, host.ErrDenied) || !c.systemd || l.Mode != host.ModeUnified {
		return nil, err
	}
	if _, missing := r.Sys.Stat("fs/cgroup"); missing != nil {
		return nil, err
	}
	return scopeCommand(c.uid), nil
}

// bare strips the path of an *fs.PathError that the caller names itself.
func bare(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// forgiving reports whether the kernel's scheduler is EEVDF (6.6 and later),
// which rescales what a group is behind when its weight changes. There is no
// way to try it that a busy machine does not blur, so this one ability is read
// from the release; an unreadable one counts as old, which is always safe.
func forgiving(r host.Roots) bool {
	text, err := r.Proc.ReadText("sys/kernel/osrelease")
	if err != nil {
		return false
	}
	major, rest, _ := strings.Cut(text, ".")
	minor := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	return errA == nil && errB == nil && (a > 6 || a == 6 && b >= 6)
}
