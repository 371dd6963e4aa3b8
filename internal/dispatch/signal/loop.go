package signal

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// How often the shim looks by itself, beside what it is asked.
const (
	idleTick   = 250 * time.Millisecond // reap orphans, see stops of the command
	memoryTick = 20 * time.Millisecond  // with a memory cap: what grows at 5 GB/s is 100 MB over it
	deafTick   = 10 * time.Millisecond  // children vanish uncounted: catch more of them alive
	killTick   = 2 * time.Millisecond   // while the tree dies
	sweepLimit = 2 * time.Second        // without a namespace: then name what is left and go
	lookShare  = 20                     // looking for stopped processes takes at most 1/20 of a core
	readShare  = 100                    // reading the tree takes 1/100 (1/20 with a memory cap); a big tree is read less often
)

// lookMost is the most processes that are looked at before they are stopped. In
// a storm each may have a share of the processor as large as the shim's (the
// kernel groups by session), so the shim must need little and stop first.
const lookMost = 64

// threadTime is the processor time of this thread, which is all of the shim's
// that matters.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// shim is one thread that waits for orders, requests, edges of its window and
// deaths, in one poll.
type shim struct {
	control, client int
	pid, pidfd      int  // the command; pidfd -1 when it is reaped
	user, terminal  bool // a user namespace; standard input is a terminal
	tree            *tree
	hold            *hold
	want            order

	running bool         // the tree is not stopped by us
	since   unit.Instant // when running last changed
	allowed int64        // ns that it was running before that

	tripped  bool // the memory cap was passed: stopped until the end
	oom      int32
	refused  int64
	idle     bool
	peak     int64
	runnable int32 // most threads of one reading that used a processor, since the last report
	paused   bool  // the command is stopped by others, as the client was told
	ended    bool  // the command was reaped
	empty    bool  // no child is left
	dying    unit.Instant
	lookedAt unit.Instant
	lookCost time.Duration
	polled   unit.Instant
	readCost time.Duration
	lossSeen unit.Instant // when processor time was lost last
	loss     int64
}

func now() unit.Instant { return host.Clock{}.Now() }

// loop runs until the tree is empty.
func (s *shim) loop() {
	for {
		s.reap()
		if s.empty || (s.dying != 0 && s.hold.swept && now().Sub(s.dying) > sweepLimit) {
			s.report(0, reportEnded)
			return
		}
		s.watch()
		s.wait(s.steer())
	}
}

// steer stops or continues the tree as ordered, and says when to look again.
func (s *shim) steer() unit.Instant {
	t := now()
	if s.dying != 0 {
		_ = s.hold.all(unix.SIGKILL) // what is left shows in the report
		return t.Add(killTick)
	}
	until := t.Add(idleTick)
	if s.want.Memory > 0 {
		until = t.Add(memoryTick)
	}
	if s.running && s.lossSeen != 0 && t.Sub(s.lossSeen) < time.Second {
		until = t.Add(deafTick)
	}
	window := s.want.Window
	switch {
	case s.want.Flags&orderLane != 0:
		window = lane
	case s.terminal:
		window = always
	}
	run, edge := window.at(t)
	if s.tripped || s.want.Flags&orderFrozen != 0 {
		run, edge = false, 0
	}
	if run != s.running {
		s.turn(run, t)
	}
	if edge != 0 {
		until = min(until, edge)
	}
	return until
}

// turn stops or continues the tree.
func (s *shim) turn(run bool, t unit.Instant) {
	if run {
		_ = s.hold.resume()
		s.running, s.since = true, t
		return
	}
	look := len(s.tree.live) <= lookMost && t.Sub(s.lookedAt) >= lookShare*s.lookCost
	spent := threadTime()
	_ = s.hold.stop(look)
	stopped := now()
	if look {
		s.lookedAt, s.lookCost = stopped, threadTime()-spent
	}
	s.allowed += int64(stopped - s.since)
	s.running, s.since = false, stopped
}

// wait sleeps until a time, a message or the end of the command, and handles
// the messages.
func (s *shim) wait(until unit.Instant) {
	fds := []unix.PollFd{
		{Fd: int32(s.control), Events: unix.POLLIN},
		{Fd: int32(s.client), Events: unix.POLLIN},
		{Fd: int32(s.pidfd), Events: unix.POLLIN}, // a negative one is passed over
	}
	ts := unix.NsecToTimespec(max(int64(until-now()), 0))
	if _, err := unix.Ppoll(fds, &ts, nil); err != nil {
		return // EINTR: a child's end, or a signal we do not care for
	}
	if fds[0].Revents != 0 {
		s.orders()
	}
	if fds[1].Revents != 0 {
		s.requests()
	}
}

