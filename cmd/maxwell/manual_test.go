package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// TestManual: every verb that is not hidden has a page, groff finds no fault in
// any, and shows flags as they are typed.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	a := &app{out: os.Stdout, err: os.Stderr, environ: os.Environ}
	if code := a.execute([]string{"manual", dir}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, name := range []string{"maxwell.1", "maxwell-run.1", "maxwell-audit-verify.1", "maxwell-completion.1", "maxwell.yaml.5"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "maxwell-manual.1")); err == nil {
		t.Error("a hidden verb has a page")
	}
	if _, err := exec.LookPath("groff"); err != nil {
		hosttest.Skip(t, "groff", err.Error())
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		out, err := exec.Command("groff", "-man", "-Tascii", "-ww", "-P-cbou", page).CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning:") {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
		if want := map[string]string{
			"maxwell-run.1": "--budget", "maxwell.yaml.5": "(--set",
		}[filepath.Base(page)]; !strings.Contains(string(out), want) {
			t.Errorf("%s does not show %s:\n%s", page, want, out)
		}
	}
	if code := a.execute([]string{"manual", filepath.Join(dir, "absent")}); code != exitUsage {
		t.Errorf("a directory that is not there: exit code %d", code)
	}
}
