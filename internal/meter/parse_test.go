package meter

import (
	"os"
	"strconv"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

func TestParse(t *testing.T) {
	if v, ok := pressureTotal([]byte("some avg10=1.00 avg60=0.00 avg300=0.00 total=34175165\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")); !ok || v != 34175165 {
		t.Errorf("pressure: %d %t", v, ok)
	}
	for _, bad := range []string{"", "full total=1\n", "some\n", "some total=\n", "some total=-1\n", "some total=x\n", "some avg10=0\nfull total=1"} {
		if v, ok := pressureTotal([]byte(bad)); ok {
			t.Errorf("pressure %q: %d", bad, v)
		}
	}
	if v, ok := busyTicks([]byte("cpu  1 20 300 4000 50000 600000 7000000 80000000 9 9\ncpu0 1\n")); !ok || v != 7600321 {
		t.Errorf("stat: %d %t", v, ok)
	}
	for _, bad := range []string{"", "cpu", "cpu0 1 2 3 4 5 6 7", "cpu 1 2 3 4 5 6", "cpu 1 2 3 4 5 6 x", "cpu 1 2 3 -4 5 6 7"} {
		if v, ok := busyTicks([]byte(bad)); ok {
			t.Errorf("stat %q: %d", bad, v)
		}
	}
	if v, ok := parseDelay([]byte("12 345 6\n")); !ok || v != 345 {
		t.Errorf("schedstat: %d %t", v, ok)
	}
}

func TestParseStat(t *testing.T) {
	line := "4242 (a b) R) S 17 4242 4200 34817 4243 4194304 100 200 0 0 11 22 33 44 20 0 3 0 987654 1000 2 3 4"
	want := processStat{4242, 'S', 17, 4242, 4200, 33 * statTick, 77 * statTick, 987654}
	if s, ok := parseStat([]byte(line)); !ok || s != want {
		t.Errorf("%+v %t, want %+v", s, ok, want)
	}
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := parseStat(b); !ok || s.pid != os.Getpid() || s.parent != os.Getppid() || s.start <= 0 {
		t.Errorf("ourselves: %+v %t", s, ok)
	}
}

// FuzzParse holds that no text of the kernel's, or of a program that chose its
// own name, gives negative times or a panic.
func FuzzParse(f *testing.F) {
	for _, path := range []string{"/proc/self/stat", "/proc/self/schedstat", "/proc/stat", "/proc/pressure/cpu"} {
		if b, err := os.ReadFile(path); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte("1 (" + strconv.Itoa(1<<62) + ") R 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseStat(b); ok && (s.pid <= 0 || s.used < 0 || s.waited < 0 || s.start < 0) {
			t.Errorf("stat: %+v", s)
		}
		if v, ok := parseDelay(b); ok && v < 0 {
			t.Errorf("delay %d", v)
		}
		if v, ok := pressureTotal(b); ok && v < 0 {
			t.Errorf("pressure %d", v)
		}
		if v, ok := busyTicks(b); ok && unit.CoreTime(v)*statTick < 0 {
			t.Errorf("busy %d", v)
		}
	})
}
