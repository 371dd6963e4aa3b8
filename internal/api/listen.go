package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

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

// maxStreams is how many calls one trusted client may have open: a fleet of 10,000
// waits for each of its workloads.
const maxStreams = 1 << 17

// maxHeader bounds a request's header: no honest one has more.
const maxHeader = 16 << 10

// Service serves the API to callers of two kinds: those that could do anything to
// the market anyway (trusted), and others, who are held to bounds.
type Service struct {
	trusted func(uid uint32) bool
	gate    gate
	servers [2]*http.Server // for the trusted, for others
}

// NewService serves h over HTTP/1.1 (curl) and unencrypted HTTP/2 (clients). A
// handler finds who called with CallerOf. What net/http has to say goes to log.
func NewService(h http.Handler, trusted func(uid uint32) bool, log *slog.Logger) *Service {
	s := &Service{trusted: trusted, gate: gate{body: bodyPatience, answer: answerPatience}}
	s.servers[0] = server(h, maxStreams, log)
	s.servers[1] = server(s.gate.bound(h), othersStreams, log)
	s.servers[1].IdleTimeout = idlePatience
	return s
}

// server is one of net/http. What goes wrong on a line is its caller's affair: it is
// logged for those who look for it.
func server(h http.Handler, streams int, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler: within(h), ReadHeaderTimeout: headerPatience, Protocols: new(http.Protocols), MaxHeaderBytes: maxHeader,
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: streams},
		ConnContext: withCaller, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// NewPlainService serves what is not the API (metrics), to whoever may connect: short
// questions, answered at once.
func NewPlainService(h http.Handler, log *slog.Logger) *http.Server {
	s := server(h, othersStreams, log)
	s.ReadTimeout, s.WriteTimeout, s.IdleTimeout = bodyPatience, answerPatience, idlePatience
	return s
}

// within bounds the bodies of requests, whatever they are for.
func within(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, MaxRequest)
		h.ServeHTTP(w, r)
	})
}

// Serve accepts connections until Shutdown, or until l fails.
func (s *Service) Serve(l net.Listener) error {
	halls := [2]*hall{newHall(l.Addr()), newHall(l.Addr())}
	ends := make(chan error, len(halls)+1)
	for i, server := range s.servers { // owner: Serve; end: Shutdown, or the hall is closed below
		server.RegisterOnShutdown(func() { _ = l.Close() })
		go func() { ends <- server.Serve(halls[i]) }()
	}
	go func() { ends <- s.sort(l, halls[0], halls[1]) }()
	err := <-ends
	_ = l.Close()
	for _, h := range halls {
		_ = h.Close()
	}
	for range halls {
		if end := <-ends; errors.Is(end, http.ErrServerClosed) {
			err = end
		}
	}
	return err
}

// Shutdown lets the calls that run come to their end, and accepts no more.
func (s *Service) Shutdown(ctx context.Context) error {
	ends := make(chan error, len(s.servers))
	for _, server := range s.servers { // owner: this call, which waits for them
		go func() { ends <- server.Shutdown(ctx) }()
	}
	return errors.Join(<-ends, <-ends)
}
