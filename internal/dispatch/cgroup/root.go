package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Root is the market's directory in one hierarchy, as the watchdog and repair
// need to know it.
type Root struct {
	Dir   string   `json:"dir"`
	V2    bool     `json:"v2"`
	Added []string `json:"added,omitempty"` // controllers to take out of the parent's subtree_control
}

// rooted is a Root that this process made and holds.
type rooted struct {
	Root
	lock    *host.DirLock
	adopted bool // a dead daemon made it
}

// addedAttr names the controllers that the market's maker added to its
// parent. It lies beside the mark, which says whose it is.
const addedAttr = "maxwell.added"

// settleIn makes the market's directory in one hierarchy, locked and marked
// before anything is in it.
func settleIn(p *place, name string, mark host.Mark) (r rooted, err error) {
	r.Root = Root{Dir: filepath.Join(p.parent, name), V2: p.v2}
	if err := os.Mkdir(r.Dir, 0o755); err != nil {
		return rooted{}, fmt.Errorf("make %s: %w", r.Dir, bare(err))
	}
	undo := func(err error) (rooted, error) {
		if r.lock != nil {
			err = errors.Join(err, r.lock.Close())
		}
		return rooted{}, errors.Join(err, unix.Rmdir(r.Dir))
	}
	if r.lock, err = host.LockDir(r.Dir); err != nil {
		return undo(err)
	}
	if err := host.SetMark(r.Dir, mark); err != nil {
		return undo(err)
	}
	return r, nil
}

// enable passes the controllers of a v2 place to the market's root and from
// there to the wallets. What the parent did not pass before is noted on the
// root, so that whoever cleans up takes it back.
func (r *rooted) enable(p *place) error {
	if !p.v2 || len(p.carries) == 0 {
		return nil
	}
	if p.leaf {
		if err := moveToLeaf(p.parent); err != nil {
			return err
		}
	}
	control := filepath.Join(p.parent, subtreeControl)
	already, err := controllers(control)
	if err != nil {
		return err
	}
	for _, c := range p.carries {
		if slices.Contains(r.Added, string(c)) {
			continue // by the daemon whose root we adopted
		}
		if !slices.Contains(already, string(c)) || addedByNeighbour(p.parent, r.Dir, string(c)) {
			r.Added = append(r.Added, string(c))
		}
	}
	if err := r.note(); err != nil {
		return err
	}
	want := switchOn(p.carries)
	if err := host.WriteOnce(control, want); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return &host.Unavailable{
				Feature: host.FeatureCgroupCPU,
				Reason:  p.parent + " holds processes that Maxwell did not start",
				Hint:    "start Maxwell in a cgroup of its own, or give the container's first process one",
				Class:   host.ErrDenied, Cause: err,
			}
		}
		return fmt.Errorf("pass controllers: %w", err)
	}
	return host.WriteOnce(filepath.Join(r.Dir, subtreeControl), want)
}

const subtreeControl = "cgroup.subtree_control"

func switchOn(list []host.Controller) string {
	words := make([]string, len(list))
	for i, c := range list {
		words[i] = "+" + string(c)
	}
	return strings.Join(words, " ")
}

// moveToLeaf moves this process, and nothing else, out of the way.
func moveToLeaf(parent string) error {
	leaf := filepath.Join(parent, leafName)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", leaf, bare(err))
	}
	if err := host.WriteOnce(filepath.Join(leaf, "cgroup.procs"), "0"); err != nil {
		return fmt.Errorf("move the node to its leaf: %w", err)
	}
	return nil
}

// leaveLeaf moves this process back and removes the leaf, as far as that is
// possible: while the watchdog is in it, or another market still passes
// controllers, it stays until the scope ends.
func leaveLeaf(parent string) {
	if host.WriteOnce(filepath.Join(parent, "cgroup.procs"), "0") == nil {
		_ = unix.Rmdir(filepath.Join(parent, leafName))
	}
}

// note stores the added controllers on the directory.
func (r *rooted) note() error {
	if len(r.Added) == 0 {
		return nil
	}
	return setAttr(r.Dir, addedAttr, strings.Join(r.Added, " "))
}

