package hosttest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
)

// Engine is a container engine that knows only what it is told: it gives recorded
// answers on a unix socket.
type Engine struct {
	Socket string

	mu      sync.Mutex
	answers map[string][]byte // by container; nil = it fails
	asked   int
}

// NewEngine serves an engine until the test ends.
func NewEngine(tb testing.TB) *Engine {
	tb.Helper()
	e := &Engine{Socket: filepath.Join(tb.TempDir(), "engine.sock"), answers: make(map[string][]byte)}
	l, err := new(net.ListenConfig).Listen(context.WithoutCancel(tb.Context()), "unix", e.Socket)
	if err != nil {
		tb.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/{id}/json", e.inspect)
	server := httptest.NewUnstartedServer(mux)
	_ = server.Listener.Close() // it made one of its own
	server.Listener = l
	server.Start()
	tb.Cleanup(server.Close)
	return e
}

// Know gives the engine its answer about a container; nil makes it fail.
func (e *Engine) Know(id string, answer []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answers[id] = answer
}

// Asked is how often the engine was.
func (e *Engine) Asked() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

func (e *Engine) inspect(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	answer, known := e.answers[r.PathValue("id")]
	switch {
	case !known:
		http.Error(w, `{"message":"no such container"}`, http.StatusNotFound)
	case answer == nil:
		http.Error(w, `{"message":"the storage is locked"}`, http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}
}
