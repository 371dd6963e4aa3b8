package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// deaths is the kernel's notice that a tree became empty: one inotify
// descriptor for all groups, so that nobody has to ask each of them in turn.
type deaths struct {
	fd     int
	slots  map[int32]int // watch -> slot
	marks  map[int]int32 // slot -> watch
	dirs   map[int]string
	buffer [4096]byte
}

func openDeaths() (*deaths, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		return nil, fmt.Errorf("watch for deaths: fs.inotify.max_user_instances or open files used up: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("watch for deaths: %w", err)
	}
	return &deaths{fd: fd, slots: map[int32]int{}, marks: map[int]int32{}, dirs: map[int]string{}}, nil
}

func (d *deaths) watch(slot int, dir string) error {
	if _, done := d.dirs[slot]; done {
		return nil
	}
	wd, err := unix.InotifyAddWatch(d.fd, filepath.Join(dir, "cgroup.events"), unix.IN_MODIFY)
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	mark := int32(wd)
	d.slots[mark], d.marks[slot], d.dirs[slot] = slot, mark, dir
	return nil
}

// unwatch forgets a slot. The kernel drops the watch with the directory.
func (d *deaths) unwatch(slot int) {
	if _, there := d.dirs[slot]; !there {
		return
	}
	delete(d.slots, d.marks[slot])
	delete(d.marks, slot)
	delete(d.dirs, slot)
}

func (d *deaths) close() error { return unix.Close(d.fd) }

// DeathFD is readable when a tree may have become empty; -1 where the kernel
// gives no such notice (v1 only) and Populated has to be asked.
func (e *Enforcer) DeathFD() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.deaths == nil {
		return -1
	}
	return e.deaths.fd
}

// Watch asks that Deaths names slot when its tree becomes empty. The file tells
// of starts and of freezes too, so only those that are ending are worth it. A
// tree that was empty before is not named: ask Populated after this call.
func (e *Enforcer) Watch(slot int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.deaths == nil || slot < 0 || slot >= len(e.groups) || e.groups[slot] == nil {
		return nil
	}
	err := e.deaths.watch(slot, e.groups[slot].unified)
	if host.Gone(err) {
		return nil
	}
	return err
}

// Deaths appends the slots of Watch whose trees became empty since the last
// call. It never blocks.
func (e *Enforcer) Deaths(list []int) ([]int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := e.deaths
	if d == nil {
		return list, nil
	}
	for {
		n, err := unix.Read(d.fd, d.buffer[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return list, nil
		case err != nil:
			return list, fmt.Errorf("read deaths: %w", err)
		}
		list = d.collect(list, d.buffer[:n])
	}
}

// collect reads inotify records. When the kernel dropped some (IN_Q_OVERFLOW)
// every group is asked.
func (d *deaths) collect(list []int, b []byte) []int {
	for len(b) >= unix.SizeofInotifyEvent {
		mark := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		name := binary.NativeEndian.Uint32(b[12:])
		b = b[min(unix.SizeofInotifyEvent+int(name), len(b)):]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for slot := range d.dirs {
				list = d.ask(list, slot)
			}
			continue
		}
		if slot, ok := d.slots[mark]; ok {
			list = d.ask(list, slot)
		}
	}
	return list
}

func (d *deaths) ask(list []int, slot int) []int {
	populated, err := event(d.dirs[slot], "populated")
	if err != nil && !host.Gone(err) || populated {
		return list
	}
	if slices.Contains(list, slot) {
		return list
	}
	return append(list, slot)
}