// addedTo reads what note stored.
func addedTo(dir string) []string { return strings.Fields(attr(dir, addedAttr)) }

// setAttr stores a word beside the mark, which says whose it is: in the trusted
// name space where that is allowed (root), in the user's otherwise.
func setAttr(dir, name, text string) error {
	err := unix.Setxattr(dir, "trusted."+name, []byte(text), 0)
	if err != nil {
		err = unix.Setxattr(dir, "user."+name, []byte(text), 0)
	}
	if err != nil {
		return fmt.Errorf("note %s on %s: %w", name, dir, err)
	}
	return nil
}

// removeAttr takes a word away, if it is there.
func removeAttr(dir, name string) {
	for _, space := range []string{"trusted.", "user."} {
		_ = unix.Removexattr(dir, space+name)
	}
}

// attr reads what setAttr stored; empty if there is nothing. A mark counts by
// its own rules; these are read only from marked directories.
func attr(dir, name string) string {
	var buf [128]byte
	for _, space := range []string{"trusted.", "user."} {
		if n, err := unix.Lgetxattr(dir, space+name, buf[:]); err == nil {
			return string(buf[:n])
		}
	}
	return ""
}

// addedByNeighbour reports whether another market beside ours switched a
// controller on: the last of the two to go switches it off.
func addedByNeighbour(parent, own, controller string) bool {
	for _, dir := range marked(parent) {
		if dir != own && slices.Contains(addedTo(dir), controller) {
			return true
		}
	}
	return false
}

// marked lists the marked directories directly under parent.
func marked(parent string) []string {
	list, err := os.ReadDir(parent)
	if err != nil {
		return nil
	}
	var dirs []string
	for _, entry := range list {
		dir := filepath.Join(parent, entry.Name())
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), defaultName) {
			continue
		}
		if _, err := host.ReadMark(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// weigh gives the market the weight of a neighbour and the size of the cores
// it sells: never more, or ordinary threads starve (6 s late with the v1
// maximum, measured on a 2-core VM).
func (r *rooted) weigh(cores unit.MilliCores, online int) error {
	whole := cores <= 0 || cores >= unit.MilliCores(online)*1000
	if r.adopted {
		// The caps of its maker, and of the groups, which on v1 would forbid a
		// narrower one above them; each adopted group writes its own again.
		if err := r.uncap(); err != nil {
			return err
		}
	}
	if r.V2 {
		if err := host.WriteOnce(filepath.Join(r.Dir, "cpu.weight"), "100"); err != nil {
			return err
		}
		if whole {
			return nil
		}
		return writeQuota(r.Dir, true, quotaOf(cores, parentPeriod))
	}
	sold := unit.MilliCores(online) * 1000
	if !whole {
		sold = cores
	}
	shares := min(max(1024*int64(sold)/1000, 2), 1024*int64(online))
	if err := host.WriteOnce(filepath.Join(r.Dir, "cpu.shares"), fmt.Sprint(shares)); err != nil {
		return err
	}
	if whole {
		return nil
	}
	return writeQuota(r.Dir, false, quotaOf(cores, parentPeriod))
}

// restore takes back what the market added to its parent. It comes after the
// market's directory is gone.
func (r *Root) restore() error {
	if len(r.Added) == 0 {
		return nil
	}
	parent := filepath.Dir(r.Dir)
	var errs []error
	for _, c := range r.Added {
		if addedByNeighbour(parent, r.Dir, c) {
			continue
		}
		err := host.WriteOnce(filepath.Join(parent, subtreeControl), "-"+c)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("take %s back: %w", c, err))
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a directory of the cgroup file system and those below
// it, deepest first. A group whose last process is just exiting answers EBUSY
// for some milliseconds.
func removeTree(dir string, patience time.Duration) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, bare(err))
	}
	for _, entry := range list {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name()), patience); err != nil {
				return err
			}
		}
	}
	deadline := time.Now().Add(patience)
	for wait := 200 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		err := unix.Rmdir(dir)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EBUSY) || time.Now().After(deadline):
			return fmt.Errorf("remove %s: %w", dir, err)
		}
		time.Sleep(wait)
	}
}
