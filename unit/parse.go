package unit

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// ParseError says in one line why a text is not the quantity it should be, and
// how that quantity is written. The caller names the place (flag, file and
// line) before it.
type ParseError struct {
	Kind   string // the quantity wanted: "energy", "money", "power"...
	Text   string // what was given
	Reason string // what is wrong with it: "is energy", "is negative"
	Hint   string // how to write it: `money is written 500 or "500 $J"`
}

// Error is `"500J" is energy; money is written 500 or "500 $J"`.
func (e *ParseError) Error() string {
	return fmt.Sprintf("%s %s; %s", quote(e.Text), e.Reason, e.Hint)
}

// quoteLimit bounds how much of a wrong text is echoed, in bytes.
const quoteLimit = 40

func quote(text string) string {
	if len(text) <= quoteLimit {
		return fmt.Sprintf("%q", text)
	}
	end := quoteLimit
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%q...", text[:end])
}

// grammar is how one quantity is written. scale gives, for the letters after
// the number (spaces removed), the integer that one of them stands for, as
// times/per (per below 2^32).
type grammar struct {
	kind  string // for ParseError
	noun  string // as in "is energy", "is a price"
	hint  string
	most  string // the greatest amount, for the message
	least string // the finest amount, for the message
	scale func(letters string) (times, per int64, ok bool)
}

func (g grammar) fail(text, reason string) error {
	return &ParseError{Kind: g.kind, Text: text, Reason: reason, Hint: g.hint}
}

// parse reads a non-negative decimal number and its letters. Digits below the
// finest amount are dropped (rounded down), but an amount that is not zero
// never becomes zero.
func (g grammar) parse(text string) (int64, error) {
	body := strings.TrimSpace(text)
	if body == "" {
		return 0, g.fail(text, "is empty")
	}
	n, rest, reason := scanNumber(body)
	if reason != "" {
		return 0, g.fail(text, reason)
	}
	letters := strings.ReplaceAll(strings.TrimSpace(rest), " ", "")
	times, per, ok := g.scale(letters)
	if !ok {
		return 0, g.fail(text, g.foreign(letters))
	}
	value, fit := n.scaled(times, per)
	switch {
	case fit == tooLarge:
		return 0, g.fail(text, "is more than "+g.most)
	case fit == tooFine:
		return 0, g.fail(text, "is less than "+g.least)
	default:
		return value, nil
	}
}

// number is coefficient * 10^exponent, rounded down to about 19 digits. full
// says that further digits no longer fit the coefficient.
type number struct {
	coefficient uint64
	exponent    int
	full        bool
}

type fit uint8

const (
	fits fit = iota
	tooLarge
	tooFine
)

// exponentLimit bounds written exponents; 10^40 is beyond 128 bits.
const exponentLimit = 1000

// scanNumber reads digits[.digits][e[+-]digits] and returns what follows. A
// reason that is not empty says why there is no number.
func scanNumber(s string) (n number, rest, reason string) {
	switch lower := strings.ToLower(s); {
	case s[0] == '-' || strings.HasPrefix(s, "\u2212"):
		return n, "", "is negative"
	case strings.HasPrefix(lower, "nan") || strings.HasPrefix(lower, "inf") || strings.HasPrefix(lower, "+inf"):
		return n, "", "is not a finite number"
	}
	i, digits, fraction := 0, 0, false
	for ; i < len(s); i++ {
		c := s[i]
		if c == '.' && !fraction {
			fraction = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		digits++
		n.push(c-'0', fraction)
	}
	if digits == 0 {
		return n, "", "does not begin with a number"
	}
	if i < len(s) && (s[i] == ',' || s[i] == '_') {
		return n, "", "has a separator among its digits"
	}
	return n.scanExponent(s[i:])
}

// push appends a digit. Digits that no longer fit are dropped; those before the
// point still count as magnitude.
func (n *number) push(digit byte, fraction bool) {
	d := uint64(digit)
	n.full = n.full || n.coefficient > (math.MaxUint64-d)/10
	switch {
	case n.full && !fraction:
		n.exponent++
	case !n.full:
		n.coefficient = n.coefficient*10 + d
		if fraction {
			n.exponent--
		}
	}
}

// scanExponent reads an exponent, which is an e with digits after it.
func (n number) scanExponent(s string) (number, string, string) {
	if s == "" || s[0] != 'e' && s[0] != 'E' {
		return n, s, ""
	}
	i, sign := 1, 1
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		if s[i] == '-' {
			sign = -1
		}
		i++
	}
	first, exponent := i, 0
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		exponent = min(exponent*10+int(s[i]-'0'), exponentLimit)
	}
	if i == first {
		return n, s, ""
	}
	n.exponent += sign * exponent
	return n, s[i:], ""
}

// scaled is floor(n * times / per) as an int64.
func (n number) scaled(times, per int64) (int64, fit) {
	if n.coefficient == 0 {
		return 0, fits
	}
	w := Mul(n.coefficient, uint64(times))
	for e := n.exponent; e > 0; e-- {
		if w.Hi >= 1<<32 {
			return 0, tooLarge // more than 2^96 / per, so more than 2^63
		}
		w = Wide{Hi: w.Hi * 10}.AddMul(w.Lo, 10)
	}
	for e := n.exponent; e < 0 && !w.IsZero(); e++ {
		w, _ = w.DivRem(10)
	}
	w, _ = w.DivRem(uint64(per))
	v, ok := w.Uint64()
	switch {
	case !ok || v > math.MaxInt64:
		return 0, tooLarge
	case v == 0:
		return 0, tooFine
	default:
		return int64(v), fits
	}
}

// foreign says what letters after a number mean when they are not the wanted
// quantity's.
func (g grammar) foreign(letters string) string {
	if letters == "" {
		return "has no unit"
	}
	for _, other := range []grammar{energy, power, money, price, spend, rate, memory, coreTime, cores, fraction, heat, information} {
		if _, _, ok := other.scale(letters); ok && other.kind != g.kind {
			return "is " + other.noun
		}
	}
	if isDuration(letters) {
		return "is a duration"
	}
	return "has the unknown unit " + quote(letters)
}

func isDuration(letters string) bool {
	switch letters {
	case "ns", "us", "\u00b5s", "ms", "s", "min", "m", "h", "d":
		return true
	default:
		return false
	}
}
