package journal

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/ledger"
)

const (
	version     = 3
	application = 0x4d58574c // "MXWL", in the file's header: what file(1) and Open look at
	mode        = 0o600
)

// SQLite is a Store in one file, and in those that were closed before it. What is
// written goes through one connection, and what is read through others: SQLite's
// write-ahead log lets neither wait for the other.
type SQLite struct {
	path   string
	writer *sql.DB              // nil where the journal is only read, or after a Rotate that ended badly
	lock   *host.FileLock       // nil where the journal is only read
	head   atomic.Pointer[Head] // as well

	gate    sync.RWMutex // held for reading while somebody reads the file
	readers *sql.DB
	version int               // of the file
	origin  Head              // after which it begins
	reached func(step string) // what tests want to know of a Rotate; nil = nothing
}

var _ Store = (*SQLite)(nil)

// Create opens the journal at path for writing and makes it if there is none.
// ErrBusy says that another process writes it, ErrForeign that it is another
// kind of file, *NewerError that a later Maxwell wrote it.
func Create(path string) (*SQLite, error) {
	lock, err := host.LockFile(path + ".lock")
	if errors.Is(err, host.ErrLocked) {
		err = ErrBusy
	}
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	if err := tidy(path); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", path, err), lock.Release())
	}
	// Before SQLite does, which would let everybody read it, and its log after it. One
	// that is there stays closed: to close it would drop the locks of whoever in this
	// process reads it.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, mode)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), lock.Release())
	}
	s := &SQLite{path: path, lock: lock}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Open opens an existing journal for reading. It may be written meanwhile: what
// is read is the journal as it was when the reading began.
func Open(path string) (*SQLite, error) {
	if _, err := os.Stat(path); err != nil {
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	// Whoever may write the file reads it as a writer would, or SQLite leaves its
	// log beside it. Of what he may not write, nobody else's log can be there.
	how := reading
	if !host.Writable(path) || !host.Writable(filepath.Dir(path)) {
		how = "mode=ro&immutable=1"
	}
	s := &SQLite{path: path}
	var err error
	if s.readers, err = connect(path, how); err == nil {
		err = s.known(s.readers)
	}
	if err == nil {
		err = s.begins()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// How to connect: as the one who writes, or as one of those who read beside him.
const (
	writing = "mode=rw"
	reading = "mode=rw&_pragma=query_only(1)"
)

// connect opens no connection yet: that is the first query's.
func connect(path, how string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	name.RawQuery = how + "&_pragma=busy_timeout(5000)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=trusted_schema(0)"
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	return db, nil
}

// known checks that the file is a journal of a version that is known here.
func (s *SQLite) known(db *sql.DB) error {
	app, have, err := header(db)
	switch {
	case err != nil:
		return s.plain(err)
	case app != application:
		return fmt.Errorf("journal %s: %w", s.path, ErrForeign)
	case have > version:
		return fmt.Errorf("journal %s: %w", s.path, &NewerError{Have: have, Know: version})
	}
	s.version = have
	return nil
}

func header(db *sql.DB) (app, have int, err error) {
	if err = db.QueryRow("PRAGMA application_id").Scan(&app); err == nil {
		err = db.QueryRow("PRAGMA user_version").Scan(&have)
	}
	return app, have, err
}

// prepare connects, makes the tables of a new file or those that an older one
// lacks, and reads where the journal ends.
func (s *SQLite) prepare() (err error) {
	if s.writer, err = connect(s.path, writing); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1) // a second one would wait for the first
	s.version = 0
	app, have, err := header(s.writer)
	if err != nil {
		return s.plain(err)
	}
	if app == 0 && have == 0 {
		err = s.unused()
	} else {
		err = s.known(s.writer)
	}
	if err != nil {
		return err
	}
	// Every time: a copy that SQLite made (VACUUM INTO) has lost it.
	if _, err := s.writer.Exec("PRAGMA journal_mode = WAL"); err != nil {
		return s.plain(err)
	}
	if err := s.upgrade(); err != nil {
		return err
	}
	if s.readers, err = connect(s.path, reading); err != nil {
		return err
	}
	if err := s.begins(); err != nil {
		return err
	}
	head, err := s.last()
	s.head.Store(&head)
	return s.plain(err)
}

// begins reads after which record the file begins.
func (s *SQLite) begins() (err error) {
	if s.version >= 3 {
		_, s.origin, _, err = firstCarried(s.readers)
	}
	return s.plain(err)
}

// unused refuses a file in which there are tables that are not ours.
func (s *SQLite) unused() error {
	var tables int
	if err := s.writer.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return s.plain(err)
	}
	if tables > 0 {
		return fmt.Errorf("journal %s: %w", s.path, ErrForeign)
	}
	return nil
}

// upgrade brings the file to the version that is known here, in one transaction: a
// crash leaves what was there before, or all of it.
func (s *SQLite) upgrade() error {
	if s.version == version {
		return nil
	}
	_, err := s.writer.Exec(fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
		strings.Join(upgrades[s.version:], ";"), application, version))
	if err != nil {
		return s.plain(err) // the transaction ends with the connection
	}
	s.version = version
	return nil
}

func (s *SQLite) last() (Head, error) {
	var h Head
	var hash []byte
	err := s.readers.QueryRow("SELECT seq, hash FROM record ORDER BY seq DESC LIMIT 1").Scan(&h.Seq, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		if s.version < 3 {
			return Head{}, nil
		}
		rec, _, _, err := firstCarried(s.readers)
		return Head{Seq: rec.Seq, Hash: rec.Hash}, err
	}
	if copy(h.Hash[:], hash) != len(h.Hash) && err == nil {
		err = fmt.Errorf("hash of record %d has %d bytes", h.Seq, len(hash))
	}
	return h, err
}

