package unit_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

const day = 24 * time.Hour

func TestParseAllowance(t *testing.T) {
	for text, want := range map[string]unit.Allowance{
		"50k/day":       {Amount: 50_000e6, Every: day},
		"50k $J/day":    {Amount: 50_000e6, Every: day},
		" 50K$J / d ":   {Amount: 50_000e6, Every: day},
		"2k/h":          {Amount: 2000e6, Every: time.Hour},
		"40/min":        {Amount: 40e6, Every: time.Minute},
		"0.5/s":         {Amount: 500_000, Every: time.Second},
		"0/s":           {Every: time.Second},
		"1e3 $J/m in":   {Amount: 1000e6, Every: time.Minute},
		"0.000001/d":    {Amount: 1, Every: day},
		"9223372M $J/s": {Amount: 9223372e12, Every: time.Second},
	} {
		got, err := unit.ParseAllowance(text)
		if err != nil || got != want {
			t.Errorf("%q = %v, %v; want %v", text, got, err, want)
		}
	}
	const hint = "; an allowance is written 50k/day, 2k/h, 40/min or 1/s"
	for text, want := range map[string]string{
		"":             `"" is empty`,
		"50k":          `"50k" is money`,
		"50k/":         `"50k/" has the unknown unit "k/"`,
		"/day":         `"/day" does not begin with a number`,
		"50k/week":     `"50k/week" has the unknown unit "k/week"`,
		"50k/day/day":  `"50k/day/day" has the unknown unit "k/day/day"`,
		"500J":         `"500J" is energy`,
		"-1/s":         `"-1/s" is negative`,
		"9223373M/day": `"9223373M/day" is more than 9223372 M$J`,
		"1e-9/day":     `"1e-9/day" is less than 0.000001 $J`,
	} {
		got, err := unit.ParseAllowance(text)
		if got != (unit.Allowance{}) || err == nil || err.Error() != want+hint {
			t.Errorf("%q = %v, %v\nwant %s", text, got, err, want+hint)
		}
	}
}

// TestAllowanceComesInAnySteps: paid in steps, an allowance comes to the same sum.
func TestAllowanceComesInAnySteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := unit.Allowance{
			Amount: unit.Credits(rapid.Int64Range(0, 1e15).Draw(t, "amount")),
			Every:  rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, day}).Draw(t, "every"),
		}
		var at time.Duration
		var paid unit.Credits
		for _, step := range rapid.SliceOfN(rapid.Int64Range(1, int64(time.Hour)), 1, 50).Draw(t, "steps") {
			at += time.Duration(step)
			due := a.Over(at) - paid
			if due < 0 {
				t.Fatalf("%v takes %v back at %v", a, due, at)
			}
			paid += due
		}
		exact := float64(a.Amount) * at.Seconds() / a.Every.Seconds()
		if off := math.Abs(float64(paid) - exact); off > 1+exact*1e-9 {
			t.Fatalf("%v pays %d in %v, want %.1f", a, paid, at, exact)
		}
	})
	a := unit.Allowance{Amount: 50_000e6, Every: day}
	if got := a.Short(); got != "50k $J/day" {
		t.Errorf("%v in short is %q", a, got)
	}
	if odd := (unit.Allowance{Amount: 50_001e6, Every: day}); odd.Short() != odd.String() {
		t.Errorf("%v in short is %q, another sum", odd, odd.Short())
	}
	if got := a.Over(day); got != a.Amount {
		t.Errorf("a day pays %v of %v", got, a)
	}
	if got := a.Over(-1); got != 0 {
		t.Errorf("pays %v before it begins", got)
	}
	if got := (unit.Allowance{Amount: math.MaxInt64, Every: 1}).Over(math.MaxInt64); got != math.MaxInt64 {
		t.Errorf("the greatest amount is %d", got)
	}
}

// FuzzAllowance: what is accepted is not negative, has a known period and is
// written as it was meant; what is refused is a one-line ParseError.
func FuzzAllowance(f *testing.F) {
	for _, text := range []string{"50k/day", "50k $J/d", "2k/h", "40/min", "1/s", "1e3/s", "50k", "/", "1//s", "1/s/s", "500J/s", "\xff/s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := unit.ParseAllowance(text)
		if err != nil {
			if _, ok := errors.AsType[*unit.ParseError](err); !ok || a != (unit.Allowance{}) || strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("%q: %v, %T %q", text, a, err, err)
			}
			return
		}
		again, err := unit.ParseAllowance(a.String())
		if err != nil || again != a || a.Amount < 0 || a.Every < time.Second || a.Every > day {
			t.Errorf("%q is %v, written back as %v, %v", text, a, again, err)
		}
	})
}
