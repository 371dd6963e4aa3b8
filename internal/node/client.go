package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
)

// JoinOptions say who joins and what market to start if there is none.
type JoinOptions struct {
	Dir      string // runtime directory: the socket and the lock
	Client   string // "run", "up", "experiment"
	Version  string
	Settings Settings // used only when this client starts the market
	Program  string   // binary with the hidden verbs; empty = this one
	Existing bool     // join a market that runs; start none
}

// Session is one client's place in the market.
type Session struct {
	token  string
	node   *v1.Node
	first  bool
	rpc    maxwellv1connect.MarketServiceClient
	http   *http.Transport
	dir    string
	cancel context.CancelFunc
	events chan *v1.Event
	gone   chan struct{} // closed when the stream has ended
	crew   sync.WaitGroup

	mu     sync.Mutex
	left   bool
	err    error                        // why the stream ended
	places map[string]*v1.AdmitResponse // admitted, not yet started
}

// joinTimeout bounds the wait for a market to start, or for an old one to end.
const joinTimeout = 20 * time.Second

// ErrNoMarket says that nothing listens on the socket.
var ErrNoMarket = errors.New("no market")

// SocketName and LockName are the files of a market in the runtime directory.
const (
	SocketName = "market.sock"
	LockName   = "market.lock"
	LogName    = "market.log"
)

