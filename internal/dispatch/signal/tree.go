package signal

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// tree is what the shim knows of the processes below it, and what they used.
//
// Processor time is the sum of three parts. Live processes: the kernel's
// process clock, exact in nanoseconds, plus what their own waited-for children
// used, which /proc tells in ticks of 10 ms. Processes that the shim reaped
// (the command and every orphan): their rusage, children included. Lost
// processes: those seen alive once whose parent never accounted for them,
// because it ignores SIGCHLD.
//
// That is a lower bound: a child of such a parent that lives and dies between
// two readings is in none of the three.
type tree struct {
	proc  string // the /proc that shows this tree
	self  int    // the shim, in the numbers of that /proc
	swept bool   // that /proc shows the whole machine: follow the parents

	live   map[int]*process
	reaped int64
	lost   int64
	wait   int64
	last   usage

	lastPid []byte // the youngest process number when the list was read
	stale   bool   // the list has to be read again
	runners int32  // threads that used a processor since the last reading
	buf     []byte
}

type process struct {
	start    uint64 // ticks after boot: with the number, an identity
	parent   int
	state    byte
	threads  int
	cpu      int64
	waited   int64 // ns of its waited-for children
	resident int64 // bytes
	tasks    map[int]schedule
}

// schedule is a thread's own statistics.
type schedule struct{ run, wait int64 }

// usage is a reading of the whole tree.
type usage struct {
	CPU, Wait          int64 // ns, never falling
	Resident           int64 // bytes, shared pages counted for each process
	Processes, Threads int32
	Runnable           int32
}

// most is above every real count of ticks and pages, and far from overflow.
const most = 1 << 38

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every
// architecture that Go runs on.
const tick = 10_000_000

// maxTasks bounds the threads of one process whose waiting is read, 3 us each.
const maxTasks = 256

func newTree(proc string, self int, swept bool) *tree {
	return &tree{proc: proc, self: self, swept: swept, live: map[int]*process{}, stale: true, buf: make([]byte, 4096)}
}

// reap takes a process that the shim waited for out of the living.
func (t *tree) reap(pid int, ru *unix.Rusage) {
	t.reaped += ru.Utime.Nano() + ru.Stime.Nano()
	delete(t.live, pid)
}

// read brings the tree up to date. Its cost is about 1 us a process that sleeps
// and 15 us one that ran.
func (t *tree) read() (usage, error) {
	if err := t.list(); err != nil {
		return t.last, err
	}
	u := usage{CPU: t.reaped + t.lost}
	for pid, p := range t.live {
		cpu, ok := processClock(pid)
		if !ok {
			t.stale = true // it ended meanwhile; the next reading sorts it out
			cpu = p.cpu
		}
		if cpu != p.cpu || p.tasks == nil {
			p.cpu = cpu
			t.look(pid, p)
		}
		u.CPU += p.cpu + p.waited
		u.Resident += p.resident
		if p.state != 'Z' && p.state != 'X' {
			u.Processes++
			u.Threads += int32(p.threads)
		}
	}
	// Ticks round down what was exact while the child lived.
	u.CPU, u.Wait = max(u.CPU, t.last.CPU), t.wait
	u.Runnable, t.runners = t.runners, 0
	t.last = u
	return u, nil
}

// list reads the list of processes, if one was born or ended since.
func (t *tree) list() error {
	youngest := t.youngest()
	if !t.stale && youngest != nil && bytes.Equal(youngest, t.lastPid) {
		return nil
	}
	pids, err := numbers(t.proc)
	if err != nil {
		return err
	}
	found := make(map[int]*process, len(pids))
	for _, pid := range pids {
		if pid == t.self {
			continue
		}
		if p, ok := t.stat(pid); ok {
			found[pid] = p
		}
	}
	if t.swept {
		descendants(found, t.self)
	}
	t.adopt(found)
	t.lastPid = append(t.lastPid[:0], youngest...)
	t.stale = false
	return nil
}

// adopt replaces the list and books what vanished. A child's time goes to its
// parent's account when the parent waits for it; what did not arrive there is
// lost: all of it where the parent ignores its children's ends, else what is
// above two ticks, the rounding of the two fields.
func (t *tree) adopt(found map[int]*process) {
	owed := map[int]int64{}
	for pid, p := range t.live {
		if now, ok := found[pid]; !ok || now.start != p.start {
			owed[p.parent] += p.cpu + p.waited
		}
	}
	for pid, now := range found {
		old, ok := t.live[pid]
		if !ok || old.start != now.start {
			continue
		}
		missing := owed[pid] - (now.waited - old.waited)
		if missing > 0 && !t.deaf(pid) {
			missing -= 2 * tick
		}
		t.lost += max(missing, 0)
		now.cpu, now.tasks = old.cpu, old.tasks
	}
	t.live = found
}

// deaf reports whether a process ignores SIGCHLD: then the kernel forgets what
// its children used.
func (t *tree) deaf(pid int) bool {
	for line := range bytes.Lines(t.slurp(t.proc + "/" + strconv.Itoa(pid) + "/status")) {
		if mask, ok := bytes.CutPrefix(line, []byte("SigIgn:\t")); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(mask)), 16, 64)
			return err == nil && n&(1<<(unix.SIGCHLD-1)) != 0
		}
	}
	return false
}

