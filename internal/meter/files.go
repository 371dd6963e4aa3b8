package meter

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// files is the meter that reads cgroup counters: cpu.stat of the cgroup2
// directory, or cpuacct.usage of the v1 one where there is no cgroup2.
//
// A read of a kernel file costs microseconds, and most wallets of a large
// market sleep. So only the hot ones, which moved lately, are read each time;
// the market's own counter, the sum of all, tells whether somebody else moved.
// If so the cold ones are looked through from where the last search ended,
// until the difference is explained. A few cold ones are looked at each time
// anyway, because waiting for a processor moves no counter of the market.
type files struct {
	parent  string
	v2      bool
	market  int  // descriptor of the market's own counter; -1 if it has none
	inside  bool // Maxwell's own process runs in the market's group
	machine machine

	slots []fileSlot
	live  []int32
	next  int // where in live the search for a cold mover goes on

	gone   unit.CoreTime // of wallets removed
	total  unit.CoreTime // the market's counter at the last Read
	self   unit.CoreTime
	debt   unit.CoreTime // of the market's movement, not yet found in a wallet
	moved  unit.CoreTime // found since the last balance
	system unit.CoreTime

	kept, keep int // descriptors kept open, and how many at most

	refused []error
	noPSI   error // why waiting is not counted; nil if it is
	cost    cost
	buf     [512]byte // cpu.stat's first line and cpu.pressure fit
}

// fileSlot is one wallet's files.
type fileSlot struct {
	used     bool
	heat     uint8 // reads for which it stays hot
	at       int32 // its index in live
	usage    int   // descriptors; -1 if not kept open
	pressure int
	dirs     [2]string     // of usage and pressure, for those not kept open
	run      unit.CoreTime // the counters at Add
	wait     unit.CoreTime
	last     Sample
}

const (
	// warm is for how many reads a wallet stays hot after it moved. Raising it
	// reads more files; lowering it looks for sleepers that wake more often.
	warm = 16

	// owed is how much unexplained movement starts a search. The files are
	// read one after the other, so some tens of microseconds are noise.
	owed = 200 * unit.CoreTime(time.Microsecond)

	// A search reads at most a quarter of the wallets, or searchLeast, in one
	// Read: a sleeper that wakes is found within four. The rotation reads a
	// sixteenth, or rotateLeast.
	searchShare, searchLeast = 4, 128
	rotateShare, rotateLeast = 16, 8
)

func openFiles(cfg Config, roots host.Roots, refused []error) (*files, error) {
	f := &files{market: -1, refused: refused, keep: descriptors()}
	switch v1 := cfg.Parent.V1[host.CPUAcct]; {
	case cfg.Parent.Dir != "":
		f.parent, f.v2 = filepath.Clean(cfg.Parent.Dir), true
	case v1 != "":
		f.parent = filepath.Clean(v1)
	default:
		return nil, &host.Unavailable{Feature: host.FeatureCgroupCreate, Reason: "no cgroup directory to count in"}
	}
	var err error
	if f.machine, err = openMachine(cfg, roots); err != nil {
		return nil, err
	}
	// The root of a cgroup2 tree has no cpu.stat on old kernels: then every
	// wallet is read each time.
	if fd, err := openFD(filepath.Join(f.parent, f.usageName())); err == nil {
		f.market = fd
		if f.total, err = f.readUsage(fd); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	f.inside = inside(roots, f.parent)
	if f.self, err = selfTime(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	f.noPSI = f.tryPressure(cfg.Parent.Dir)
	return f, nil
}

const pressureName = "cpu.pressure"

// descriptors is how many files may be kept open: half of the process's limit,
// the other half being for the enforcement of the same groups and for children.
func descriptors() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 512
	}
	return int(min(limit.Cur, 1<<20) / 2)
}

func (f *files) usageName() string {
	if f.v2 {
		return "cpu.stat"
	}
	return "cpuacct.usage"
}

// tryPressure reads the market's pressure once. Only cgroup2 keeps it; on a
// hybrid machine too.
func (f *files) tryPressure(dir string) error {
	if dir == "" {
		return errors.New("no cgroup2 directory")
	}
	fd, err := openFD(filepath.Join(dir, pressureName))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = f.readPressure(fd)
	return err
}

// inside reports whether this process is in the group or below it.
func inside(roots host.Roots, dir string) bool {
	l, err := host.Discover(roots)
	if err != nil {
		return false
	}
	for _, own := range []string{l.V2.Own, l.V1[host.CPUAcct].Own} {
		if own == dir || strings.HasPrefix(own, dir+"/") {
			return true
		}
	}
	return false
}

