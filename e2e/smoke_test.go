package e2e

import (
	"strings"
	"testing"
)

// TestRunMeasuresOnly is the first command of the manual: it limits nothing,
// passes the exit code on and says at the end what was burned.
func TestRunMeasuresOnly(t *testing.T) {
	t.Parallel()
	r := run(t, "run", "--", "sh", "-c", "echo hello; exit 3")
	if r.code != 3 || r.stdout != "hello\n" {
		t.Errorf("want exit 3 and hello alone on standard output:\n%v", r)
	}
	if !strings.Contains(r.stderr, "exited 3") {
		t.Errorf("no closing lines:\n%v", r)
	}
}
