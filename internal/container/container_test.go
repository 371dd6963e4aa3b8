package container

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// recorded is what Podman 4.3.1 said of a container with two labels.
func recorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/podman-4.3.1.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var ids = []string{strings.Repeat("a", 64), strings.Repeat("b", 64)}

// TestLabels asks two engines, of which the second knows the container, and asks
// about it once.
func TestLabels(t *testing.T) {
	first, second := hosttest.NewEngine(t), hosttest.NewEngine(t)
	second.Know(ids[0], recorded(t))
	e := New([]string{filepath.Join(t.TempDir(), "no.sock"), first.Socket, second.Socket})
	want := map[string]string{"team": "blue", "empty": ""}
	for range 3 {
		labels, known, err := e.Labels(t.Context(), ids[0])
		if err != nil || !known || !maps.Equal(labels, want) {
			t.Fatalf("labels %v, known %v, %v; want %v", labels, known, err, want)
		}
	}
	if first.Asked() != 1 || second.Asked() != 1 {
		t.Errorf("asked %d and %d times, want once", first.Asked(), second.Asked())
	}
}

// TestNobodyKnows: a container of another engine has no labels, and an engine that
// is not there is none.
func TestNobodyKnows(t *testing.T) {
	engine := hosttest.NewEngine(t)
	e := New([]string{engine.Socket, filepath.Join(t.TempDir(), "no.sock")})
	now := time.Now()
	e.now = func() time.Time { return now }
	for range 2 {
		if labels, known, err := e.Labels(t.Context(), ids[0]); err != nil || !known || len(labels) > 0 {
			t.Fatalf("labels %v, known %v, %v", labels, known, err)
		}
	}
	engine.Know(ids[0], recorded(t))
	now = now.Add(again)
	if labels, _, _ := e.Labels(t.Context(), ids[0]); labels["team"] != "blue" {
		t.Errorf("%v after it was made", labels)
	}
}

// TestFailure: what an engine could not say is not guessed, told once, and asked
// again.
func TestFailure(t *testing.T) {
	engine := hosttest.NewEngine(t)
	engine.Know(ids[0], nil)
	e := New([]string{engine.Socket})
	now := time.Now()
	e.now = func() time.Time { return now }
	_, known, err := e.Labels(t.Context(), ids[0])
	if known || err == nil || err.Error() != "container engine at "+engine.Socket+": 500 Internal Server Error" {
		t.Errorf("known %v, %v", known, err)
	}
	if _, known, err := e.Labels(t.Context(), ids[0]); known || err != nil || engine.Asked() != 1 {
		t.Errorf("again: known %v, %v, asked %d times", known, err, engine.Asked())
	}
	if _, known, err := e.Labels(t.Context(), ids[1]); !known || err != nil {
		t.Errorf("of another container: known %v, %v", known, err)
	}
	engine.Know(ids[0], recorded(t))
	now = now.Add(again)
	if labels, known, err := e.Labels(t.Context(), ids[0]); !known || err != nil || labels["team"] != "blue" {
		t.Errorf("later: %v, known %v, %v", labels, known, err)
	}
}

// TestDeadSocket: the socket of an engine that is not running is a failure, since it
// may come back and know.
func TestDeadSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "engine.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	e := New([]string{socket})
	_, known, err := e.Labels(t.Context(), ids[0])
	if want := "container engine at " + socket + ": dial unix " + socket + ": connect: connection refused"; known || err == nil || err.Error() != want {
		t.Errorf("known %v, %v; want %s", known, err, want)
	}
	// It is not asked once a container: that may take a second each.
	if _, known, err := e.Labels(t.Context(), ids[1]); known || err != nil {
		t.Errorf("of another container: known %v, %v", known, err)
	}
}

// TestManyContainers: a machine on which containers come and go for years.
func TestManyContainers(t *testing.T) {
	e := New([]string{filepath.Join(t.TempDir(), "no.sock")})
	for i := range 2*remembered + 10 {
		_, _, _ = e.Labels(t.Context(), fmt.Sprint(i))
	}
	if len(e.known) > remembered {
		t.Errorf("%d are remembered", len(e.known))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(recorded(f))
	f.Add([]byte(`{"Config":{"Labels":null}}`))
	f.Add([]byte(`{"message":"no"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		labels, err := parse(bytes.NewReader(b))
		if err != nil && labels != nil {
			t.Errorf("%v with %v", labels, err)
		}
	})
}
