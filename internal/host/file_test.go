package host

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseInt(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       int64
		ok         bool
	}{
		{"plain", "42", 42, true},
		{"newline", "262143328850\n", 262143328850, true},
		{"negative", "-1\n", -1, true},
		{"max word", "max\n", math.MaxInt64, true},
		{"largest", "9223372036854775807", math.MaxInt64, true},
		{"overflow", "9223372036854775808", 0, false},
		{"empty", "", 0, false},
		{"sign only", "-", 0, false},
		{"two numbers", "1 2", 0, false},
		{"letters", "12x", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseInt([]byte(c.text))
			if (err == nil) != c.ok || got != c.want {
				t.Errorf("ParseInt(%q) = %d, %v; want %d, ok %v", c.text, got, err, c.want, c.ok)
			}
		})
	}
}

func TestKey(t *testing.T) {
	stat := []byte("usage_usec 123\nuser_usec 100\nsystem_usec 23\nlimit max\nbad x\n")
	for _, c := range []struct {
		key  string
		want int64
		ok   bool
	}{
		{"usage_usec", 123, true},
		{"system_usec", 23, true},
		{"limit", math.MaxInt64, true},
		{"usage", 0, false}, // a prefix is not the key
		{"bad", 0, false},
		{"none", 0, false},
	} {
		if got, ok := Key(stat, c.key); got != c.want || ok != c.ok {
			t.Errorf("Key(%q) = %d, %v; want %d, %v", c.key, got, ok, c.want, c.ok)
		}
	}
}

func TestFileReadsAgainWithoutAllocating(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpu.stat")
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("usage_usec 7\n")
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := f.ReadKey("usage_usec"); err != nil || got != 7 {
		t.Fatalf("first read = %d, %v; want 7", got, err)
	}
	write("usage_usec 9\n")
	var got int64
	allocs := testing.AllocsPerRun(100, func() { got, err = f.ReadKey("usage_usec") })
	if err != nil || got != 9 || allocs != 0 {
		t.Errorf("second read = %d, %v with %v allocations; want 9 with none", got, err, allocs)
	}
	if _, err := f.ReadKey("missing"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("missing key: %v; want ErrUnavailable", err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}
	if _, err := f.ReadInt(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after close: %v; want os.ErrClosed", err)
	}
}

func TestKnobWritesAndNeverCreates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpu.weight")
	if _, err := OpenKnob(path); !errors.Is(err, unix.ENOENT) {
		t.Fatalf("open missing knob: %v; want ENOENT", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKnob(path)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	allocs := testing.AllocsPerRun(10, func() { err = k.WriteInts(20000, 100000) })
	got, readErr := os.ReadFile(path)
	if err != nil || readErr != nil || string(got) != "20000 100000" || allocs != 0 {
		t.Errorf("knob holds %q (%v, %v) with %v allocations", got, err, readErr, allocs)
	}
}

func TestGone(t *testing.T) {
	if !Gone(&os.PathError{Op: "read", Err: unix.ENODEV}) || Gone(unix.EACCES) || Gone(nil) {
		t.Error("Gone must be true of ENODEV and false of EACCES and nil")
	}
}

// FuzzKey holds the two parsers of the epoch loop: they never panic, and a
// number they accept is the number in the text.
func FuzzKey(f *testing.F) {
	f.Add([]byte("usage_usec 123\nuser_usec 100\n"), "usage_usec")
	f.Add([]byte("max"), "")
	f.Add([]byte(" 9223372036854775808\n\n -1"), "")
	f.Fuzz(func(t *testing.T, text []byte, key string) {
		if v, err := ParseInt(text); err == nil && v < -math.MaxInt64 {
			t.Errorf("ParseInt(%q) = %d", text, v)
		}
		Key(text, key)
	})
}
