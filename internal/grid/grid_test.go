package grid

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]unit.PPM{
		"1": unit.One, "1x": unit.One, "1.5x": 1_500_000, "1.5": 1_500_000, "0.25x\n": 250_000, " 2.000001x\r\n": 2_000_001, "0": 0,
		"25x": 25 * unit.One, "-0.3": -300_000, "9999.999999x": 9_999_999_999, "0001.1": 1_100_000,
	} {
		if got, err := Parse([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "x", "1.5 x", "1,5", "1.5xx", "X", "1.5X", "1e3", "+1", "--1", "- 1", ".5", "1.", "1.x", "1.0000001", "10000", "1 2", "1x\n2x\n",
		"0x10", "NaN", "inf", "1\x00", "\xff", "１", "1.5%", strings.Repeat(" ", MaxFile) + "1",
	} {
		if got, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}

// FuzzParse: what is read is a number of at most ten digits and is read as that; what
// is not is refused in one line.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"1.5x", "1.5", "-3", "0.000001x\n", "9999.999999", "1e3", "", "1\n2", "\x1b[2J", "x", "1.5 x"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := Parse(text)
		if err != nil {
			if v != 0 || strings.ContainsAny(err.Error(), "\n\r\x1b\x00") || len(err.Error()) > 6*MaxFile {
				t.Errorf("%q: %d, %q", text, v, err)
			}
			return
		}
		body := strings.TrimSuffix(strings.Trim(string(text), " \t\r\n"), "x")
		var exact float64
		if n, err := fmt.Sscanf(body, "%f", &exact); n != 1 || err != nil || max(exact*1e6-float64(v), float64(v)-exact*1e6) > 0.5 {
			t.Errorf("%q is read as %d", text, v)
		}
		if v <= -1e10 || v >= 1e10 {
			t.Errorf("%q is read as %d", text, v)
		}
		again := fmt.Sprintf("%d.%06d", max(v, -v)/1e6, max(v, -v)%1e6)
		if v < 0 {
			again = "-" + again
		}
		if w, err := Parse([]byte(again)); err != nil || w != v {
			t.Errorf("%d is written %s and read as %d, %v", v, again, w, err)
		}
	})
}

func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "price")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("1.5x\n")
	when := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(name, when, when); err != nil {
		t.Fatal(err)
	}
	if p, err := ReadFile(name); err != nil || p.Factor != 1_500_000 || !p.Written.Equal(when) {
		t.Errorf("read %+v, %v", p, err)
	}
	refuses := func(what, why string) {
		t.Helper()
		if p, err := ReadFile(name); err == nil || !strings.HasPrefix(err.Error(), name+": ") || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v, %v; want %q", what, p, err, why)
		}
	}
	write("dear")
	refuses("a word", `"dear" is no factor; write one number, as 1.5x`)
	write(strings.Repeat("1", 1<<20))
	refuses("a long one", "is more than 64 bytes; write one factor, as 1.5x")
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	refuses("none", "no such file; write a factor into it, as 1.5x")
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	refuses("a directory", "is no regular file; name one")
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	// Nobody ever writes to it: a read that waits hangs here.
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	refuses("a FIFO", "is no regular file; name one")
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", name); err != nil {
		t.Fatal(err)
	}
	refuses("a device", "is no regular file; name one")
}

// TestRootBelievesRoot: what others can write is not what everybody pays.
func TestRootBelievesRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "files of others are made by root")
	}
	name := filepath.Join(t.TempDir(), "price")
	if err := os.WriteFile(name, []byte("1.5x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		mode os.FileMode
		uid  int
		why  string
	}{
		{0o644, 0, ""},
		{0o666, 0, "everybody may write it (mode 0666) and it decides what energy costs"},
		{0o600, 1001, "it belongs to uid 1001 and it decides what energy costs"},
	} {
		if err := os.Chmod(name, test.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(name, test.uid, 0); err != nil {
			t.Fatal(err)
		}
		_, err := ReadFile(name)
		if (err == nil) != (test.why == "") || err != nil && !bytes.Contains([]byte(err.Error()), []byte(test.why)) {
			t.Errorf("mode %v of %d: %v, want %q", test.mode, test.uid, err, test.why)
		}
	}
	if _, err := readFile(name, 1001); err != nil {
		t.Errorf("who is not root is told %v", err)
	}
}

func TestUntil(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, test := range []struct {
		written, valid, want time.Duration // from now
	}{
		{-48 * time.Hour, 0, Unwatched},
		{-time.Minute, 2 * time.Hour, 2*time.Hour - time.Minute},
		{-3 * time.Hour, 2 * time.Hour, -time.Hour},
		{time.Hour, 2 * time.Hour, 2 * time.Hour},
	} {
		p := Price{Written: now.Add(test.written)}
		if got := p.Until(now, test.valid).Sub(now); got != test.want {
			t.Errorf("written %v ago, valid for %v: until %v, want %v", -test.written, test.valid, got, test.want)
		}
	}
}
