package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// ID names an account or a transfer: 128 bits made by whoever asks, before
// asking. The zero ID names nothing and is refused everywhere.
type ID [16]byte

// MakeID builds an id from two numbers, say a node's random prefix and a
// sequence. Ids made so sort as the pair (hi, lo).
func MakeID(hi, lo uint64) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:8], hi)
	binary.BigEndian.PutUint64(id[8:], lo)
	return id
}

// Parts returns the two numbers that MakeID built the id from.
func (i ID) Parts() (hi, lo uint64) {
	return binary.BigEndian.Uint64(i[:8]), binary.BigEndian.Uint64(i[8:])
}

// NameID is the id of the account called name: the first 128 bits of its
// SHA-256. A fast hash will not do, because workload names come from people
// who may want to share somebody else's wallet.
func NameID(name string) ID {
	sum := sha256.Sum256([]byte(name))
	return ID(sum[:16])
}

// ParseID reads what String prints: 32 lower-case hexadecimal digits.
func ParseID(text string) (ID, error) {
	var id ID
	if len(text) != 2*len(id) {
		return ID{}, fmt.Errorf("id %q: want %d hexadecimal digits, have %d", text, 2*len(id), len(text))
	}
	if _, err := hex.Decode(id[:], []byte(text)); err != nil {
		return ID{}, fmt.Errorf("id %q: %w", text, err)
	}
	if id.String() != text {
		return ID{}, fmt.Errorf("id %q: upper-case digits; write %s", text, id)
	}
	return id, nil
}

// String prints the id as 32 hexadecimal digits.
func (i ID) String() string { return hex.EncodeToString(i[:]) }

// MarshalText writes what String prints.
func (i ID) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (i *ID) UnmarshalText(text []byte) error {
	id, err := ParseID(string(text))
	if err == nil {
		*i = id
	}
	return err
}

// IsZero reports whether the id names nothing.
func (i ID) IsZero() bool { return i == ID{} }
