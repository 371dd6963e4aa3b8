package host_test

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// TestRaiseService runs in a process of its own: nice values only go up again
// for root, and the other tests should not be favoured.
func TestRaiseService(t *testing.T) {
	const variable = "MAXWELL_TEST_RAISE"
	if os.Getenv(variable) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestRaiseService$", "-test.v")
		cmd.Env = append(os.Environ(), variable+"=1")
		out, err := cmd.CombinedOutput()
		if os.Geteuid() != 0 {
			hosttest.Skip(t, "root", "nice values are not ours to raise")
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := host.RaiseService(); err != nil {
		t.Fatal(err)
	}
	late := make(chan int)
	go func() { // a thread of any age
		n, _ := unix.Getpriority(unix.PRIO_PROCESS, 0)
		late <- n
	}()
	if n := 20 - <-late; n != -10 { // the system call answers 20 - nice
		t.Errorf("nice %d, want -10", n)
	}
}
