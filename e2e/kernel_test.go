package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// quietProcessors is what a test needs that judges who got how much of a
// processor: that others leave one to it. It cannot be probed ahead.
const quietProcessors host.Feature = "quiet-processors"

// unique is a workload's name that no other market on this machine has, so
// that its directory can be found without asking Maxwell.
func unique(base string) string { return fmt.Sprintf("%s-%08x", base, rand.Uint32()) }

// directory is the cgroup2 directory of a workload; "" while there is none.
func directory(name string) string {
	for _, mount := range mountsOf("cgroup2") {
		if found, _ := filepath.Glob(filepath.Join(mount, "maxwell*", "w-"+name)); len(found) == 1 {
			return found[0]
		}
	}
	return ""
}

// waitDirectory waits until a workload has its directory.
func waitDirectory(t *testing.T, name string) string {
	t.Helper()
	var dir string
	await(t, "the directory of "+name, func() bool {
		dir = directory(name)
		return dir != ""
	})
	return dir
}

// usage is the kernel's own count of the processor time of a group and all
// that is or ever was below it.
func usage(t testing.TB, dir string) time.Duration {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			us, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			must(t, err)
			return time.Duration(us) * time.Microsecond
		}
	}
	t.Fatalf("no usage_usec in %s/cpu.stat", dir)
	return 0
}

// settled waits until a group uses no more processor time, and returns what
// it has used.
func settled(t *testing.T, dir string) time.Duration {
	t.Helper()
	last, same := time.Duration(-1), 0
	await(t, dir+" to come to rest", func() bool {
		now := usage(t, dir)
		if now != last {
			last, same = now, 0
		}
		same++
		return same > 20 // a tenth of a second
	})
	return last
}
