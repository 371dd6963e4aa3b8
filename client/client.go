package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
)

// Client is a line to one market. It keeps no workload alive.
type Client struct {
	// Patience is how long a call goes on asking a market that does not answer,
	// if the context has no deadline of its own; zero means 10 s. A daemon that
	// restarts is back within it. Set it before the first call.
	Patience time.Duration

	socket string
	rpc    maxwellv1connect.MarketServiceClient
	http   *http.Transport

	mu     sync.Mutex
	report *os.File // opened by the first Report
}

// Bounds of what a client waits for and reads.
const (
	patience   = 10 * time.Second
	firstPause = 10 * time.Millisecond  // before the first repetition
	lastPause  = 500 * time.Millisecond // between later ones; a restart takes about a second
	maxAnswer  = 64 << 20               // bytes; 10,000 workloads take about 5 MiB
)

// Open finds the market that governs this program: the one that MAXWELL_SOCKET
// names, else the machine's, else this user's own. Code NoMarket if none
// listens.
func Open(ctx context.Context) (*Client, error) {
	return open(ctx, places(os.Getenv, os.Geteuid(), closedDir))
}

// OpenSocket opens a line to the market that listens on one socket.
func OpenSocket(ctx context.Context, path string) (*Client, error) {
	return open(ctx, []string{path})
}

func open(ctx context.Context, sockets []string) (*Client, error) {
	var d net.Dialer
	for _, socket := range sockets {
		c, err := d.DialContext(ctx, "unix", socket)
		switch {
		case err == nil:
			_ = c.Close()
			return dial(socket), nil
		case ctx.Err() != nil:
			return nil, &Error{Code: Canceled, Text: "open the market: " + ctx.Err().Error(), Err: ctx.Err()}
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrPermission):
			continue // none there, a dead one's, or somebody else's
		}
		return nil, &Error{Code: NoMarket, Text: fmt.Sprintf("open the market: %v", err), Err: err}
	}
	return nil, &Error{
		Code: NoMarket, Text: "no market runs here (looked at " + strings.Join(sockets, ", ") + ")",
		Remedy: "start one with maxwell run or maxwell up",
	}
}

func dial(socket string) *Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		IdleConnTimeout: time.Minute,
	}
	return &Client{
		socket: socket, http: t,
		rpc: maxwellv1connect.NewMarketServiceClient(&http.Client{Transport: t}, "http://market",
			connect.WithAcceptCompression("gzip", nil, nil), connect.WithReadMaxBytes(maxAnswer)),
	}
}

// Socket is the path of the market's socket.
func (c *Client) Socket() string { return c.socket }

// Close gives the client's connections back. It does not interrupt calls; their
// contexts do.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.report == nil {
		return nil
	}
	err := c.report.Close()
	c.report = nil
	return err
}

// requestID is what makes a change happen once.
func requestID() []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // crypto/rand does not return errors
	return id
}

// ask makes one call that the market answers at once. It repeats the request,
// the same in every bit, while the connection breaks.
func ask[Req, Res any](ctx context.Context, c *Client, what string,
	call func(context.Context, *Req) (*Res, error), req *Req,
) (*Res, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.patience())
		defer cancel()
	}
	var res *Res
	err := c.persist(ctx, func() (err error) {
		res, err = call(ctx, req)
		return err
	})
	if err != nil {
		return nil, explained(what, err)
	}
	return res, nil
}

// change is ask for what is not harmless to lose track of.
func change[Req, Res any](ctx context.Context, c *Client, what string,
	call func(context.Context, *Req) (*Res, error), req *Req,
) (*Res, error) {
	res, err := ask(ctx, c, what, call, req)
	if err != nil {
		return nil, unsure(err)
	}
	return res, nil
}

func (c *Client) patience() time.Duration {
	if c.Patience > 0 {
		return c.Patience
	}
	return patience
}

// persist calls f again while its connection breaks, until the context ends or
// the market has been away for the client's patience. An attempt that lasted
// longer than a pause found the market there, so the patience starts anew.
func (c *Client) persist(ctx context.Context, f func() error) error {
	pause, gone := firstPause, time.Now()
	var last error // of a break; it says more than that the time is over
	for {
		began := time.Now()
		err := f()
		switch {
		case err == nil:
			return nil
		case last != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
			return last
		case !broken(err):
			return err
		}
		last = err
		if time.Since(began) > lastPause {
			pause, gone = firstPause, time.Now()
		}
		if time.Since(gone) > c.patience() {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		pause = min(2*pause, lastPause)
	}
}
