package market

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// slowBucket finds the bucket of v with whole numbers only: the largest k with
// v^64 >= 2^(64*octave+k).
func slowBucket(v unit.Rate) Bucket {
	if v <= 0 {
		return 0
	}
	power := new(big.Int).Exp(big.NewInt(int64(v)), big.NewInt(PerOctave), nil)
	return Bucket(PerOctave + power.BitLen() - 1)
}

func TestBucketTable(t *testing.T) {
	t.Parallel()
	for k, have := range bucketStart {
		power := new(big.Int).Exp(new(big.Int).SetUint64(have), big.NewInt(PerOctave), nil)
		below := new(big.Int).Exp(new(big.Int).SetUint64(have-1), big.NewInt(PerOctave), nil)
		want := new(big.Int).Lsh(big.NewInt(1), uint(62*PerOctave+k))
		if power.Cmp(want) < 0 || below.Cmp(want) >= 0 {
			t.Errorf("bucketStart[%d] = %d is not ceil(2^(62+%d/64))", k, have, k)
		}
	}
	for c, have := range bucketGuess {
		first := uint64(1)<<62 + uint64(c)<<55
		for k := range PerOctave {
			if bucketStart[k] <= first && uint8(k) > have || uint8(k) == have && bucketStart[k] > first {
				t.Errorf("bucketGuess[%d] = %d, but bucket %d starts at %d", c, have, k, bucketStart[k])
			}
		}
	}
}

func TestBucketOf(t *testing.T) {
	t.Parallel()
	check := func(v unit.Rate) {
		have, want := BucketOf(v), slowBucket(v)
		if have != want {
			t.Fatalf("BucketOf(%d) = %d, want %d", v, have, want)
		}
		if have < 0 || have >= Buckets {
			t.Fatalf("BucketOf(%d) = %d is off the ladder", v, have)
		}
		if have.Floor() > max(v, 0) {
			t.Fatalf("BucketOf(%d).Floor() = %d is above it", v, have.Floor())
		}
		if have+1 < Buckets && have > 0 && (have+1).Floor() <= v {
			t.Fatalf("%d is in bucket %d, but the next one starts at %d", v, have, (have + 1).Floor())
		}
	}
	for _, v := range []unit.Rate{math.MinInt64, -1, 0, 1, 2, 3, 63, 64, 65, math.MaxInt64 - 1, math.MaxInt64} {
		check(v)
	}
	for _, start := range bucketStart[:PerOctave] { // the edges of the top octave, exactly
		check(unit.Rate(start))
		check(unit.Rate(start - 1))
	}
	for v := range unit.Rate(5000) {
		check(v)
	}
	for o := range 63 {
		check(1<<o - 1)
		check(1 << o)
		check(1<<o + 1)
	}
	rapid.Check(t, func(t *rapid.T) {
		v := unit.Rate(rapid.Int64Min(1).Draw(t, "v") >> rapid.IntRange(0, 62).Draw(t, "shift"))
		if have, want := BucketOf(v), slowBucket(v); have != want {
			t.Fatalf("BucketOf(%d) = %d, want %d", v, have, want)
		}
	})
}

// TestBucketWidth holds the 1.1 % on which P4 and P11 rest.
func TestBucketWidth(t *testing.T) {
	t.Parallel()
	for b := Bucket(PerOctave * 14); b < Buckets-1; b++ { // from scores of 2^13 micro-$J on, integers are finer than 0.01 %
		low, next := float64(b.Floor()), float64((b + 1).Floor())
		if next/low > 1.011 {
			t.Fatalf("bucket %d is %.4f %% wide", b, 100*(next/low-1))
		}
	}
}

func TestFloorPanicsOffTheLadder(t *testing.T) {
	t.Parallel()
	for _, b := range []Bucket{-1, Buckets} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Bucket(%d).Floor() did not panic", b)
				}
			}()
			b.Floor()
		}()
	}
}
