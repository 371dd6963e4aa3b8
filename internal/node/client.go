package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
)

// JoinOptions say who joins and what market to start if there is none.
type JoinOptions struct {
	Dir      string // runtime directory: the socket and the lock
	Daemon   string // socket of the machine's daemon, tried first; empty = none
	Client   string // "run", "up", "experiment"
	Version  string
	Settings Settings // used only when this client starts the market
	Program  string   // binary with the hidden verbs; empty = this one
}

// Session is one client's place in the market.
type Session struct {
	hello   *v1.JoinRequest // how it came in
	node    *v1.Node
	first   bool
	durable bool
	rpc     maxwellv1connect.MarketServiceClient
	http    *http.Transport
	dir     string
	socket  string
	cancel  context.CancelFunc
	events  chan *v1.Event
	gone    chan struct{} // closed when the stream has ended for good
	crew    sync.WaitGroup
	breaks  atomic.Uint64 // how often it was tried to come back into a durable market

	mu      sync.Mutex
	token   string // another one after a durable market came back that did not know it
	left    bool
	running []*Running                   // of a durable market's
	away    bool                         // a durable market is being waited for
	err     error                        // why the stream ended
	places  map[string]*v1.AdmitResponse // admitted, not yet started
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
	DaemonName = "market.daemon" // says that a daemon governs, or is to come back
)

