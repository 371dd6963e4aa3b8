// Package container asks the machine's container engines what they alone know of a
// container: its labels. Docker and Podman answer the same request on a unix socket
// (Docker Engine API, GET /containers/{id}/json). Those of containerd and CRI-O speak
// another language and are not asked: for them a container has no labels.
package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// usual is where engines listen unless an administrator says otherwise.
func usual() []string { return []string{"/run/docker.sock", "/run/podman/podman.sock"} }

const (
	// patience is how long an engine may take. A busy Docker takes some milliseconds.
	patience = time.Second
	// again is how long an engine that could not answer, and containers that no
	// engine knows, are let be.
	again = 10 * time.Second
	// longest is the longest answer that is read. They have some kilobytes.
	longest = 4 << 20
	// remembered is how many containers are.
	remembered = 10_000
)

// Engines are the machine's container engines. It may be used by several goroutines.
type Engines struct {
	sockets []string
	now     func() time.Time

	mu    sync.Mutex
	known map[string]answer    // by container; a container's labels never change
	down  map[string]time.Time // engines that were silent, and until when they are let be
}

// answer is what is known of a container.
type answer struct {
	labels map[string]string
	failed bool      // an engine that may know it could not answer
	until  time.Time // zero = for ever
}

// New asks engines at these sockets, in this order; without one, at the usual places.
// Nothing is asked yet, and none of them need be there.
func New(sockets []string) *Engines {
	if len(sockets) == 0 {
		sockets = usual()
	}
	return &Engines{sockets: sockets, now: time.Now, known: make(map[string]answer), down: make(map[string]time.Time)}
}

// Labels returns the labels of a container, by its whole id; none if no engine knows
// it. Not known: an engine that is there did not answer, and what it would have said
// must not be guessed. The error says why, once in a while and not each time.
func (e *Engines) Labels(ctx context.Context, id string) (labels map[string]string, known bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if a, ok := e.known[id]; ok && (a.until.IsZero() || e.now().Before(a.until)) {
		return a.labels, !a.failed, nil
	}
	a := answer{until: e.now().Add(again)}
	for _, socket := range e.sockets {
		if e.now().Before(e.down[socket]) {
			a.failed = true
			continue // a machine may have a hundred containers to ask about
		}
		labels, found, fault := ask(ctx, socket, id)
		if fault != nil {
			a.failed = true
			err = errors.Join(err, fault)
			if _, answered := errors.AsType[*refusal](fault); !answered {
				e.down[socket] = e.now().Add(again)
			}
		}
		if found {
			a, err = answer{labels: labels}, nil
			break
		}
	}
	if len(e.known) >= remembered {
		clear(e.known)
	}
	e.known[id] = a
	return a.labels, !a.failed, err
}

// ask asks one engine. An engine that is not there does not know the container.
func ask(ctx context.Context, socket, id string) (labels map[string]string, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var dialer net.Dialer
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/containers/"+url.PathEscape(id)+"/json", nil)
	if err != nil {
		return nil, false, err
	}
	resp, err := client.Do(req)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("container engine at %s: %w", socket, errors.Unwrap(err)) // less the invented address
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, false, nil
	default:
		return nil, false, &refusal{socket, resp.Status}
	}
	labels, err = parse(io.LimitReader(resp.Body, longest))
	if err != nil {
		return nil, false, &refusal{socket, err.Error()}
	}
	return labels, true, nil
}

// refusal is an answer without labels: it is about one container, and the engine may
// be asked about another.
type refusal struct{ socket, why string }

func (r *refusal) Error() string { return fmt.Sprintf("container engine at %s: %s", r.socket, r.why) }

// parse reads the labels out of an engine's answer.
func parse(r io.Reader) (map[string]string, error) {
	var body struct {
		Config *struct{ Labels map[string]string }
	}
	if err := json.NewDecoder(r).Decode(&body); err != nil {
		return nil, err
	}
	if body.Config == nil {
		return nil, errors.New("the answer is about no container")
	}
	return body.Config.Labels, nil
}
