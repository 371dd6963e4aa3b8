package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReceipts asks for a receipt in a file and on a descriptor. Standard
// output is the command's to the last byte.
func TestReceipts(t *testing.T) {
	t.Parallel()
	command := []string{"sh", "-c", "printf 'no newline'; echo mine >&2; exit 42"}
	check := func(t *testing.T, r result, got receipt) {
		t.Helper()
		if r.code != 42 || r.stdout != "no newline" {
			t.Errorf("want 42 and the command's own words alone:\n%v", r)
		}
		if got.Reason != "exited" || got.Retryable || got.ExitCode != 42 || got.ChildExit == nil || *got.ChildExit != 42 {
			t.Errorf("receipt %+v", got)
		}
		if got.CPU <= 0 || got.Joules <= 0 || got.Spent <= 0 || got.Memory <= 0 {
			t.Errorf("nothing was measured: %+v", got)
		}
	}
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "receipt.json")
		must(t, os.WriteFile(file, []byte("an older receipt, longer than the new one\n"), 0o600))
		r := run(t, append([]string{"run", "--receipt", file, "--"}, command...)...)
		check(t, r, readReceipt(t, file))
		if list, err := os.ReadDir(filepath.Dir(file)); err != nil || len(list) != 1 {
			t.Errorf("beside the receipt lie %v %v", list, err)
		}
	})
	t.Run("descriptor", func(t *testing.T) {
		t.Parallel()
		p := newPlace(t)
		ours, theirs, err := os.Pipe()
		must(t, err)
		defer ours.Close()
		cmd := p.command(append([]string{"run", "-q", "--receipt", "fd:3", "--"}, command...)...)
		cmd.ExtraFiles = []*os.File{theirs}
		s := p.start(cmd)
		must(t, theirs.Close())
		text, err := io.ReadAll(ours) // ends: neither the command nor the market holds it
		must(t, err)
		r := p.finish(s)
		check(t, r, parseReceipt(t, string(text)))
		if r.stderr != "mine\n" {
			t.Errorf("-q, and yet on standard error: %q", r.stderr)
		}
	})
	t.Run("nowhere", func(t *testing.T) {
		t.Parallel()
		mark := filepath.Join(t.TempDir(), "started")
		for _, target := range []string{"fd:77", "fd:x", "/no/such/place/r.json", t.TempDir()} {
			r := run(t, "run", "--receipt", target, "--", "touch", mark)
			if r.code != 125 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, target) {
				t.Errorf("%s: want 125 and one line that names it:\n%v", target, r)
			}
		}
		if _, err := os.Stat(mark); err == nil {
			t.Error("the command was started although its receipt has nowhere to go")
		}
	})
}

// TestExitCodes: the code of `maxwell run` is the command's own, a shell's
// where a shell has one, and Maxwell's where Maxwell ended it.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain.txt")
	must(t, os.WriteFile(plain, []byte("not a program\n"), 0o644))
	for name, c := range map[string]struct {
		args   []string
		want   int
		reason string
	}{
		"true":           {[]string{"--", "true"}, 0, "exited"},
		"own code":       {[]string{"--", "sh", "-c", "exit 7"}, 7, "exited"},
		"a cap's code":   {[]string{"--", "sh", "-c", "exit 121"}, 121, "exited"},
		"own signal":     {[]string{"--", "sh", "-c", "kill -KILL $$"}, 137, "signaled"},
		"timeout":        {[]string{"--timeout", "300ms", "--", "sleep", "600"}, 124, "timeout"},
		"not found":      {[]string{"--", "no-such-program-anywhere"}, 127, ""},
		"not executable": {[]string{"--", plain}, 126, ""},
		"no command":     {[]string{"--"}, 125, ""},
		"unknown flag":   {[]string{"--no-such-flag", "--", "true"}, 125, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "receipt.json")
			r := run(t, append([]string{"run", "--receipt", file}, c.args...)...)
			if r.code != c.want {
				t.Errorf("want %d:\n%v", c.want, r)
			}
			if c.reason == "" {
				if _, err := os.Stat(file); err == nil || strings.Count(r.stderr, "\n") != 1 {
					t.Errorf("want one line and no receipt:\n%v", r)
				}
				return
			}
			if got := readReceipt(t, file); got.Reason != c.reason || got.ExitCode != c.want {
				t.Errorf("receipt %+v", got)
			}
		})
	}
}
