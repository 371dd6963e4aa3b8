package api

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Access says who may connect. What a caller may then do is another question,
// asked at every call.
type Access struct {
	Everybody bool // on this machine
	Group     int  // beside the owner, where it is positive and Everybody is not set
}

// mode is the socket file's.
func (a Access) mode() os.FileMode {
	switch {
	case a.Everybody:
		return 0o666
	case a.Group > 0:
		return 0o660
	}
	return 0o600
}

// Listen opens the market's unix socket. A socket file that a dead market left
// behind is replaced: the caller holds the lock.
func Listen(path string, a Access) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if !a.Everybody && a.Group > 0 {
		err = os.Chown(path, -1, a.Group)
	}
	if err == nil {
		err = os.Chmod(path, a.mode())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s to its users: %w", path, err), l.Close())
	}
	if a.mode() == 0o600 {
		l = &ownListener{Listener: l, uid: uint32(os.Getuid())}
	}
	return l, nil
}

// ownListener drops connections of other users. Root may always come in: it
// could do anything to this process anyway.
type ownListener struct {
	net.Listener

	uid uint32
}

// Accept returns the next connection of the market's own user.
func (l *ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peer(c)
		if err == nil && (uid == l.uid || uid == 0) {
			return c, nil
		}
		_ = c.Close()
	}
}

// peer is the user at the other end, as the kernel recorded it at connect.
func peer(c net.Conn) (uint32, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, ErrNoCaller
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var optErr error
	err = raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, optErr); err != nil {
		return 0, fmt.Errorf("read peer credentials: %w", err)
	}
	return cred.Uid, nil
}

// maxStreams is how many calls one client may have open: a fleet of 10,000
// waits for each of its workloads.
const maxStreams = 1 << 17

// maxHeader bounds a request's header: no honest one has more.
const maxHeader = 16 << 10

// Server serves h over HTTP/1.1 (curl) and unencrypted HTTP/2 (clients). A
// handler finds who called with CallerOf.
func Server(h http.Handler) *http.Server {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols), MaxHeaderBytes: maxHeader,
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ConnContext: withCaller,
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}
