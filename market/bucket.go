package market

import (
	"math/bits"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// The ladder's grid. 64 buckets an octave make a bucket 1.09 % wide: the bound
// on what rounding a score to its bucket can cost anybody (P4, P11). 4,096 of
// them cover every positive Rate, so that no score has to be refused; a finer
// grid would only buy accuracy below that of the meters.
const (
	PerOctave = 64
	Buckets   = 4096
)

// Bucket is an index on the log-scale price ladder: 64 buckets an octave.
// Bucket 0 is a score of 0 (a bid at its own reserve). Buckets 1 to 63 are
// never used; bucket 64*(n+1)+k holds the scores from 2^(n+k/64) on.
// Below 2^6 = 64 micro-$J a bucket is narrower than one integer, and several
// share a floor: BucketOf then answers with the last of them.
type Bucket int32

// BucketOf returns the bucket that score falls in: the last one whose floor is
// not above it. Negative scores fall in bucket 0.
func BucketOf(score unit.Rate) Bucket {
	if score <= 0 {
		return 0
	}
	octave := bits.Len64(uint64(score)) - 1
	m := uint64(score) << (62 - octave)
	k := uint(bucketGuess[m>>55&127])
	// One more where the next bucket begins at or below m, without a branch: it
	// would be taken half of the time, and cost more than all the rest.
	_, below := bits.Sub64(m, bucketStart[k+1], 0)
	return Bucket(PerOctave*(octave+1) + int(k+1-uint(below)))
}

// Floor returns the smallest score of the bucket. It panics outside the grid.
func (b Bucket) Floor() unit.Rate {
	if b < PerOctave {
		if b < 0 {
			panicf("market: bucket %d is off the ladder", b)
		}
		return 0
	}
	if b >= Buckets {
		panicf("market: bucket %d is off the ladder", b)
	}
	octave := uint(b)/PerOctave - 1
	return unit.Rate(scaledUp(bucketStart[b%PerOctave], 62-octave))
}

// scaledUp is ceil(v / 2^shift).
func scaledUp(v uint64, shift uint) uint64 {
	return v>>shift + min(1, v&(1<<shift-1))
}

// bucketStart[k] is ceil(2^(62+k/64)): where bucket k begins in an octave that
// is scaled to begin at 2^62. TestBucketTable recomputes it with math/big.
var bucketStart = [PerOctave + 1]uint64{
	0x4000000000000000, 0x40b268f9de0183ba, 0x4166c34c5615d0ec, 0x421d1461d66f2024,
	0x42d561b3e6243d8b, 0x438fb0cb4f468809, 0x444c0740496d4294, 0x450a6abaa4b77ece,
	0x45cae0f1f545eb74, 0x468d6fadbf2dd4f3, 0x47521cc5a2e6a9e1, 0x4818ee218a3358ef,
	0x48e1e9b9d588e19c, 0x49ad159789f37496, 0x4a7a77d47f7b84b1, 0x4b4a169b900c2d01,
	0x4c1bf828c6dc54b8, 0x4cf022c9905bfd33, 0x4dc69cdceaa72a9d, 0x4e9f6cd3967fdba9,
	0x4f7a993048d088d7, 0x50582887dcb8a7e2, 0x513821818624b40d, 0x521a8ad704f34050,
	0x52ff6b54d8a89c76, 0x53e6c9da74b29ab5, 0x54d0ad5a753e077d, 0x55bd1cdad49f699c,
	0x56ac1f752150a564, 0x579dbc56b48521bb, 0x5891fac0e95612c8, 0x5988e20954889245,
	0x5a827999fcef3243, 0x5b7ec8f19468bbc9, 0x5c7dd7a3b17dcf75, 0x5d7fad59099f22fe,
	0x5e8451cfac061b60, 0x5f8bccdb3d398842, 0x6096266533384a2c, 0x61a3666d124bb204,
	0x62b39508aa836d6f, 0x63c6ba6455dcd8af, 0x64dcdec3371793d2, 0x65f60a7f79393e2f,
	0x6712460a8fc24072, 0x683199ed779592cb, 0x69540ec8f895722e, 0x6a79ad55e7f6fd10,
	0x6ba27e656b4eb57b, 0x6cce8ae13c57ebdb, 0x6dfddbcbed791bab, 0x6f307a412f074892,
	0x70666f76154a7089, 0x719fc4b95f452d29, 0x72dc8373be41a455, 0x741cb5281e25ee35,
	0x75606373ee921c98, 0x76a7980f6cca15c3, 0x77f25ccdee6d7ae6, 0x7940bb9e2cffd89d,
	0x7a92be8a92436617, 0x7be86fb985689ddd, 0x7d41d96db915019e, 0x7e9f06067a4360bb,
	0x8000000000000000, // one octave up: the end of the last bucket
}

// bucketGuess[c] is the bucket of the smallest number in cell c, when an octave
// is cut into 128 equal cells. A cell is narrower than any bucket, so that the
// right bucket is this one or the next.
var bucketGuess = [128]uint8{
	0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8, 9, 10,
	10, 11, 12, 12, 13, 14, 14, 15, 15, 16, 17, 17, 18, 18, 19, 20,
	20, 21, 21, 22, 22, 23, 24, 24, 25, 25, 26, 26, 27, 27, 28, 28,
	29, 29, 30, 30, 31, 31, 32, 33, 33, 34, 34, 35, 35, 35, 36, 36,
	37, 37, 38, 38, 39, 39, 40, 40, 41, 41, 42, 42, 43, 43, 43, 44,
	44, 45, 45, 46, 46, 47, 47, 47, 48, 48, 49, 49, 50, 50, 50, 51,
	51, 52, 52, 52, 53, 53, 54, 54, 54, 55, 55, 56, 56, 56, 57, 57,
	58, 58, 58, 59, 59, 59, 60, 60, 61, 61, 61, 62, 62, 62, 63, 63,
}
