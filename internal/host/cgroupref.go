package host

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Controller is the kernel's name of a cgroup controller.
type Controller string

// Controllers that Maxwell uses.
const (
	CPU     Controller = "cpu"
	CPUAcct Controller = "cpuacct" // v1 only; on v2 part of cpu
	CPUSet  Controller = "cpuset"
	Memory  Controller = "memory"
	Pids    Controller = "pids"
	Freezer Controller = "freezer" // v1 only; never used, v2 freezes without a controller
)

// CgroupRef names one group of processes. The cgroup2 directory is the
// identity, also on machines whose controllers live on v1: there the v1
// directories only actuate.
type CgroupRef struct {
	ID  uint64                // cgroup id, as BPF sees it
	Dir string                // cgroup2 directory, absolute, to be opened as it stands; empty on a machine without cgroup2
	V1  map[Controller]string // v1 directory of each controller that is mounted there; nil on v2 only
}

// File is the path of a file of the group: in the cgroup2 directory.
func (c CgroupRef) File(name string) string { return filepath.Join(c.Dir, name) }

// Ref describes an existing cgroup2 directory. v1 may be nil.
func Ref(dir string, v1 map[Controller]string) (CgroupRef, error) {
	id, err := CgroupID(dir)
	if err != nil {
		return CgroupRef{}, err
	}
	return CgroupRef{ID: id, Dir: dir, V1: v1}, nil
}

// CgroupID is the 64-bit id of a cgroup2 directory, the one that
// bpf_get_current_cgroup_id returns: its inode number in kernfs.
func CgroupID(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("read cgroup id of %s: %w", dir, err)
	}
	return st.Ino, nil
}
