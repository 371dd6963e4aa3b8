package main

import (
	"os"
	"testing"
)

// FuzzBusyTime: no text of /proc/stat gives a negative time or a panic.
func FuzzBusyTime(f *testing.F) {
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		f.Add(text)
	}
	f.Add([]byte("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n"))
	f.Add([]byte("cpu 9223372036854775807 1 1 1 1 1 1 1\n"))
	f.Add([]byte("cpu -1 2 3 4 5 6 7 8"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if v, err := busyTime(stat); err == nil && v < 0 || err != nil && v != 0 {
			t.Errorf("%q: %d, %v", stat, v, err)
		}
	})
}