// Join enters the machine's market, and starts it if there is none.
func Join(ctx context.Context, o JoinOptions) (*Session, error) {
	deadline := time.Now().Add(joinTimeout)
	for {
		s, err := dial(ctx, o)
		switch {
		case err == nil:
			return s, nil
		case errors.Is(err, ErrNoMarket) && !o.Existing:
			err = startMarket(o)
		case connect.CodeOf(err) == connect.CodeUnavailable:
			err = nil // it is closing: wait for its lock below
		}
		if err != nil {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("join the market in %s: it neither answers nor ends; see %s",
				o.Dir, filepath.Join(o.Dir, LogName))
		}
		if err := waitUnlocked(ctx, o.Dir, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// dial connects to a running market and opens a session.
func dial(ctx context.Context, o JoinOptions) (*Session, error) {
	socket := filepath.Join(o.Dir, SocketName)
	probe, err := net.Dial("unix", socket)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
			return nil, ErrNoMarket
		}
		return nil, fmt.Errorf("connect to the market: %w", err)
	}
	_ = probe.Close()
	s := &Session{
		dir: o.Dir, events: make(chan *v1.Event, 64), gone: make(chan struct{}), places: make(map[string]*v1.AdmitResponse),
	}
	s.http = transport(socket)
	s.rpc = maxwellv1connect.NewMarketServiceClient(&http.Client{Transport: s.http}, "http://market",
		connect.WithAcceptCompression("gzip", nil, nil))
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	stream, err := s.rpc.Join(life, &v1.JoinRequest{Client: o.Client, ClientVersion: o.Version})
	if err == nil && !stream.Receive() {
		err = stream.Err()
		if err == nil {
			err = connect.NewError(connect.CodeUnavailable, io.EOF)
		}
	}
	if err != nil {
		cancel()
		s.http.CloseIdleConnections()
		if !connect.IsWireError(err) && ctx.Err() == nil {
			// Not the market's answer: it closed or died while we came in.
			err = connect.NewError(connect.CodeUnavailable, err)
		}
		return nil, err
	}
	hello := stream.Msg().GetSession()
	s.token, s.node, s.first = hello.GetToken(), hello.GetNode(), hello.GetFirst()
	s.crew.Go(func() { s.follow(stream) })
	return s, nil
}

// transport speaks HTTP/2 without TLS over the socket, so that a thousand
// waiting calls share one connection.
func transport(socket string) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		Protocols: new(http.Protocols),
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// follow delivers events until the stream ends. Owner: Session; end: Leave
// cancels the stream, or the market dies.
func (s *Session) follow(stream *connect.ServerStreamForClient[v1.JoinResponse]) {
	defer close(s.gone)
	defer close(s.events)
	for stream.Receive() {
		if e := stream.Msg().GetEvent(); e != nil {
			s.events <- e
		}
	}
	s.mu.Lock()
	s.err = stream.Err()
	s.mu.Unlock()
}

// Node describes the market as it was when the session began.
func (s *Session) Node() *v1.Node { return s.node }

// First reports whether this session began the market.
func (s *Session) First() bool { return s.first }

// Events delivers what happens to the session's workloads. It must be read;
// it is closed when the session or the market ends.
func (s *Session) Events() <-chan *v1.Event { return s.events }

// Gone is closed when the market is no longer there.
func (s *Session) Gone() <-chan struct{} { return s.gone }

// ErrMarketDied says that the market ended without being asked to.
var ErrMarketDied = errors.New("the market ended unexpectedly")

// Snapshot returns the market now; own: only this session's workloads.
func (s *Session) Snapshot(ctx context.Context, own bool) (*v1.Snapshot, error) {
	r, err := s.rpc.Snapshot(ctx, &v1.SnapshotRequest{Token: s.token, Own: own})
	if err != nil {
		return nil, s.plain(err)
	}
	return r.GetSnapshot(), nil
}

// Stop ends workloads of this session; an empty name means all of them.
func (s *Session) Stop(ctx context.Context, name string, now bool) error {
	_, err := s.rpc.Stop(ctx, &v1.StopRequest{Token: s.token, Name: name, Now: now})
	return s.plain(err)
}

// Suspend freezes every workload of this session, or lets them go on.
func (s *Session) Suspend(ctx context.Context, suspend bool) error {
	_, err := s.rpc.Suspend(ctx, &v1.SuspendRequest{Token: s.token, Suspend: suspend})
	return s.plain(err)
}

// Fund adds money to a wallet of this market.
func (s *Session) Fund(ctx context.Context, name string, ucredits int64) error {
	_, err := s.rpc.Fund(ctx, &v1.FundRequest{Token: s.token, Name: name, AmountUcredits: ucredits})
	return s.plain(err)
}

// Leave ends the session: what still runs is ended and paid for. The last one
// out ends the market, and Leave returns after everything it made is gone. The
// snapshot is the session's closing statement.
func (s *Session) Leave(ctx context.Context) (*v1.Snapshot, error) {
	s.mu.Lock()
	left := s.left
	s.left = true
	s.mu.Unlock()
	if left {
		return nil, nil
	}
	r, err := s.rpc.Leave(ctx, &v1.LeaveRequest{Token: s.token})
	s.cancel()
	for range s.events { //nolint:revive // drained so that follow can end
	}
	s.crew.Wait()
	s.http.CloseIdleConnections()
	if err != nil {
		// The market died: its watchdog cleans up while it holds the lock.
		return nil, errors.Join(s.plain(err), waitUnlocked(ctx, s.dir, watchdogPatience), Tidy(s.dir))
	}
	return r.GetSnapshot(), nil
}

// watchdogPatience bounds the wait for a watchdog: it ends storms of hundreds
// within a second.
const watchdogPatience = 10 * time.Second

// plain strips the RPC's code from an error: the text is meant for people. An
// error that the market did not send is the connection's: the market is gone.
func (s *Session) plain(err error) error {
	c, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok:
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return errors.New(strings.TrimSpace(c.Message()))
	case !connect.IsWireError(err) || c.Code() == connect.CodeUnavailable || c.Code() == connect.CodeUnknown:
		return fmt.Errorf("%w; see %s", ErrMarketDied, filepath.Join(s.dir, LogName))
	}
	return errors.New(strings.TrimSpace(c.Message()))
}

// waitUnlocked waits until nobody holds the market's lock, at most for d.
func waitUnlocked(ctx context.Context, dir string, d time.Duration) error {
	deadline := time.After(d)
	for {
		free, err := unlocked(filepath.Join(dir, LockName))
		if err != nil || free {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return nil
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// unlocked reports whether the lock file is free (or absent).
func unlocked(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("open the market's lock: %w", err)
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("test the market's lock: %w", err)
	}
	return true, nil
}
