// Package metrics shows a market to Prometheus: one snapshot a scrape, names
// in base units, and a bounded number of series.
//
// Every figure is a row of a table (rows.go) with the name, the type, the help
// and where it comes from; the help is the one of the JSON key that shows the
// same figure (internal/report). docs/guide/metrics.md is checked against it.
//
// # Bounds
//
// At most [Workloads] workloads have series of their own; all others are summed
// under workload="other". A seat goes to the largest by power, ties by name, and
// stays: it is given up by the dead, and to a workload of more than twice the
// power when all seats are taken. So series do not flap when two workloads burn
// about the same.
//
// A counter never goes back while a workload and the market live. "other" is not
// a sum of what is in it now, which would shrink when a workload leaves: it adds
// up what workloads used while they had no seat. A workload that gets a seat
// shows its whole total there. So the rates of all series sum to the whole at any
// moment, and totals over all series may count a moved workload's past twice; the
// totals to trust are the node's.
//
// # What the energy figures tell
//
// Fine-grained energy readings are a side channel (CVE-2020-8694). All scrapes
// within [Fresh] see one snapshot, whoever asks; the endpoint is still the
// operator's and belongs on the market's own socket or on loopback.
package metrics

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

// Bounds of what a scrape shows.
const (
	// Workloads is how many have series of their own. With "other" that makes
	// 200 values of the label; each takes 23 series.
	Workloads = 199
	// Fresh is how long a snapshot serves all scrapes.
	Fresh = time.Second
)

// Handler answers scrapes with what source says about the market.
func Handler(source func(context.Context) (*v1.Snapshot, error)) http.Handler {
	c := &collector{rows: rows(), seats: newSeats()}
	for _, r := range c.rows {
		c.descs = append(c.descs, prometheus.NewDesc(r.name, r.help, r.labels, nil))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	scrape := promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "metrics are read with GET", http.StatusMethodNotAllowed)
			return
		}
		if err := c.refresh(r.Context(), source); err != nil {
			http.Error(w, "no snapshot of the market: "+strings.Join(strings.Fields(err.Error()), " "), http.StatusServiceUnavailable)
			return
		}
		scrape.ServeHTTP(w, r)
	})
}

// collector hands the figures of the newest snapshot to the registry.
type collector struct {
	rows  []row
	descs []*prometheus.Desc // of the rows

	mu    sync.Mutex
	seats *seats
	taken time.Time
	view  *view // never changed, only replaced
}

// refresh takes a snapshot, unless there is a fresh one.
func (c *collector) refresh(ctx context.Context, source func(context.Context) (*v1.Snapshot, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view != nil && time.Since(c.taken) < Fresh {
		return nil
	}
	s, err := source(ctx)
	if err != nil {
		return err
	}
	c.view, c.taken = c.seats.look(s), time.Now()
	return nil
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	view := c.view
	c.mu.Unlock()
	for i := range c.rows {
		c.rows[i].read(view, func(v float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(c.descs[i], c.rows[i].kind, v, labels...)
		})
	}
}