// Join enters the machine's market, and starts it if there is none.
func Join(ctx context.Context, o JoinOptions) (*Session, error) {
	deadline := time.Now().Add(joinTimeout)
	if own := filepath.Join(o.Dir, SocketName); o.Daemon == "" && awaited(own) {
		o.Daemon = own
	}
	s, err := joinDaemon(ctx, o)
	if s != nil || err != nil {
		return s, err
	}
	for {
		s, err := dial(ctx, o, filepath.Join(o.Dir, SocketName))
		switch {
		case err == nil:
			return s, nil
		case errors.Is(err, ErrNoMarket):
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

// daemonPatience is how long a client waits for a daemon whose socket is there
// and does not answer: it is being restarted.
const daemonPatience = 5 * time.Second

// joinDaemon enters the market of the machine's daemon; nil if there is none. One that
// is to come back is waited for, and no market is opened in its place: that would have
// its lock, and keep it from its workloads.
func joinDaemon(ctx context.Context, o JoinOptions) (*Session, error) {
	if o.Daemon == "" {
		return nil, nil
	}
	began := time.Now()
	for {
		s, err := dial(ctx, o, o.Daemon)
		if err == nil {
			return s, nil
		}
		if connect.CodeOf(err) != connect.CodeUnavailable && !errors.Is(err, ErrNoMarket) {
			return nil, err
		}
		_, gone := os.Lstat(o.Daemon)
		waited := time.Since(began)
		switch expected := awaited(o.Daemon); {
		case !expected && (gone != nil || waited > daemonPatience):
			return nil, nil // no daemon, or one that was killed and left its socket
		case expected && waited > joinTimeout:
			return nil, fmt.Errorf("the daemon of %s has not come back; start it again, or as root go on without it: maxwell doctor --repair", o.Daemon)
		}
		if gone == nil && unix.Access(o.Daemon, unix.W_OK) != nil {
			return nil, nil // somebody's own market
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaited reports whether the market of a socket is a daemon that is there, or was
// and may come back: workloads of it live.
func awaited(socket string) bool {
	_, err := os.Lstat(filepath.Join(filepath.Dir(socket), DaemonName))
	return err == nil
}

// dial connects to a running market and opens a session.
func dial(ctx context.Context, o JoinOptions, socket string) (*Session, error) {
	if err := listens(ctx, socket); err != nil {
		return nil, err
	}
	s := &Session{
		dir: o.Dir, socket: socket, events: make(chan *v1.Event, 64), gone: make(chan struct{}), places: make(map[string]*v1.AdmitResponse),
	}
	s.http = transport(socket)
	s.rpc = maxwellv1connect.NewMarketServiceClient(&http.Client{Transport: s.http}, "http://market",
		connect.WithAcceptCompression("gzip", nil, nil))
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	s.hello = &v1.JoinRequest{Client: o.Client, ClientVersion: o.Version}
	stream, err := s.rpc.Join(life, s.hello)
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
	s.token, s.node, s.first, s.durable = hello.GetToken(), hello.GetNode(), hello.GetFirst(), hello.GetDurable()
	s.crew.Go(func() { s.follow(life, stream) })
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

// follow delivers events until the stream ends for good. Owner: Session; end:
// Leave cancels the stream, or the market dies and does not come back.
func (s *Session) follow(life context.Context, stream *connect.ServerStreamForClient[v1.JoinResponse]) {
	defer close(s.gone)
	defer close(s.events)
	for stream != nil {
		for stream.Receive() {
			if e := stream.Msg().GetEvent(); e != nil {
				s.events <- e
			}
		}
		err := stream.Err()
		s.mu.Lock()
		s.err, s.away = err, s.durable && !s.left
		away := s.away
		s.mu.Unlock()
		if !away {
			return
		}
		s.events <- &v1.Event{Kind: EventAway}
		if stream = s.rejoin(life); stream != nil {
			s.mu.Lock()
			s.away = false
			s.mu.Unlock()
			s.crew.Go(func() { s.retellAll(life) })
			s.events <- &v1.Event{Kind: EventBack}
		}
	}
}

// Events that a session itself raises about a durable market.
const (
	EventAway = "away" // it does not answer; the workloads go on without it
	EventBack = "back" // it does again, and has taken them back
)

// rejoinLeast and rejoinMost bound the wait between two tries.
const (
	rejoinLeast = 20 * time.Millisecond
	rejoinMost  = time.Second
)

// id is the session's token.
func (s *Session) id() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

// rejoin waits for a durable market to come back; nil when the client leaves, or may
// not come in again. A session that the market does not know, because nothing of it
// was kept, begins anew.
func (s *Session) rejoin(life context.Context) *connect.ServerStreamForClient[v1.JoinResponse] {
	for wait := rejoinLeast; ; wait = min(2*wait, rejoinMost) {
		select {
		case <-life.Done():
			return nil
		case <-time.After(wait):
		}
		s.breaks.Add(1) // also where a daemon lets it in and ends before it can say so
		stream, err := s.enter(life, &v1.JoinRequest{Resume: s.id()})
		if connect.IsWireError(err) && connect.CodeOf(err) == connect.CodeUnauthenticated {
			stream, err = s.enter(life, s.hello)
		}
		if err == nil {
			return stream
		}
		if connect.IsWireError(err) && connect.CodeOf(err) != connect.CodeUnavailable {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			return nil
		}
	}
}

// enter opens the stream, of this session or of a new one, and notes its token.
func (s *Session) enter(life context.Context, hello *v1.JoinRequest) (*connect.ServerStreamForClient[v1.JoinResponse], error) {
	stream, err := s.rpc.Join(life, hello)
	if err != nil {
		return nil, err
	}
	if !stream.Receive() {
		if err = stream.Err(); err == nil {
			err = connect.NewError(connect.CodeUnavailable, io.EOF)
		}
		return nil, err
	}
	s.mu.Lock()
	s.token = stream.Msg().GetSession().GetToken()
	s.mu.Unlock()
	return stream, nil
}

// ErrAway says that a durable market does not answer.
var ErrAway = errors.New("the daemon does not answer")

// again makes a call, and makes it again when a durable market comes back: each
// call of a client's is one that may be delivered twice. It gives up when the
// session ends, or ctx.
func again[T any](ctx context.Context, s *Session, call func() (T, error)) (T, error) {
	unknown := time.Time{} // since when the market says that it does not know the session
	for {
		out, err := call()
		if err == nil || !s.durable {
			return out, s.plain(err)
		}
		switch {
		case connect.CodeOf(err) != connect.CodeUnauthenticated:
			unknown = time.Time{}
		case unknown.IsZero():
			unknown = time.Now()
		}
		if !broken(ctx, err) && (unknown.IsZero() || time.Since(unknown) > 2*rejoinMost) {
			return out, s.plain(err)
		}
		select {
		case <-ctx.Done():
			return out, fmt.Errorf("%w: %w", ErrAway, ctx.Err())
		case <-s.gone:
			return out, ErrAway
		case <-time.After(rejoinLeast):
		}
	}
}

// broken reports whether an error is the connection's, or of a market that is
// going, and not an answer.
func broken(ctx context.Context, err error) bool {
	if _, ok := errors.AsType[*connect.Error](err); !ok || ctx.Err() != nil {
		return false
	}
	// A stream that a dying market broke off reads as cancelled, too.
	return !connect.IsWireError(err) || connect.CodeOf(err) == connect.CodeUnavailable
}

// Durable reports whether the market outlives its clients and its own process.
func (s *Session) Durable() bool { return s.durable }

// Socket is where the market listens.
func (s *Session) Socket() string { return s.socket }

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
	r, err := again(ctx, s, func() (*v1.SnapshotResponse, error) {
		return s.rpc.Snapshot(ctx, &v1.SnapshotRequest{Token: s.id(), Own: own})
	})
	return r.GetSnapshot(), err
}

// Stop ends workloads of this session; an empty name means all of them.
func (s *Session) Stop(ctx context.Context, name string, now bool) error {
	id := drawID()
	_, err := again(ctx, s, func() (*v1.StopResponse, error) {
		return s.rpc.Stop(ctx, &v1.StopRequest{Token: s.id(), Name: name, Now: now, RequestId: id})
	})
	return err
}

// Suspend freezes every workload of this session, or lets them go on.
func (s *Session) Suspend(ctx context.Context, suspend bool) error {
	id := drawID()
	_, err := again(ctx, s, func() (*v1.SuspendResponse, error) {
		return s.rpc.Suspend(ctx, &v1.SuspendRequest{Token: s.id(), Suspend: suspend, RequestId: id})
	})
	return err
}

// Leave ends the session: what still runs is ended and paid for. The last one
// out ends the market, and Leave returns after everything it made is gone. The
// snapshot is the session's closing statement.
func (s *Session) Leave(ctx context.Context) (*v1.Snapshot, error) {
	s.mu.Lock()
	left := s.left
	s.left = true
	away := s.away
	s.mu.Unlock()
	if left {
		return nil, nil
	}
	if away {
		// The session's workloads have ended: nobody waits for a bill for ever.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, leavePatience)
		defer cancel()
	}
	r, err := again(ctx, s, func() (*v1.LeaveResponse, error) {
		return s.rpc.Leave(ctx, &v1.LeaveRequest{Token: s.id()})
	})
	s.cancel()
	for range s.events { //nolint:revive // drained so that follow can end
	}
	s.crew.Wait()
	s.http.CloseIdleConnections()
	if err != nil && s.durable {
		return nil, err
	}
	if err != nil {
		// The market died: its watchdog cleans up while it holds the lock.
		return nil, errors.Join(err, waitUnlocked(ctx, s.dir, watchdogPatience), Tidy(s.dir))
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
	case err == nil || !ok:
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return errors.New(strings.TrimSpace(c.Message()))
	case !connect.IsWireError(err) || c.Code() == connect.CodeUnavailable || c.Code() == connect.CodeUnknown:
		return fmt.Errorf("%w; see %s", ErrMarketDied, filepath.Join(s.dir, LogName))
	}
	return errors.New(strings.TrimSpace(c.Message()))
}

// drawID is a new request's id.
func drawID() []byte {
	var id requestID
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id[:]
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
