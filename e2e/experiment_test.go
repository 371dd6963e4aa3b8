package e2e

import (
	"encoding/json"
	"testing"
)

// TestExperimentDocument runs the shortest experiment there is. What it finds
// is not judged here, a loaded machine finds other things than a quiet one;
// that every figure is there, of the right kind and consistent, is.
func TestExperimentDocument(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	r := newPlace(t).run("experiment", "scientist-leech", "--for", "2s", "--rounds", "1", "--json")
	if r.code != 0 {
		t.Fatal(r)
	}
	type tally struct {
		Work    *int64   `json:"work"`
		Energy  *int64   `json:"energy_uj"`
		CPU     *int64   `json:"cpu_ns"`
		PerUnit *float64 `json:"work_per_joule"`
	}
	var e struct {
		Arms       map[string]tally `json:"arms"`
		Ratio      *float64         `json:"ratio"`
		After      *float64         `json:"ratio_after"`
		Share      *float64         `json:"oracle_share"`
		Modelled   *bool            `json:"modelled"`
		Complaint  string           `json:"no_after"`
		SelfReport bool             `json:"work_self_reported"`
	}
	must(t, json.Unmarshal([]byte(r.stdout), &e))
	per := map[string]float64{}
	for _, arm := range []string{"stock", "oracle", "quota", "maxwell"} {
		a, there := e.Arms[arm]
		if !there || a.Work == nil || a.Energy == nil || a.CPU == nil || a.PerUnit == nil {
			t.Fatalf("arm %s lacks a figure: %+v", arm, a)
		}
		if *a.Work <= 0 || *a.Energy <= 0 || *a.CPU <= 0 {
			t.Errorf("arm %s did nothing: %d units, %d uJ, %d ns", arm, *a.Work, *a.Energy, *a.CPU)
		}
		per[arm] = float64(*a.Work) * 1e6 / float64(*a.Energy)
		if !near(*a.PerUnit, per[arm]) {
			t.Errorf("arm %s: work per joule %v, %d units and %d uJ give %v", arm, *a.PerUnit, *a.Work, *a.Energy, per[arm])
		}
	}
	if want := per["maxwell"] / per["stock"]; e.Ratio == nil || !near(*e.Ratio, want) {
		t.Errorf("ratio %v, the arms give %v", e.Ratio, want)
	}
	if (e.After == nil) != (e.Share == nil) || (e.After == nil) != (e.Complaint != "") {
		t.Errorf("ratio_after %v, oracle_share %v, and the reason for none is %q", e.After, e.Share, e.Complaint)
	}
	if e.Modelled == nil || !e.SelfReport {
		t.Error("it does not say whether energy was modelled, and that work is self-reported")
	}
}

// near says that two figures are the same but for rounding.
func near(a, b float64) bool { return max(a-b, b-a) <= 1e-6*max(a, b) }
