package signal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Group is one workload's tree, seen from the node: a socket to its shim. Its
// methods may be called from any goroutine.
type Group struct {
	slot  int
	name  string
	place dispatch.Placement
	cores unit.MilliCores // cap; 0 is none

	mu      sync.Mutex
	listen  int // -1 when the shim has come
	control int // -1 before the shim came and after it went
	pidfd   int // of the shim; -1 if not known
	shim    int // its number, for a message; 0 before it came
	want    order
	sent    bool // want has reached the socket
	last    report
	came    bool // a shim was here
	gone    bool // and has ended, or was refused
	killed  time.Time
	removed bool

	pace  pace
	since time.Time // losing since, for a command on a terminal
}

// killPatience is how long a shim may take to end its tree in good order,
// with everybody's last charges, before it is killed itself.
const killPatience = 500 * time.Millisecond

func openGroup(slot int, name, path string, l dispatch.Limits, p dispatch.Placement) (*Group, error) {
	if l.Memory < 0 || l.Pids < 0 || l.Cores < 0 {
		return nil, fmt.Errorf("limit group %s: negative cap", name)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make the socket of group %s: %w", name, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind %s: %w", path, err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), unix.Listen(fd, 1)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), unix.Close(fd), os.Remove(path))
	}
	p.Control = path
	return &Group{
		slot: slot, name: name, place: p, cores: l.Cores, listen: fd, control: -1, pidfd: -1,
		want: order{Version: wireVersion, Window: always, Memory: int64(l.Memory), Pids: l.Pids},
	}, nil
}

// Placement says where to start the workload's shim.
func (g *Group) Placement() dispatch.Placement { return g.place }

// Ref is empty: there is no cgroup. The rung's own meter reads by slot.
func (g *Group) Ref() host.CgroupRef { return host.CgroupRef{} }

// Freeze stops every process of the tree.
func (g *Group) Freeze() error {
	return g.order(func(o *order) { o.Flags |= orderFrozen })
}

// Thaw lets the tree run again, in its window.
func (g *Group) Thaw() error {
	return g.order(func(o *order) { o.Flags &^= orderFrozen })
}

// Lane opens or closes the dying lane: 20 ms of each 100 ms.
func (g *Group) Lane(on bool) error {
	return g.order(func(o *order) {
		o.Flags &^= orderLane
		if on {
			o.Flags |= orderLane
		}
	})
}

// Signal sends a signal to every process of the tree, but not to its shim.
func (g *Group) Signal(sig syscall.Signal) error {
	if sig <= 0 || sig > maxSignal {
		return fmt.Errorf("signal group %s: %w", g.name, unix.EINVAL)
	}
	return g.once(func(o *order) { o.Signal = int32(sig) })
}

// Kill ends the tree: the shim kills it and reports the last charges. One that
// has not done so after 500 ms is killed itself by the next call of Kill or
// Populated, and the kernel ends a namespace with it.
func (g *Group) Kill() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.removed {
		return dispatch.ErrClosed
	}
	if g.killed.IsZero() {
		g.killed = time.Now()
		g.want.Flags |= orderKill // a level: a shim that comes late ends at once
		g.sent = false
	}
	g.pollLocked()
	g.escalateLocked()
	return nil
}

// order changes the wanted state and sends it.
func (g *Group) order(change func(*order)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.removed {
		return dispatch.ErrClosed
	}
	change(&g.want)
	g.sent = false
	g.pollLocked()
	return nil
}

// once sends an order with something that is done once. Before the shim came
// there is nobody to do it to.
func (g *Group) once(change func(*order)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.removed {
		return dispatch.ErrClosed
	}
	g.pollLocked()
	if g.control < 0 {
		return nil
	}
	o := g.want
	change(&o)
	if err := send(g.control, o.encode()); err != nil && !errors.Is(err, errAgain) {
		g.lostLocked()
	} else if err != nil {
		return fmt.Errorf("signal group %s: its shim does not answer: %w", g.name, err)
	}
	return nil
}

// Populated reports whether the shim, and with it anything of the tree, lives.
func (g *Group) Populated() (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pollLocked()
	g.escalateLocked()
	return g.populatedLocked(), nil
}

