package work

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

// TestPrimesAgainstProbablyPrime counts the first quarter batch with
// math/big, which is exact below 2^64, and a whole batch against itself.
func TestPrimesAgainstProbablyPrime(t *testing.T) {
	p := NewPrimes()
	got := p.sieve()
	want := 0
	for n := int64(first + 1); n < first+piece; n += 2 {
		if big.NewInt(n).ProbablyPrime(0) {
			want++
		}
	}
	if got != want {
		t.Errorf("%d primes in the first piece, want %d", got, want)
	}
}

// TestPrimesSecondPiece catches a wrong carry from one piece to the next.
func TestPrimesSecondPiece(t *testing.T) {
	q := NewPrimes()
	q.sieve()
	q.sieve()
	for k := range 2000 {
		n := int64(first + piece + 1 + 2*k)
		prime := q.bits[k/64]>>(k%64)&1 == 0
		if prime != big.NewInt(n).ProbablyPrime(0) {
			t.Fatalf("%d: prime %v, want %v", n, prime, !prime)
		}
	}
}

func TestPrimesRewind(t *testing.T) {
	p := NewPrimes()
	want := p.Unit()
	p.low = lastOdd + 2
	if got := p.Unit(); got != want {
		t.Errorf("the batch after the end held %d primes, the first %d", got, want)
	}
	if p.Found() != uint64(2*want) {
		t.Errorf("found %d, want %d", p.Found(), 2*want)
	}
	if uint64(p.base[len(p.base)-1])*uint64(p.base[len(p.base)-1]) < first+span {
		t.Error("the base primes do not reach the root of the first batch")
	}
}

func TestHashIsAChain(t *testing.T) {
	h := NewHash()
	h.Unit()
	want := sha256.Sum256(nil)
	for range links {
		want = sha256.Sum256(want[:])
	}
	if h.Link() != want {
		t.Error("the chain differs from one made by hand")
	}
	if best := h.Unit(); best < 10 || best > 40 {
		t.Errorf("the luckiest of 32,768 hashes has %d leading zeros", best)
	}
}

func TestReporterIsRateLimited(t *testing.T) {
	var out strings.Builder
	r := NewReporter(&out, PrimeBatch)
	start := time.Unix(0, 0)
	for ms := range 200 { // a unit each millisecond for 200 ms
		r.Done(start.Add(time.Duration(ms) * time.Millisecond))
	}
	r.Flush()
	r.Flush()
	const want = "work 1 prime-batch\nwork 50 prime-batch\nwork 50 prime-batch\nwork 50 prime-batch\nwork 49 prime-batch\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

type broken struct{ writes int }

func (b *broken) Write([]byte) (int, error) { b.writes++; return 0, errors.New("gone") }

func TestReporterOutlivesItsReader(t *testing.T) {
	b := new(broken)
	r := NewReporter(b, HashBatch)
	for i := range 3 {
		r.Done(time.Unix(int64(i), 0))
	}
	if b.writes != 1 {
		t.Errorf("%d writes to a reader that is gone, want 1", b.writes)
	}
}

type counter int

func (c *counter) Unit() int { *c++; return int(*c) }

func TestRunStops(t *testing.T) {
	var c counter
	var out strings.Builder
	if n := Run(t.Context(), &c, NewReporter(&out, "unit"), 3); n != 3 || c != 3 {
		t.Errorf("ran %d units, the worker did %d, want 3", n, c)
	}
	if out.String() != "work 1 unit\nwork 2 unit\n" {
		t.Errorf("reported %q", out.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n := Run(ctx, &c, NewReporter(nil, "unit"), 0); n != 0 {
		t.Errorf("ran %d units after the end", n)
	}
}

func TestOpenReport(t *testing.T) {
	if f, err := OpenReport(""); f != nil || err != nil {
		t.Errorf("no descriptor gave %v, %v", f, err)
	}
	for _, bad := range []string{"x", "2", "-1", "1000000"} {
		if f, err := OpenReport(bad); err == nil {
			t.Errorf("MAXWELL_REPORT=%s gave %v", bad, f.Name())
		}
	}
}

func TestReportArrivesInAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	NewReporter(w, "unit").Done(time.Unix(1, 0))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := r.Read(buf)
	if err != nil || string(buf[:n]) != "work 1 unit\n" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
}

func BenchmarkPrimeBatch(b *testing.B) {
	p := NewPrimes()
	for b.Loop() {
		p.Unit()
	}
}

func BenchmarkHashBatch(b *testing.B) {
	h := NewHash()
	for b.Loop() {
		h.Unit()
	}
}

func TestSum(t *testing.T) {
	const text = "work 3 a\nwork 4 b\nwork -1 a\nwork x a\nidle 5 a\nwork 2 a\nwork 9223372036854775807 a\nwork 7 a"
	if got := Sum([]byte(text), "a"); got != 5 {
		t.Errorf("sum %d, want 5", got)
	}
}
