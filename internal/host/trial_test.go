package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each step of a trial fails typed on a directory that is no cgroup.
func TestTrialStepsRefuse(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	s := Survey{Name: "maxwell-test-trial"}
	put("cgroup.events", "populated 0\nfrozen 0\n")
	closed := put("cgroup.subtree_control", "memory\n")
	for name, c := range map[string]struct {
		err  error
		text string
	}{
		"freeze without the file": {tryFreeze(dir), "write cgroup.freeze"},
		"kill without the file":   {tryKill(dir), "write cgroup.kill"},
		"knob that is not there":  {setKnob(FeatureCgroupCPU, filepath.Join(dir, "cpu.weight"), "50"), "write cpu.weight"},
		"knob that keeps more":    {setKnob(FeatureCgroupCPU, put("pids.max", "123456"), "64"), "read 643456"},
		"not passed on":           {func() error { _, err := s.passOn(dir, CPU); return err }(), "does not pass cpu"},
	} {
		if !errors.Is(c.err, ErrUnavailable) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%s: %v; want unavailable, %q", name, c.err, c.text)
		}
	}
	if back, err := s.passOn(dir, Memory); err != nil || back == nil {
		t.Errorf("a controller that is passed on already: %v", err)
	}
	if b, err := os.ReadFile(closed); err != nil || string(b) != "memory\n" {
		t.Errorf("subtree_control was written: %q, %v", b, err)
	}
}

// A child that does not enter the group is found out and ended.
func TestStartIntoNoGroup(t *testing.T) {
	if _, _, err := (Survey{}).startInto(t.TempDir()); err == nil {
		t.Error("a child was started into a directory that is no cgroup")
	}
}
