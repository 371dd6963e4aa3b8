package work

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Worker finishes one unit of work at a time.
type Worker interface {
	Unit() int
}

// reportEvery bounds how often work is reported. A report is one write of
// about a microsecond; at 50 ms it costs 0.002 % of a core.
const reportEvery = 50 * time.Millisecond

// Reporter adds up finished units and writes them as lines "work N kind".
type Reporter struct {
	w    io.Writer // nil: nobody listens
	kind string
	due  time.Time
	sum  int64
}

// NewReporter reports to w, which may be nil.
func NewReporter(w io.Writer, kind string) *Reporter { return &Reporter{w: w, kind: kind} }

// OpenReport opens the descriptor that MAXWELL_REPORT names; nil when there
// is none. A value that is no open descriptor is an error: a workload that is
// paid by its reports should not run without them.
func OpenReport(value string) (*os.File, error) {
	if value == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("MAXWELL_REPORT=%q is not a descriptor", value)
	}
	f := os.NewFile(uintptr(fd), "report")
	if f == nil {
		return nil, fmt.Errorf("MAXWELL_REPORT=%q is not a descriptor", value)
	}
	if _, err := f.Stat(); err != nil {
		return nil, fmt.Errorf("MAXWELL_REPORT=%q: %w", value, err)
	}
	return f, nil
}

// Done counts one finished unit at the time now and reports when it is due.
// A reader that went away ends the reports, not the work.
func (r *Reporter) Done(now time.Time) {
	r.sum++
	if !now.Before(r.due) {
		r.Flush()
		r.due = now.Add(reportEvery)
	}
}

// Flush reports what is not yet reported.
func (r *Reporter) Flush() {
	if r.w == nil || r.sum == 0 {
		return
	}
	if _, err := fmt.Fprintf(r.w, "work %d %s\n", r.sum, r.kind); err != nil {
		r.w = nil
	}
	r.sum = 0
}

// Run works until ctx ends or limit units are done (0: no limit), on one
// thread, and returns the number of units. It keeps the Go runtime to one
// processor for as long as it works.
func Run(ctx context.Context, w Worker, r *Reporter, limit int64) int64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var units int64
	for ctx.Err() == nil && (limit == 0 || units < limit) {
		w.Unit()
		units++
		r.Done(time.Now())
	}
	r.Flush()
	return units
}

// Sum adds up the complete lines "work N kind" of one kind; other lines are
// nobody's work.
func Sum(text []byte, kind string) int64 {
	var sum int64
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != "work" || fields[2] != kind || !strings.HasSuffix(line, "\n") {
			continue
		}
		if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil && n > 0 && n <= math.MaxInt64-sum {
			sum += n
		}
	}
	return sum
}
