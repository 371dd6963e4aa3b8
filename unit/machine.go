package unit

import (
	"strings"
	"time"
)

// The quantities of the machine: memory, core time, cores, time, fractions.

var memory = grammar{
	kind: "memory", noun: "memory",
	hint: "memory is written 512M, 4G or 4GiB (all in powers of 1024)",
	most: "8388607 TiB", least: "1 byte",
	scale: func(letters string) (int64, int64, bool) {
		switch strings.ToLower(letters) {
		case "", "b":
			return 1, 1, true
		case "k", "kb", "kib":
			return int64(KiB), 1, true
		case "m", "mb", "mib":
			return int64(MiB), 1, true
		case "g", "gb", "gib":
			return int64(GiB), 1, true
		case "t", "tb", "tib":
			return int64(TiB), 1, true
		default:
			return 0, 0, false
		}
	},
}

var information = grammar{
	kind: "information", noun: "an amount of information",
	hint: `information is written "64 bit"`,
	most: "9223372036854775807 bit", least: "1 bit",
	scale: func(letters string) (int64, int64, bool) {
		return 1, 1, letters == "bit" || letters == "bits"
	},
}

var coreTime = grammar{
	kind: "core time", noun: "core time",
	hint: `core time is written "58.3 core-s"`,
	most: "9223372036 core-s", least: "1 core-ns",
	scale: func(letters string) (int64, int64, bool) {
		switch letters {
		case "core-ns":
			return 1, 1, true
		case "core-us":
			return 1e3, 1, true
		case "core-ms":
			return 1e6, 1, true
		case "core-s":
			return 1e9, 1, true
		case "core-min":
			return 60e9, 1, true
		case "core-h":
			return 3600e9, 1, true
		default:
			return 0, 0, false
		}
	},
}

var cores = grammar{
	kind: "cores", noun: "a number of cores",
	hint: "cores are written 2 or 0.5",
	most: "9223372036854775", least: "0.001",
	scale: func(letters string) (int64, int64, bool) {
		return 1e3, 1, letters == "" || letters == "core" || letters == "cores"
	},
}

var fraction = grammar{
	kind: "fraction", noun: "a fraction",
	hint: "a fraction is written 2%",
	most: "922337203685477 %", least: "0.0001 %",
	scale: func(letters string) (int64, int64, bool) {
		return 1e4, 1, letters == "%"
	},
}

var duration = grammar{
	kind: "duration", noun: "a duration",
	hint: "a duration is written 500ms, 10s, 10m or 2h",
	most: "2562047h", least: "1ns",
	scale: func(letters string) (int64, int64, bool) {
		switch letters {
		case "ns":
			return 1, 1, true
		case "us", "\u00b5s", "\u03bcs":
			return 1e3, 1, true
		case "ms":
			return 1e6, 1, true
		case "s":
			return 1e9, 1, true
		case "m", "min":
			return 60e9, 1, true
		case "h":
			return 3600e9, 1, true
		case "d":
			return 86400e9, 1, true
		default:
			return 0, 0, false
		}
	},
}

// ParseBytes reads 4096, 512M, 4G, 4GiB. As in Docker every suffix is a power
// of 1024 and capitals do not matter.
func ParseBytes(text string) (Bytes, error) {
	v, err := memory.parse(text)
	return Bytes(v), err
}

// String is the exact amount, in the greatest unit that divides it: "4 GiB".
func (b Bytes) String() string {
	for _, u := range [...]struct {
		size Bytes
		name string
	}{{TiB, " TiB"}, {GiB, " GiB"}, {MiB, " MiB"}, {KiB, " KiB"}} {
		if b != 0 && b%u.size == 0 {
			return decimal(int64(b/u.size), 0) + u.name
		}
	}
	return decimal(int64(b), 0) + " B"
}

// Short is the amount for people, to about three digits: "1.9 GiB".
func (b Bytes) Short() string {
	sign, magnitude := split(int64(b))
	names := [...]string{" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"}
	size, i := uint64(1), 0
	// 1023.5 and more would be written 1024.
	for i < len(names)-1 && magnitude/size >= 1000 {
		size, i = size<<10, i+1
	}
	return sign + rounded(magnitude, size) + names[i]
}

