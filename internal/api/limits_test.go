package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

var quiet = slog.New(slog.DiscardHandler)

// serving is a service in this process; nobody but root is trusted.
func serving(t *testing.T, h http.Handler, adjust ...func(*Service)) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "mxapi-") // a socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s.sock")
	l, err := Listen(socket, Access{Everybody: true})
	if err != nil {
		t.Fatal(err)
	}
	s := NewService(h, func(uid uint32) bool { return uid == 0 }, quiet)
	for _, f := range adjust {
		f(s)
	}
	var crew sync.WaitGroup
	crew.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_ = s.Shutdown(ctx) // what a test left open is not waited for
		crew.Wait()
	})
	return socket
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "there is no other user to be")
	}
}

func clientAs(t *testing.T, uid int, socket string) *http.Client {
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return hosttest.DialAs(uid, socket) }}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func ask(t *testing.T, c *http.Client, body io.Reader) (int, string, error) {
	t.Helper()
	r, err := c.Post("http://market/maxwell.v1.MarketService/Snapshot", "application/json", body)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r.StatusCode, string(text), err
}

// who answers with the caller's user.
var who = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	c, err := CallerOf(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	_, _ = io.WriteString(w, strings.Repeat("u", int(c.UID%7)+1))
})

// TestManyConnections: one user who connects a thousand times gets its bound, and
// root is still served.
func TestManyConnections(t *testing.T) {
	needRoot(t)
	socket := serving(t, who)
	for range 1000 {
		c, err := hosttest.DialAs(1001, socket)
		if errors.Is(err, unix.EAGAIN) {
			continue // the backlog is full: refused as well
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	if code, _, err := ask(t, clientAs(t, 0, socket), nil); err != nil || code != http.StatusOK {
		t.Errorf("root: %d, %v", code, err)
	}
	if code, _, err := ask(t, clientAs(t, 1002, socket), nil); err != nil || code != http.StatusOK {
		t.Errorf("a third user: %d, %v", code, err)
	}
	if code, _, err := ask(t, clientAs(t, 1001, socket), nil); err == nil {
		t.Errorf("the one with a thousand connections got another one: %d", code)
	}
}

// TestConnectionsAreGivenBack: what was closed does not count.
func TestConnectionsAreGivenBack(t *testing.T) {
	needRoot(t)
	socket := serving(t, who)
	for range 2*mostOfOne.conns + 1 {
		tr := clientAs(t, 1001, socket)
		if code, _, err := ask(t, tr, nil); err != nil || code != http.StatusOK {
			t.Fatalf("%d, %v", code, err)
		}
		tr.CloseIdleConnections()
	}
}

// TestLongBody: a request beyond the bound is refused, whoever sends it; one user's
// bodies together are bounded.
func TestLongBody(t *testing.T) {
	needRoot(t)
	socket := serving(t, who)
	for uid, want := range map[int]int{0: http.StatusRequestEntityTooLarge, 1001: http.StatusRequestEntityTooLarge} {
		code, _, err := ask(t, clientAs(t, uid, socket), strings.NewReader(strings.Repeat("x", MaxRequest+1)))
		if err == nil && code != want {
			t.Errorf("uid %d: %d, want %d", uid, code, want)
		}
		code, _, err = ask(t, clientAs(t, uid, socket), strings.NewReader(strings.Repeat("x", MaxRequest)))
		if err != nil || code != http.StatusOK {
			t.Errorf("uid %d, just short enough: %d, %v", uid, code, err)
		}
	}
}

// TestManyCalls: calls that do not end are bounded for each user, and given back.
func TestManyCalls(t *testing.T) {
	needRoot(t)
	release := make(chan struct{})
	entered := make(chan struct{}, 1000)
	socket := serving(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		w.WriteHeader(http.StatusOK)
	}))
	many := clientAs(t, 1001, socket)
	codes := make(chan int, 200)
	for range mostOfOne.reads {
		go func() {
			code, _, err := ask(t, many, strings.NewReader("{}"))
			if err != nil {
				code = -1
			}
			codes <- code
		}()
		<-entered
	}
	if code, text, err := ask(t, clientAs(t, 1001, socket), strings.NewReader("{}")); err != nil || code != http.StatusTooManyRequests {
		t.Errorf("one call too many: %d %s, %v", code, text, err)
	} else if !strings.Contains(text, "resource_exhausted") {
		t.Errorf("no remedy: %s", text)
	}
	other := make(chan int, 1)
	go func() {
		code, _, _ := ask(t, clientAs(t, 1002, socket), strings.NewReader("{}"))
		other <- code
	}()
	<-entered
	close(release)
	if code := <-other; code != http.StatusOK {
		t.Errorf("another user: %d", code)
	}
	for range mostOfOne.reads {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("a call within the bound: %d", code)
		}
	}
	if code, _, err := ask(t, many, strings.NewReader("{}")); err != nil || code != http.StatusOK {
		t.Errorf("after they ended: %d, %v", code, err)
	}
}

