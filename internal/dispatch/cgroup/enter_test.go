package cgroup

import (
	"errors"
	"os/exec"
	"slices"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
)

// A process that lives is moved into every directory. If it ends on the way and its
// number is another's by then, that one is in none of them afterwards.
func TestEnterTakesStrangersOutAgain(t *testing.T) { everyLayout(t, entersOrNot) }

func entersOrNot(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	for dies := range len(g.dirs) + 1 { // after so many writes; never at last
		cmd := exec.Command("sleep", "100")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid, asked := cmd.Process.Pid, 0
		err := g.Enter(pid, func() bool { asked++; return asked != dies+1 })
		stays := dies == len(g.dirs)
		if stays != (err == nil) || !stays && !errors.Is(err, ErrGone) {
			t.Errorf("it ends after write %d: %v", dies, err)
		}
		for _, dir := range g.dirs {
			inside, err := members(dir)
			if err != nil || slices.Contains(inside, pid) != stays {
				t.Errorf("it ends after write %d: %v are in %s, %v", dies, inside, dir, err)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
