package client

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"
)

// Bounds of one report; the market ignores a line beyond them.
const (
	maxUnits = 1 << 40
	maxKind  = 64 // bytes
)

// Report tells the market about n finished units of a kind, which may be empty.
// A workload with an income earns by it. Nothing is asked and nothing answers:
// the line is in the market's hands when Report returns. Code Outside where
// there is nobody to report to.
func (c *Client) Report(n int64, kind string) error {
	what := "report"
	switch {
	case n <= 0 || n > maxUnits:
		return invalid(what, fmt.Sprintf("%d units", n), "report between 1 and 2^40 at once")
	case len(kind) > maxKind || strings.ContainsFunc(kind, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar
	}):
		return invalid(what, fmt.Sprintf("%q is no kind", kind), "use one word of at most 64 bytes")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.report == nil {
		f, err := openReport(os.Getenv("MAXWELL_REPORT"))
		if err != nil {
			return err
		}
		c.report = f
	}
	line := strings.TrimRight(fmt.Sprintf("work %d %s", n, kind), " ") + "\n"
	if _, err := c.report.WriteString(line); err != nil { // one write, so that lines of several programs do not mix
		return &Error{Code: Unavailable, Text: "report: " + err.Error(), Err: err}
	}
	return nil
}

func openReport(value string) (*os.File, error) {
	if value == "" {
		return nil, &Error{Code: Outside, Text: "report: MAXWELL_REPORT is not set", Remedy: "start this program with maxwell run"}
	}
	fd, err := strconv.Atoi(value)
	if err == nil && fd >= 3 {
		var f *os.File
		if f, err = duplicate(fd); err == nil {
			return f, nil
		}
	}
	return nil, &Error{
		Code: Outside, Text: fmt.Sprintf("report: MAXWELL_REPORT=%q is no open descriptor", value),
		Remedy: "pass the descriptor on, or unset the variable", Err: err,
	}
}
