package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// setGrid makes the grid price what a file says, whole at any moment.
func setGrid(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// TestDaemonGridPrice: prices follow the file slowly; what is no price, or nothing
// that can be read, changes nothing and holds nobody up; a restart goes on where the
// price was; and the auditor finds every bill again while it moves.
func TestDaemonGridPrice(t *testing.T) {
	file, trace := filepath.Join(t.TempDir(), "price"), filepath.Join(t.TempDir(), "trace.jsonl")
	must(t, setGrid(file, "2x\n"))
	s := newDaemonLab(t, "--set", "grid.file="+file, "--trace", trace)
	defer s.close()
	s.detach("--name", "one", "--bid", "4x", "--", "sh", "-c", hog)
	s.detach("--name", "two", "--bid", "3x", "--budget", "100k", "--", "sh", "-c", hog)
	rises := func(what string) int64 {
		t.Helper()
		from := s.snapshot(false).Price.Grid
		s.waitFor("the price to rise "+what, func() bool { return s.snapshot(false).Price.Grid > from+2000 })
		return s.snapshot(false).Price.Grid
	}
	rises("at first")
	if r := s.run("price"); r.code != 0 || !strings.Contains(r.stdout, "\ngrid  1.0") {
		t.Errorf("price: %v", r)
	}
	must(t, setGrid(file, "cheap"))
	s.waitFor("word of what is no price", func() bool { return strings.Contains(s.now.errors.String(), `\"cheap\" is no factor`) })
	must(t, os.Remove(file))
	must(t, mkfifo(file))
	s.waitFor("word of the FIFO", func() bool { return strings.Contains(s.now.errors.String(), "is no regular file") })
	before := rises("with the last good one")
	if text := s.now.errors.String(); strings.Count(text, "is no regular file") != 1 || strings.Count(text, "cheap") != 1 {
		t.Errorf("said more than once:\n%s", tail(text))
	}
	if r := s.run("daemon", "--check", "--set", "grid.file="+file); r.code != 125 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "is no regular file; name one") {
		t.Errorf("check: %v", r)
	}
	s.kill()
	kept := readTestament(t, s.journal())
	// A second of the price may not have been durable, on a machine that keeps up.
	if kept.grid < 1_002_000 || kept.grid > before+before/100 {
		t.Errorf("it left a grid factor of %d, and had shown %d", kept.grid, before)
	}
	s.start()
	if after := rises("with the last good one of the process before"); after < kept.grid {
		t.Errorf("it went on with a grid factor of %d, from %d", after, kept.grid)
	}
	must(t, os.Remove(file))
	must(t, setGrid(file, "0.5x"))
	after := s.snapshot(false).Price.Grid
	s.waitFor("the price to fall", func() bool { return s.snapshot(false).Price.Grid < after-2000 })
	s.stop() // its trace is buffered
	rounds, accounts := readTrace(t, trace), map[uint64]*account{}
	for i := range rounds {
		r := &rounds[i]
		if fault := auditGrid(&rounds[max(0, i-1)], r); fault != "" {
			t.Errorf("epoch %d: %s", r.Epoch, fault)
		}
		for k := range r.Buyers {
			b := &r.Buyers[k]
			if accounts[b.ID] == nil {
				accounts[b.ID] = newAccount(b.Name)
			}
			auditBill(t, r, b, accounts[b.ID])
		}
	}
	if n := len(rounds); n < 3 || rounds[0].Grid == rounds[n-1].Grid || len(accounts) != 2 {
		t.Errorf("%d epochs of %d wallets: that tests nothing", n, len(accounts))
	}
	s.start()
}
