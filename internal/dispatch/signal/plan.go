package signal

import (
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// pace is what Apply remembers of one group to turn core-time into a window.
type pace struct {
	// credit is what was granted and not used, within two periods. Repaying
	// half of it each epoch closes a gap in a few epochs without swinging.
	credit unit.CoreTime
	// width is how many cores the tree uses while it may run: its threads, or
	// less if it sleeps or has to share. A window is granted time / width.
	width float64

	used, allowed int64 // of the last report
	granted       unit.CoreTime
}

// minWindow is the shortest time worth a stop and a continue: both cost some
// 20 us, and after SIGCONT the tree waits for a processor first. What is less
// is saved up as credit.
const minWindow = 2 * time.Millisecond

// settle takes a report into account: what the tree used since the last one,
// and in how much allowed time.
func (p *pace) settle(cpu, allowed int64, period time.Duration, cores int) {
	used, open := cpu-p.used, allowed-p.allowed
	p.used, p.allowed = cpu, allowed
	limit := 2 * unit.CoreTime(period)
	p.credit = min(max(p.credit+p.granted-unit.CoreTime(used), -limit), limit)
	if open >= int64(minWindow)/2 {
		now := min(max(float64(used)/float64(open), 0.05), float64(cores))
		if p.width == 0 {
			p.width = now
		}
		p.width += 0.3 * (now - p.width) // settles in about five epochs
	}
}

// window is how long the tree may run in the coming period.
func (p *pace) window(granted unit.CoreTime, period time.Duration) time.Duration {
	p.granted = granted
	if granted <= 0 {
		return 0 // outbid is outbid, whatever is owed from before
	}
	width := p.width
	if width == 0 {
		width = 1 // not seen yet: a single thread
	}
	d := time.Duration(math.Round(float64(granted+p.credit/2) / width))
	switch {
	case d < minWindow:
		return 0
	case d > period-minWindow:
		return period // the pause would be too short to be worth a stop
	}
	return d
}

// forgive forgets what is owed: the group is not rationed now.
func (p *pace) forgive() { p.credit, p.granted = 0, 0 }

// lay places windows one behind the other along the cores, each core a line as
// long as the period, and cuts where a line ends (McNaughton's wrap-around
// rule). As a window that is cut goes on at the start of the next core's line,
// which is the same moment in every period, each stays one piece of the
// circle, and at no time do more of them run than there are cores, as long as
// their sum is at most cores x period.
func lay(period time.Duration, runs []time.Duration, widths []float64, out []Window) {
	var at time.Duration
	for i, run := range runs {
		out[i] = Window{Period: period, Offset: at % period, Run: run}
		// A tree of two threads takes two lines at once: the next begins where
		// it ends on the last of them, which double-books only the rest of the
		// line it cannot use alone.
		lines := max(1, int(math.Round(widths[i])))
		at += run * time.Duration(lines)
	}
}

// frame rounds the time between two epochs to whole 5 ms, so that a loop that
// is a little late does not move every window: a period that changes moves all
// phases. Only a real change of the epoch's length changes the frame.
func frame(old, elapsed time.Duration) time.Duration {
	const step = 5 * time.Millisecond
	elapsed = min(max(elapsed, 20*time.Millisecond), time.Second)
	if old != 0 && elapsed > old-old/4 && elapsed < old+old/4 {
		return old
	}
	return elapsed.Round(step)
}
