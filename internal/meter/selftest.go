package meter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/meter/bpf"
)

// openBPF loads the BPF meter and believes it only after it has counted real
// children as the kernel itself counts them.
func openBPF(cfg Config) (*kernel, error) {
	if cfg.Parent.Dir == "" {
		return nil, refuseBPF("no cgroup2 directory to count in", "", nil)
	}
	level, tgid, err := locate(cfg.Parent.Dir)
	if err != nil {
		return nil, refuseBPF("ask the kernel where this process stands", "", err)
	}
	k, err := newKernel(cfg, level, tgid)
	if err != nil {
		return nil, refuseBPF("load the programs", loadHint(err), err)
	}
	if err := k.test(cfg); err != nil {
		return nil, errors.Join(refuseBPF("count a child as the kernel does", "", err), k.Close())
	}
	return k, nil
}

func refuseBPF(did, hint string, err error) *host.Unavailable {
	u := &host.Unavailable{Feature: host.FeatureBPF, Reason: did, Hint: hint, Cause: err}
	if err != nil {
		u.Reason = fmt.Sprintf("%s: %v", did, err)
	}
	if errors.Is(err, fs.ErrPermission) {
		u.Class = host.ErrDenied
	}
	return u
}

func loadHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "run as root, or give the process CAP_BPF and CAP_PERFMON"
	case errors.Is(err, ebpf.ErrNotSupported):
		return "needs Linux 5.12 or later with BTF (CONFIG_DEBUG_INFO_BTF)"
	}
	return ""
}

// locate finds the depth of the wallets' directories in the kernel's own
// count, which begins at the true root of the cgroup2 tree, and our process id
// in the root pid namespace. Both may be hidden by a container: paths begin at
// the container's root. So the kernel is asked for the ids of our own
// ancestors, and the one that is also an ancestor of parent gives the depth.
func locate(parent string) (level uint32, tgid uint64, err error) {
	self, err := bpf.Whoami()
	if err != nil {
		return 0, 0, err
	}
	dirs, ids, err := lineage(parent)
	if err != nil {
		return 0, 0, err
	}
	for up, id := range ids {
		for l, ancestor := range self.Ancestors {
			if ancestor == id {
				return uint32(l + up + 1), self.Tgid, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("no common ancestor of %s and of this process, up to %s", parent, dirs[len(dirs)-1])
}

// lineage lists a cgroup2 directory and its ancestors up to the mount, with
// their ids, nearest first.
func lineage(dir string) (dirs []string, ids []uint64, err error) {
	var dev uint64
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return nil, nil, fmt.Errorf("stat %s: %w", dir, err)
		}
		if len(dirs) == 0 {
			dev = uint64(st.Dev)
		}
		if uint64(st.Dev) != dev {
			return dirs, ids, nil
		}
		dirs, ids = append(dirs, dir), append(ids, st.Ino)
		if dir == "/" || dir == "." {
			return dirs, ids, nil
		}
	}
}

const (
	testDir = "maxwell-meter-test"

	// testRun is how much the self-test wants to see counted, in at most
	// testStarts children; a single one may be as short as 0.5 ms.
	testRun    = 2 * time.Millisecond
	testStarts = 8

	// testTolerance allows for cpu.stat's microseconds and for what a child
	// does between leaving its group and its end.
	testTolerance = 20 * time.Microsecond
)

// test counts children in a group of their own and compares with the group's
// cpu.stat.
func (k *kernel) test(cfg Config) (err error) {
	dir := filepath.Join(k.parent, testDir)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	defer func() { err = errors.Join(err, removeDir(dir)) }()
	ref, err := host.Ref(dir, nil)
	if err != nil {
		return err
	}
	if err := k.Add(0, ref); err != nil {
		return err
	}
	begin := time.Now()
	err = burn(cfg.Probe, dir)
	have, removeErr := k.Remove(0)
	if err = errors.Join(err, removeErr); err != nil {
		return err
	}
	want, err := usage(dir)
	if err != nil {
		return err
	}
	off := time.Duration(have.Run) - want
	if want == 0 || off.Abs() > testTolerance+want/100 {
		return fmt.Errorf("counted %s where cpu.stat says %s", time.Duration(have.Run), want)
	}
	stay := time.Duration(have.Run + have.Wait)
	if k.waits() && (have.Runnable != 0 || stay > time.Since(begin)+testTolerance) {
		// One child at a time was runnable, and none is left.
		k.counters.Waiting = fmt.Errorf("waiting: counted %s runnable within %s, and %d left", stay, time.Since(begin), have.Runnable)
	}
	return nil
}

// burn starts children in the group until it has used testRun.
func burn(probe []string, dir string) error {
	group, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer group.Close()
	candidates := [][]string{probe, {"/bin/true"}, {"/usr/bin/true"}, {"/bin/sh", "-c", ":"}}
	if len(probe) == 0 {
		candidates = candidates[1:]
	}
	var used time.Duration
	for i := 0; i < testStarts && used < testRun; i++ {
		args := candidates[0]
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
		err := cmd.Run()
		switch {
		case errors.Is(err, fs.ErrNotExist) && len(candidates) > 1:
			candidates = candidates[1:]
		case err != nil && cmd.ProcessState == nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("start %s in %s: %w", args[0], dir, err)
		}
		// A child that finds no program has run up to there, which counts.
		if used, err = usage(dir); err != nil {
			return err
		}
	}
	return nil
}

// usage is the processor time of a cgroup2 directory, by the kernel's count.
func usage(dir string) (time.Duration, error) {
	f, err := host.OpenFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	us, err := f.ReadKey("usage_usec")
	return time.Duration(us) * time.Microsecond, err
}

// removeDir removes a cgroup directory that has just become empty.
func removeDir(dir string) error {
	var err error
	for range 50 {
		if err = unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
