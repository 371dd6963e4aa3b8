package unit_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// parsers lists every Parse function, so that the table, the round trips and
// the fuzz target see all of them.
var parsers = map[string]func(string) (value int64, text string, err error){
	"credits":     wrap(unit.ParseCredits),
	"energy":      wrap(unit.ParseEnergy),
	"power":       wrap(unit.ParsePower),
	"price":       wrap(unit.ParsePrice),
	"spend":       wrap(unit.ParseSpend),
	"rate":        wrap(unit.ParseRate),
	"bytes":       wrap(unit.ParseBytes),
	"bits":        wrap(unit.ParseBits),
	"coretime":    wrap(unit.ParseCoreTime),
	"cores":       wrap(unit.ParseCores),
	"fraction":    wrap(unit.ParseFraction),
	"temperature": wrap(unit.ParseTemperature),
	"instant":     wrap(unit.ParseInstant),
	"duration":    wrap(unit.ParseDuration),
}

type quantity interface {
	~int64
	String() string
}

func wrap[Q quantity](parse func(string) (Q, error)) func(string) (int64, string, error) {
	return func(text string) (int64, string, error) {
		v, err := parse(text)
		return int64(v), v.String(), err
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		kind, text string
		want       int64
	}{
		{"credits", "500", 500e6},
		{"credits", "500 $J", 500e6},
		{"credits", "500$J", 500e6},
		{"credits", "2k", 2000e6},
		{"credits", "2k $J", 2000e6},
		{"credits", "2 K$J", 2000e6},
		{"credits", "0.5M", 500_000e6},
		{"credits", ".25", 250_000},
		{"credits", "1e3", 1000e6},
		{"credits", "1.5e-3", 1500},
		{"credits", "0", 0},
		{"credits", "  7  ", 7e6},
		{"credits", "9223372036854.775807", math.MaxInt64},
		{"credits", "0.0000019", 1},
		{"energy", "500J", 500e6},
		{"energy", "500 J", 500e6},
		{"energy", "2kJ", 2000e6},
		{"energy", "0.5kWh", 1_800_000e6},
		{"energy", "3mJ", 3000},
		{"energy", "3MJ", 3e12},
		{"energy", "7\u00b5J", 7},
		{"power", "25W", 25e6},
		{"power", "1.5 kW", 1500e6},
		{"price", "3x", 3000},
		{"price", "0.5x", 500},
		{"bytes", "4G", 4 << 30},
		{"bytes", "512M", 512 << 20},
		{"bytes", "4GiB", 4 << 30},
		{"bytes", "4gb", 4 << 30},
		{"bytes", "4096", 4096},
		{"bytes", "1.5k", 1536},
		{"spend", "16/s", 16e6},
		{"spend", "16 $J/s", 16e6},
		{"spend", "960/min", 16e6},
		{"spend", "3.6k/h", 1e6},
		{"spend", "86.4k/day", 1e6},
		{"spend", "86.4k $J / d", 1e6},
		{"rate", "9.8 $J/core-s", 9.8e6},
		{"duration", "10m", int64(10 * time.Minute)},
		{"duration", "2h", int64(2 * time.Hour)},
		{"duration", "500ms", int64(500 * time.Millisecond)},
		{"duration", "1h30m", int64(90 * time.Minute)},
		{"duration", "7d", int64(7 * 24 * time.Hour)},
		{"cores", "2", 2000},
		{"cores", "0.5", 500},
		{"cores", "1 core", 1000},
		{"coretime", "58.3 core-s", 58.3e9},
		{"fraction", "2%", 20_000},
		{"fraction", "0.1 %", 1000},
		{"temperature", "71.5C", 71_500},
		{"temperature", "-40 C", -40_000},
		{"bits", "64 bit", 64},
		{"instant", "t+12.5s", 12.5e9},
	}
	for _, tt := range tests {
		t.Run(tt.kind+" "+tt.text, func(t *testing.T) {
			got, _, err := parsers[tt.kind](tt.text)
			if err != nil || got != tt.want {
				t.Errorf("parse %s %q = %d, %v; want %d", tt.kind, tt.text, got, err, tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const moneyHint = `; money is written 500 or "500 $J"`
	tests := []struct{ kind, text, want string }{
		{"credits", "500J", `"500J" is energy` + moneyHint},
		{"credits", "25W", `"25W" is power` + moneyHint},
		{"credits", "3x", `"3x" is a price` + moneyHint},
		{"credits", "16/s", `"16/s" is a spending rate` + moneyHint},
		{"credits", "10s", `"10s" is a duration` + moneyHint},
		{"credits", "-5", `"-5" is negative` + moneyHint},
		{"credits", "", `"" is empty` + moneyHint},
		{"credits", "lots", `"lots" does not begin with a number` + moneyHint},
		{"credits", "NaN", `"NaN" is not a finite number` + moneyHint},
		{"credits", "Inf", `"Inf" is not a finite number` + moneyHint},
		{"credits", "1,000", `"1,000" has a separator among its digits` + moneyHint},
		{"credits", "5 apples", `"5 apples" has the unknown unit "apples"` + moneyHint},
		{"credits", "9223372036854.775808", `"9223372036854.775808" is more than 9223372 M$J` + moneyHint},
		{"credits", "0.0000001", `"0.0000001" is less than 0.000001 $J` + moneyHint},
		{"credits", "1e999999999999", `"1e999999999999" is more than 9223372 M$J` + moneyHint},
		{"energy", "1e30kWh", `"1e30kWh" is more than 2562047 kWh; energy is written 500J, 2kJ or 0.5kWh`},
		{"energy", "500", `"500" has no unit; energy is written 500J, 2kJ or 0.5kWh`},
		{"energy", "500 $J", `"500 $J" is money; energy is written 500J, 2kJ or 0.5kWh`},
		{"power", "25J", `"25J" is energy; power is written 25W or 0.5kW`},
		{"price", "3", `"3" has no unit; a price is written 3x, in multiples of the base price`},
		{"price", "0.0005x", `"0.0005x" is less than 0.001x; a price is written 3x, in multiples of the base price`},
		{"bytes", "1e30G", `"1e30G" is more than 8388607 TiB; memory is written 512M, 4G or 4GiB (all in powers of 1024)`},
		{"bytes", "-1", `"-1" is negative; memory is written 512M, 4G or 4GiB (all in powers of 1024)`},
		{"duration", "10", `"10" has no unit; a duration is written 500ms, 10s, 10m or 2h`},
		{"duration", "+1h30m", `"+1h30m" does not begin with a number; a duration is written 500ms, 10s, 10m or 2h`},
		{"duration", "-1h30m", `"-1h30m" is negative; a duration is written 500ms, 10s, 10m or 2h`},
		{"duration", "3 fortnights", `"3 fortnights" has the unknown unit "fortnights"; a duration is written 500ms, 10s, 10m or 2h`},
		{"spend", "16", `"16" has no unit; a spending rate is written 16/s, in $J per second of wall time`},
		{"temperature", "-300C", `"-300C" is below absolute zero; a temperature is written 71.5C`},
		{"temperature", "--1C", `"--1C" is negative; a temperature is written 71.5C`},
	}
	for _, tt := range tests {
		t.Run(tt.kind+" "+tt.text, func(t *testing.T) {
			got, _, err := parsers[tt.kind](tt.text)
			if got != 0 || err == nil || err.Error() != tt.want {
				t.Errorf("parse %s %q = %d, %v\nwant 0, %s", tt.kind, tt.text, got, err, tt.want)
			}
			parse, ok := errors.AsType[*unit.ParseError](err)
			if !ok || parse.Kind == "" || parse.Text != tt.text || parse.Hint == "" {
				t.Errorf("parse %s %q: error %#v lacks kind, text or hint", tt.kind, tt.text, err)
			}
		})
	}
}

func TestParseErrorIsOneShortLine(t *testing.T) {
	text := strings.Repeat("\u2211", 10_000) + "\n\x1b[31m"
	for kind, parse := range parsers {
		_, _, err := parse(text)
		if err == nil || len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("parse %s of a long text: %v", kind, err)
		}
	}
}

func TestString(t *testing.T) {
	tests := []struct{ got, want string }{
		{unit.Microjoules(571e6).String(), "571 J"},
		{unit.Microjoules(571_250_000).String(), "571.25 J"},
		{unit.Microjoules(1).String(), "0.000001 J"},
		{unit.Microjoules(571_250_000).Short(), "571 J"},
		{unit.Microjoules(58_349_000).Short(), "58.3 J"},
		{unit.Microjoules(12_345e6).Short(), "12.3 kJ"},
		{unit.Microjoules(2).Short(), "0.000002 J"},
		{unit.Microjoules(123_456).Short(), "0.12 J"},
		{unit.Microjoules(950).Short(), "0.00095 J"},
		{unit.Microjoules(99_600).Short(), "0.1 J"},
		{unit.Microjoules(999_600).Short(), "1 J"},
		{unit.Credits(500e6).String(), "500 $J"},
		{unit.Credits(-5e5).String(), "-0.5 $J"},
		{unit.Credits(math.MinInt64).String(), "-9223372036854.775808 $J"},
		{unit.Credits(612_400_000).Short(), "612 $J"},
		{unit.Credits(9_800_001).Short(), "9.8 $J"},
		{unit.Credits(12_345e6).Short(), "12.3k $J"},
		{unit.Credits(math.MaxInt64).Short(), "9.2T $J"},
		{unit.Credits(0).Short(), "0 $J"},
		{unit.Price(2300).String(), "2.3x"},
		{unit.Price(1000).String(), "1x"},
		{unit.Price(2345).Short(), "2.3x"},
		{unit.Bytes(4 << 30).String(), "4 GiB"},
		{unit.Bytes(4097).String(), "4097 B"},
		{unit.Bytes(2_040_109_465).Short(), "1.9 GiB"},
		{unit.Bytes(1023).Short(), "1 KiB"},
		{unit.Bytes(math.MaxInt64).Short(), "8 EiB"},
		{unit.Microwatts(12e6).String(), "12 W"},
		{unit.CoreTime(58_300_000_000).Short(), "58.3 core-s"},
		{unit.Spend(16e6).String(), "16 $J/s"},
		{unit.Rate(9_800_000).String(), "9.8 $J/core-s"},
		{unit.MilliCores(1000).String(), "1 core"},
		{unit.MilliCores(500).String(), "0.5 cores"},
		{unit.MilliCelsius(-500).String(), "-0.5 C"},
		{unit.PPM(20_000).String(), "2 %"},
		{unit.ShortDuration(41_200 * time.Millisecond), "41.2 s"},
		{unit.ShortDuration(10 * time.Second), "10 s"},
		{unit.ShortDuration(250 * time.Millisecond), "250 ms"},
		{unit.ShortDuration(12 * time.Minute), "12 min"},
		{unit.ShortDuration(150 * time.Minute), "2.5 h"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}
