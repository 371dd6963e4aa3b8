package apoptosis

import "testing"

// TestReasons is the table of what people and programs are told.
func TestReasons(t *testing.T) {
	for _, c := range []struct {
		reason    Reason
		word      string
		exit      int
		retryable bool
		remedy    string
	}{
		{None, "none", -1, false, ""},
		{Exited, "exited", -1, false, ""},
		{Insolvent, "insolvent", 122, true, "fund agent-7"},
		{CapMemory, "cap:memory", 121, false, "raise --memory of agent-7"},
		{CapPids, "cap:pids", 121, false, "raise --pids of agent-7"},
		{CapCPU, "cap:cpu", 121, false, "raise --max-cpu of agent-7"},
		{CapEnergy, "cap:energy", 121, false, "raise --max-energy of agent-7"},
		{Timeout, "timeout", 124, false, "raise --timeout of agent-7"},
		{Evicted, "evicted", 123, true, "run agent-7 again when the machine is cooler"},
		{Stopped, "stopped", -1, false, "run agent-7 again"},
		{Failed, "failed", 125, true, "see maxwell doctor, then run agent-7 again"},
		{Signaled, "signaled", -1, false, ""},
		{Lost, "lost", 125, true, "run agent-7 again"},
		{200, "unknown", 125, false, ""},
	} {
		r := c.reason
		if r.String() != c.word || r.ExitCode() != c.exit || r.Retryable() != c.retryable || r.Remedy("agent-7") != c.remedy {
			t.Errorf("%d: %q exit %d retryable %v remedy %q; want %q %d %v %q",
				r, r, r.ExitCode(), r.Retryable(), r.Remedy("agent-7"), c.word, c.exit, c.retryable, c.remedy)
		}
	}
}

func TestWordsRoundTrip(t *testing.T) {
	for r := range Reason(reasons) {
		if have, ok := ParseReason(r.String()); !ok || have != r || r.String() == "" {
			t.Errorf("reason %d prints %q, which reads as %v %v", r, r, have, ok)
		}
	}
	for _, c := range []Choice{Stop, Pause} {
		if have, ok := ParseChoice(c.String()); !ok || have != c {
			t.Errorf("choice %d prints %q, which reads as %v %v", c, c, have, ok)
		}
	}
	if _, ok := ParseReason("unknown"); ok {
		t.Error("unknown is a reason")
	}
	if c, ok := ParseChoice("Pause"); ok || c != Stop {
		t.Errorf("Pause with a capital reads as %v %v", c, ok)
	}
	if have, want := (Freeze | NoticeBroke | Warn80).String(), "warn80+freeze+notice-broke"; have != want {
		t.Errorf("actions print %q, want %q", have, want)
	}
	if State(200).String() != "unknown" || Dying.String() != "dying" {
		t.Errorf("states print %q and %q", State(200), Dying)
	}
}

// FuzzParseReason: whatever is read prints as it was written.
func FuzzParseReason(f *testing.F) {
	for r := range Reason(reasons) {
		f.Add(r.String())
	}
	f.Fuzz(func(t *testing.T, word string) {
		if r, ok := ParseReason(word); ok && r.String() != word {
			t.Errorf("%q reads as %v", word, r)
		}
	})
}
