package client

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"connectrpc.com/connect"
)

// Code classifies an [Error]. Those of the market are the names of Connect's
// codes; more may come, so treat an unknown one as a refusal.
type Code string

// The codes that a program is likely to tell apart.
const (
	NoMarket    Code = "no_market"           // nothing listens where a market would
	Outside     Code = "outside"             // only a program inside a workload can do this
	Malformed   Code = "malformed"           // the answer is none of a market's
	Invalid     Code = "invalid_argument"    // the request cannot be meant
	NotFound    Code = "not_found"           // no workload of that name that the caller may see
	Denied      Code = "permission_denied"   // not the caller's to do
	Refused     Code = "failed_precondition" // not in the state that things are in
	Exhausted   Code = "resource_exhausted"  // not enough money, cores, memory or disk
	Unavailable Code = "unavailable"         // the connection broke, and the market did not come back
	TimedOut    Code = "deadline_exceeded"   // no answer before the context's deadline
	Canceled    Code = "canceled"            // the context was cancelled
)

// Error is a request that was refused, or that did not reach the market.
type Error struct {
	Code   Code
	Text   string // one line: what was asked and what is wrong
	Remedy string // what to do about it; may be empty
	Err    error  // the cause below, for errors.Is; may be nil
}

// Error is the text, and the remedy if the text does not say it already.
func (e *Error) Error() string {
	if e.Remedy == "" || strings.Contains(e.Text, e.Remedy) {
		return e.Text
	}
	return e.Text + "; " + e.Remedy
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// remedyHeader is where the market's errors carry what to do about them.
const remedyHeader = "Maxwell-Remedy"

// explained makes an Error of what a call of the market returned.
func explained(what string, err error) error {
	c, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return &Error{Code: Malformed, Text: what + ": " + oneLine(err.Error()), Err: err}
	}
	text := what + ": " + oneLine(c.Message())
	if connect.IsWireError(err) {
		remedy := c.Meta().Get(remedyHeader)
		if remedy == "" { // the market writes "what is wrong; what to do"
			_, remedy, _ = strings.Cut(c.Message(), "; ")
		}
		return &Error{Code: Code(c.Code().String()), Text: text, Remedy: oneLine(remedy), Err: err}
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: Code(c.Code().String()), Text: text, Err: err}
	case broken(err):
		return &Error{Code: Unavailable, Text: text, Remedy: "see whether the market runs: maxwell doctor", Err: err}
	}
	return &Error{Code: Malformed, Text: text, Remedy: "check what listens on the socket", Err: err}
}

// unsure adds to the error of a change that the market may have applied before
// the connection broke.
func unsure(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != Unavailable && e.Code != TimedOut && e.Code != Canceled {
		return err
	}
	e.Text += "; it may or may not have happened"
	e.Remedy = "look at the balance before asking again"
	return e
}

// broken says that a request may not have reached the market, or its answer
// not come back: asking again with the same id is right.
func broken(err error) bool {
	if connect.IsWireError(err) {
		return connect.CodeOf(err) == connect.CodeUnavailable // it is closing, or restarting
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	for _, cause := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNREFUSED, syscall.ENOENT, syscall.EAGAIN,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	// net/http has no value for a kept connection that the other side closed.
	return strings.Contains(err.Error(), "server closed idle connection")
}

// oneLine keeps foreign text from breaking lines or steering terminals.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
}
