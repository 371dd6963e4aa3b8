package node

import (
	"os"
	"runtime/pprof"
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
	if name := os.Getenv("MAXWELL_PROFILE"); name != "" && len(os.Args) > 1 && os.Args[1] == NodeVerb {
		if f, err := os.Create(name); err == nil && pprof.StartCPUProfile(f) == nil {
			stop = pprof.StopCPUProfile
		}
	}
	if code, ran := Hidden(os.Args[1:]); ran {
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}
