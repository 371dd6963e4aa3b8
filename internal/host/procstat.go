package host

import (
	"bytes"
	"math"
)

// ProcStat is what is used of /proc/PID/stat (proc_pid_stat(5)). Times are in ticks of
// 1/100 s, as the kernel shows them on every architecture.
type ProcStat struct {
	PID      int
	State    byte // 'R' running or waiting for a processor, 'Z' zombie, 'X' dead, ...
	Parent   int
	Group    int
	Session  int
	Flags    uint32 // PF_* of include/linux/sched.h
	Used     int64  // user and system time of the living and dead threads, rounded down
	Waited   int64  // the same of children waited for, theirs included
	Threads  int
	Start    int64 // after boot: with the number, the identity of a process
	Resident int64 // pages
}

// mostTicks is what no machine has run: sums of some of them fit into an int64 as
// nanoseconds.
const mostTicks = math.MaxInt64 / 10_000_000 / 4

// The fields from the fourth on, by their place.
const (
	statParent = iota
	statGroup
	statSession
	statFlags      = 5
	statUser       = 10
	statSystem     = 11
	statChildUser  = 12
	statChildTimes = 13
	statThreads    = 16
	statStart      = 18
	statResident   = 20
	statFields     = 21
)

// ParseProcStat parses /proc/PID/stat. The program's name is the second field, in
// parentheses, and may itself hold spaces and parentheses; no later field does.
func ParseProcStat(b []byte) (ProcStat, bool) {
	var s ProcStat
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open || end+3 >= len(b) || b[end+1] != ' ' {
		return s, false
	}
	pid, err := ParseInt(b[:open-1])
	if err != nil || pid <= 0 || pid > math.MaxInt32 {
		return s, false
	}
	rest := b[end+3:]
	var field [statFields]int64
	for i := range field {
		var word []byte
		word, rest, _ = bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
		v, err := ParseInt(word)
		if err != nil {
			return s, false
		}
		field[i] = v
	}
	for _, i := range []int{statUser, statSystem, statChildUser, statChildTimes, statStart, statResident} {
		if field[i] < 0 || field[i] > mostTicks {
			return s, false
		}
	}
	for _, i := range []int{statParent, statGroup, statSession, statThreads} {
		if field[i] < -1 || field[i] > math.MaxInt32 {
			return s, false
		}
	}
	return ProcStat{
		PID: int(pid), State: b[end+2],
		Parent: int(field[statParent]), Group: int(field[statGroup]), Session: int(field[statSession]),
		Flags:    uint32(field[statFlags]), //nolint:gosec // they are 32 bits
		Used:     field[statUser] + field[statSystem],
		Waited:   field[statChildUser] + field[statChildTimes],
		Threads:  int(field[statThreads]),
		Start:    field[statStart],
		Resident: field[statResident],
	}, true
}
