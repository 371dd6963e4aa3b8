package node

import (
	"os"
	"testing"
)

// TestMain lets the test binary be the program that Maxwell starts itself
// with: the market, the watchdog and the shim are this binary again.
func TestMain(m *testing.M) {
	if code, ran := Hidden(os.Args[1:]); ran {
		os.Exit(code)
	}
	os.Exit(m.Run())
}
