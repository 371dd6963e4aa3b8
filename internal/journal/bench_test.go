package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// BenchmarkAppend is one durable batch of so many entries, beside a raw write and
// fdatasync of as many bytes as their encoding has, in turn in the same run: what
// the disk alone takes.
func BenchmarkAppend(b *testing.B) {
	for _, batch := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("entries=%d", batch), func(b *testing.B) {
			s, err := Create(filepath.Join(b.TempDir(), "journal.sqlite"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			raw, err := os.Create(filepath.Join(b.TempDir(), "raw"))
			if err != nil {
				b.Fatal(err)
			}
			defer raw.Close()
			n := newNovel(9)
			var ours, theirs time.Duration
			appended, written := 0, 0
			for b.Loop() {
				for len(n.entries) < batch {
					n.page()
				}
				list := n.take()
				block := make([]byte, 0, 300*batch)
				for i := range list {
					block = encode(block, Hash{}, 1, time.Time{}, &list[i])
				}
				start := time.Now()
				if _, err := s.Append(start, Batch{Entries: list}); err != nil {
					b.Fatal(err)
				}
				ours += time.Since(start)
				appended += len(list)
				start = time.Now()
				if _, err := raw.Write(block); err != nil {
					b.Fatal(err)
				}
				if err := syscall.Fdatasync(int(raw.Fd())); err != nil {
					b.Fatal(err)
				}
				theirs += time.Since(start)
				written += len(block)
			}
			b.ReportMetric(float64(appended)/ours.Seconds(), "entries/s")
			b.ReportMetric(float64(written)/float64(appended), "B/entry")
			b.ReportMetric(ours.Seconds()/theirs.Seconds(), "x/raw")
		})
	}
}