func (g *Group) populatedLocked() bool {
	if !g.came {
		return false
	}
	if g.pidfd >= 0 {
		// The kernel marks a namespace's first process dead when the last of
		// the others is.
		fds := []unix.PollFd{{Fd: int32(g.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err != nil || n == 0
	}
	return !g.gone
}

// escalateLocked kills a shim that was told to end its tree and does not. Where
// there is no namespace that would set the tree free.
func (g *Group) escalateLocked() {
	if g.last.Flags&reportSwept == 0 && !g.killed.IsZero() && time.Since(g.killed) > killPatience && g.pidfd >= 0 {
		_ = unix.PidfdSendSignal(g.pidfd, unix.SIGKILL, nil, 0) // ESRCH: it is dead
	}
}

// Counters are those of the last report; processor time is a lower bound.
func (g *Group) Counters() (dispatch.Counters, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.removed {
		return dispatch.Counters{}, dispatch.ErrClosed
	}
	g.pollLocked()
	return dispatch.Counters{
		CPU: unit.CoreTime(g.last.CPU), PeakMemory: unit.Bytes(g.last.PeakMemory),
		OOMKills: uint64(g.last.Oom), Processes: int64(g.last.Threads), PidsRefused: uint64(g.last.Refused),
	}, nil
}

// PeakMemory is that of the last report.
func (g *Group) PeakMemory() (unit.Bytes, error) {
	c, err := g.Counters()
	return c.PeakMemory, err
}

// Usage is what the shim counted by its last report: processor time, waiting,
// and the threads that ran since the report before. Like a meter's it is a
// lower bound, made in another way; of the two the larger is nearer.
func (g *Group) Usage() (run, wait unit.CoreTime, runnable int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pollLocked()
	return unit.CoreTime(g.last.CPU), unit.CoreTime(g.last.Wait), g.last.Runnable
}

// Pid is the shim's number as the kernel vouches for it, 0 before it came: the
// root of the tree.
func (g *Group) Pid() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pollLocked()
	return g.shim
}

// Unheld says what could not be held of this tree; empty in a namespace.
func (g *Group) Unheld() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.last.Flags&reportSwept == 0:
		return ""
	case g.gone && g.last.Flags&reportEnded == 0:
		return "could not hold: the shim was killed, and what it held may live on"
	case g.last.Unheld > 0:
		return fmt.Sprintf("could not hold: %d processes", g.last.Unheld)
	default:
		return ""
	}
}

// Remove takes the group away. A tree that lives is ErrPopulated.
func (g *Group) Remove() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.removed {
		return nil
	}
	g.pollLocked()
	g.escalateLocked()
	if g.populatedLocked() {
		return dispatch.ErrPopulated
	}
	return g.closeLocked()
}

// closeLocked closes every descriptor; a shim that still lives ends its tree.
func (g *Group) closeLocked() error {
	for _, fd := range []*int{&g.listen, &g.control, &g.pidfd} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
	g.removed = true
	if err := os.Remove(g.place.Control); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove group %s: %w", g.name, err)
	}
	return nil
}

// pollLocked takes what the shim sent, and sends what it does not know yet.
func (g *Group) pollLocked() {
	if g.listen >= 0 {
		g.acceptLocked()
	}
	for g.control >= 0 {
		b, err := receive(g.control, false)
		if errors.Is(err, errAgain) {
			break
		}
		if err != nil {
			g.lostLocked()
			return
		}
		if r, err := decodeReport(b); err == nil {
			g.last = r
		}
	}
	if g.control >= 0 && !g.sent {
		switch err := send(g.control, g.want.encode()); {
		case err == nil:
			g.sent = true
		case !errors.Is(err, errAgain):
			g.lostLocked()
		}
	}
}

// acceptLocked lets the shim in: the first that calls, if it is ours. The
// directory of the socket is private to this user already.
func (g *Group) acceptLocked() {
	fd, _, err := unix.Accept4(g.listen, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return // nobody yet
	}
	who, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || (who.Uid != uint32(os.Geteuid()) && who.Uid != 0) ||
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) != nil {
		unix.Close(fd)
		return
	}
	unix.Close(g.listen)
	g.listen, g.control, g.came = -1, fd, true
	_ = os.Remove(g.place.Control) // one shim a group; Remove finds it gone
	g.hello()
}

// hello reads the first report for the shim's number as this namespace sees
// it, which the kernel vouches for.
func (g *Group) hello() {
	if !readable(g.control, helloPatience) {
		return // it comes with a later poll, without a number
	}
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, _, _, err := unix.Recvmsg(g.control, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return
	}
	if r, err := decodeReport(buf[:n]); err == nil {
		g.last = r
	}
	list, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return
	}
	for _, m := range list {
		who, err := unix.ParseUnixCredentials(&m)
		if err != nil || who.Pid <= 0 {
			continue
		}
		g.shim = int(who.Pid)
		if fd, err := unix.PidfdOpen(g.shim, 0); err == nil {
			g.pidfd = fd
		}
	}
}

// helloPatience bounds the wait for a shim that has connected and starts; it
// takes 3 ms.
const helloPatience = 20 * time.Millisecond

// readable waits until a message can be read.
func readable(fd int, patience time.Duration) bool {
	end := time.Now().Add(patience)
	for {
		ts := unix.NsecToTimespec(max(int64(time.Until(end)), 0))
		n, err := unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, &ts, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

func (g *Group) lostLocked() {
	unix.Close(g.control)
	g.control = -1
	g.gone = true
}

// ask sends the wanted state with a question.
func (g *Group) ask(seq uint32) {
	o := g.want
	o.Flags |= orderTell
	o.Seq = seq
	switch err := send(g.control, o.encode()); {
	case err == nil:
		g.sent = true
	case !errors.Is(err, errAgain):
		g.lostLocked()
	}
}

// rationed reports whether a share is to be held to a window.
func rationed(s dispatch.Share) bool {
	class := market.Class(s.Class)
	return class == market.Margin || class == market.Loser || class == market.Frozen
}