// look reads what may have changed of a process that ran.
func (t *tree) look(pid int, p *process) {
	if now, ok := t.stat(pid); ok && now.start == p.start {
		p.state, p.threads, p.resident, p.parent = now.state, now.threads, now.resident, now.parent
		p.waited = max(p.waited, now.waited)
	}
	if p.tasks == nil {
		p.tasks = map[int]schedule{}
	}
	dir := t.proc + "/" + strconv.Itoa(pid)
	if p.threads <= 1 {
		t.schedule(p, pid, dir+"/schedstat")
		return
	}
	tids, err := numbers(dir + "/task")
	if err != nil {
		return
	}
	for _, tid := range tids[:min(len(tids), maxTasks)] {
		t.schedule(p, tid, dir+"/task/"+strconv.Itoa(tid)+"/schedstat")
	}
	if len(p.tasks) > 2*maxTasks { // threads come and go: forget the dead
		maps.DeleteFunc(p.tasks, func(tid int, _ schedule) bool { return !slices.Contains(tids, tid) })
	}
}

// schedule adds a thread's waiting since the last look.
func (t *tree) schedule(p *process, tid int, file string) {
	fields := bytes.Fields(t.slurp(file))
	if len(fields) < 2 {
		return
	}
	now := schedule{run: number(fields[0]), wait: number(fields[1])}
	old := p.tasks[tid]
	if now.run < old.run { // the number was given to a new thread
		old = schedule{}
	}
	t.wait += max(now.wait-old.wait, 0)
	if now.run > old.run {
		t.runners++
	}
	p.tasks[tid] = now
}

// stopped lists the living that are stopped now, whoever did it.
func (t *tree) stopped() (map[int]uint64, error) {
	if err := t.list(); err != nil {
		return nil, err
	}
	var out map[int]uint64
	for pid, p := range t.live {
		now, ok := t.stat(pid)
		if !ok || now.start != p.start || now.state != 'T' {
			continue
		}
		if out == nil {
			out = map[int]uint64{}
		}
		out[pid] = p.start
	}
	return out, nil
}

// isStopped reports whether this very process is stopped now.
func (t *tree) isStopped(pid int, start uint64) bool {
	p, ok := t.stat(pid)
	return ok && p.state == 'T' && (start == 0 || p.start == start)
}

// stat reads /proc/PID/stat.
func (t *tree) stat(pid int) (*process, bool) {
	return parseStat(t.slurp(t.proc + "/" + strconv.Itoa(pid) + "/stat"))
}

func parseStat(b []byte) (*process, bool) {
	s, ok := host.ParseProcStat(b)
	return &process{
		state: s.State, parent: s.Parent, waited: min(s.Waited, most) * tick, threads: s.Threads, start: uint64(s.Start),
		resident: min(s.Resident, most) * int64(os.Getpagesize()),
	}, ok
}

// proportional is the memory of the tree with shared pages divided among
// those that share them, of this tree and of others. It costs up to
// milliseconds a process, so it is read only to confirm that a cap was
// passed. Of a process that does not let us look, all counts.
func (t *tree) proportional() int64 {
	var sum int64
	for pid, p := range t.live {
		pss := int64(-1)
		for line := range bytes.Lines(t.slurp(t.proc + "/" + strconv.Itoa(pid) + "/smaps_rollup")) {
			if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == "Pss:" {
				pss = number(f[1]) << 10
				break
			}
		}
		if pss < 0 {
			pss = p.resident
		}
		sum += pss
	}
	return sum
}

// youngest is the last field of loadavg: the number of the process that was
// born last in the namespace.
func (t *tree) youngest() []byte {
	f := bytes.Fields(t.slurp(t.proc + "/loadavg"))
	if len(f) == 0 {
		return nil
	}
	return bytes.Clone(f[len(f)-1])
}

// slurp reads a small file into the tree's buffer; nil if it cannot. The
// result is good until the next call.
func (t *tree) slurp(name string) []byte {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, t.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return t.buf[:max(n, 0)]
	}
}

// descendants keeps those of the list that come from the ancestor.
func descendants(list map[int]*process, ancestor int) {
	below := map[int]bool{ancestor: true}
	var known func(pid, depth int) bool
	known = func(pid, depth int) bool {
		if yes, ok := below[pid]; ok {
			return yes
		}
		p, ok := list[pid]
		// The list is not one moment's: numbers may chase each other.
		yes := ok && depth < 1<<16 && known(p.parent, depth+1)
		below[pid] = yes
		return yes
	}
	maps.DeleteFunc(list, func(pid int, _ *process) bool { return !known(pid, 0) })
}

// numbers lists the entries of a directory that are numbers.
func numbers(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	out := make([]int, 0, len(names))
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		if n, err := strconv.Atoi(name); err == nil {
			out = append(out, n)
		}
	}
	return out, nil
}

// number reads an unsigned decimal; anything else is 0, as an old kernel's
// missing field would be.
func number(b []byte) int64 {
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' || n > (1<<62-10)/10 {
			return 0
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// processClock is the processor time of a process, all threads, in ns. The
// clock's number is made from the process's: see clock_getcpuclockid(3).
func processClock(pid int) (int64, bool) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &ts); err != nil {
		return 0, false
	}
	return ts.Nano(), true
}
