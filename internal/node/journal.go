package node

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// keeper writes the journal: it takes whatever the loop has done to the books
// since its last write, and makes it durable in one go. The loop never waits for
// the disk; the journal is behind it by one write.
type keeper struct {
	store journal.Store
	wake  chan struct{} // has room for one note that entries wait

	writing sync.Mutex // one write at a time; taken before mu
	mu      sync.Mutex
	waiting []ledger.Entry
	err     error // why the last write failed; nil = it did not
	lost    bool  // entries were dropped: the journal ends before them
}

const (
	// mostWaiting bounds what waits for a disk that takes nothing: some minutes of
	// a thousand wallets. What comes after it is lost to the journal, which then
	// ends before it: a gap would make it worthless.
	mostWaiting = 1 << 18
	writeAgain  = time.Second // after a failure
)

// openKeeper begins a journal; an empty name gives none. The books of a market
// begin empty, so its journal does too.
func openKeeper(name string) (*keeper, error) {
	if name == "" {
		return nil, nil
	}
	store, err := journal.Create(name)
	if err != nil {
		return nil, err
	}
	head, err := store.Head()
	if err == nil && head.Seq > 0 {
		err = fmt.Errorf("journal %s holds the books of an earlier market: name a new file", name)
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &keeper{store: store, wake: make(chan struct{}, 1)}, nil
}

// hand takes entries from the loop. It never waits.
func (k *keeper) hand(entries []ledger.Entry) {
	if len(entries) == 0 {
		return
	}
	k.mu.Lock()
	k.lost = k.lost || len(k.waiting)+len(entries) > mostWaiting
	if !k.lost {
		k.waiting = append(k.waiting, entries...)
	}
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// write makes durable what waits, and reports the first failure in a row.
func (k *keeper) write() (news error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	batch, before := k.waiting, k.err
	k.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	_, err := k.store.Append(time.Now(), journal.Batch{Entries: batch})
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
	if err == nil {
		k.waiting = k.waiting[len(batch):]
	}
	if err != nil && before == nil {
		return err
	}
	return nil
}

// trouble is why new work has to wait: what it pays could not be kept.
func (k *keeper) trouble() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// keep writes the journal until the market ends. Owner: Market; end: quit.
func (m *Market) keep() {
	again := time.NewTicker(writeAgain)
	defer again.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-m.keeper.wake:
		case <-again.C:
		}
		if err := m.keeper.write(); err != nil {
			m.log.Error("journal", "err", err, "what", "new work is refused until it can be written")
		}
	}
}

// endJournal writes the last entries: the loop has ended.
func (m *Market) endJournal() {
	k := m.keeper
	if k == nil {
		return
	}
	err := k.write()
	if k.lost {
		err = errors.Join(err, errors.New("entries were dropped while it could not be written: the journal ends before them"))
	}
	if err = errors.Join(err, k.store.Close()); err != nil {
		m.log.Error("journal", "err", err)
	}
}
