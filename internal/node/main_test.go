package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/pprof"
	"strings"
	"testing"
)

// TestMain lets the test binary be the program that Maxwell starts itself
// with: the market, the watchdog and the shim are this binary again. With
// MAXWELL_PROFILE the market writes its processor profile there.
func TestMain(m *testing.M) {
	// For the processes that are started from here: a data race ends a market,
	// so that its client's test fails, and none sleeps for a second at its end.
	os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
	stop := func() {}
	if name := os.Getenv("MAXWELL_PROFILE"); name != "" && len(os.Args) > 1 && (os.Args[1] == NodeVerb || os.Args[1] == daemonVerb) {
		if f, err := os.Create(name); err == nil && pprof.StartCPUProfile(f) == nil {
			stop = pprof.StopCPUProfile
		}
	}
	if len(os.Args) == 5 && os.Args[1] == callVerb {
		os.Exit(call(os.Args[2], os.Args[3], os.Args[4]))
	}
	if len(os.Args) == 3 && os.Args[1] == daemonVerb {
		code := daemonHere(os.Args[2])
		stop()
		os.Exit(code)
	}
	if code, ran := lastingMarket(os.Args[1:]); ran {
		os.Exit(code)
	}
	if code, ran := Hidden(os.Args[1:]); ran {
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// callVerb makes the test binary a program that asks a market one thing, as
// curl would: call SOCKET METHOD JSON.
const callVerb = "call"

func call(socket, method, body string) int {
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	r, err := c.Post("http://market/maxwell.v1.MarketService/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	text, err := io.ReadAll(r.Body)
	fmt.Printf("%s\n", text)
	if err != nil || r.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}
