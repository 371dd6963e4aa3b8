package grid

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// What a factor may have: 9999.999999. A wrong decimal point is bounded by the
// market, not here: on a windy Sunday the price of a supplier is below zero.
const (
	mostWhole    = 4
	mostFraction = 6
)

// Parse reads one factor, "1.5x" or "1.5", with white space around it and nothing
// else: no exponent, no separator, no second line.
func Parse(text []byte) (unit.PPM, error) {
	if len(text) > MaxFile {
		return 0, fmt.Errorf("is more than %d bytes; write one factor, as 1.5x", MaxFile)
	}
	body := bytes.Trim(text, " \t\r\n")
	number, below := bytes.CutPrefix(bytes.TrimSuffix(body, []byte("x")), []byte("-"))
	whole, fraction, point := bytes.Cut(number, []byte("."))
	if !digits(whole, mostWhole) || point && !digits(fraction, mostFraction) {
		return 0, fmt.Errorf("%s is no factor; write one number, as 1.5x", strconv.Quote(string(body)))
	}
	var ppm unit.PPM
	for _, c := range whole {
		ppm = ppm*10 + unit.PPM(c-'0')
	}
	for i := range mostFraction {
		ppm *= 10
		if i < len(fraction) {
			ppm += unit.PPM(fraction[i] - '0')
		}
	}
	if below {
		ppm = -ppm
	}
	return ppm, nil
}

// digits reports whether b is one to most digits.
func digits(b []byte, most int) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) >= 1 && len(b) <= most
}
