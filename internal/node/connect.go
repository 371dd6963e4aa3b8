package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
)

// Connection is a line to a market without a session: it keeps nothing alive,
// and acts for the user (or the workload) that this process is.
type Connection struct {
	maxwellv1connect.MarketServiceClient

	http *http.Transport
}

// Connect opens a line to the first of the sockets that a market listens on;
// ErrNoMarket if there is none. A socket that may not be entered is somebody
// else's market.
func Connect(ctx context.Context, sockets ...string) (*Connection, error) {
	for _, socket := range sockets {
		if err := listens(ctx, socket); errors.Is(err, ErrNoMarket) {
			continue
		} else if err != nil {
			return nil, err
		}
		c := &Connection{http: transport(socket)}
		c.MarketServiceClient = maxwellv1connect.NewMarketServiceClient(&http.Client{Transport: c.http}, "http://market",
			connect.WithAcceptCompression("gzip", nil, nil))
		return c, nil
	}
	return nil, ErrNoMarket
}

// listens asks whether a market listens on a socket: nil, ErrNoMarket, or why
// that cannot be said.
func listens(ctx context.Context, socket string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		return c.Close()
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EACCES):
		return ErrNoMarket
	}
	return fmt.Errorf("connect to the market: %w", err)
}

// Close ends the line. Calls that run are broken.
func (c *Connection) Close() { c.http.CloseIdleConnections() }

// Plain strips the RPC's code from an error of a call: the text is meant for
// people.
func Plain(err error) error {
	c, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok:
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case !connect.IsWireError(err):
		return ErrMarketDied
	}
	return errors.New(strings.TrimSpace(c.Message()))
}
