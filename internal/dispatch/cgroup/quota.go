package cgroup

import (
	"errors"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// quota is a hard cap of processor time; the zero value means none.
type quota struct {
	budget, period time.Duration
}

const (
	// capPeriod is the period of a workload's hard cap: a cap bites within it
	// and stalls for at most it. Shorter ones waste more of the last slice.
	capPeriod = 50 * time.Millisecond
	// parentPeriod is short, because everybody stalls when the market is over.
	parentPeriod = 20 * time.Millisecond
	// The kernel refuses budgets below 1 ms and periods above 1 s.
	leastBudget   = time.Millisecond
	longestPeriod = time.Second
)

// laneQuota is the dying lane: enough for a SIGTERM handler (16 ms for a Python
// one, measured), too little for work.
func laneQuota() quota { return quota{budget: 20 * time.Millisecond, period: 100 * time.Millisecond} }

// quotaOf turns cores into a quota, with a longer period where the budget
// would be too small for the kernel.
func quotaOf(cores unit.MilliCores, period time.Duration) quota {
	if cores <= 0 {
		return quota{}
	}
	budget := period * time.Duration(cores) / 1000
	if budget < leastBudget {
		budget = leastBudget
		period = min(leastBudget*1000/time.Duration(cores), longestPeriod)
	}
	return quota{budget: budget, period: period}
}

// less reports whether q allows less than r; no quota allows everything.
func (q quota) less(r quota) bool {
	if q.budget == 0 || r.budget == 0 {
		return q.budget != 0
	}
	// In microseconds the products fit for any machine: 8192 cores x 1 s x 1 s.
	return q.budget.Microseconds()*r.period.Microseconds() < r.budget.Microseconds()*q.period.Microseconds()
}

// writeQuota sets a group's quota. A quota is written when it changes and
// never refreshed: each write refills it.
func writeQuota(dir string, v2 bool, q quota) error {
	if v2 {
		text := "max 100000"
		if q.budget > 0 {
			text = micros(q.budget) + " " + micros(q.period)
		}
		return host.WriteOnce(filepath.Join(dir, "cpu.max"), text)
	}
	// In between there is no quota: a new period with the old budget may be
	// above what the parent allows, which the kernel refuses.
	budget := filepath.Join(dir, "cpu.cfs_quota_us")
	if err := host.WriteOnce(budget, "-1"); err != nil || q.budget == 0 {
		return err
	}
	if err := host.WriteOnce(filepath.Join(dir, "cpu.cfs_period_us"), micros(q.period)); err != nil {
		return err
	}
	err := host.WriteOnce(budget, micros(q.budget))
	if errors.Is(err, unix.EINVAL) {
		return nil // wider than the parent's own quota, which then is the cap
	}
	return err
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
