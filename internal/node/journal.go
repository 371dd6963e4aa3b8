package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// keeper writes the journal: it takes whatever the loop has done since its last
// write, and makes it durable in one go. The loop never waits for the disk; the
// journal is behind it by one write. What was handed over in one call is in one
// write.
type keeper struct {
	store journal.Store
	wake  chan struct{} // has room for one note that something waits

	writing sync.Mutex // one write at a time; taken before mu
	carry   carry      // what a new file is begun with
	mu      sync.Mutex
	waiting []ledger.Entry
	notes   map[journal.Ref]note // newest of each
	order   []journal.Ref        // of notes, as they first came
	handed  uint64               // calls of hand
	written uint64               // of which are durable
	news    chan struct{}        // closed when written or err changes
	err     error                // why the last write failed; nil = it did not
	lost    bool                 // entries were dropped: the journal ends before them
}

// note is a document to be kept beside the books, or to be dropped.
type note struct {
	ref  journal.Ref
	uid  uint32
	wall time.Time
	body document // nil = drop it
}

// document is what a note keeps: a value that changes no more, encoded when it is
// written, which is not on the loop's thread.
type document interface {
	encode() ([]byte, error)
}

const (
	// mostWaiting bounds what waits for a disk that takes nothing: some minutes of
	// a thousand wallets. What comes after it is lost to the journal, which then
	// ends before it: a gap would make it worthless.
	mostWaiting = 1 << 18
	writeAgain  = time.Second // after a failure
)

// openKeeper begins a journal; an empty name gives none. The books of a market
// that ends with its clients begin empty, so its journal does too.
func openKeeper(name string) (*keeper, error) {
	if name == "" {
		return nil, nil
	}
	k, head, err := takeKeeper(name)
	if err != nil {
		return nil, err
	}
	if head.Seq > 0 {
		err = fmt.Errorf("journal %s holds the books of an earlier market: name a new file", name)
		return nil, errors.Join(err, k.store.Close())
	}
	return k, nil
}

// takeKeeper opens a journal, new or not, and says where it ends.
func takeKeeper(name string) (*keeper, journal.Head, error) {
	store, err := journal.Create(name)
	if err != nil {
		return nil, journal.Head{}, err
	}
	head, err := store.Head()
	if err != nil {
		return nil, head, errors.Join(err, store.Close())
	}
	return &keeper{store: store, wake: make(chan struct{}, 1), news: make(chan struct{}), notes: make(map[journal.Ref]note)}, head, nil
}

// hand takes entries and notes from the loop. It never waits.
func (k *keeper) hand(entries []ledger.Entry, notes ...note) {
	if len(entries) == 0 && len(notes) == 0 {
		return
	}
	k.mu.Lock()
	k.lost = k.lost || len(k.waiting)+len(entries) > mostWaiting
	if !k.lost {
		k.waiting = append(k.waiting, entries...)
		for i := range notes {
			k.noteLocked(notes[i])
		}
	}
	k.handed++
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) noteLocked(n note) {
	if _, known := k.notes[n.ref]; !known {
		k.order = append(k.order, n.ref)
	}
	k.notes[n.ref] = n
}

// batch takes what waits. Notes that cannot be encoded are left out and named:
// one of them must not hold up the books.
func (k *keeper) batch() (b journal.Batch, notes []note, handed uint64, err error) {
	k.mu.Lock()
	b.Entries, handed = k.waiting, k.handed
	for _, ref := range k.order {
		notes = append(notes, k.notes[ref])
	}
	clear(k.notes)
	k.order = k.order[:0]
	k.mu.Unlock()
	for i := range notes {
		n := &notes[i]
		if n.body == nil {
			b.Drop = append(b.Drop, n.ref)
			continue
		}
		body, bad := n.body.encode()
		if bad != nil {
			err = errors.Join(err, fmt.Errorf("encode %s %s: %w", n.ref.Kind, n.ref.Key, bad))
			continue
		}
		b.Put = append(b.Put, journal.Document{Kind: n.ref.Kind, Key: n.ref.Key, UID: n.uid, Wall: n.wall, Body: body})
	}
	return b, notes, handed, err
}

// write makes durable what waits, and reports the first failure in a row.
func (k *keeper) write() (news error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	b, notes, handed, odd := k.batch()
	var err error
	if len(b.Entries)+len(b.Put)+len(b.Drop) > 0 {
		_, err = k.store.Append(time.Now(), b)
	}
	if err == nil {
		k.carry.follow(b.Entries)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.err
	k.err = err
	if err == nil {
		k.waiting = k.waiting[len(b.Entries):]
		if !k.lost { // else some of it was dropped
			k.written = handed
		}
	} else {
		k.putBackLocked(notes)
	}
	close(k.news)
	k.news = make(chan struct{})
	if err != nil && before == nil {
		return errors.Join(err, odd)
	}
	return odd
}

// putBackLocked gives notes that were not written back, before those that came
// since.
func (k *keeper) putBackLocked(notes []note) {
	since := k.notes
	later := k.order
	k.notes, k.order = make(map[journal.Ref]note), nil
	for i := range notes {
		k.noteLocked(notes[i])
	}
	for _, ref := range later {
		k.noteLocked(since[ref])
	}
}

// errLost says that the journal ends before what is done now.
var errLost = errors.New("the journal ends before what was done while it could not be written; restart the market to go on from there")

// trouble is why new work has to wait: what it pays could not be kept.
func (k *keeper) trouble() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.troubleLocked()
}

func (k *keeper) troubleLocked() error {
	if k.err == nil && k.lost {
		return errLost
	}
	return k.err
}

// over reports whether all that will ever be in the journal is in it, and something was
// done since that is not.
func (k *keeper) over() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lost && k.err == nil && len(k.waiting) == 0
}

// settled waits until everything that was handed over so far is durable, and says
// why it is not where a write failed.
func (k *keeper) settled(ctx context.Context, done <-chan struct{}) error {
	k.mu.Lock()
	until := k.handed
	k.mu.Unlock()
	for {
		k.mu.Lock()
		written, err, news := k.written, k.troubleLocked(), k.news
		k.mu.Unlock()
		switch {
		case written >= until:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			return errClosing
		}
	}
}

// keep writes the journal until the market ends. Owner: Market; end: quit.
func (m *Market) keep() {
	again := time.NewTicker(writeAgain)
	defer again.Stop()
	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-m.keeper.wake:
		case <-again.C:
		case <-prune.C:
			m.prune()
		}
		if err := m.keeper.write(); err != nil {
			m.log.Error("journal", "err", err, "what", "new work is refused until it can be written")
		}
		if m.durable() && m.keeper.over() {
			// Its books are ahead of the journal for good. What is written fits together: the
			// next daemon goes on from there, and until then the watchdog has the groups.
			m.log.Error("journal", "err", errLost, "what", "the daemon ends, to be started again")
			os.Exit(2)
		}
		m.rotate()
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
