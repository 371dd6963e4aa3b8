package signal

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// hold reaches every process of a tree: by one call in a namespace, by sweeps
// elsewhere.
type hold struct {
	tree  *tree
	swept bool
	group int // swept: process group of the command, if it has one of its own; else 0

	spare  map[int]uint64 // stopped by others before we stopped the tree
	unheld map[int]string // swept: what a sweep did not reach
}

// maxSweeps bounds how often a sweep follows a tree that forks meanwhile.
const maxSweeps = 8

// stop stops the tree. With look, those already stopped are remembered first,
// so that go on leaves them alone; without, only those already known are
// looked at again.
func (h *hold) stop(look bool) error {
	var err error
	if look {
		h.spare, err = h.tree.stopped()
	} else {
		for pid, start := range h.spare {
			if !h.tree.isStopped(pid, start) {
				delete(h.spare, pid)
			}
		}
	}
	return errors.Join(err, h.all(unix.SIGSTOP))
}

// resume lets the tree run again, but for those that others had stopped.
func (h *hold) resume() error {
	if len(h.spare) == 0 && !h.swept {
		return h.all(unix.SIGCONT)
	}
	if err := h.tree.list(); err != nil {
		return err
	}
	var errs error
	for pid, p := range h.tree.live {
		if start, ok := h.spare[pid]; ok && start == p.start {
			continue
		}
		if err := unix.Kill(pid, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = errors.Join(errs, fmt.Errorf("continue process %d: %w", pid, err))
		}
	}
	return errs
}

// all sends a signal to every process of the tree. In a namespace the kernel
// does it under one lock, and a fork under way is undone.
func (h *hold) all(sig unix.Signal) error {
	if h.swept {
		return h.sweep(sig)
	}
	if err := unix.Kill(-1, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal the tree: %w", err)
	}
	return nil
}

// sweep signals each descendant, and again those that were born meanwhile.
// What could not be reached is remembered by number.
func (h *hold) sweep(sig unix.Signal) error {
	if h.group != 0 {
		_ = unix.Kill(-h.group, sig) // one moment for the well-behaved; the sweep decides
	}
	done := map[int]uint64{}
	clear(h.unheld)
	for range maxSweeps {
		h.tree.stale = true
		if err := h.tree.list(); err != nil {
			return err
		}
		fresh := 0
		for pid, p := range h.tree.live {
			if p.state == 'Z' || done[pid] == p.start {
				continue
			}
			done[pid] = p.start
			fresh++
			if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				h.miss(pid, err.Error())
			}
		}
		if fresh == 0 {
			return nil
		}
	}
	h.miss(0, "the tree forks faster than it can be swept")
	return nil
}

func (h *hold) miss(pid int, why string) {
	if h.unheld == nil {
		h.unheld = map[int]string{}
	}
	h.unheld[pid] = why
}
