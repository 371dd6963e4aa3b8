package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/node"
)

func (a *app) eventsVerb() *cobra.Command {
	var follow, asJSON bool
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "events [NAME]",
		Short: "Say what happened to workloads: births, warnings, ends",
		Long: `Print one line an event: when, who, what. All that the market remembers, oldest
first; with --since what is not older than that; with --follow what happens from now
on, until ^C or the end of the market.`,
		Example:           "  maxwell events --since 1h\n  maxwell events --follow\n  maxwell events --json agent-7",
		Args:              perhapsTarget,
		ValidArgsFunction: a.completeNames(1, true),
		RunE: func(_ *cobra.Command, args []string) error {
			w := watch{a: a, follow: follow, asJSON: asJSON}
			if len(args) == 1 {
				w.name = args[0]
			}
			switch {
			case since > 0:
				w.since = max(1, a.now().Add(-since).UnixNano())
			case !follow:
				w.since = 1 // all of the past
			}
			return w.run(context.Background())
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	f.Var(&value[time.Duration]{target: &since, kind: "TIME", parse: fleet.ParseSpan, format: time.Duration.String}, "since",
		"begin this long ago, as 1h")
	f.BoolVar(&asJSON, "json", false, "print one JSON object an event")
	offer(cmd, "since", "10m", "1h", "1d")
	return cmd
}

// watch reads the market's events, over breaks of the line.
type watch struct {
	a      *app
	name   string
	since  int64 // ns since 1970; 0: nothing of the past
	follow bool
	asJSON bool

	begun int64 // when the first reading began
	again bool  // this reading may repeat what the one before it told
	// last are the events of the latest moment seen.
	last   []*v1.Event
	lastAt int64
}

// run reads until the past is told, or with follow until the market is over: a
// service that restarts is waited for.
func (w *watch) run(ctx context.Context) error {
	w.begun = w.a.now().UnixNano()
	err := w.a.question(ctx, w.stream)
	if _, ended := errors.AsType[*unanswered](err); ended && w.follow {
		_, err = fmt.Fprintln(w.a.err, "maxwell: the market ended")
	}
	return err
}

// stream reads until the market ends the stream.
func (w *watch) stream(ctx context.Context, market connection) error {
	since := w.since
	switch {
	case w.again && w.lastAt > 0:
		since = w.lastAt - 1
	case w.again && since == 0:
		since = w.begun
	}
	s, err := market.Watch(ctx, &v1.WatchRequest{Name: w.name, SinceWallNs: since, Follow: w.follow})
	if err != nil {
		return err
	}
	defer s.Close()
	for s.Receive() {
		if err := w.see(s.Msg().GetEvent()); err != nil {
			return err
		}
	}
	if err := s.Err(); err != nil && !lineBroke(err) {
		return err
	}
	w.again = true
	if w.follow {
		return node.ErrMarketDied
	}
	return s.Err()
}

// see prints an event, once.
func (w *watch) see(e *v1.Event) error {
	at := e.GetWallNs()
	if w.again {
		if at < w.lastAt || slices.ContainsFunc(w.last, func(seen *v1.Event) bool { return proto.Equal(seen, e) }) {
			return nil
		}
		w.again = at == w.lastAt
	}
	if at != w.lastAt {
		w.lastAt, w.last = at, nil
	}
	w.last = append(w.last, e)
	h := happeningOf(e)
	if w.asJSON {
		return h.WriteJSON(w.a.out)
	}
	_, err := fmt.Fprintln(w.a.out, h.Line(w.a.now()))
	return err
}
