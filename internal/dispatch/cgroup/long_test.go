package cgroup

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// The mixes on which static weights and quotas failed, as measured on a 2-core
// VM. Absolute shares need both processors for themselves for 4 s a cell, so
// they run in the long mode only.

// mix is one group of a cell: busy threads, perhaps sleeping between bursts.
type mix struct {
	name    string
	class   market.Class
	granted float64 // cores
	threads int
	sleeper bool
}

const sleeperScript = "while :; do i=0; while [ $i -lt 1500 ]; do i=$((i+1)); done; sleep 0.003; done"

func (m mix) script() string {
	one := "while :; do :; done"
	if m.sleeper {
		one = sleeperScript
	}
	var script strings.Builder
	for range m.threads - 1 {
		script.WriteString("(" + one + ") & ")
	}
	return script.String() + one
}

func TestMixesOnTwoProcessors(t *testing.T) {
	if !long() {
		t.Log("only with MAXWELL_LONG=1: it needs two quiet processors for 4 s a mix")
		return
	}
	if onlineCPUs() != 2 {
		t.Logf("the mixes are for 2 processors, this machine has %d", onlineCPUs())
		return
	}
	cells := map[string][]mix{
		"three single threads": {
			{"a", market.Margin, .9, 1, false}, {"b", market.Margin, .6, 1, false}, {"c", market.Margin, .5, 1, false},
		},
		"equal single threads": {
			{"a", market.Margin, .667, 1, false}, {"b", market.Margin, .667, 1, false}, {"c", market.Margin, .666, 1, false},
		},
		"equal, one to eight threads": {
			{"a", market.Margin, .667, 1, false}, {"b", market.Margin, .667, 8, false}, {"c", market.Margin, .666, 2, false},
		},
		"threads 1 4 2": {
			{"a", market.Margin, 1, 1, false}, {"b", market.Margin, .7, 4, false}, {"c", market.Margin, .3, 2, false},
		},
		"sleeper beside hogs": {
			{"a", market.Margin, .3, 1, true}, {"b", market.Margin, 1.2, 4, false}, {"c", market.Margin, .5, 4, false},
		},
		"small and large": {
			{"a", market.Margin, .98, 1, false}, {"b", market.Margin, .96, 1, false}, {"c", market.Margin, .04, 1, false}, {"d", market.Margin, .02, 8, false},
		},
		"served, margin, losers": {
			{"a", market.Served, .5, 1, true}, {"b", market.Margin, .9, 2, false}, {"c", market.Margin, .6, 1, false}, {"d", market.Loser, 0, 2, false},
		},
	}
	for name, cell := range cells {
		t.Run(name, func(t *testing.T) { runCell(t, cell) })
	}
}

// runCell drives one mix for about 4 s after it has settled.
func runCell(t *testing.T, cell []mix) {
	e := machine(t, 0)
	var bidders []*bidder
	var clean []func()
	for i, m := range cell {
		b := &bidder{group: group(t, e, i, dispatch.Limits{}), class: m.class, granted: m.granted, threads: min(float64(m.threads), 2)}
		if m.sleeper {
			b.demand = func(_ time.Duration, used unit.CoreTime) unit.CoreTime { return used }
		}
		p := process(t, b.group, "sh", "-c", m.script())
		clean = append(clean, func() { end(t, b.group, p) })
		bidders = append(bidders, b)
	}
	drive(t, e, 1e9, bidders)
	began := time.Now()
	sum := drive(t, e, 7e9, bidders)
	seconds := time.Since(began).Seconds()
	// Strangers may take a part of the machine: what was delivered is what is
	// divided. Sleepers and losers are taken as they come.
	granted, free := 0.0, float64(sum)/1e9/seconds
	for i, m := range cell {
		if m.sleeper || m.class == market.Loser {
			free -= float64(bidders[i].total) / 1e9 / seconds
		} else {
			granted += m.granted
		}
	}
	for i, m := range cell {
		have, want := float64(bidders[i].total)/1e9/seconds, free*m.granted/granted
		t.Logf("%s: %.3f cores, wanted %.3f (granted %.3f)", m.name, have, want, m.granted)
		switch {
		case m.sleeper:
		case m.class == market.Loser:
			if have > .05 {
				t.Errorf("the loser %s got %.3f cores", m.name, have)
			}
		case math.Abs(have-want) > .03:
			t.Errorf("%s got %.3f cores, want %.3f within 0.03", m.name, have, want)
		}
	}
	for _, f := range clean {
		f()
	}
}
