package node

import (
	"os"
	"strconv"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// process is one that a number alone would not tell from the next of that number.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // ticks since the machine was started
}

// processOf is the process of a number now; the zero process where there is none.
func processOf(pid int) process {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	s, ok := host.ParseProcStat(b)
	if err != nil || !ok || s.State == 'Z' || s.State == 'X' {
		return process{}
	}
	return process{PID: pid, Start: uint64(s.Start)}
}

// lives reports whether a process has not ended.
func (p process) lives() bool { return p != process{} && processOf(p.PID) == p }
