package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// ErrGone says that a process ended while it was moved.
var ErrGone = errors.New("the process ended while it was moved")

// Enter moves a process into the group, the identity last: a process that may not
// put itself there (another user's, of a market of root's). The caller has made sure
// whose it is, and that it is nobody's workload.
//
// Groups are written by number, and a number may pass to a stranger as soon as its
// process has been reaped. lives asks by something that does not (a pidfd) and is asked
// after every write: whoever came in under the number of a dead process is taken out
// again, into the node's own groups, and the answer is ErrGone.
func (g *Group) Enter(pid int, lives func() bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return dispatch.ErrClosed
	}
	if g.guest != notGuest {
		return errors.New("nobody is moved into a group that others made")
	}
	for i, dir := range slices.Backward(g.dirs) {
		if err := host.WriteOnce(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("move process %d into %s: %w", pid, dir, bare(err))
		}
		if !lives() {
			return errors.Join(ErrGone, g.expel(pid, i))
		}
	}
	return nil
}

// expel takes a number out of the directories from the i-th on.
func (g *Group) expel(pid, i int) error {
	var errs []error
	for ; i < len(g.dirs); i++ {
		inside, err := members(g.dirs[i])
		if err == nil && slices.Contains(inside, pid) {
			err = host.WriteOnce(filepath.Join(g.market.home[i], "cgroup.procs"), strconv.Itoa(pid))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take process %d out of %s: %w", pid, g.dirs[i], bare(err)))
		}
	}
	return errors.Join(errs...)
}
