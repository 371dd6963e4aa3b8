package client

import (
	"context"
	"iter"
	"time"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

// Query chooses events.
type Query struct {
	Name  string    // of one workload; empty: all that the caller may see
	Since time.Time // first what the market remembers since then; zero: nothing of the past
	Once  bool      // end there, instead of going on with what happens
}

// Events yields what happens to the caller's workloads, oldest first. It ends
// with the context, and after an error, which is Unavailable when the market is
// gone. Over a break of the connection it goes on where it was; an event is not
// yielded twice.
//
//	for e, err := range c.Events(ctx, client.Query{}) {
//		if err != nil {
//			return err
//		}
//		if e.Kind == "warned" { ... }
//	}
func (c *Client) Events(ctx context.Context, q Query) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		f := follower{query: q, began: time.Now()}
		wanted := true
		err := c.persist(ctx, func() error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := c.rpc.Watch(ctx, f.request())
			if err != nil {
				return err
			}
			defer func() { _ = stream.Close() }()
			for stream.Receive() {
				if e := stream.Msg().GetEvent(); f.isNew(e) {
					if wanted = yield(eventOf(e), nil); !wanted {
						return nil
					}
				}
			}
			return stream.Err()
		})
		if wanted && err != nil && ctx.Err() == nil {
			yield(Event{}, explained("events", err))
		}
	}
}

// follower remembers how far a stream of events was read.
type follower struct {
	query Query
	began time.Time
	asked bool
	last  int64               // wall clock of the newest event
	seen  map[sameMoment]bool // events of that very moment
}

// sameMoment tells events of one moment apart.
type sameMoment struct {
	workload, kind, what string
	percent              int32
}

// request is for all events that were not read yet.
func (f *follower) request() *v1.WatchRequest {
	r := &v1.WatchRequest{Name: f.query.Name, Follow: !f.query.Once}
	switch {
	case f.last > 0:
		r.SinceWallNs = f.last
	case !f.query.Since.IsZero():
		r.SinceWallNs = f.query.Since.UnixNano()
	case f.asked: // again, and nothing came before the break
		r.SinceWallNs = f.began.UnixNano()
	}
	f.asked = true
	return r
}

// isNew takes an event, unless it is one that was read before a break.
func (f *follower) isNew(e *v1.Event) bool {
	if e == nil {
		return false
	}
	if e.GetWallNs() > f.last {
		f.last, f.seen = e.GetWallNs(), make(map[sameMoment]bool)
	}
	if f.last == 0 || e.GetWallNs() < f.last {
		return true
	}
	key := sameMoment{e.GetWorkload(), e.GetKind(), e.GetWhat(), e.GetPercent()}
	known := f.seen[key]
	f.seen[key] = true
	return !known
}
