package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/internal/node"
)

// How often a verb asks again when its line to the market breaks, because a
// service may be restarting: for 2 s and for 5 s at the usual pace. A change is
// worth more patience than a question; both are safe to repeat.
const (
	questionTries = 20
	changeTries   = 50
	usualPace     = 100 * time.Millisecond
	// held is how long a line lasts that did work: the count begins anew.
	held = 5 * time.Second
)

// newRequestID makes the id of one change: however often it is delivered, it
// happens once.
func newRequestID() []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails: it ends the program instead
	return id
}

// noMarket says where a market was looked for.
type noMarket struct{ sockets []string }

func (e *noMarket) Error() string {
	return fmt.Sprintf("no market runs here (looked at %s); start one with maxwell run or maxwell up", strings.Join(e.sockets, ", "))
}

func (e *noMarket) Unwrap() error { return node.ErrNoMarket }

// unanswered says that the market went away while it was asked.
type unanswered struct{ remedy string }

func (e *unanswered) Error() string {
	return "the market ended, and none has answered since" + e.remedy
}

func (e *unanswered) Unwrap() error { return node.ErrMarketDied }

// unheard says that no market heard the question: asking it more is useless.
func unheard(err error) bool {
	return errors.Is(err, node.ErrNoMarket) || errors.Is(err, node.ErrMarketDied)
}

// question asks the market something that changes nothing.
func (a *app) question(ctx context.Context, ask func(context.Context, connection) error) error {
	return a.persist(ctx, questionTries, ask, "")
}

// change asks the market to change something, once. ask gets the id to send
// along.
func (a *app) change(ctx context.Context, ask func(ctx context.Context, market connection, id []byte) error) error {
	id := newRequestID()
	return a.persist(ctx, changeTries, func(ctx context.Context, market connection) error {
		return ask(ctx, market, id)
	}, "; see maxwell ps whether it was done")
}

// persist asks until an answer comes. The first attempt wants a market that is
// there; once a line broke, one that is away for a moment is waited for.
func (a *app) persist(ctx context.Context, tries int, ask func(context.Context, connection) error, remedy string) error {
	broken := 0 // attempts in a row that got no answer
	for {
		begun := time.Now()
		err := a.attempt(ctx, ask)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, node.ErrNoMarket) && broken == 0:
			return err
		case !errors.Is(err, node.ErrNoMarket) && !lineBroke(err):
			return answer(err)
		}
		if time.Since(begun) > held {
			broken = 0
		}
		if broken++; broken > tries {
			return &unanswered{remedy}
		}
		if err := pause(ctx, a.pace); err != nil {
			return err
		}
	}
}

// pause waits, at most until the context ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// attempt opens a line, asks once and closes it.
func (a *app) attempt(ctx context.Context, ask func(context.Context, connection) error) error {
	market, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer market.Close()
	return ask(ctx, market)
}

// lineBroke says that an error is the line's and not the market's answer.
func lineBroke(err error) bool {
	return errors.Is(node.Plain(err), node.ErrMarketDied) || connect.CodeOf(err) == connect.CodeUnavailable
}

// answer is a refusal of the market as people read it.
func answer(err error) error {
	if connect.CodeOf(err) == connect.CodeUnimplemented {
		return errors.New("the market that runs here is older than this verb; end it, and start it with this maxwell")
	}
	return node.Plain(err)
}
