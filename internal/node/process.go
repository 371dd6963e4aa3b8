package node

import (
	"bytes"
	"os"
	"strconv"
)

// process is one that a number alone would not tell from the next of that number.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // ticks since the machine was started
}

// processOf is the process of a number now; the zero process where there is none.
func processOf(pid int) process {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}
	}
	const state, start = 0, 19 // after the name
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) <= start || string(fields[state]) == "Z" || string(fields[state]) == "X" {
		return process{}
	}
	since, err := strconv.ParseUint(string(fields[start]), 10, 64)
	if err != nil {
		return process{}
	}
	return process{PID: pid, Start: since}
}

// lives reports whether a process has not ended.
func (p process) lives() bool { return p != process{} && processOf(p.PID) == p }
