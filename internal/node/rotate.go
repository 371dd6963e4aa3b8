package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// rotateAfter is how many records a file of a daemon's journal has before the next is
// begun. A restart reads that many: 200,000 take some 4 to 10 s and 160 MB, and are five
// hours of ten paying wallets. Raised, a restart takes longer; lowered, the keeper is
// away more often (a moment with ten wallets, half a second with a thousand).
const rotateAfter = 200_000

// rotateAgain is how long to wait after a rotation that was put off or failed.
const rotateAgain = time.Minute

// carry follows what the keeper has made durable, so that a new file of the journal can
// be begun with the books that the one before it gave. The zero value never begins one.
type carry struct {
	tally *demon.Tally // nil = the journal stays in one file
	after uint64       // records in a file
	from  time.Time    // not before
	err   error        // why it follows no more; reported once
}

func newCarry() carry { return carry{tally: demon.NewTally(), after: rotateAfter} }

// follow takes what is durable. What does not fit is a defect, and no reason to stop
// writing: the journal stays whole, in a file that grows.
func (c *carry) follow(entries []ledger.Entry) {
	for i := range entries {
		if c.tally == nil {
			return
		}
		if status := c.tally.Replay(&entries[i]); status != ledger.OK {
			c.tally = nil
			c.err = fmt.Errorf("an entry (%v) does not fit the books before it: %v; run maxwell audit verify", entries[i].Change, status)
		}
	}
}

// rotate begins a new file of the journal if the present one is long enough, and returns
// its first record; 0 = it did not.
func (k *keeper) rotate(now time.Time) (seq uint64, err error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	c := &k.carry
	if c.tally == nil {
		err, c.err = c.err, nil
		return 0, err
	}
	head, err := k.store.Head()
	if err != nil {
		return 0, err
	}
	origin, err := k.store.Origin()
	if err != nil || head.Seq-origin.Seq <= c.after || now.Before(c.from) {
		return 0, err
	}
	books := c.tally.Books()
	if head, err = k.store.Rotate(now, books); err != nil {
		c.from = now.Add(rotateAgain)
		return 0, err
	}
	return head.Seq, nil
}

// rotate is the keeper's, and says what came of it.
func (m *Market) rotate() {
	switch seq, err := m.keeper.rotate(time.Now()); {
	case errors.Is(err, journal.ErrReading):
		m.log.Info("the journal's next file has to wait", "why", err, "until", rotateAgain.String())
	case err != nil:
		m.fault("begin the journal's next file", err)
	case seq > 0:
		m.log.Info("the journal goes on in a new file", "record", seq)
	}
}
