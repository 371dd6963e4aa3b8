package work

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// HashBatch is the kind under which the hash miner reports.
const HashBatch = "hash-batch"

// links is the length of one batch.
const links = 16_384

// Hash is a miner: a chain of hashes, and the luckiest link seen.
type Hash struct {
	link [sha256.Size]byte
	best int
}

// NewHash starts the chain at a hash of nothing.
func NewHash() *Hash { return &Hash{link: sha256.Sum256(nil)} }

// Unit adds one batch of links and returns the most leading zero bits seen in
// any link so far, which is what a miner would sell.
func (h *Hash) Unit() int {
	for range links {
		h.link = sha256.Sum256(h.link[:])
		h.best = max(h.best, bits.LeadingZeros64(binary.BigEndian.Uint64(h.link[:8])))
	}
	return h.best
}

// Link is the end of the chain.
func (h *Hash) Link() [sha256.Size]byte { return h.link }
