package node

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
)

func TestParseReport(t *testing.T) {
	tests := []struct {
		line  string
		kind  string
		units int64
		ok    bool
	}{
		{"work 3", "", 3, true},
		{"work 3 lap", "lap", 3, true},
		{"  work\t3   lap\r", "lap", 3, true},
		{"work +3 lap", "lap", 3, true},
		{"work 1099511627776", "", maxUnits, true},
		{"work 1 " + strings.Repeat("k", maxKind), strings.Repeat("k", maxKind), 1, true},
		{"work 1 größe", "größe", 1, true},
		{"", "", 0, false},
		{"work", "", 0, false},
		{"work 0", "", 0, false},
		{"work -3", "", 0, false},
		{"work 1099511627777", "", 0, false},
		{"work 9223372036854775808", "", 0, false},
		{"work 1.5", "", 0, false},
		{"work 0x10", "", 0, false},
		{"work three", "", 0, false},
		{"Work 3", "", 0, false},
		{"works 3", "", 0, false},
		{"work 3 two words", "", 0, false},
		{"work 1 " + strings.Repeat("k", maxKind+1), "", 0, false},
		{"work 1 \x1b[31m", "", 0, false},
		{"work 1 a\x00b", "", 0, false},
		{"work 1 \xff", "", 0, false},
	}
	for _, tt := range tests {
		kind, units, ok := ParseReport(tt.line)
		if kind != tt.kind || units != tt.units || ok != tt.ok {
			t.Errorf("%q is %d %q %v, want %d %q %v", tt.line, units, kind, ok, tt.units, tt.kind, tt.ok)
		}
	}
}

// TestSumReports: wrong lines earn nothing and end nothing, a kind too many is
// not kept, and no sum passes what one batch can claim.
func TestSumReports(t *testing.T) {
	sums := map[string]int64{}
	text := "work 1 a\nnonsense\nwork 2 a\n\nwork 5\nwork 1 \xff\nwork 7 b\nwork 9"
	if rest := sumReports([]byte(text), sums); string(rest) != "work 9" {
		t.Errorf("kept %q", rest)
	}
	if want := map[string]int64{"a": 3, "": 5, "b": 7}; !maps.Equal(sums, want) {
		t.Errorf("got %v, want %v", sums, want)
	}
	for i := range 2 * maxKinds {
		sumReports(fmt.Appendf(nil, "work 1 k%d\n", i), sums)
	}
	if len(sums) != maxKinds {
		t.Errorf("%d kinds are kept, want %d", len(sums), maxKinds)
	}
	sumReports(bytes.Repeat([]byte("work 1099511627776 a\n"), 3), sums)
	if sums["a"] != maxUnits {
		t.Errorf("a batch claims %d", sums["a"])
	}
}

// FuzzParseReport feeds what a workload may write, whole and in two pieces: the
// sums are the same, within their bounds, and hold only text that a message
// can carry.
func FuzzParseReport(f *testing.F) {
	f.Add([]byte("work 3 lap\nwork 4\n"), 5)
	f.Add([]byte("work 1099511627776 a\nwork 1 a\nwork -1 a\n"), 11)
	f.Add([]byte("work 1 \xff\nwork 1 \x1b[31m\n\n\n"), 0)
	f.Add([]byte("work\u00a01\u2003a\nwork 1 a b\nwork"), 3)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		whole, pieces := map[string]int64{}, map[string]int64{}
		rest := sumReports(text, whole)
		if bytes.ContainsRune(rest, '\n') || !bytes.HasSuffix(text, rest) {
			t.Fatalf("of %q is left %q", text, rest)
		}
		if cut >= 0 && cut <= len(text) {
			first := sumReports(text[:cut], pieces)
			second := sumReports(append(bytes.Clone(first), text[cut:]...), pieces)
			if !maps.Equal(whole, pieces) || !bytes.Equal(rest, second) {
				t.Fatalf("%q cut at %d: %v and %q, whole %v and %q", text, cut, pieces, second, whole, rest)
			}
		}
		for kind, units := range whole {
			if units <= 0 || units > maxUnits || len(kind) > maxKind || !utf8.ValidString(kind) {
				t.Fatalf("%q: %d of %q", text, units, kind)
			}
			line := strings.TrimSpace(fmt.Sprintf("work %d %s", units, kind))
			if k, n, ok := ParseReport(line); !ok || k != kind || n != units {
				t.Fatalf("%q is %d %q %v", line, n, k, ok)
			}
		}
		if len(whole) > maxKinds {
			t.Fatalf("%d kinds", len(whole))
		}
	})
}

// reported takes reports, and tells which came.
type reported struct {
	maxwellv1connect.MarketServiceClient

	batches []uint64
}

func (r *reported) Report(_ context.Context, req *v1.ReportRequest) (*v1.ReportResponse, error) {
	r.batches = append(r.batches, req.GetBatch())
	return &v1.ReportResponse{}, nil
}

// TestReportsAreToldToTheNextDaemonToo: a report that the second daemon had only just got
// when it was killed is told to the third, however long ago it was made.
func TestReportsAreToldToTheNextDaemonToo(t *testing.T) {
	heard := &reported{}
	s, r := &Session{durable: true, rpc: heard}, &Running{}
	tell := func(want ...uint64) {
		t.Helper()
		heard.batches = nil
		if !s.deliver(r, map[string]int64{"": 1}) || !slices.Equal(heard.batches, want) {
			t.Errorf("told %v, want %v", heard.batches, want)
		}
	}
	tell(1)
	r.told[0].at = time.Now().Add(-2 * keepReports)
	s.breaks.Add(1) // a daemon came that may not know it
	tell(1, 2)
	s.breaks.Add(1) // and another
	tell(1, 2, 3)
	tell(4) // which stays
	for i := range r.told {
		r.told[i].at = time.Now().Add(-2 * keepReports)
	}
	tell(5)
	if len(r.told) != 1 {
		t.Errorf("%d reports are kept, want that of now", len(r.told))
	}
}
