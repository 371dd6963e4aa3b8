package meter

import (
	"bytes"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// processStat is what is used of /proc/PID/stat.
type processStat struct {
	pid     int
	state   byte // 'R' running or waiting for a processor, 'Z' zombie, ...
	parent  int
	group   int
	session int
	used    unit.CoreTime // user + system of the living and dead threads, rounded down to ticks
	waited  unit.CoreTime // the same of children waited for, theirs included
	start   int64         // ticks after boot: with the pid, the identity of a process
}

// parseStat parses /proc/PID/stat.
func parseStat(b []byte) (processStat, bool) {
	s, ok := host.ParseProcStat(b)
	return processStat{
		pid: s.PID, state: s.State, parent: s.Parent, group: s.Group, session: s.Session,
		used: unit.CoreTime(s.Used) * statTick, waited: unit.CoreTime(s.Waited) * statTick, start: s.Start,
	}, ok
}

// parseDelay parses /proc/PID/schedstat: time on a processor, time waiting for
// one, both in ns, and the number of turns.
func parseDelay(b []byte) (int64, bool) {
	_, rest, ok := bytes.Cut(b, []byte(" "))
	if !ok {
		return 0, false
	}
	word, _, _ := bytes.Cut(rest, []byte(" "))
	v, err := host.ParseInt(word)
	return v, err == nil && v >= 0
}