// Add implements Meter.
func (f *files) Add(slot int, cgroup host.CgroupRef) error {
	dir := cgroup.Dir
	if !f.v2 {
		dir = cgroup.V1[host.CPUAcct]
	}
	switch {
	case f.machine == nil:
		return errClosed
	case slot < 0 || slot >= MaxSlots:
		return &SlotError{slot, reasonRange}
	case slot < len(f.slots) && f.slots[slot].used:
		return &SlotError{slot, reasonTaken}
	case filepath.Dir(filepath.Clean(dir)) != f.parent:
		return &SlotError{slot, reasonDir}
	}
	s, err := f.openSlot(dir, cgroup.Dir)
	if err != nil {
		return err
	}
	s.at = int32(len(f.live))
	for len(f.slots) <= slot {
		f.slots = append(f.slots, fileSlot{usage: -1, pressure: -1})
	}
	f.slots[slot] = s
	f.live = append(f.live, int32(slot))
	return nil
}

func (f *files) openSlot(dir, pressure string) (fileSlot, error) {
	s := fileSlot{used: true, heat: warm, usage: -1, pressure: -1, dirs: [2]string{dir, pressure}}
	s.last.Runnable = Unknown
	if f.kept+2 <= f.keep {
		if err := f.keepOpen(&s); err != nil {
			return s, errors.Join(err, f.closeSlot(&s))
		}
	}
	var err error
	if s.run, s.wait, err = f.counters(&s); err != nil {
		return s, errors.Join(err, f.closeSlot(&s))
	}
	return s, nil
}

func (f *files) keepOpen(s *fileSlot) error {
	var err error
	if s.usage, err = openFD(filepath.Join(s.dirs[0], f.usageName())); err != nil {
		return err
	}
	f.kept++
	if f.noPSI != nil {
		return nil
	}
	if s.pressure, err = openFD(filepath.Join(s.dirs[1], pressureName)); err != nil {
		return err
	}
	f.kept++
	return nil
}

func (f *files) closeSlot(s *fileSlot) error {
	var errs []error
	for _, fd := range []*int{&s.usage, &s.pressure} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			f.kept--
		}
		*fd = -1
	}
	return errors.Join(errs...)
}

// counters reads a slot's counters, opening its files for the moment if they
// are not kept open.
func (f *files) counters(s *fileSlot) (run, wait unit.CoreTime, err error) {
	if run, err = f.readBy(s.usage, s.dirs[0], f.usageName(), f.readUsage); err != nil || f.noPSI != nil {
		return run, 0, err
	}
	wait, err = f.readBy(s.pressure, s.dirs[1], pressureName, f.readPressure)
	return run, wait, err
}

