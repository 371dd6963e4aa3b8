package e2e

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkNobodyPoor is what governing costs those who have enough money: three
// miners on one core finish the same units under the stock scheduler and in a
// market without budgets, in turn. It reports the median of stock time over
// market time, each without what a single unit takes: 1 is free, and what is
// missing is what Maxwell took while they ran. start-ms is what the market needs
// to begin and to end. `-benchtime 5x` gives five rounds.
func BenchmarkNobodyPoor(b *testing.B) {
	needCgroups(b)
	const miners = 3
	units := unitsFor(b, 4*time.Second)
	var ratios []float64
	var starts []time.Duration
	for b.Loop() {
		stock := timeStock(b, miners, units) - timeStock(b, miners, 1)
		start := timeMarket(b, miners, 1)
		starts = append(starts, start)
		ratios = append(ratios, stock.Seconds()/(timeMarket(b, miners, units)-start).Seconds())
	}
	slices.Sort(ratios)
	b.ReportMetric(float64(slices.Min(starts).Milliseconds()), "start-ms")
	b.ReportMetric(ratios[len(ratios)/2], "work/stock")
	b.ReportMetric(ratios[0], "least")
	b.ReportMetric(ratios[len(ratios)-1], "most")
}

// timeMarket runs a fleet of miners without budgets in a market of one core.
func timeMarket(b *testing.B, miners, units int) time.Duration {
	fleet := filepath.Join(b.TempDir(), "fleet.yaml")
	must(b, os.WriteFile(fleet, fmt.Appendf(nil,
		"node: {cores: 1}\nworkloads:\n  miner: {command: [maxwell, work, hash, --units, %q], replicas: %d}\n", fmt.Sprint(units), miners), 0o600))
	r := newPlace(b).run("up", fleet, "--json")
	if r.code != 0 {
		b.Fatal(r)
	}
	return r.wall
}

// unitsFor is how many units a lone miner finishes in d.
func unitsFor(b *testing.B, d time.Duration) int {
	const few = 200
	best := math.Inf(1)
	for range 3 {
		best = min(best, timeStock(b, 1, few).Seconds())
	}
	return int(few * d.Seconds() / best)
}

// timeStock runs miners side by side on the last processor, which is the one
// that a market of one core sells.
func timeStock(b *testing.B, miners, units int) time.Duration {
	last := strings.TrimSpace(output(b, "nproc", "--all"))
	start := time.Now()
	cmds := make([]*exec.Cmd, miners)
	for i := range cmds {
		cmds[i] = exec.Command("taskset", "-c", fmt.Sprint(mustInt(b, last)-1), maxwell(b), "work", "hash", "--units", fmt.Sprint(units))
		must(b, cmds[i].Start())
	}
	for _, c := range cmds {
		must(b, c.Wait())
	}
	return time.Since(start)
}

func output(b *testing.B, name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	must(b, err)
	return string(out)
}

func mustInt(b *testing.B, s string) (n int) {
	_, err := fmt.Sscan(s, &n)
	must(b, err)
	return n
}
