package unit

import (
	"errors"
	"math/bits"
	"strconv"
	"strings"
)

// split separates sign and magnitude; the magnitude of the smallest int64 does
// not fit an int64.
func split(v int64) (sign string, magnitude uint64) {
	if v < 0 {
		return "-", -uint64(v)
	}
	return "", uint64(v)
}

// decimal writes v / 10^places exactly, without trailing zeros.
func decimal(v int64, places int) string {
	sign, magnitude := split(v)
	return sign + point(magnitude, places)
}

func point(magnitude uint64, places int) string {
	digits := strconv.FormatUint(magnitude, 10)
	if missing := places + 1 - len(digits); missing > 0 {
		digits = strings.Repeat("0", missing) + digits
	}
	whole, part := digits[:len(digits)-places], strings.TrimRight(digits[len(digits)-places:], "0")
	if part == "" {
		return whole
	}
	return whole + "." + part
}

// short writes v / 10^places to about three digits, with k, M, G or T before
// the unit from 10,000 up. gap goes between number and prefix.
func short(v int64, places int, gap, unit string) string {
	sign, magnitude := split(v)
	size := uint64(1)
	for range places {
		size *= 10
	}
	prefix := ""
	for _, next := range [...]string{"k", "M", "G", "T"} {
		high, limit := bits.Mul64(size, 10_000)
		if prefix != "" {
			high, limit = bits.Mul64(size, 1000)
		}
		if high != 0 || magnitude < limit {
			break
		}
		size, prefix = size*1000, next
	}
	return sign + rounded(magnitude, size) + gap + prefix + unit
}

// rounded writes magnitude / size: no decimals from 100 up, one from 1 up, two
// significant digits below. Halves round up.
func rounded(magnitude, size uint64) string {
	whole := magnitude / size
	switch {
	case magnitude == 0:
		return "0"
	case whole >= 100:
		return strconv.FormatUint(nearest(magnitude, 1, size), 10)
	case whole >= 1:
		return point(nearest(magnitude, 10, size), 1)
	}
	scale, places := uint64(100), 2
	for places < 9 {
		if q, _ := Mul(magnitude, scale).DivRem(size); q.Lo >= 10 {
			break
		}
		scale, places = scale*10, places+1
	}
	return point(nearest(magnitude, scale, size), places)
}

// nearest is magnitude*scale/size, halves up; the quotient fits 64 bits.
func nearest(magnitude, scale, size uint64) uint64 {
	q, r := Mul(magnitude, scale).DivRem(size)
	if r >= size-r {
		return q.Lo + 1
	}
	return q.Lo
}

// cutMinus removes one leading minus sign.
func cutMinus(text string) (rest string, found bool) {
	text = strings.TrimSpace(text)
	if rest, found = strings.CutPrefix(text, "-"); found {
		return rest, true
	}
	return strings.CutPrefix(text, "\u2212")
}

// restore puts the text that the person wrote back into err.
func restore(err error, text string) error {
	if parse, ok := errors.AsType[*ParseError](err); ok {
		parse.Text = text
	}
	return err
}
