package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Fraction is a share in parts per million that JSON shows as a plain number:
// 500,000 is 0.5.
type Fraction unit.PPM

// MarshalJSON writes the exact decimal.
func (f Fraction) MarshalJSON() ([]byte, error) {
	sign, v := "", int64(f)
	if v < 0 {
		sign, v = "-", -v
	}
	s := fmt.Sprintf("%d.%06d", v/1_000_000, v%1_000_000)
	return []byte(sign + strings.TrimRight(strings.TrimRight(s, "0"), ".")), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (f *Fraction) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return fmt.Errorf("read fraction: %w", err)
	}
	if v < -1e6 || v > 1e6 {
		return fmt.Errorf("read fraction: %s is out of range", text)
	}
	if v < 0 {
		*f = Fraction(v*1e6 - 0.5)
	} else {
		*f = Fraction(v*1e6 + 0.5)
	}
	return nil
}

// Band says how an amount of energy is known: "measured, +-1 %" or
// "modelled, +-50 %".
func Band(modelled bool, sigma Fraction) string {
	word := "measured"
	if modelled {
		word = "modelled"
	}
	if sigma == 0 {
		return word
	}
	percent := strings.ReplaceAll(unit.PPM(sigma).Short(), " %", "")
	return word + ", +-" + percent + " %"
}

// sum shows a whole and its parts at one resolution, so that the parts as
// printed add up to the whole as printed. Remainders go by largest share.
func sum(whole unit.Credits, parts []unit.Credits) (string, []string) {
	step := int64(1)
	for int64(whole)/step >= 1000 {
		step *= 10
	}
	if step > 1_000_000 { // from 1,000 $J up: whole $J
		step = 1_000_000
	}
	total := (int64(whole) + step/2) / step
	weights, out := make([]int64, len(parts)), make([]int64, len(parts))
	for i, p := range parts {
		weights[i] = int64(max(p, 0))
	}
	unit.Apportion(total, weights, nil, out)
	texts := make([]string, len(parts))
	for i, n := range out {
		texts[i] = money(n * step)
	}
	return money(total*step) + " $J", texts
}

// typed is an amount as a command line takes it: without separators.
func typed(c unit.Credits) string { return strings.TrimSuffix(c.String(), " $J") }

// money is an amount in micro-$J as a plain number with thousands apart.
func money(v int64) string {
	sign := ""
	if v < 0 {
		sign, v = "-", -v
	}
	text := sign + grouped(v/1_000_000)
	if rest := v % 1_000_000; rest != 0 {
		text += "." + strings.TrimRight(fmt.Sprintf("%06d", rest), "0")
	}
	return text
}

// grouped writes 12,345.
func grouped(v int64) string {
	s := strconv.FormatInt(v, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// average is core time over wall time in cores with one decimal: "1.4 cores".
func average(cpu unit.CoreTime, wall time.Duration) string {
	if wall <= 0 {
		return "0.0 cores"
	}
	tenths := (float64(cpu)/float64(wall))*10 + 0.5
	return fmt.Sprintf("%d.%d cores", int64(tenths)/10, int64(tenths)%10)
}

// budgetFor proposes a cap that would have fitted: a quarter more than it
// cost, rounded up to a figure a person would type.
func budgetFor(cost, least unit.Credits) unit.Credits {
	want := max(cost+cost/4, least, unit.Credits(1_000_000))
	for scale := unit.Credits(1_000_000); ; scale *= 10 {
		for _, tenths := range []unit.Credits{10, 15, 20, 30, 40, 50, 60, 80} {
			if v := scale / 10 * tenths; v >= want {
				return v
			}
		}
		if scale >= 1<<62/100 {
			return want
		}
	}
}

// ShellQuote writes a command as a shell would read it back.
func ShellQuote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteWord(w)
	}
	return strings.Join(quoted, " ")
}

func quoteWord(w string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,+@%"
	if w != "" && strings.Trim(w, plain) == "" {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
