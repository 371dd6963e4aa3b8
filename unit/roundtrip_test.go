package unit_test

import (
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// texts writes an amount in the String form of each quantity.
var texts = map[string]func(int64) string{
	"credits":     func(v int64) string { return unit.Credits(v).String() },
	"energy":      func(v int64) string { return unit.Microjoules(v).String() },
	"power":       func(v int64) string { return unit.Microwatts(v).String() },
	"price":       func(v int64) string { return unit.Price(v).String() },
	"spend":       func(v int64) string { return unit.Spend(v).String() },
	"rate":        func(v int64) string { return unit.Rate(v).String() },
	"bytes":       func(v int64) string { return unit.Bytes(v).String() },
	"bits":        func(v int64) string { return unit.Bits(v).String() },
	"coretime":    func(v int64) string { return unit.CoreTime(v).String() },
	"cores":       func(v int64) string { return unit.MilliCores(v).String() },
	"fraction":    func(v int64) string { return unit.PPM(v).String() },
	"temperature": func(v int64) string { return unit.MilliCelsius(v).String() },
	"instant":     func(v int64) string { return unit.Instant(v).String() },
	"duration":    func(v int64) string { return time.Duration(v).String() },
}

func TestEveryTextIsReadBack(t *testing.T) {
	for kind, parse := range parsers {
		t.Run(kind, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				v := amounts.Draw(t, "v")
				text := texts[kind](v)
				if got, again, err := parse(text); err != nil || got != v || again != text {
					t.Fatalf("%d was written %q and read as %d (%q), %v", v, text, got, again, err)
				}
				if v == 0 || kind == "temperature" && v <= -int64(unit.AbsoluteZero) {
					return
				}
				if got, _, err := parse(texts[kind](-v)); err == nil {
					t.Fatalf("%q was accepted as %d", texts[kind](-v), got)
				}
			})
		})
	}
}

func TestTemperaturesBelowZeroAreReadBack(t *testing.T) {
	for v := int64(-1); v >= int64(unit.AbsoluteZero); v -= 37 {
		text := unit.MilliCelsius(v).String()
		if got, err := unit.ParseTemperature(text); err != nil || int64(got) != v {
			t.Fatalf("%q was read as %d, %v", text, got, err)
		}
	}
}

// TestShortIsNear: Short forms are within half a percent of the amount, or half
// of a unit in the first decimal, and short.
func TestShortIsNear(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := amounts.Draw(t, "v")
		for _, text := range []string{
			unit.Credits(v).Short(), unit.Microjoules(v).Short(), unit.Microwatts(v).Short(), unit.CoreTime(v).Short(),
			unit.Price(v).Short(), unit.Spend(v).Short(), unit.Rate(v).Short(), unit.Bytes(v).Short(), unit.PPM(v).Short(),
			unit.MilliCelsius(v).Short(), unit.ShortDuration(time.Duration(v)),
		} {
			if len(text) > len("0.000000001 $J/core-s") || strings.Contains(text, "-") && !strings.Contains(text, "core-s") {
				t.Fatalf("%d is short %q", v, text)
			}
		}
		short := unit.Microjoules(v).Short()
		back, err := unit.ParseEnergy(strings.Replace(short, "TJ", "MJ", 1))
		if strings.Contains(short, "TJ") {
			return // beyond what ParseEnergy names
		}
		if err != nil {
			t.Fatalf("%q: %v", short, err)
		}
		off := math.Abs(float64(back) - float64(v))
		if off > float64(v)*0.051 {
			t.Fatalf("%d uJ is short %q, %v off", v, short, off)
		}
	})
}

// FuzzParse feeds one text to every Parse function. What is accepted is not
// negative (temperatures excepted), is what exact rationals say, and its String
// form is read back as the same amount. What is refused is a one-line ParseError.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"500", "500 $J", "2k", "0.5M", "500J", "2kJ", "0.5kWh", "25W", "3x", "0.5x", "4G", "512M", "4GiB", "16/s", "16 $J/s",
		"960/min", "10m", "2h", "500ms", "1h30m", "2%", "71.5C", "-40C", "58.3 core-s", "9.8 $J/core-s", "64 bit", "t+12.5s",
		"", " ", "-5", "1e30kWh", "1e-30kWh", "1e999999999999999999999", "NaN", "-Inf", "+inf", ".", "5.", "1..2", "1,000", "1_000",
		"0x10", "9223372036854775807", "9223372036854775808", "9223372036854.775807", "0.0000001", "00000000000000000000000000000001",
		"18446744073709551616e-20", "\xff\xfe", "\u221e", "5\u00a0J", "5\x00", strings.Repeat("9", 400), strings.Repeat("0", 400) + "1",
		"0." + strings.Repeat("0", 400) + "1e400", "1e", "1e+", "1e5e5", "\u22125", "7\u00b5J", "7\u03bcJ", "1 0 J",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for kind, parse := range parsers {
			v, written, err := parse(text)
			if err != nil {
				checkRefusal(t, kind, text, v, err)
				continue
			}
			if v < 0 && (kind != "temperature" || v < int64(unit.AbsoluteZero)) {
				t.Errorf("%s %q was accepted as %d", kind, text, v)
			}
			if again, _, err := parse(written); err != nil || again != v {
				t.Errorf("%s %q is %d, written %q, read back as %d, %v", kind, text, v, written, again, err)
			}
			if kind == "credits" || kind == "cores" {
				checkExact(t, kind, text, v)
			}
		}
	})
}

func checkRefusal(t *testing.T, kind, text string, v int64, err error) {
	t.Helper()
	parse, ok := errors.AsType[*unit.ParseError](err)
	if !ok || parse.Text != text || parse.Reason == "" || parse.Hint == "" {
		t.Errorf("%s %q: %#v is not a whole ParseError", kind, text, err)
	}
	if v != 0 {
		t.Errorf("%s %q was refused, with value %d", kind, text, v)
	}
	if strings.ContainsAny(err.Error(), "\r\n\x1b\x00") || len(err.Error()) > 700 {
		t.Errorf("%s %q: message %q", kind, text, err)
	}
}

// checkExact compares a bare number with math/big. Numbers of more than 19
// digits lose their tail, so they may be one unit in the 19th digit low.
func checkExact(t *testing.T, kind, text string, v int64) {
	t.Helper()
	body := strings.TrimSpace(text)
	want, ok := new(big.Rat).SetString(body)
	if !ok || strings.ContainsAny(body, "/_xXbBoOpP") || len(body) > 18 {
		return
	}
	per := int64(1_000_000)
	if kind == "cores" {
		per = 1000
	}
	want.Mul(want, big.NewRat(per, 1))
	if floor := new(big.Int).Quo(want.Num(), want.Denom()); floor.Cmp(big.NewInt(v)) != 0 {
		t.Errorf("%s %q is %d, want %v", kind, text, v, floor)
	}
}
