package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// Caller is who is at the other end of a connection, as the kernel recorded it
// when the connection was made. Whoever holds the descriptor later speaks for
// that process: a connection cannot be lent to gain authority, only to give one's
// own away.
type Caller struct {
	UID, GID uint32
	PID      int
	Group    string // its cgroup2 group, as /proc/PID/cgroup prints it; "" where there is none
	Remote   bool   // on another machine: UID is its certificate's, the rest is not known
}

// ErrNoCaller says that the process at the other end cannot be told: it ended
// before it was looked at, or the connection is not a local one.
var ErrNoCaller = errors.New("the caller cannot be identified")

type callerKey struct{}

// known is a caller, or why there is none.
type known struct {
	caller Caller
	err    error
}

// CallerOf is the caller of a request that Server passed on.
func CallerOf(ctx context.Context) (Caller, error) {
	k, ok := ctx.Value(callerKey{}).(known)
	if !ok {
		return Caller{}, ErrNoCaller
	}
	return k.caller, k.err
}

// WithCaller says who asks, for a handler that is called without a connection.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, known{caller: c})
}

// withCaller identifies the other end of a new connection.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	caller, err := identify(c)
	return context.WithValue(ctx, callerKey{}, known{caller, err})
}

// identify asks the kernel who made the connection. The process is pinned by a
// descriptor while its group is read: its number might be another's by then.
func identify(c net.Conn) (Caller, error) {
	u, ok := bare(c).(*net.UnixConn)
	if !ok {
		return Caller{}, ErrNoCaller
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	pidfd := -1
	var optErr error
	err = raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if optErr != nil {
			return
		}
		if pidfd, optErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); optErr != nil {
			pidfd, optErr = unix.PidfdOpen(int(cred.Pid), 0) // before Linux 6.5
		}
	})
	if err = errors.Join(err, optErr); err != nil {
		return Caller{}, fmt.Errorf("%w: %w", ErrNoCaller, err)
	}
	defer unix.Close(pidfd)
	group, err := groupOf(int(cred.Pid))
	if err == nil {
		err = lives(pidfd)
	}
	if err != nil {
		return Caller{}, fmt.Errorf("%w: %w", ErrNoCaller, err)
	}
	return Caller{UID: cred.Uid, GID: cred.Gid, PID: int(cred.Pid), Group: group}, nil
}

func groupOf(pid int) (string, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", err
	}
	m, err := host.ParseMembership(text)
	return m.V2, err
}

// lives reports whether the process of a pidfd has not ended: what was read of
// its number was its own then.
func lives(pidfd int) error {
	err := unix.PidfdSendSignal(pidfd, 0, nil, 0)
	if errors.Is(err, unix.EPERM) {
		return nil // another user's
	}
	return err
}
