package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Burners use about a processor second in different ways. Each says that it
// is done by making the file that is its first argument.
var burners = map[string]string{
	"loop":    `i=0; while [ $i -lt 1200000 ]; do i=$((i+1)); done`,
	"forks":   `n=0; while [ $n -lt 400 ]; do n=$((n+1)); (i=0; while [ $i -lt 1500 ]; do i=$((i+1)); done); done`,
	"threads": `for n in 1 2 3 4 5 6; do (i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done) & done; wait`,
}

// agree fails unless two counts of processor time differ by at most 0.5 %.
func agree(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	off := math.Abs(float64(got-want)) / float64(want)
	t.Logf("%s: %v, the kernel counted %v: off by %.3f %%", what, got, want, 100*off)
	if off > 0.005 {
		t.Errorf("%s: %v, the kernel counted %v: off by %.2f %%, want at most 0.5 %%", what, got, want, 100*off)
	}
}

// TestProcessorTime compares the document with the counters of the groups
// themselves. The workloads burn a while and then sleep, so that nothing runs
// between the test's reading and the end but the end itself.
func TestProcessorTime(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	l := newLab(t)
	marks := t.TempDir()
	names := map[string]string{}
	var fleet strings.Builder
	fleet.WriteString("workloads:\n")
	for kind, script := range burners {
		names[kind] = unique(kind)
		script += `; : > "$0"; exec sleep 600`
		fmt.Fprintf(&fleet, "  %s: {command: [sh, -c, %q, %q]}\n", names[kind], script, filepath.Join(marks, kind))
	}
	up := l.watch("up", writeFleet(t, fleet.String()), "--json")
	counted := map[string]time.Duration{}
	for kind, name := range names {
		await(t, kind+" to be done", func() bool {
			_, err := os.Stat(filepath.Join(marks, kind))
			return err == nil
		})
		counted[kind] = settled(t, directory(name))
	}
	up.signal(syscall.SIGINT)
	if code := up.end(); code != 130 {
		t.Errorf("exit %d after SIGINT, want 130", code)
	}
	d := parse(t, up.out.String())
	identities(t, &d)
	for kind, name := range names {
		agree(t, kind, time.Duration(d.of(t, name).CPU), counted[kind])
	}
}

// TestShortLives runs commands that live and die between the market's looks,
// and compares the sum of their receipts with the count of the directory above
// them all, which the kernel keeps when they are gone.
func TestShortLives(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	l := newLab(t)
	keeper := unique("keeper")
	sleep := l.watch("run", "-q", "--name", keeper, "--", "sleep", "600")
	own := waitDirectory(t, keeper)
	root := filepath.Dir(own)
	before := settled(t, own)
	begun := settled(t, root)
	var receipts time.Duration
	for n := range 12 {
		file := filepath.Join(t.TempDir(), "receipt.json")
		script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do i=$((i+1)); done; (exit 0); (exit 0)`, 2000+n*15_000)
		if r := l.run("run", "-q", "--receipt", file, "--", "sh", "-c", script); r.code != 0 {
			t.Fatal(r)
		}
		receipts += time.Duration(readReceipt(t, file).CPU)
	}
	kernel := usage(t, root) - begun - (usage(t, own) - before)
	agree(t, "twelve short lives", receipts, kernel)
	sleep.signal(syscall.SIGTERM)
	if code := sleep.end(); code != 143 {
		t.Errorf("the keeper ended with %d, want 143", code)
	}
}

// receipt is what a supervisor relies on.
type receipt struct {
	Reason    string `json:"reason"`
	Retryable bool   `json:"retryable"`
	ExitCode  int    `json:"exit_code"`
	ChildExit *int   `json:"child_exit"`
	Remedy    string `json:"remedy"`
	Name      string `json:"name"`
	Budget    int64  `json:"budget_ucredits"`
	Income    int64  `json:"income_ucredits"`
	Spent     int64  `json:"spent_ucredits"`
	Energy    int64  `json:"energy_ucredits"`
	Rent      int64  `json:"rent_ucredits"`
	Erasure   int64  `json:"erasure_ucredits"`
	Other     int64  `json:"other_ucredits"`
	Joules    int64  `json:"energy_uj"`
	CPU       int64  `json:"cpu_ns"`
	Memory    int64  `json:"peak_memory_bytes"`
}

func readReceipt(t testing.TB, file string) receipt {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	return parseReceipt(t, string(text))
}

// parseReceipt reads a receipt: one line, one object.
func parseReceipt(t testing.TB, text string) receipt {
	t.Helper()
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		t.Errorf("a receipt is one line:\n%s", text)
	}
	var r receipt
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("the receipt is not JSON: %v\n%s", err, text)
	}
	if got := r.Energy + r.Rent + r.Erasure + r.Other; got != r.Spent {
		t.Errorf("receipt: parts sum to %d, spent %d", got, r.Spent)
	}
	return r
}