// orders takes what the node sent. Its end is ours: nobody would pay.
func (s *shim) orders() {
	for {
		b, err := receive(s.control, false)
		if errors.Is(err, errAgain) {
			return
		}
		if err != nil {
			s.die()
			s.control = -1
			return
		}
		if o, err := decodeOrder(b); err == nil {
			s.obey(o)
		}
	}
}

func (s *shim) obey(o order) {
	caps := o.Pids != s.want.Pids
	s.want = o
	if caps && o.Pids > 0 && s.user {
		s.limitProcesses(o.Pids)
	}
	if o.Signal != 0 {
		_ = s.hold.all(unix.Signal(o.Signal))
	}
	if o.Flags&orderIdle != 0 && !s.idle {
		s.beIdle()
	}
	if o.Flags&orderKill != 0 {
		s.die()
	}
	s.steer()
	if o.Flags&orderTell != 0 {
		s.report(o.Seq, 0)
	}
}

// requests takes what the client asks. Its end is the workload's.
func (s *shim) requests() {
	for {
		b, err := receive(s.client, false)
		if errors.Is(err, errAgain) {
			return
		}
		var r request
		if err != nil || json.Unmarshal(b, &r) != nil {
			s.client = -1
			s.die()
			return
		}
		if r.Signal != 0 {
			s.forward(unix.Signal(r.Signal))
		}
		if r.State {
			s.tell(event{Event: eventState, Stopped: !s.ended && s.running && s.tree.isStopped(s.pid, 0)})
		}
	}
}

// forward sends a signal of the client's to the command. While we hold the
// tree, a wish to stop or to go on is remembered for when we let go.
func (s *shim) forward(sig unix.Signal) {
	if s.ended {
		return
	}
	switch sig {
	case unix.SIGCONT:
		if !s.running {
			delete(s.hold.spare, s.pid)
			return
		}
		// The group that stopped together goes on together.
		if group, err := unix.Getpgid(s.pid); err == nil && group > 1 && group == s.pid {
			_ = unix.Kill(-group, sig)
		}
	case unix.SIGSTOP, unix.SIGTSTP:
		if !s.running {
			if p, ok := s.tree.stat(s.pid); ok {
				if s.hold.spare == nil {
					s.hold.spare = map[int]uint64{}
				}
				s.hold.spare[s.pid] = p.start
			}
			return
		}
	}
	_ = unix.Kill(s.pid, sig) // ESRCH: it has just ended
}

// die begins the end of the tree.
func (s *shim) die() {
	if s.dying == 0 {
		s.dying = now()
	}
}

// reap takes all changes of state that are waiting.
func (s *shim) reap() {
	for {
		var ws unix.WaitStatus
		var ru unix.Rusage
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED|unix.WALL, &ru)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // ECHILD
			s.empty = true
			return
		case pid == 0:
			return
		}
		if !ws.Stopped() && !ws.Continued() {
			s.tree.reap(pid, &ru)
		}
		if pid == s.pid && !s.ended {
			s.changed(ws, ru)
		}
	}
}

// changed tells the client what happened to the command. What we did to it
// ourselves is not its business.
func (s *shim) changed(ws unix.WaitStatus, ru unix.Rusage) {
	e := event{User: ru.Utime.Nano(), System: ru.Stime.Nano()}
	switch {
	case ws.Stopped():
		if !s.running {
			return
		}
		s.paused = true
		e.Event, e.Signal = eventStopped, int(ws.StopSignal())
	case ws.Continued():
		if !s.paused {
			return
		}
		s.paused = false
		e.Event, e.Signal = eventContinued, int(unix.SIGCONT)
	case ws.Signaled():
		e.Event, e.Signal, e.Core, e.Code = eventEnded, int(ws.Signal()), ws.CoreDump(), 128+int(ws.Signal())
	default:
		e.Event, e.Code = eventEnded, ws.ExitStatus()
	}
	if e.Event == eventEnded {
		s.ended = true
		if s.pidfd >= 0 {
			unix.Close(s.pidfd)
			s.pidfd = -1
		}
	}
	s.tell(e)
}

// tell sends an event to the client, if there is one.
func (s *shim) tell(e event) {
	if s.client < 0 {
		return
	}
	if errors.Is(sendJSON(s.client, e), io.EOF) {
		s.client = -1
		s.die()
	}
}

// greet says hello to the node. The kernel adds our number in the node's own
// namespace, because we ask for credentials on our side of the socket.
func (s *shim) greet() error {
	if err := unix.SetsockoptInt(s.control, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return err
	}
	return send(s.control, report{Version: wireVersion, Flags: s.flags() | reportHello}.encode())
}

