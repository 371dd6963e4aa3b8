package signal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Events of the shim for the client that started it.
const (
	eventStarted   = "started"
	eventRefused   = "refused"
	eventStopped   = "stopped"   // the command itself was stopped, not by us
	eventContinued = "continued" // and goes on
	eventEnded     = "ended"
	eventState     = "state" // the answer to a query
)

// event is what the shim tells the client.
type event struct {
	Event     string `json:"event"`
	Pid       int    `json:"pid,omitempty"` // in the shim's namespace
	Code      int    `json:"code,omitempty"`
	Signal    int    `json:"signal,omitempty"`
	Core      bool   `json:"core,omitempty"`
	User      int64  `json:"user_ns,omitempty"`
	System    int64  `json:"system_ns,omitempty"`
	Stopped   bool   `json:"stopped,omitempty"`
	Namespace bool   `json:"namespace,omitempty"` // refused: try without one
	Command   string `json:"command,omitempty"`
	Errno     int    `json:"errno,omitempty"`
	Text      string `json:"text,omitempty"`
}

// request is what the client asks of the shim.
type request struct {
	Signal int  `json:"signal,omitempty"` // for the command itself
	State  bool `json:"state,omitempty"`  // is it stopped now?
}

// errAgain says that no message is waiting.
var errAgain = errors.New("no message yet")

// receive takes one message; io.EOF when the other side is gone, errAgain when
// there is none and the call may not wait.
func receive(fd int, wait bool) ([]byte, error) {
	flags := 0
	if !wait {
		flags = unix.MSG_DONTWAIT
	}
	buf := make([]byte, maxMessage)
	for {
		n, _, err := unix.Recvfrom(fd, buf, flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, errAgain
		case errors.Is(err, unix.ECONNRESET), err == nil && n == 0:
			return nil, io.EOF
		case err != nil:
			return nil, fmt.Errorf("receive: %w", err)
		}
		return buf[:n], nil
	}
}

// send sends one message without waiting; errAgain when the other side does
// not read.
func send(fd int, b []byte) error {
	for {
		err := unix.Sendto(fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return errAgain
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			return io.EOF
		case err != nil:
			return fmt.Errorf("send: %w", err)
		}
		return nil
	}
}

// sendJSON sends an event or a request. Their texts are short, so they fit.
func sendJSON(fd int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // plain fields only
	}
	if len(b) > maxMessage {
		return fmt.Errorf("send: message of %d bytes: %w", len(b), unix.EMSGSIZE)
	}
	return send(fd, b)
}
