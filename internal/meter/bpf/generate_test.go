// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

package bpf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// TestObjectIsWhatTheSourceSays compiles the source again, in another place,
// and compares with what is committed.
func TestObjectIsWhatTheSourceSays(t *testing.T) {
	for _, tool := range []string{"clang-16", "llvm-strip-16"} {
		if _, err := exec.LookPath(tool); err != nil {
			hosttest.Skip(t, host.Feature(tool), "not installed: the committed object cannot be compared")
		}
	}
	source, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, ok := strings.Cut(string(source), "//go:generate ")
	if !ok {
		t.Fatal("generate.go has no directive")
	}
	line, _, _ = strings.Cut(line, "\n")
	args := strings.Fields(line)
	dir := t.TempDir()
	at := len(args)
	for i, arg := range args {
		if arg == "meter" {
			at = i
		}
	}
	args = append(args[:at:at], append([]string{"-output-dir", dir}, args[at:]...)...)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	for _, name := range []string{"meter_bpfel.o", "meter_bpfel.go"} {
		have, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s is not what go generate gives: %d bytes, want %d", name, len(have), len(want))
		}
	}
}

// TestNoPathsInTheObject: the object must not tell where it was built.
func TestNoPathsInTheObject(t *testing.T) {
	b, err := os.ReadFile("meter_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"/root", "/home", "/usr", "/tmp", "clang version"} {
		if bytes.Contains(b, []byte(word)) {
			t.Errorf("the object contains %q", word)
		}
	}
}
