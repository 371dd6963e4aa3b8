package api

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// MaxRequest is the longest request that is read. No call has a use for more: the
// longest is an Admit with its command line.
const MaxRequest = 1 << 20

// What one user may hold of the market at once, and all users together: whoever is
// not trusted is kept from taking what the others need. Raised, a user could use up
// the daemon's descriptors and memory; lowered, a fleet's waiting calls (one for
// each workload) would be refused.
var (
	mostOfOne = tally{conns: 256, calls: 8192, reads: 64, bytes: 16 << 20}
	mostOfAll = tally{conns: 4096, calls: 1 << 16, reads: 1024, bytes: 256 << 20}
)

// othersStreams is how many calls one connection of an untrusted caller may have
// open; its client opens another one for more.
const othersStreams = 1024

// How long an untrusted caller may take. A request's body comes at once or not at
// all; an answer that is not taken up in time is broken off, but for Join's: its
// client may be stopped on purpose (^Z), and what waits for it is bounded.
const (
	headerPatience = 10 * time.Second
	bodyPatience   = 10 * time.Second
	answerPatience = 30 * time.Second
	idlePatience   = 2 * time.Minute
)

// tally is what is held: connections, calls in progress, those of them whose answer
// may be long, and bytes of request bodies.
type tally struct {
	conns, calls, reads int
	bytes               int64
}

func (t tally) add(o tally) tally {
	return tally{t.conns + o.conns, t.calls + o.calls, t.reads + o.reads, t.bytes + o.bytes}
}

func (t tally) sub(o tally) tally {
	return tally{t.conns - o.conns, t.calls - o.calls, t.reads - o.reads, t.bytes - o.bytes}
}

func (t tally) within(most tally) bool {
	return t.conns <= most.conns && t.calls <= most.calls && t.reads <= most.reads && t.bytes <= most.bytes
}

// gate counts what users hold, and how long they take.
type gate struct {
	body, answer time.Duration // most that a request's body and a part of an answer may take

	mu    sync.Mutex
	users map[uint32]tally // no entry: holds nothing
	all   tally
}

// take lets a user hold more, if that is within the bounds.
func (g *gate) take(uid uint32, more tally) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	mine, all := g.users[uid].add(more), g.all.add(more)
	if !mine.within(mostOfOne) || !all.within(mostOfAll) {
		return false
	}
	if g.users == nil {
		g.users = make(map[uint32]tally)
	}
	g.users[uid], g.all = mine, all
	return true
}

// give takes back what take gave.
func (g *gate) give(uid uint32, less tally) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = g.all.sub(less)
	if g.users[uid] = g.users[uid].sub(less); g.users[uid] == (tally{}) {
		delete(g.users, uid)
	}
}

// counted is a connection that its user gives back when it is closed.
type counted struct {
	net.Conn

	once sync.Once
	back func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.back)
	return err
}

// long are the calls whose answers may be long: they are held until their reader
// has taken them up.
var long = map[string]bool{"Snapshot": true, "Receipts": true, "Postings": true, "Watch": true, "Explain": true, "Self": true, "ListWallets": true}

var errTooMuch = errors.New("too many calls of yours are open; wait for some of them to end")

// bound limits what callers that are not trusted may ask at once and how long they
// may take over it.
func (g *gate) bound(h http.Handler) http.Handler {
	refusal := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := CallerOf(r.Context())
		if err != nil {
			h.ServeHTTP(w, r) // nobody: every call refuses that
			return
		}
		verb := path.Base(r.URL.Path)
		held := tally{calls: 1}
		if long[verb] {
			held.reads = 1
		}
		if !g.take(caller.UID, held) {
			if err := refusal.Write(w, r, connect.NewError(connect.CodeResourceExhausted, errTooMuch)); err != nil {
				http.Error(w, errTooMuch.Error(), http.StatusTooManyRequests)
			}
			return
		}
		defer func() { g.give(caller.UID, held) }()
		line := http.NewResponseController(w)
		body := &timedBody{
			ReadCloser: r.Body, line: line,
			hold: func(n int64) bool {
				ok := g.take(caller.UID, tally{bytes: n})
				if ok {
					held.bytes += n
				}
				return ok
			},
		}
		if r.ContentLength != 0 {
			_ = line.SetReadDeadline(time.Now().Add(g.body))
		}
		r.Body = body
		if verb != "Join" {
			w = &timedAnswer{ResponseWriter: w, line: line, patience: g.answer}
		}
		h.ServeHTTP(w, r)
	})
}