// Bits is the information that b bytes hold.
func (b Bytes) Bits() Bits {
	return Bits(MulDiv(int64(b), int64(Byte), 1))
}

// ParseBits reads 64 bit.
func ParseBits(text string) (Bits, error) {
	v, err := information.parse(text)
	return Bits(v), err
}

// String is the exact amount: "64 bit".
func (b Bits) String() string {
	return decimal(int64(b), 0) + " bit"
}

// ParseCoreTime reads 58.3 core-s, 50 core-ms, 2 core-h.
func ParseCoreTime(text string) (CoreTime, error) {
	v, err := coreTime.parse(text)
	return CoreTime(v), err
}

// String is the exact core time: "58.3 core-s".
func (t CoreTime) String() string {
	return decimal(int64(t), 9) + " core-s"
}

// Short is the core time for people, to about three digits: "58.3 core-s".
func (t CoreTime) Short() string {
	return short(int64(t), 9, "", " core-s")
}

// ParseCores reads 2, 0.5, 2 cores.
func ParseCores(text string) (MilliCores, error) {
	v, err := cores.parse(text)
	return MilliCores(v), err
}

// String is the exact number: "1 core", "0.5 cores".
func (c MilliCores) String() string {
	if c == Core {
		return "1 core"
	}
	return decimal(int64(c), 3) + " cores"
}

// In is the core time that c cores give in d, rounded down.
func (c MilliCores) In(d time.Duration) CoreTime {
	return CoreTime(MulDiv(int64(c), int64(d), int64(Core)))
}

// ParseFraction reads 2%.
func ParseFraction(text string) (PPM, error) {
	v, err := fraction.parse(text)
	return PPM(v), err
}

// String is the exact fraction: "2 %".
func (f PPM) String() string {
	return decimal(int64(f), 4) + " %"
}

// Short is the fraction for people, to about three digits: "33.3 %".
func (f PPM) Short() string {
	return short(int64(f), 4, "", " %")
}

// ParseDuration reads one number with its unit, 500ms, 10s, 10m, 2h, 7d, and
// the compound form of time.Duration, 1h30m. Zero needs no unit.
func ParseDuration(text string) (time.Duration, error) {
	v, err := duration.parse(text)
	if err == nil {
		return time.Duration(v), nil
	}
	body := strings.TrimSpace(text)
	if d, compound := time.ParseDuration(body); compound == nil && d >= 0 && !strings.HasPrefix(body, "+") {
		return d, nil
	}
	return 0, err
}

// ShortDuration is a duration for people: "250 ms", "41.2 s", "12 min", "2.5 h".
func ShortDuration(d time.Duration) string {
	sign, magnitude := split(int64(d))
	for _, u := range [...]struct {
		below, size time.Duration
		name        string
	}{
		{time.Microsecond, time.Nanosecond, " ns"},
		{time.Millisecond, time.Microsecond, " us"},
		{time.Second, time.Millisecond, " ms"},
		{100 * time.Second, time.Second, " s"},
		{100 * time.Minute, time.Minute, " min"},
	} {
		if magnitude < uint64(u.below) {
			return sign + rounded(magnitude, uint64(u.size)) + u.name
		}
	}
	return sign + rounded(magnitude, uint64(time.Hour)) + " h"
}

// ParseInstant reads t+12.5s, the form of Instant.String.
func ParseInstant(text string) (Instant, error) {
	rest, found := strings.CutPrefix(strings.TrimSpace(text), "t+")
	v, err := duration.parse(rest)
	if err == nil && found {
		return Instant(v), nil
	}
	return 0, &ParseError{Kind: "instant", Text: text, Reason: "is not an instant", Hint: "an instant is written t+12.5s"}
}

// String is the exact time since the node's origin: "t+12.5s".
func (i Instant) String() string {
	return "t+" + decimal(int64(i), 9) + "s"
}

// Sub is the time from j to i.
func (i Instant) Sub(j Instant) time.Duration {
	return time.Duration(i - j)
}

// Add is the instant d after i.
func (i Instant) Add(d time.Duration) Instant {
	return i + Instant(d)
}
