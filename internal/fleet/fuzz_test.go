package fleet

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// FuzzFlags feeds one text to every parser that the flags of run and up share
// with the file. What is accepted is within its documented bounds and survives
// being written; what is refused is one line that says how to write it.
func FuzzFlags(f *testing.F) {
	for _, text := range []string{
		"2", "0.5", "0", "-5", "1e30", "4194304", "4194305", "10s", "0s", "500ms", "200000h", "10ms", "1s", "9.99ms", "2%", "20%",
		"20.0001%", "4x", "auto", "0.5x", "pause", "stop", "leech-1", "../x", "\x00", "2\n", "NaN", "",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		check := func(what string, err error, good bool) {
			_, parse := errors.AsType[*unit.ParseError](err)
			_, problem := errors.AsType[*Problem](err)
			switch {
			case err == nil && !good:
				t.Errorf("%s %q is out of bounds", what, text)
			case err != nil && !parse && !problem:
				t.Errorf("%s %q: %T %v is not for people", what, text, err, err)
			case err != nil && strings.ContainsAny(err.Error(), "\n\r\x1b"):
				t.Errorf("%s %q: %q", what, text, err)
			}
		}
		cores, err := ParseCores(text)
		again, _ := ParseCores(cores.String())
		check("cores", err, cores > 0 && cores <= maxCores && again == cores)
		pids, err := ParsePids(text)
		check("pids", err, pids >= 2 && pids <= 4<<20)
		grace, err := ParseGrace(text)
		check("grace", err, grace >= 0)
		span, err := ParseSpan(text)
		check("span", err, span > 0 && span < 101*365*24*time.Hour)
		epoch, err := ParseEpoch(text)
		check("epoch", err, epoch >= minEpoch && epoch <= maxEpoch)
		floor, err := ParseFloor(text)
		check("floor", err, floor >= 0 && floor <= maxFloor)
		bid, err := ParseBid(text)
		back, _ := ParseBid(bid.String())
		check("bid", err, bid == back)
		choice, err := ParseWhenBroke(text)
		check("when_broke", err, choice.String() == text)
		if p := CheckName(text); p == nil && (text == "" || strings.ContainsAny(text, "/. \n")) {
			t.Errorf("%q passes for a name", text)
		}
	})
}