func (s *shim) flags() uint32 {
	var f uint32
	for flag, on := range map[uint32]bool{
		reportTerminal: s.terminal, reportSwept: s.hold.swept, reportStopped: !s.running,
		reportMemory: s.tripped, reportIdle: s.idle,
	} {
		if on {
			f |= flag
		}
	}
	return f
}

// report answers the node.
func (s *shim) report(seq, flags uint32) {
	if s.control < 0 {
		return
	}
	u := s.measure()
	r := report{
		Version: wireVersion, Flags: s.flags() | flags, Seq: seq,
		Runnable: s.runnable, Processes: u.Processes, Threads: u.Threads,
		Unheld: int32(len(s.hold.unheld)), Oom: s.oom, Refused: s.refused,
		CPU: u.CPU, Wait: u.Wait, Allowed: s.allowed, Memory: u.Resident, PeakMemory: s.peak,
	}
	s.runnable = 0
	t := now()
	if r.At = int64(t); s.running {
		r.Allowed += int64(t - s.since)
	}
	if errors.Is(send(s.control, r.encode()), io.EOF) {
		s.control = -1
		s.die()
	}
}

// measure reads the tree and looks at its caps.
func (s *shim) measure() usage {
	share := time.Duration(readShare)
	if s.want.Memory > 0 {
		share = lookShare
	}
	if s.running && !s.ended && now().Sub(s.polled) < share*s.readCost {
		return s.tree.last
	}
	spent := threadTime()
	u, err := s.tree.read()
	s.readCost = threadTime() - spent
	if err != nil {
		return u // the last one; the list of processes is readable next time
	}
	s.polled = now()
	if s.tree.lost != s.loss {
		s.loss, s.lossSeen = s.tree.lost, s.polled
	}
	s.peak, s.runnable = max(s.peak, u.Resident), max(s.runnable, u.Runnable)
	if s.want.Pids > 0 && int64(u.Threads) >= s.want.Pids {
		s.refused++
	}
	if s.want.Memory > 0 && u.Resident > s.want.Memory && !s.tripped {
		if s.tree.proportional() > s.want.Memory {
			s.tripped = true
			s.oom++
			s.steer() // stop before it grows further; what then is the node's decision
		}
	}
	return u
}

// watch looks at the tree between two questions of the node: for a memory cap,
// and where processes end uncounted.
func (s *shim) watch() {
	since := now().Sub(s.polled)
	deaf := s.lossSeen != 0 && now().Sub(s.lossSeen) < time.Second
	due := s.want.Memory > 0 && since >= memoryTick || deaf && since >= deafTick
	if !due || !s.running || s.dying != 0 {
		return
	}
	before := s.oom
	s.measure()
	if s.oom != before {
		s.report(0, 0)
	}
}

// limitProcesses sets RLIMIT_NPROC on the tree. In a user namespace of its own
// it counts the namespace's threads, ours included (kernels from 5.14). One
// more than the cap is let through, so that the tree is still seen at its cap
// after the one whose fork was refused has ended for it, as shells do.
func (s *shim) limitProcesses(limit int64) {
	own, _ := numbers("/proc/" + strconv.Itoa(os.Getpid()) + "/task")
	n := uint64(limit) + uint64(len(own)) + 1
	s.tree.stale = true
	if s.tree.list() != nil {
		return
	}
	for pid := range s.tree.live {
		_ = unix.Prlimit(pid, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: n, Max: n}, nil)
	}
}

// beIdle gives SCHED_IDLE to every thread; what is born later inherits it. The
// kernel does not let a user take it back.
func (s *shim) beIdle() {
	idle := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
	for range 2 { // the second pass finds what was forked during the first
		s.tree.stale = true
		if s.tree.list() != nil {
			return
		}
		for pid := range s.tree.live {
			tids, err := numbers(s.tree.proc + "/" + strconv.Itoa(pid) + "/task")
			if err != nil {
				continue
			}
			for _, tid := range tids {
				_ = unix.SchedSetAttr(tid, &idle, 0)
			}
		}
	}
	s.idle = true
}

// stateOf turns the shim's news into what Wait returns.
func stateOf(e event) (launch.Status, bool) {
	st := launch.Status{
		Code: e.Code, Signal: unix.Signal(e.Signal), Core: e.Core,
		User: time.Duration(e.User), System: time.Duration(e.System),
	}
	switch e.Event {
	case eventStopped:
		st.State = launch.Stopped
	case eventContinued:
		st.State = launch.Continued
	case eventEnded:
		st.State = launch.Exited
		if e.Signal != 0 {
			st.State = launch.Signaled
		}
	default:
		return launch.Status{}, false
	}
	return st, true
}
