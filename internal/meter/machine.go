package meter

import (
	"bytes"
	"errors"
	"math"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// machine counts the busy time of all processors.
type machine interface {
	busy() (unit.CoreTime, error)
	close() error
}

// openMachine takes the root of the v1 cpuacct hierarchy, which counts what
// tasks run to the nanosecond, else /proc/stat, which counts in ticks.
func openMachine(cfg Config, roots host.Roots) (machine, error) {
	if dir := cfg.Parent.V1[host.CPUAcct]; dir != "" {
		if m, err := openAccount(dir); err == nil {
			return m, nil
		}
	}
	f, err := roots.Proc.Open("stat")
	if err != nil {
		return nil, err
	}
	m := &statFile{f}
	if _, err := m.busy(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

// account is cpuacct.usage of the root group.
type account struct{ file *host.File }

const accountName = "cpuacct.usage"

// openAccount climbs from a group to the root of its hierarchy. A container
// may show its own group as the root; only the true one has a release_agent.
func openAccount(dir string) (machine, error) {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		err := unix.Access(filepath.Join(dir, "release_agent"), unix.F_OK)
		if err == nil {
			f, err := host.OpenFile(filepath.Join(dir, accountName))
			if err != nil {
				return nil, err
			}
			return account{f}, nil
		}
		if unix.Access(filepath.Join(dir, accountName), unix.F_OK) != nil || dir == "/" {
			return nil, err
		}
	}
}

func (a account) busy() (unit.CoreTime, error) {
	ns, err := a.file.ReadInt()
	return unit.CoreTime(ns), err
}

func (a account) close() error { return a.file.Close() }

// statFile is the first line of /proc/stat:
//
//	cpu  user nice system idle iowait irq softirq steal guest guest_nice
//
// in ticks of USER_HZ, which is 100 on every architecture that Linux still
// supports. guest is part of user; steal is time that we did not get.
type statFile struct{ file *host.File }

const (
	statTick = unit.CoreTime(10 * time.Millisecond)
	// mostTicks is what eight of can be added up and turned into time.
	mostTicks = math.MaxInt64 / int64(statTick) / 8
)

var errStat = errors.New("read /proc/stat: no cpu line")

func (s *statFile) busy() (unit.CoreTime, error) {
	b, err := s.file.Read()
	if err != nil {
		return 0, err
	}
	ticks, ok := busyTicks(b)
	if !ok {
		return 0, errStat
	}
	return unit.CoreTime(ticks) * statTick, nil
}

func (s *statFile) close() error { return s.file.Close() }

func busyTicks(b []byte) (int64, bool) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	rest, ok := bytes.CutPrefix(line, []byte("cpu "))
	if !ok {
		return 0, false
	}
	var sum int64
	for i := range 7 { // user nice system idle iowait irq softirq
		var word []byte
		word, rest, _ = bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
		v, err := host.ParseInt(word)
		if err != nil || v < 0 || v > mostTicks {
			return 0, false
		}
		if i != 3 && i != 4 {
			sum += v
		}
	}
	return sum, true
}

// selfTime is the processor time of this process, all threads.
func selfTime() (unit.CoreTime, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0, err
	}
	return unit.CoreTime(ts.Nano()), nil
}

// threadTime is the processor time of this thread; it stands in for the cost
// of a call that makes system calls, whatever else runs.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