// timedBody is a request's body that has to come in time, and counts for its user
// until the call ends.
type timedBody struct {
	io.ReadCloser

	line *http.ResponseController
	hold func(n int64) bool
}

// Read implements io.Reader. The deadline stands until the whole body is there, also
// for the server, which reads what a handler leaves; after that the server listens
// on the line for its end.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.line.SetReadDeadline(time.Time{})
	}
	if n > 0 && !b.hold(int64(n)) {
		return 0, errTooMuch
	}
	return n, err
}

// timedAnswer is an answer that has to be taken up in time.
type timedAnswer struct {
	http.ResponseWriter

	line     *http.ResponseController
	patience time.Duration
}

// Write implements io.Writer.
func (a *timedAnswer) Write(p []byte) (int, error) {
	_ = a.line.SetWriteDeadline(time.Now().Add(a.patience))
	defer func() { _ = a.line.SetWriteDeadline(time.Time{}) }()
	return a.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (a *timedAnswer) Flush() {
	_ = a.line.SetWriteDeadline(time.Now().Add(a.patience))
	defer func() { _ = a.line.SetWriteDeadline(time.Time{}) }()
	_ = a.line.Flush()
}

// Unwrap is for http.ResponseController.
func (a *timedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// admit decides about a new connection. trusted: no bounds; nil: it was closed.
func (g *gate) admit(c net.Conn, trusted func(uid uint32) bool) (conn net.Conn, isTrusted bool) {
	uid, err := peer(c)
	switch {
	case err != nil:
	case trusted(uid):
		return c, true
	case g.take(uid, tally{conns: 1}):
		return &counted{Conn: c, back: func() { g.give(uid, tally{conns: 1}) }}, false
	}
	_ = c.Close()
	return nil, false
}

// bare is the connection under those of this package.
func bare(c net.Conn) net.Conn {
	if c, ok := c.(*counted); ok {
		return c.Conn
	}
	return c
}

// hall hands the connections of one kind of caller to their server.
type hall struct {
	addr net.Addr
	in   chan net.Conn
	once sync.Once
	shut chan struct{}
}

func newHall(addr net.Addr) *hall {
	return &hall{addr: addr, in: make(chan net.Conn), shut: make(chan struct{})}
}

// Accept implements net.Listener.
func (h *hall) Accept() (net.Conn, error) {
	select {
	case c := <-h.in:
		return c, nil
	case <-h.shut:
		return nil, net.ErrClosed
	}
}

// pass hands over a connection, or closes it where nobody takes any more.
func (h *hall) pass(c net.Conn) {
	select {
	case h.in <- c:
	case <-h.shut:
		_ = c.Close()
	}
}

// Close implements net.Listener.
func (h *hall) Close() error {
	h.once.Do(func() { close(h.shut) })
	return nil
}

// Addr implements net.Listener.
func (h *hall) Addr() net.Addr { return h.addr }

// acceptAgain is how long to wait when the process has no descriptor left.
const acceptAgain = 5 * time.Millisecond

// sort accepts connections and hands each to the server that is for it, until the
// listener is closed.
func (s *Service) sort(l net.Listener, trusted, others *hall) error {
	for {
		c, err := l.Accept()
		var t interface{ Temporary() bool }
		switch {
		case err == nil:
		case errors.As(err, &t) && t.Temporary(): // as net/http: no descriptors, for now
			time.Sleep(acceptAgain)
			continue
		default:
			return fmt.Errorf("accept: %w", err)
		}
		c, isTrusted := s.gate.admit(c, s.trusted)
		switch {
		case c == nil:
		case isTrusted:
			trusted.pass(c)
		default:
			others.pass(c)
		}
	}
}