// Head implements Store.
func (s *SQLite) Head() (Head, error) {
	if s.lock != nil {
		return *s.head.Load(), nil
	}
	h, err := s.last()
	return h, s.plain(err)
}

// Origin implements Store.
func (s *SQLite) Origin() (Head, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.origin, nil
}

// Append implements Store: one transaction, one flush.
func (s *SQLite) Append(wall time.Time, b Batch) (Head, error) {
	if err := s.ready(); err != nil {
		return Head{}, err
	}
	before := *s.head.Load()
	if b.empty() {
		return before, nil
	}
	tx, err := s.writer.Begin()
	if err != nil {
		return before, s.plain(err)
	}
	head, err := writeEntries(tx, before, wall, b.Entries)
	if err == nil {
		err = writeDocuments(tx, wall, &b)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		_ = tx.Rollback() // after a failed commit there may be nothing to take back
		return before, s.plain(err)
	}
	s.head.Store(&head)
	return head, nil
}

// ready reports whether the journal can be written. It connects again after a Rotate
// that could not.
func (s *SQLite) ready() error {
	switch {
	case s.lock == nil:
		return fmt.Errorf("journal %s: opened for reading", s.path)
	case s.writer != nil:
		return nil
	}
	s.gate.Lock() // nobody reads: there is no connection to do it with
	defer s.gate.Unlock()
	return s.reconnect()
}

func writeEntries(tx *sql.Tx, head Head, wall time.Time, entries []ledger.Entry) (Head, error) {
	if len(entries) == 0 {
		return head, nil
	}
	record, err := tx.Prepare("INSERT INTO record VALUES (?, ?, ?, ?)")
	if err != nil {
		return head, err
	}
	account, err := tx.Prepare("INSERT INTO account VALUES (?, ?, ?, ?, ?)")
	if err != nil {
		return head, err
	}
	transfer, err := tx.Prepare("INSERT INTO transfer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return head, err
	}
	for i := range entries {
		e := &entries[i]
		next := Head{Seq: head.Seq + 1}
		next.Hash = seal(head.Hash, next.Seq, wall, e)
		if _, err := record.Exec(next.Seq, wall.UnixNano(), int(e.Change), next.Hash[:]); err != nil {
			return head, err
		}
		if e.Change != ledger.Applied {
			a := &e.Account
			if _, err := account.Exec(next.Seq, a.ID[:], a.Name, int(a.Code), int(a.Flags)); err != nil {
				return head, err
			}
		}
		for part := range e.Chain {
			t := &e.Chain[part]
			_, err := transfer.Exec(next.Seq, part, t.ID[:], t.Debit[:], t.Credit[:], t.PendingID[:],
				int64(t.Amount), int64(t.Timeout), int(t.Code), int(t.Flags), int64(t.UserData), int64(t.At))
			if err != nil {
				return head, err
			}
		}
		head = next
	}
	return head, nil
}

func writeDocuments(tx *sql.Tx, wall time.Time, b *Batch) error {
	for _, r := range b.Drop {
		if _, err := tx.Exec("DELETE FROM document WHERE kind = ? AND key = ?", r.Kind, r.Key); err != nil {
			return err
		}
	}
	if len(b.Put) == 0 {
		return nil
	}
	put, err := tx.Prepare(`INSERT INTO document (kind, key, uid, wall, body) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (kind, key) DO UPDATE SET uid = excluded.uid, wall = excluded.wall, body = excluded.body`)
	if err != nil {
		return err
	}
	for i := range b.Put {
		d := &b.Put[i]
		at, body := d.Wall, d.Body
		if at.IsZero() {
			at = wall
		}
		if body == nil {
			body = []byte{} // nil would be NULL
		}
		if _, err := put.Exec(d.Kind, d.Key, d.UID, at.UnixNano(), body); err != nil {
			return fmt.Errorf("put %s %s: %w", d.Kind, d.Key, err)
		}
	}
	return nil
}

// Prune implements Store.
func (s *SQLite) Prune(kind string, before time.Time, keep int) (int, error) {
	if err := s.ready(); err != nil {
		return 0, err
	}
	result, err := s.writer.Exec(`DELETE FROM document WHERE kind = ?1 AND wall < ?2 AND number NOT IN (
		SELECT number FROM document WHERE kind = ?1 ORDER BY wall DESC, number DESC LIMIT ?3)`,
		kind, nanos(before), max(keep, 0))
	if err != nil {
		return 0, s.plain(err)
	}
	n, err := result.RowsAffected()
	return int(n), err
}

// Close implements Store. What is in the write-ahead log is moved into the file.
func (s *SQLite) Close() error {
	var err error
	for _, db := range []*sql.DB{s.readers, s.writer} { // the last one moves it
		if db != nil {
			err = errors.Join(err, s.plain(db.Close()))
		}
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Release())
	}
	return err
}

// isBusy reports whether another connection is in the way.
func isBusy(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == codes.SQLITE_BUSY
}

// plain names the file, and the class of failure where a caller can tell them
// apart.
func (s *SQLite) plain(err error) error {
	if err == nil || errors.Is(err, ErrReading) {
		return err
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case codes.SQLITE_FULL:
			return fmt.Errorf("journal %s: %w", s.path, ErrFull)
		case codes.SQLITE_NOTADB:
			return fmt.Errorf("journal %s: %w", s.path, ErrForeign)
		}
	}
	return fmt.Errorf("journal %s: %w", s.path, err)
}
