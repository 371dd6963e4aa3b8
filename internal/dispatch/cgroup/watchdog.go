package cgroup

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// The watchdog is a second process that outlives the node by a moment. The
// node holds one end of a connection (a socket pair) to it: it sends the
// orders, gets a byte back when the watchdog is deaf to signals, then sends
// lines of text: whom to hold if it dies (a daemon's watchdog only), and last
// how it goes. An end without that, or a line that is none of ours, means that
// the node is dead, and nothing inside a dead node can thaw, kill or restore.

// WatchdogFD is the descriptor on which a watchdog finds its connection.
const WatchdogFD = 3

const (
	ready   = 'R' // watchdog to node: on guard
	settled = 'S' // watchdog to node, after a handover: the solvent run
)

// orders are the first line on the connection.
type orders struct {
	Roots    []Root        `json:"roots"`
	Boot     string        `json:"boot"`
	UID      int           `json:"uid"`
	Mount    string        `json:"mount,omitempty"` // of cgroup2, where the guests are
	Mode     string        `json:"mode,omitempty"`
	Turn     string        `json:"turn,omitempty"`     // ModeThaw: what the roots say while it is this node's turn
	Patience time.Duration `json:"patience,omitempty"` // ModeThaw: how long to wait for the next daemon
}

// Watchdog is the node's side.
type Watchdog struct {
	command *exec.Cmd

	mu   sync.Mutex // guards what follows
	conn *os.File
	rest []byte // of a line that was sent in part
}

