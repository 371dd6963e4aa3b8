package meter

import (
	"bytes"
	"math"

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

// parseStat parses /proc/PID/stat. The program's name is the second field, in
// parentheses, and may itself hold spaces and parentheses; no later field
// does.
func parseStat(b []byte) (processStat, bool) {
	var s processStat
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open || end+3 >= len(b) || b[end+1] != ' ' {
		return s, false
	}
	pid, err := host.ParseInt(b[:open-1])
	if err != nil || pid <= 0 || pid > math.MaxInt32 {
		return s, false
	}
	s.pid, s.state = int(pid), b[end+2]
	rest := b[end+3:]
	// From field 4 (ppid) to field 22 (starttime), proc_pid_stat(5).
	var field [19]int64
	for i := range field {
		var word []byte
		word, rest, _ = bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
		v, err := host.ParseInt(word)
		if err != nil {
			return s, false
		}
		field[i] = v
	}
	for _, i := range []int{10, 11, 12, 13, 18} {
		if field[i] < 0 || field[i] > mostTicks {
			return s, false
		}
	}
	for _, i := range []int{0, 1, 2} {
		if field[i] < -1 || field[i] > math.MaxInt32 {
			return s, false
		}
	}
	s.parent, s.group, s.session = int(field[0]), int(field[1]), int(field[2])
	s.used = unit.CoreTime(field[10]+field[11]) * statTick
	s.waited = unit.CoreTime(field[12]+field[13]) * statTick
	s.start = field[18]
	return s, true
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
