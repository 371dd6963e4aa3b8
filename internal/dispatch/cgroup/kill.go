package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

const (
	freezePatience = 200 * time.Millisecond // for a tree to stop before it is swept
	sweepPatience  = 2 * time.Second        // for a swept tree to be empty
	batch          = 128                    // pidfds held at once
)

// killTree ends every process below a directory. With cgroup.kill the kernel
// does it in one step and this returns at once, before the processes are gone
// (strike is for those that are not); without it the tree is frozen, swept until it is
// empty, and thawed.
func killTree(dir string, v2 bool) error {
	if v2 {
		err := host.WriteOnce(filepath.Join(dir, "cgroup.kill"), "1")
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if occupied, err := anyone(dir); err != nil || !occupied {
		return err
	}
	frozen := hold(dir, v2)
	_, err := sweep(dir, unix.SIGKILL, sweepPatience)
	switch {
	case frozen && v2:
		err = errors.Join(err, release(dir, v2))
	case frozen:
		err = errors.Join(err, releaseTree(dir))
	}
	return err
}

// strike kills whom cgroup.kill misses: it signals the leader of each process, and one
// that has ended before its other threads takes no signal (seen on Linux 6.18). Nobody
// is waited for. While the tree is frozen the signalled die and the others do not
// fork, so a few rounds reach all.
func strike(dir string) error {
	pids, err := members(dir)
	if err != nil || !slices.ContainsFunc(pids, ending) {
		return err
	}
	if err := host.WriteOnce(filepath.Join(dir, "cgroup.freeze"), "1"); err != nil {
		return err
	}
	seen := map[int]bool{}
	for err == nil && slices.ContainsFunc(pids, func(pid int) bool { return !seen[pid] }) {
		for _, pid := range pids {
			seen[pid] = true
		}
		if err = signalAll(dir, pids, unix.SIGKILL); err == nil {
			pids, err = members(dir)
		}
	}
	return errors.Join(err, release(dir, true))
}

// emptied waits until killed trees are empty, and strikes if they are not soon.
func emptied(v2 bool, empty func() bool, dirs ...string) bool {
	if until(freezePatience, empty) {
		return true
	}
	for _, dir := range dirs {
		if v2 {
			_ = strike(dir) // who is left says it
		}
	}
	return until(killPatience, empty)
}

// hold freezes a tree so that nothing can fork out of the sweep's sight. A
// tree that will not freeze is swept running.
func hold(dir string, v2 bool) bool {
	if v2 {
		if host.WriteOnce(filepath.Join(dir, "cgroup.freeze"), "1") != nil {
			return false
		}
		until(freezePatience, func() bool {
			frozen, err := event(dir, "frozen")
			return err != nil || frozen
		})
		return true
	}
	state := filepath.Join(dir, "freezer.state")
	if host.WriteOnce(state, "FROZEN") != nil {
		return false
	}
	until(freezePatience, func() bool {
		b, err := os.ReadFile(state)
		return err != nil || bytes.HasPrefix(b, []byte("FROZEN"))
	})
	return true
}

func release(dir string, v2 bool) error {
	if v2 {
		return host.WriteOnce(filepath.Join(dir, "cgroup.freeze"), "0")
	}
	return host.WriteOnce(filepath.Join(dir, "freezer.state"), "THAWED")
}

// releaseTree thaws a v1 directory and those below it: a group that was frozen by
// itself, as a market's broke are, stays so when the one above it is thawed, and its
// killed do not die.
func releaseTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = release(path, false)
		}
		if host.Gone(err) {
			return nil // while we walked
		}
		return err
	})
}

// sweep sends a signal to every process of a tree until none is left, and
// says how many it met. A v1 freezer holds a killed process until the thaw, also
// while it waits for one that it cannot stop (FREEZING), so those that stay only
// because of it are not waited for.
func sweep(dir string, sig unix.Signal, patience time.Duration) (met int, err error) {
	seen := map[int]bool{}
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		pids, err := members(dir)
		if err != nil || len(pids) == 0 {
			return len(seen), err
		}
		fresh := false
		for _, pid := range pids {
			fresh = fresh || !seen[pid]
			seen[pid] = true
		}
		if err := signalAll(dir, pids, sig); err != nil {
			return len(seen), err
		}
		if stoppedV1(dir) && !fresh {
			return len(seen), nil
		}
		if time.Now().After(deadline) {
			return len(seen), fmt.Errorf("sweep %s: %d left: %w", dir, len(pids), dispatch.ErrPopulated)
		}
		time.Sleep(pause)
	}
}

