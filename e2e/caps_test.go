package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// step is how much a workload that grows takes at once, every stepTime: slow
// enough that its memory is looked at between 80 and 95 % of its cap.
const (
	growStep = 2 << 20
	growTime = 60 * time.Millisecond
)

// grow takes memory and uses it until it is stopped.
func grow() {
	var held [][]byte
	for range time.Tick(growTime) {
		block := make([]byte, growStep)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
		if len(held) > 1<<12 {
			os.Exit(9) // no cap holds it
		}
	}
}

// TestCaps runs a command into each cap: its whole tree ends with 121 and the
// cap's own reason, after warnings at 80 and at 95 %.
func TestCaps(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	busy := []string{"sh", "-c", "sleep 600 & while :; do :; done"}
	for name, c := range map[string]struct {
		flag, value string
		command     []string
		reached     func(r receipt) bool // its own figure in the receipt
	}{
		"memory": {"--memory", "96M", []string{os.Args[0]}, func(r receipt) bool { return r.Memory > 80<<20 }},
		"pids": {
			"--pids", "20",
			[]string{"sh", "-c", "while :; do sleep 600 & sleep 0.2; done"},
			func(r receipt) bool { return true },
		},
		"cpu":    {"--max-cpu", "2s", busy, func(r receipt) bool { return r.CPU >= 2e9 && r.CPU < 21e8 }},
		"energy": {"--max-energy", "20J", busy, func(r receipt) bool { return r.Joules >= 20e6 && r.Joules < 21e6 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "receipt.json")
			p := newPlace(t)
			args := append([]string{"run", "--cores", "1", "--receipt", file, c.flag, c.value, "--"}, c.command...)
			cmd := p.command(args...)
			cmd.Env = append(cmd.Env, actVariable+"=memory")
			r := p.finish(p.start(cmd))
			if r.code != 121 {
				t.Fatalf("want 121:\n%v", r)
			}
			got := readReceipt(t, file)
			if got.Reason != "cap:"+name || got.Retryable || got.ExitCode != 121 || !strings.Contains(got.Remedy, c.flag) {
				t.Errorf("receipt %+v", got)
			}
			if !c.reached(got) {
				t.Errorf("the receipt does not show that the cap of %s was reached: %+v", c.value, got)
			}
			at80 := strings.Index(r.stderr, fmt.Sprintf("has used 80 %% of its %s cap", name))
			at95 := strings.Index(r.stderr, fmt.Sprintf("has used 95 %% of its %s cap", name))
			if at80 < 0 || at95 < at80 {
				t.Errorf("no warnings at 80 and 95 %%:\n%s", r.stderr)
			}
			if r.stdout != "" {
				t.Errorf("something on standard output, which is the command's: %q", r.stdout)
			}
		})
	}
}

// TestABidBelowItsOwnEnergyIsSaid: such a command never runs by itself. Its caller
// hears so, unless he asked for silence, and a command that runs is left in peace.
func TestABidBelowItsOwnEnergyIsSaid(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	const said = "stuck is held: it bids 0.5x, less than its own energy costs; what helps: maxwell explain stuck"
	for name, c := range map[string]struct {
		args []string
		says bool
	}{
		"below": {[]string{"--bid", "0.5x"}, true},
		"quiet": {[]string{"--bid", "0.5x", "-q"}, false},
		"above": {[]string{"--bid", "1.5x"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"run", "--name", "stuck", "--timeout", "3s"}, c.args...)
			r := run(t, append(args, "--", "sh", "-c", "while :; do :; done")...)
			if r.code != 124 || strings.Contains(r.stderr, said) != c.says || strings.Contains(r.stderr, "is held") != c.says {
				t.Errorf("says %v: %v", c.says, r)
			}
		})
	}
}
