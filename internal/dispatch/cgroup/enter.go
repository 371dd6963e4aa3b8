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

// Enter moves a process into the group, the identity last: a process that may not
// put itself there (another user's, of a market of root's). The caller has made sure
// whose it is, and that it is nobody's workload.
func (g *Group) Enter(pid int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return dispatch.ErrClosed
	}
	if g.guest != notGuest {
		return errors.New("nobody is moved into a group that others made")
	}
	for _, dir := range slices.Backward(g.dirs) {
		if err := host.WriteOnce(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("move process %d into %s: %w", pid, dir, bare(err))
		}
	}
	return nil
}
