package apoptosis

import (
	"flag"
	"os"
	"testing"
)

// TestMain sets how many cases a property gets: 200, or 10,000 with
// MAXWELL_LONG=1. The command line still wins.
func TestMain(m *testing.M) {
	checks := "200"
	if os.Getenv("MAXWELL_LONG") == "1" {
		checks = "10000"
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