// TestGateAddsUp: whatever is taken and given back, nothing is held at the end.
func TestGateAddsUp(t *testing.T) {
	g := &gate{}
	var crew sync.WaitGroup
	for uid := range uint32(50) {
		crew.Go(func() {
			for range 300 {
				more := tally{conns: 1, calls: int(uid) * 10, bytes: 1 << 16}
				if g.take(uid, more) {
					g.give(uid, more)
				}
			}
		})
	}
	crew.Wait()
	if g.all != (tally{}) || len(g.users) != 0 {
		t.Errorf("held at the end: %v, %v", g.all, g.users)
	}
	for range mostOfOne.conns {
		if !g.take(7, tally{conns: 1}) {
			t.Fatal("refused within the bound")
		}
	}
	if g.take(7, tally{conns: 1}) || !g.take(8, tally{conns: 1}) {
		t.Error("the bound is not one user's")
	}
}

// TestSlowCallers: whoever sends nothing, half a header, half a body, or takes no
// answer is let go in time, and others are served meanwhile.
func TestSlowCallers(t *testing.T) {
	needRoot(t)
	const patience = 200 * time.Millisecond
	failed := make(chan error, 16)
	socket := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err == nil && r.Header.Get("Much") != "" {
			for err == nil {
				_, err = w.Write(make([]byte, 1<<16))
			}
		}
		if r.Header.Get("Slow") != "" {
			failed <- err
		}
	}), func(s *Service) {
		s.gate.body, s.gate.answer = patience, patience
		s.servers[1].ReadHeaderTimeout = patience
	})
	const post = "POST /maxwell.v1.MarketService/Snapshot HTTP/1.1\r\nHost: market\r\nSlow: yes\r\n"
	for name, sent := range map[string]string{
		"nothing":         "",
		"half a header":   post,
		"half a body":     post + "Content-Length: 100\r\n\r\n{",
		"half a chunk":    post + "Transfer-Encoding: chunked\r\n\r\n8\r\n{}",
		"takes no answer": post + "Much: yes\r\nContent-Length: 2\r\n\r\n{}",
		"half of HTTP/2":  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := hosttest.DialAs(1001, socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, sent); err != nil {
				t.Fatal(err)
			}
			if code, _, err := ask(t, clientAs(t, 1001, socket), strings.NewReader("{}")); err != nil || code != http.StatusOK {
				t.Errorf("another call meanwhile: %d, %v", code, err)
			}
			if name == "takes no answer" || strings.HasPrefix(name, "half a b") || strings.HasPrefix(name, "half a c") {
				if err := <-failed; err == nil {
					t.Error("the call was carried out")
				}
			}
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still open")
			}
		})
	}
}

// TestPatientCalls: the bounds in time are on what a caller sends and takes, not on
// how long a call waits.
func TestPatientCalls(t *testing.T) {
	needRoot(t)
	const patience = 50 * time.Millisecond
	socket := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
			t.Error("a call that waits was ended")
		case <-time.After(4 * patience):
		}
		for range 3 {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				t.Error("a stream was ended between two messages")
			case <-time.After(2 * patience):
			}
		}
	}), func(s *Service) { s.gate.body, s.gate.answer = patience, patience })
	for name, c := range map[string]*http.Client{"HTTP/1.1": clientAs(t, 1001, socket), "HTTP/2": clientAs(t, 1001, socket)} {
		if name == "HTTP/2" {
			tr := c.Transport.(*http.Transport)
			tr.Protocols = new(http.Protocols)
			tr.Protocols.SetUnencryptedHTTP2(true)
		}
		if code, text, err := ask(t, c, strings.NewReader("{}")); err != nil || code != http.StatusOK || text != "xxx" {
			t.Errorf("%s: %d %q, %v", name, code, text, err)
		}
	}
}
