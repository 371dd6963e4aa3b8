package node

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/meter"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// drawSettings makes any settings, also those that Validate refuses: the
// command line between the two processes loses none.
func drawSettings(t *rapid.T) Settings {
	amount := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64())
	text := rapid.OneOf(rapid.SampledFrom([]string{"", "-", "--dir", "-h", "/tmp/a b", "x=y"}), rapid.StringN(0, 20, -1))
	return Settings{
		Cores: unit.MilliCores(amount.Draw(t, "cores")), Watts: unit.Microwatts(amount.Draw(t, "watts")),
		WattsPerCore: unit.Microwatts(amount.Draw(t, "core")), IdleWatts: unit.Microwatts(amount.Draw(t, "idle")),
		Floor: unit.PPM(amount.Draw(t, "floor")), Epoch: time.Duration(amount.Draw(t, "epoch")),
		Enforce: text.Draw(t, "enforce"), Meter: meter.Kind(text.Draw(t, "meter")), Trace: text.Draw(t, "trace"),
		Seed: rapid.Uint64().Draw(t, "seed"), PanicAtTick: rapid.Uint64().Draw(t, "panic at"), PanicIn: text.Draw(t, "panic in"),
	}
}

func TestSettingsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawSettings(t)
		dir := rapid.StringN(1, 20, -1).Draw(t, "dir")
		args := append(want.Args(), "--dir", dir)
		if args[0] != NodeVerb {
			t.Fatalf("the verb is %q", args[0])
		}
		gotDir, got, err := parseArgs(args[1:])
		if err != nil || gotDir != dir {
			t.Fatalf("%q: %v, dir %q", args, err, gotDir)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-want +got):\n%s", args, diff)
		}
	})
}

func TestParseArgsRefuses(t *testing.T) {
	for _, line := range []string{
		"", "--cores-milli 5", "--dir", "--dir d --cores-milli five", "--dir d --cores-milli 9223372036854775808",
		"--dir d --seed -1", "--dir d --unknown 1", "--dir d more", "--dir d -- more", "--help",
	} {
		if dir, s, err := parseArgs(strings.Fields(line)); err == nil {
			t.Errorf("%q was accepted: %q %+v", line, dir, s)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %q", line, err)
		}
	}
}

// FuzzParseArgs: what is accepted says the same when it is written again.
func FuzzParseArgs(f *testing.F) {
	f.Add("--dir\n/run/maxwell\n--cores-milli\n1000\n--floor-ppm\n-1\n--meter\nbpf")
	f.Add("-dir=x\n-seed=0x10\n--panic-at-tick=007")
	f.Add("--dir\nx\n--\n--dir")
	f.Add("--epoch-ns=9223372036854775807\n--dir=")
	f.Fuzz(func(t *testing.T, lines string) {
		dir, s, err := parseArgs(strings.Split(lines, "\n"))
		if err != nil {
			return
		}
		again, back, err := parseArgs(append(s.Args(), "--dir", dir)[1:])
		if err != nil || again != dir || back != s {
			t.Fatalf("%q became %q %+v, then %q %+v, %v", lines, dir, s, again, back, err)
		}
	})
}

func TestSettingsValidate(t *testing.T) {
	tests := []struct {
		name     string
		settings Settings
		refusal  string // "" is none
	}{
		{"nothing", Settings{}, ""},
		{"everything", Settings{Meter: meter.Processes, Enforce: "signal", Epoch: 10 * time.Millisecond, Floor: unit.One / 2}, ""},
		{"no floor", Settings{Floor: -1}, ""},
		{"a second", Settings{Epoch: time.Second}, ""},
		{"meter", Settings{Meter: "guess"}, `meter "guess": use bpf, files or processes`},
		{"enforcement", Settings{Enforce: "prayer"}, `enforce "prayer": use auto, cgroup or signal`},
		{"fast", Settings{Epoch: 10*time.Millisecond - 1}, "epoch 9.999999ms: use 10ms to 1s"},
		{"slow", Settings{Epoch: time.Second + 1}, "epoch 1.000000001s: use 10ms to 1s"},
		{"negative epoch", Settings{Epoch: math.MinInt64}, "epoch -2562047h47m16.854775808s: use 10ms to 1s"},
		{"floor", Settings{Floor: unit.One/2 + 1}, "floor 50.0001 %: at most 50 %"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refusal := ""
			if err := tt.settings.Validate(); err != nil {
				refusal = err.Error()
			}
			if refusal != tt.refusal {
				t.Errorf("got %q, want %q", refusal, tt.refusal)
			}
		})
	}
}
