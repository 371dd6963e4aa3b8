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
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// The watchdog is a second process that outlives the node by a moment. The
// node holds one end of a connection (a socket pair) to it: it sends the
// orders, gets a byte back when the watchdog is deaf to signals, then sends
// nothing, and a farewell byte before it goes in peace. An end without
// farewell means that the node is dead, and nothing inside a dead node can
// thaw, kill or restore.

// WatchdogFD is the descriptor on which a watchdog finds its connection.
const WatchdogFD = 3

const (
	farewell = 'F' // node to watchdog: a peaceful end
	ready    = 'R' // watchdog to node: on guard
)

// orders are the first line on the pipe.
type orders struct {
	Roots []Root `json:"roots"`
	Boot  string `json:"boot"`
	UID   int    `json:"uid"`
}

// Watchdog is the node's side.
type Watchdog struct {
	conn    *os.File
	command *exec.Cmd
}

// Guard starts the watchdog: argv is the hidden verb that calls Watch with
// WatchdogFD. It is in its own session and in the node's own cgroup, never in
// a workload's. Its standard error is the node's.
func (e *Enforcer) Guard(argv []string, roots host.Roots) (*Watchdog, error) {
	boot, err := host.BootID(roots)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(orders{Roots: e.Roots(), Boot: boot, UID: e.self.uid})
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

// Farewell dismisses the watchdog and waits for it. The market must have been
// closed before.
func (w *Watchdog) Farewell() error {
	_, err := w.conn.Write([]byte{farewell})
	err = errors.Join(err, w.conn.Close())
	if waited := w.command.Wait(); waited != nil {
		err = errors.Join(err, fmt.Errorf("wait for the watchdog: %w", waited))
	}
	return err
}

// Watch is the watchdog's whole life: it waits on an inherited descriptor until the
// node says farewell, and returns nothing; or until the node is dead, and then
// ends or thaws its workloads by the mark's mode, removes what it made,
// restores what it changed, and returns what it did. It ignores every signal
// that can be ignored: a ^C on the terminal is for the node.
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
	for {
		b, err := in.ReadByte()
		if err == nil && b == farewell {
			return nil, nil
		}
		if err != nil {
			break
		}
	}
	var list []Action
	for _, r := range o.Roots {
		if a, acted := inherit(r, o); acted {
			list = append(list, a)
		}
	}
	return list, nil
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
