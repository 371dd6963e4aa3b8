package market

import (
	"iter"
	"math/bits"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// bitmap is a two-level set of buckets: words[w] has a bit for each of 64
// buckets, top a bit for each word that is not empty. The best bucket is found
// by two find-first-set instructions.
type bitmap struct {
	top   uint64
	words [Buckets / 64]uint64
}

func (s *bitmap) set(b Bucket) {
	w := uint(b) >> 6
	s.words[w] |= 1 << (uint(b) & 63)
	s.top |= 1 << w
}

func (s *bitmap) unset(b Bucket) {
	w := uint(b) >> 6
	s.words[w] &^= 1 << (uint(b) & 63)
	if s.words[w] == 0 {
		s.top &^= 1 << w
	}
}

func (s *bitmap) has(b Bucket) bool { return s.words[uint(b)>>6]>>(uint(b)&63)&1 != 0 }

// atOrBelow returns the highest bucket of the set that is not above b, or -1.
func (s *bitmap) atOrBelow(b Bucket) Bucket {
	if b < 0 {
		return -1
	}
	w := uint(b) >> 6
	if word := s.words[w] << (63 - uint(b)&63); word != 0 {
		return b - Bucket(bits.LeadingZeros64(word))
	}
	above := s.top & (1<<w - 1)
	if above == 0 {
		return -1
	}
	w = uint(63 - bits.LeadingZeros64(above))
	return Bucket(w<<6) + Bucket(63-bits.LeadingZeros64(s.words[w]))
}

// none is the end of a list.
const none = int32(-1)

// slabBits: 4,096 orders a slab. A larger slab wastes more in a small market,
// a smaller one costs more pointers; growing never moves an order.
const (
	slabBits = 12
	slabSize = 1 << slabBits
)

// resting is one order in the book: 24 bytes, so that a re-price touches at
// most the cache lines of the order and of its neighbours.
type resting struct {
	quantity   unit.CoreTime
	prev, next int32 // in the same bucket, none at the ends
	bucket     Bucket
	_          int32
}

// ends of a bucket's list; without meaning while the bucket is empty.
type ends struct{ first, last int32 }

// Ladder is the book of standing orders by score. Every operation on one order
// is O(1) and allocates nothing once the slab of its slot exists. Equal scores
// rest in order of arrival; a change of quantity alone keeps the place.
// It is not safe for concurrent use.
type Ladder struct {
	book   bitmap
	ends   [Buckets]ends
	depth  [Buckets]unit.CoreTime
	blocks [Buckets / 64]unit.CoreTime // depth per 64 buckets
	total  unit.CoreTime
	orders int
	slabs  []*[slabSize]resting
}

// NewLadder returns an empty book with room for slots 0 to capacity-1; it
// grows as needed.
func NewLadder(capacity int) *Ladder {
	l := &Ladder{}
	if capacity > 0 {
		l.grow(int32(capacity - 1))
	}
	return l
}

func (l *Ladder) grow(slot int32) {
	for int(slot>>slabBits) >= len(l.slabs) {
		slab := new([slabSize]resting)
		for i := range slab {
			slab[i].bucket = -1
		}
		l.slabs = append(l.slabs, slab)
	}
}

func (l *Ladder) at(slot int32) *resting {
	return &l.slabs[slot>>slabBits][slot&(slabSize-1)]
}

// find returns the order in slot, or nil.
func (l *Ladder) find(slot int32) *resting {
	if slot < 0 || int(slot>>slabBits) >= len(l.slabs) {
		return nil
	}
	if o := l.at(slot); o.bucket >= 0 {
		return o
	}
	return nil
}

// Set enters, re-prices or re-sizes the order of slot.
func (l *Ladder) Set(slot int32, b Bucket, q unit.CoreTime) {
	if slot < 0 || b < 0 || b >= Buckets || q < 0 {
		panicf("market: order %d of %d ns in bucket %d cannot stand in the book", slot, q, b)
	}
	if int(slot>>slabBits) >= len(l.slabs) {
		l.grow(slot)
	}
	o := l.at(slot)
	if o.bucket == b {
		l.deepen(b, q-o.quantity)
		o.quantity = q
		return
	}
	if o.bucket >= 0 {
		l.unlink(o)
	}
	o.bucket, o.quantity = b, q
	l.link(slot, o)
}

// Remove takes the order of slot out of the book, if there is one.
func (l *Ladder) Remove(slot int32) {
	if o := l.find(slot); o != nil {
		l.unlink(o)
		o.bucket = -1
	}
}

// link puts o at the tail of its bucket.
func (l *Ladder) link(slot int32, o *resting) {
	b := o.bucket
	end := &l.ends[b]
	o.prev, o.next = none, none
	if l.book.has(b) {
		o.prev = end.last
		l.at(end.last).next = slot
	} else {
		l.book.set(b)
		end.first = slot
	}
	end.last = slot
	l.deepen(b, o.quantity)
	l.orders++
}

func (l *Ladder) unlink(o *resting) {
	b := o.bucket
	end := &l.ends[b]
	if o.prev == none {
		end.first = o.next
	} else {
		l.at(o.prev).next = o.next
	}
	if o.next == none {
		end.last = o.prev
	} else {
		l.at(o.next).prev = o.prev
	}
	if o.prev == none && o.next == none {
		l.book.unset(b)
	}
	l.deepen(b, -o.quantity)
	l.orders--
}

func (l *Ladder) deepen(b Bucket, q unit.CoreTime) {
	l.depth[b] += q
	l.blocks[uint(b)>>6] += q
	l.total += q
}

// Len returns how many orders stand.
func (l *Ladder) Len() int { return l.orders }

// Order returns the standing order of slot.
func (l *Ladder) Order(slot int32) (b Bucket, q unit.CoreTime, ok bool) {
	o := l.find(slot)
	if o == nil {
		return 0, 0, false
	}
	return o.bucket, o.quantity, true
}

// Total returns the demand of the whole book.
func (l *Ladder) Total() unit.CoreTime { return l.total }

// Depth returns the demand that rests in bucket b.
func (l *Ladder) Depth(b Bucket) unit.CoreTime { return l.depth[b] }

// Above returns the demand that rests in buckets above b.
func (l *Ladder) Above(b Bucket) unit.CoreTime {
	sum := unit.CoreTime(0)
	w := uint(b) >> 6
	for i := w + 1; i < uint(len(l.blocks)); i++ {
		sum += l.blocks[i]
	}
	for i := uint(b) + 1; i < (w+1)<<6; i++ {
		sum += l.depth[i]
	}
	return sum
}

// Best returns the highest bucket with an order in it.
func (l *Ladder) Best() (Bucket, bool) {
	b := l.book.atOrBelow(Buckets - 1)
	return b, b >= 0
}

// Below returns the highest bucket below b with an order in it.
func (l *Ladder) Below(b Bucket) (Bucket, bool) {
	b = l.book.atOrBelow(b - 1)
	return b, b >= 0
}

// First returns the order that has rested longest in bucket b.
func (l *Ladder) First(b Bucket) (slot int32, ok bool) {
	if !l.book.has(b) {
		return none, false
	}
	return l.ends[b].first, true
}

// Clear returns the bucket in which supply runs out and what is left for it:
// everything above is served in full, everything below gets nothing. It
// reports false when the whole demand fits.
func (l *Ladder) Clear(supply unit.CoreTime) (b Bucket, left unit.CoreTime, rationed bool) {
	if l.total <= supply {
		return 0, supply - l.total, false
	}
	left = supply
	w := len(l.blocks) - 1
	for ; l.blocks[w] <= left; w-- {
		left -= l.blocks[w]
	}
	b = l.book.atOrBelow(Bucket(w<<6 + 63))
	for ; l.depth[b] <= left; b = l.book.atOrBelow(b - 1) {
		left -= l.depth[b]
	}
	return b, left, true
}

// Orders walks the slots of bucket b in order of arrival. The book must not
// change meanwhile.
func (l *Ladder) Orders(b Bucket) iter.Seq2[int32, unit.CoreTime] {
	return func(yield func(int32, unit.CoreTime) bool) {
		for slot, ok := l.First(b); ok; {
			o := l.at(slot)
			if !yield(slot, o.quantity) {
				return
			}
			slot, ok = o.next, o.next != none
		}
	}
}