// Guard starts the watchdog: argv is the hidden verb that calls Watch with
// WatchdogFD. It is in its own session and in the node's own cgroup, never in
// a workload's. Its standard error is the node's.
func (e *Enforcer) Guard(argv []string, roots host.Roots) (*Watchdog, error) {
	boot, err := host.BootID(roots)
	if err != nil {
		return nil, err
	}
	o := orders{Roots: e.Roots(), Boot: boot, UID: e.self.uid, Mount: e.mount, Mode: e.mode}
	if e.mode == ModeThaw {
		o.Turn, o.Patience = newTurn(), daemonPatience
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("write the watchdog's orders: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the watchdog's connection: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "watchdog's end")
	w := &Watchdog{conn: os.NewFile(uintptr(pair[0]), "node's end"), command: exec.Command(argv[0], argv[1:]...)}
	w.command.ExtraFiles = []*os.File{theirs}
	w.command.Stderr = os.Stderr
	w.command.Dir = "/"
	w.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = errors.Join(w.command.Start(), theirs.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the watchdog: %w", err), w.conn.Close())
	}
	if err := w.instruct(append(text, '\n')); err != nil {
		return nil, errors.Join(err, w.conn.Close(), w.command.Wait())
	}
	e.mu.Lock()
	e.dogs = append(e.dogs, w.Pid())
	e.mu.Unlock()
	// From here on it is this watchdog's duty; until here it was that of the
	// dead daemon's, whose groups we adopted.
	for _, r := range o.Roots {
		if o.Turn == "" {
			break
		}
		if err := setAttr(r.Dir, turnAttr, o.Turn); err != nil {
			return nil, errors.Join(err, w.Farewell())
		}
	}
	return w, nil
}

// instruct sends the orders and waits until the watchdog is on guard; if it
// dies first, its end of the connection is closed and the read ends.
func (w *Watchdog) instruct(text []byte) error {
	if _, err := w.conn.Write(text); err != nil {
		return fmt.Errorf("send the watchdog's orders: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(w.conn, answer[:]); err != nil || answer[0] != ready {
		return fmt.Errorf("hear from the watchdog: %w", errors.Join(err, errNoWatchdog))
	}
	return nil
}

var errNoWatchdog = errors.New("it is not on guard")

// Pid is the watchdog's process.
func (w *Watchdog) Pid() int { return w.command.Process.Pid }

// Hold tells a daemon's watchdog that a group is broke: if the daemon dies it
// stays stopped, and is ended when its grace is over; never if until is 0
// (paused). It does not block: an error means that the watchdog does not know.
func (w *Watchdog) Hold(directory string, until unit.Instant) error {
	return w.tell(message{verb: verbHold, name: directory, until: until})
}

// Free takes Hold back, as when the group has money again or is gone.
func (w *Watchdog) Free(directory string) error {
	return w.tell(message{verb: verbFree, name: directory})
}

func (w *Watchdog) tell(m message) error {
	line := m.String()
	if _, err := parseMessage(line); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.flushLocked(); err != nil {
		return err
	}
	w.rest = append(w.rest, line...)
	w.rest = append(w.rest, '\n')
	if err := w.flushLocked(); len(w.rest) == len(line)+1 {
		w.rest = w.rest[:0] // nothing of it was sent: the caller may repeat it
		return err
	}
	return nil
}

// flushLocked sends as much as the connection takes at once.
func (w *Watchdog) flushLocked() error {
	for len(w.rest) > 0 {
		n, err := unix.SendmsgN(int(w.conn.Fd()), w.rest, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("tell the watchdog: %w", err)
		}
		w.rest = w.rest[:copy(w.rest, w.rest[n:])]
	}
	return nil
}

// Farewell dismisses the watchdog and waits for it. The market must have been
// closed before.
func (w *Watchdog) Farewell() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := errors.Join(w.lastLocked(verbFarewell), w.conn.Close())
	if waited := w.command.Wait(); waited != nil {
		err = errors.Join(err, fmt.Errorf("wait for the watchdog: %w", waited))
	}
	return err
}

// Handover leaves the workloads to the watchdog: the daemon goes on purpose,
// after Leave. It returns when the solvent run; the watchdog itself lives on
// until the last grace is over or the next daemon has come.
func (w *Watchdog) Handover() error {
	const patience = 10 * time.Second
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.lastLocked(verbHandover)
	if err == nil {
		wait := []unix.PollFd{{Fd: int32(w.conn.Fd()), Events: unix.POLLIN}}
		n := 0
		for n, err = unix.Poll(wait, int(patience.Milliseconds())); errors.Is(err, unix.EINTR); {
			n, err = unix.Poll(wait, int(patience.Milliseconds()))
		}
		if n == 0 && err == nil {
			err = fmt.Errorf("hand over: no word from the watchdog in %v", patience)
		}
	}
	return errors.Join(err, w.conn.Close(), w.command.Process.Release())
}

// lastLocked sends the last word of the node, and waits until it is sent.
func (w *Watchdog) lastLocked(v verb) error {
	line := message{verb: v}.String() + "\n"
	if _, err := w.conn.Write(append(w.rest, line...)); err != nil {
		return fmt.Errorf("tell the watchdog: %w", err)
	}
	return nil
}

// Watch is the watchdog's whole life: it waits on an inherited descriptor until the
// node says farewell, and returns nothing; or until the node is dead, and then
// ends or thaws its workloads by the mark's mode, removes what it made,
// restores what it changed, and returns what it did. A daemon's workloads are
// left as they are for two seconds, in which the next daemon may adopt them; then
// the solvent run again, and those that are held are ended when their grace is
// over. It ignores every signal that can be ignored: a ^C on the terminal is
// for the node.
func Watch(fd int) ([]Action, error) {
	signal.Ignore()
	_, _ = unix.Setsid() // already a leader when Guard started it
	conn := os.NewFile(uintptr(fd), "watchdog's end")
	if conn == nil {
		return nil, fmt.Errorf("watch: descriptor %d is not open", fd)
	}
	defer conn.Close()
	return watch(conn)
}

func watch(conn io.ReadWriter) ([]Action, error) {
	in := bufio.NewReader(conn)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("read the watchdog's orders: %w", err)
	}
	var o orders
	if err := json.Unmarshal(line, &o); err != nil {
		return nil, fmt.Errorf("read the watchdog's orders: %w", err)
	}
	if _, err := conn.Write([]byte{ready}); err != nil && !errors.Is(err, syscall.EPIPE) {
		return nil, fmt.Errorf("answer the node: %w", err) // EPIPE: it died already, and is inherited below
	}
	k := keeper{orders: o, held: map[string]unit.Instant{}}
	last := k.listen(in)
	if last == verbFarewell {
		return nil, nil
	}
	if o.Mode == ModeThaw {
		patience := o.Patience
		if last == verbHandover {
			patience = 0
		}
		k.keep(patience, func() { _, _ = conn.Write([]byte{settled}) })
		return k.list, nil
	}
	var list []Action
	if len(o.Roots) > 0 && until(time.Second, func() bool { return hostIsDead("", o.Roots[0].Dir) }) {
		list = o.restore()
	}
	for _, r := range o.Roots {
		if a, acted := inherit(r, o); acted {
			list = append(list, a)
		}
	}
	return list, nil
}

// mostHeld bounds what a node can make its watchdog remember.
const mostHeld = 1 << 16

// listen takes the node's words until its last: farewell or handover, or none
// because it is dead.
func (k *keeper) listen(in *bufio.Reader) verb {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return verbNone
		}
		m, err := parseMessage(string(line[:len(line)-1]))
		if err != nil {
			return verbNone
		}
		switch m.verb {
		case verbHold:
			if k.held[m.name] = m.until; len(k.held) > mostHeld {
				return verbNone
			}
		case verbFree:
			delete(k.held, m.name)
		case verbFarewell, verbHandover, verbNone:
			return m.verb
		}
	}
}

// inherit repairs one root of the dead node. The kernel releases a dead
// process's locks a little before or after it closes its pipes, and a child
// that is between fork and exec holds both, so a held lock is asked again for
// a second.
func inherit(r Root, o orders) (Action, bool) {
	var a Action
	until(time.Second, func() bool {
		a = repair(r, o.Boot, o.UID)
		return a.Outcome != Alive
	})
	if a.Outcome == Foreign {
		// Removed already: the node closed the market and died on its way out.
		if _, err := os.Stat(r.Dir); errors.Is(err, os.ErrNotExist) {
			return a, false
		}
	}
	return a, true
}