// frozenV1 reports whether a v1 group stands still, and stoppedV1 whether it was told
// to.
func frozenV1(dir string) bool  { return stateV1(dir, "FROZEN") }
func stoppedV1(dir string) bool { return stateV1(dir, "FROZEN") || stateV1(dir, "FREEZING") }

func stateV1(dir, word string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
	return err == nil && bytes.HasPrefix(b, []byte(word))
}

// signalAll signals those of pids that are still members. A number may have
// passed to a stranger since it was read, so each is held by a pidfd first and
// the list read again: who is in both is a member.
func signalAll(dir string, pids []int, sig unix.Signal) error {
	var errs []error
	for len(pids) > 0 {
		n := min(len(pids), batch)
		errs = append(errs, signalBatch(dir, pids[:n], sig))
		pids = pids[n:]
	}
	return errors.Join(errs...)
}

func signalBatch(dir string, pids []int, sig unix.Signal) error {
	held := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	var errs []error
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		switch {
		case err == nil:
			held[pid] = fd
		case errors.Is(err, unix.ENOSYS):
			// Before Linux 5.3: the window is a reuse within microseconds.
			if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("signal process %d: %w", pid, err))
			}
		case !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL):
			// ESRCH: gone; EINVAL: going, no longer the leader of a process.
			errs = append(errs, fmt.Errorf("hold process %d: %w", pid, err))
		}
	}
	still, err := members(dir)
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := held[pid]
		if !ok {
			continue
		}
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("signal process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// members lists the processes of a directory and of those below it; a
// workload that is root may have made some. This process is never a member,
// and neither is one that only visits: on v1 a single thread may be in a
// group, as a client's is while it forks, and cgroup.procs then names its
// whole process.
func members(dir string) ([]int, error) {
	_, err := os.Stat(filepath.Join(dir, "tasks"))
	v1 := err == nil
	pids, err := listed(dir)
	return slices.DeleteFunc(pids, func(pid int) bool {
		return pid == os.Getpid() || v1 && visits(pid, dir)
	}), err
}

// visits reports whether the leader of a process is in none of the groups of
// dir's name. A process that cannot be read is gone. One whose leader has ended
// before its other threads is no visitor: v1 shows an ended leader at the top of
// every hierarchy, and a client's leader stays to the end.
func visits(pid int, dir string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return true
	}
	name := []byte("/" + filepath.Base(dir) + "/")
	for line := range bytes.Lines(b) {
		if bytes.Contains(append(bytes.TrimSuffix(line, []byte("\n")), '/'), name) {
			return false
		}
	}
	return !ending(pid)
}

// ending reports whether the leader of a process is on its way out or gone, the very
// thing by which /proc/PID/cgroup decides what it shows. It is asked after that.
func ending(pid int) bool {
	const exiting = 0x4 // PF_EXITING
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	s, ok := host.ParseProcStat(b)
	return err == nil && ok && s.Flags&exiting != 0
}

// listed is what the cgroup files say.
func listed(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone while we walked
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			if host.Gone(err) || errors.Is(err, unix.EOPNOTSUPP) { // threaded: listed by its domain
				return nil
			}
			return fmt.Errorf("list processes of %s: %w", path, bare(err))
		}
		for line := range bytes.FieldsSeq(b) {
			if pid, err := strconv.Atoi(string(line)); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

func anyone(dir string) (bool, error) {
	pids, err := members(dir)
	return len(pids) > 0, err
}

// event reads one key of cgroup.events.
func event(dir, key string) (bool, error) {
	f, err := host.OpenFile(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return false, err
	}
	v, err := f.ReadKey(key)
	return v != 0, errors.Join(err, f.Close())
}

// until asks again and again, a little later each time.
func until(patience time.Duration, done func() bool) bool {
	deadline := time.Now().Add(patience)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		if done() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
}