func (f *files) readBy(fd int, dir, name string, read func(int) (unit.CoreTime, error)) (unit.CoreTime, error) {
	if fd >= 0 {
		return read(fd)
	}
	fd, err := openFD(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return read(fd)
}

// Remove implements Meter. The last process of a group runs a little after the
// group is said to be empty; the counter of a removed or empty directory is
// read until it stands still.
func (f *files) Remove(slot int) (Sample, error) {
	sample, err := f.ReadOne(slot)
	if err != nil {
		return Sample{}, err
	}
	for since := time.Now(); time.Since(since) < finalWait; {
		time.Sleep(finalWait / 8)
		before := sample.Run
		if sample, err = f.ReadOne(slot); err != nil || sample.Run == before {
			break
		}
	}
	s := &f.slots[slot]
	f.gone += s.last.Run
	last := f.live[len(f.live)-1]
	f.live[s.at] = last
	f.slots[last].at = s.at
	f.live = f.live[:len(f.live)-1]
	err = errors.Join(err, f.closeSlot(s))
	f.slots[slot] = fileSlot{usage: -1, pressure: -1}
	return sample, err
}

// Read implements Meter.
func (f *files) Read(dst []Sample) (Node, error) {
	if f.machine == nil {
		return Node{}, errClosed
	}
	begin := threadTime()
	clear(dst)
	if err := f.readHot(); err != nil {
		return Node{}, err
	}
	if err := f.balance(); err != nil {
		return Node{}, err
	}
	if err := f.search(); err != nil {
		return Node{}, err
	}
	governed := f.gone
	for _, slot := range f.live {
		s := &f.slots[slot]
		governed += s.last.Run
		if int(slot) < len(dst) {
			dst[slot] = s.last
		}
	}
	busy, err := f.machine.busy()
	if err != nil {
		return Node{}, err
	}
	// The machine's counter may be coarser than the wallets': the difference
	// never goes back, and the sum stays a sum.
	f.system = max(f.system, busy-governed)
	f.cost.add(max(0, threadTime()-begin), len(f.live))
	return Node{Busy: governed + f.system, System: f.system, Self: f.self}, nil
}

func (f *files) readHot() error {
	for _, slot := range f.live {
		s := &f.slots[slot]
		if s.heat == 0 && f.market >= 0 {
			continue
		}
		if err := f.update(s); err != nil {
			return fmt.Errorf("slot %d: %w", slot, err)
		}
	}
	return nil
}

// balance compares what the market's counter moved with what was found.
func (f *files) balance() error {
	self, err := selfTime()
	if err != nil {
		return err
	}
	if f.inside {
		f.moved += self - f.self
	}
	f.self = self
	if f.market < 0 {
		return nil
	}
	total, err := f.readUsage(f.market)
	if err != nil {
		return err
	}
	f.debt += total - f.total - f.moved
	f.total, f.moved = total, 0
	return nil
}

// search looks through cold wallets: a few always, more while movement is
// unexplained.
func (f *files) search() error {
	if f.market < 0 {
		return nil
	}
	n := len(f.live)
	rotate := min(n, max(rotateLeast, n/rotateShare))
	most := min(n, max(searchLeast, n/searchShare))
	looked := 0
	for range n {
		if looked >= most || (looked >= rotate && f.debt <= owed) {
			return nil
		}
		if f.next >= len(f.live) {
			f.next = 0
		}
		slot := f.live[f.next]
		s := &f.slots[slot]
		f.next++
		if s.heat == warm {
			continue // moved, or was added, in this very Read
		}
		looked++
		if err := f.update(s); err != nil {
			return fmt.Errorf("slot %d: %w", slot, err)
		}
		f.debt -= f.moved
		f.moved = 0
	}
	// All were looked at: what is left moved outside every wallet.
	f.debt = min(f.debt, 0)
	return nil
}

// ReadOne implements Meter.
func (f *files) ReadOne(slot int) (Sample, error) {
	if f.machine == nil {
		return Sample{}, errClosed
	}
	if slot < 0 || slot >= len(f.slots) || !f.slots[slot].used {
		return Sample{}, &SlotError{slot, reasonEmpty}
	}
	s := &f.slots[slot]
	err := f.update(s)
	return s.last, err
}

// update reads one wallet's files. A directory that is gone keeps its last
// values: Remove comes next.
func (f *files) update(s *fileSlot) error {
	run, wait, err := f.counters(s)
	if host.Gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	before := s.last
	s.last.Run = max(s.last.Run, run-s.run)
	s.last.Wait = max(s.last.Wait, wait-s.wait)
	f.moved += s.last.Run - before.Run
	switch {
	case s.last != before:
		s.heat = warm
	case s.heat > 0:
		s.heat--
	}
	return nil
}

func (f *files) readUsage(fd int) (unit.CoreTime, error) {
	b, err := f.pread(fd)
	if err != nil {
		return 0, err
	}
	if !f.v2 {
		ns, err := host.ParseInt(b)
		return unit.CoreTime(ns), err
	}
	us, ok := host.Key(b, "usage_usec")
	if !ok {
		return 0, errUsage
	}
	return unit.CoreTime(us) * unit.CoreTime(time.Microsecond), nil
}

// readPressure reads the total of "some": the time in which at least one
// runnable thread of the group had no processor. Several that wait at once
// count once, so it is a lower bound.
func (f *files) readPressure(fd int) (unit.CoreTime, error) {
	b, err := f.pread(fd)
	if err != nil {
		return 0, err
	}
	us, ok := pressureTotal(b)
	if !ok {
		return 0, errPressure
	}
	return unit.CoreTime(us) * unit.CoreTime(time.Microsecond), nil
}

// pressureTotal parses the first line of a pressure file:
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=1234
func pressureTotal(b []byte) (int64, bool) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if !bytes.HasPrefix(line, []byte("some ")) {
		return 0, false
	}
	_, text, ok := bytes.Cut(line, []byte(" total="))
	if !ok {
		return 0, false
	}
	v, err := host.ParseInt(text)
	return v, err == nil && v >= 0
}

var (
	errUsage    = errors.New("read cpu.stat: no usage_usec")
	errPressure = errors.New("read cpu.pressure: no total of some")
)

func (f *files) pread(fd int) ([]byte, error) {
	for {
		n, err := unix.Pread(fd, f.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return f.buf[:n], nil
	}
}

// Describe implements Meter.
func (f *files) Describe() Description {
	d := Description{
		Kind:    Files,
		Detail:  fmt.Sprintf("%s of each group, busy ones every time, the others in turn", f.usageName()),
		Charge:  "exact, up to four epochs late for a group that slept long",
		Wait:    "a lower bound: threads that wait at once count once (cpu.pressure)",
		Refused: f.refused,
		Cost:    f.cost.average(), Reads: f.cost.reads, Slots: f.cost.slots,
	}
	if f.kept+2 > f.keep {
		d.Detail += fmt.Sprintf("; files beyond %d are opened at each read, for want of descriptors", f.keep)
	}
	if f.noPSI != nil {
		d.Wait = "not counted"
		d.Refused = append(slices.Clip(d.Refused), fmt.Errorf("waiting: %w", f.noPSI))
	}
	return d
}

// Close implements Meter.
func (f *files) Close() error {
	var errs []error
	for _, slot := range f.live {
		errs = append(errs, f.closeSlot(&f.slots[slot]))
	}
	if f.market >= 0 {
		errs = append(errs, unix.Close(f.market))
	}
	if f.machine != nil {
		errs = append(errs, f.machine.close())
	}
	f.live, f.slots, f.market, f.machine = nil, nil, -1, nil
	return errors.Join(errs...)
}

// openFD opens a kernel file to be read many times into a shared buffer.
func openFD(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("open %s: %w", path, err)
		}
		return fd, nil
	}
}
