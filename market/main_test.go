package market

import (
	"flag"
	"os"
	"testing"
)

// long is the mode of MAXWELL_LONG=1: 10,000 cases a property.
func long() bool { return os.Getenv("MAXWELL_LONG") == "1" }

func TestMain(m *testing.M) {
	checks := "300"
	if long() {
		checks = "10000"
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
