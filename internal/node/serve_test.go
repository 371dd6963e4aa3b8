package node

import (
	"os"
	"runtime"
	"testing"
)

// TestSpareProcessors: Go code gets more processors than there are, or as many as the
// administrator said.
func TestSpareProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	t.Setenv("GOMAXPROCS", "1")
	if spareProcessors(); runtime.GOMAXPROCS(0) != 1 {
		t.Errorf("told to use one, the market uses %d", runtime.GOMAXPROCS(0))
	}
	os.Unsetenv("GOMAXPROCS")
	spareProcessors()
	if have := runtime.GOMAXPROCS(0); have < leastProcessors || have < runtime.NumCPU()+spare {
		t.Errorf("the market uses %d of %d processors", have, runtime.NumCPU())
	}
}
