package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mode is how a machine mounts its cgroups.
type Mode uint8

// Modes.
const (
	ModeNone    Mode = iota // no cgroup file system is mounted
	ModeV1                  // v1 hierarchies only
	ModeHybrid              // v1 hierarchies with controllers, and a cgroup2 mount beside them
	ModeUnified             // cgroup2 only
)

func (m Mode) String() string {
	return [...]string{"none", "v1", "hybrid", "v2"}[m]
}

// Hierarchy is one mounted cgroup hierarchy. Both paths are to be opened as
// they stand.
type Hierarchy struct {
	Mount    string // where it is mounted
	Own      string // directory of the group this process is in; Mount if that lies outside the mount
	Outside  bool   // the own group is not below the mount
	ReadOnly bool
	Root     string // path of the group that is mounted at Mount, as membership prints it
}

// Dir is the directory of a group as /proc/PID/cgroup prints its path; false if
// it is not below the mount.
func (h Hierarchy) Dir(path string) (string, bool) {
	if h.Mount == "" || path == "" || strings.HasPrefix(path, "/..") || !within(path, h.Root) {
		return "", false
	}
	return filepath.Join(h.Mount, strings.TrimPrefix(path, h.Root)), true
}

// Layout says where the controllers are.
type Layout struct {
	Mode      Mode
	V2        Hierarchy                // zero without a cgroup2 mount
	Offered   []Controller             // controllers the own cgroup2 group may pass to children (cgroup.controllers)
	V1        map[Controller]Hierarchy // v1 controllers that are mounted
	Delegated bool                     // the own cgroup2 group was handed to us, by ownership or by the manager's mark
	Self      Membership
}

// Discover finds the cgroup hierarchies of the machine.
func Discover(r Roots) (Layout, error) {
	text, err := r.Proc.ReadFile("self/mountinfo")
	if err != nil {
		return Layout{}, err
	}
	mounts, err := ParseMounts(text)
	if err != nil {
		return Layout{}, err
	}
	if text, err = r.Proc.ReadFile("self/cgroup"); err != nil {
		return Layout{}, err
	}
	self, err := ParseMembership(text)
	if err != nil {
		return Layout{}, err
	}
	l := Layout{V1: map[Controller]Hierarchy{}, Self: self}
	l.place(r, mounts.Visible())
	l.Mode = l.mode()
	if l.V2.Mount == "" {
		return l, nil
	}
	if l.Offered, err = readControllers(filepath.Join(l.V2.Own, "cgroup.controllers")); err != nil {
		return Layout{}, err
	}
	l.Delegated = delegated(l.V2)
	return l, nil
}

// place assigns mounts to hierarchies. Of several mounts of one hierarchy the
// first that contains the own group wins: a container may see the host's whole
// tree beside its own part.
func (l *Layout) place(r Roots, mounts Mounts) {
	for _, m := range mounts {
		switch m.Type {
		case "cgroup2":
			if h := hierarchy(r, m, l.Self.V2); l.V2.Mount == "" || (l.V2.Outside && !h.Outside) {
				l.V2 = h
			}
		case "cgroup":
			for c, path := range l.Self.V1 {
				if !hasOption(m.Super, string(c)) {
					continue
				}
				h := hierarchy(r, m, path)
				if old, ok := l.V1[c]; !ok || (old.Outside && !h.Outside) {
					l.V1[c] = h
				}
			}
		}
	}
}

func hierarchy(r Roots, m Mount, own string) Hierarchy {
	h := Hierarchy{Mount: r.Path(m.Point), Root: m.Root, ReadOnly: hasOption(m.Options, "ro") || hasOption(m.Super, "ro")}
	// "/../x" is how the kernel prints a group outside the cgroup namespace.
	if own == "" || strings.HasPrefix(own, "/..") || !within(own, m.Root) {
		h.Own, h.Outside = h.Mount, true
		return h
	}
	h.Own = filepath.Join(h.Mount, strings.TrimPrefix(own, m.Root))
	return h
}

func (l *Layout) mode() Mode {
	switch {
	case l.V2.Mount != "" && len(l.V1) == 0:
		return ModeUnified
	case l.V2.Mount != "":
		return ModeHybrid
	case len(l.V1) != 0:
		return ModeV1
	}
	return ModeNone
}

// Version says which version serves a controller: 2, 1 or 0 for none. On v2
// cpuacct is part of every group and freezing needs no controller.
func (l *Layout) Version(c Controller) int {
	switch {
	case slices.Contains(l.Offered, c):
		return 2
	case l.V2.Mount != "" && (c == Freezer || c == CPUAcct):
		return 2
	case l.V1[c].Mount != "":
		return 1
	}
	return 0
}

// V1Dirs gives the directory of the child name below the own group in each v1
// hierarchy of the listed controllers that is mounted; nil if none is.
func (l *Layout) V1Dirs(name string, list ...Controller) map[Controller]string {
	var dirs map[Controller]string
	for _, c := range list {
		h, ok := l.V1[c]
		if !ok {
			continue
		}
		if dirs == nil {
			dirs = make(map[Controller]string, len(list))
		}
		dirs[c] = filepath.Join(h.Own, name)
	}
	return dirs
}

// readControllers reads a space-separated list such as cgroup.controllers.
func readControllers(path string) ([]Controller, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, plain(err))
	}
	var list []Controller
	for word := range strings.FieldsSeq(string(b)) {
		list = append(list, Controller(word))
	}
	return list, nil
}

// delegated reports whether the own group is ours to divide: a manager marked
// it (systemd sets user.delegate or trusted.delegate to 1), or, for an
// unprivileged user, the three files that the kernel documents for delegation
// are writable (Documentation/admin-guide/cgroup-v2.rst, "Delegation").
func delegated(h Hierarchy) bool {
	if h.Outside || h.ReadOnly {
		return false
	}
	var one [1]byte
	for _, attr := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(h.Own, attr, one[:]); err == nil && n == 1 && one[0] == '1' {
			return true
		}
	}
	if os.Geteuid() == 0 {
		return false // root may write anywhere: that is not delegation
	}
	for _, name := range []string{"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		if unix.Faccessat(unix.AT_FDCWD, filepath.Join(h.Own, name), unix.W_OK, unix.AT_EACCESS) != nil {
			return false
		}
	}
	return true
}
