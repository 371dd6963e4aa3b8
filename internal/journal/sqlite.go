package journal

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const (
	version     = 1
	application = 0x4d58574c // "MXWL", in the file's header: what file(1) and Open look at
	mode        = 0o600
)

// SQLite is a Store in one file.
type SQLite struct {
	path string
	db   *sql.DB
	lock *host.FileLock // nil where it is only read
	head Head
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
	// Before SQLite does, which would let everybody read it, and its log after it.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, mode)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), lock.Release())
	}
	_ = f.Close()
	s, err := open(path, "mode=rw")
	if err == nil {
		s.lock = lock
		err = s.prepare()
	}
	if err != nil {
		if s != nil {
			err = errors.Join(err, s.db.Close())
		}
		return nil, errors.Join(err, lock.Release())
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
	how := "mode=rw&_pragma=query_only(1)"
	if !host.Writable(path) || !host.Writable(filepath.Dir(path)) {
		how = "mode=ro&immutable=1"
	}
	s, err := open(path, how)
	if err != nil {
		return nil, err
	}
	if err := s.known(); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// open connects. One connection: the journal has one writer, and SQLite's own
// pool would only wait for itself.
func open(path, how string) (*SQLite, error) {
	name := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	name.RawQuery = how + "&_pragma=busy_timeout(5000)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=trusted_schema(0)"
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	return &SQLite{path: path, db: db}, nil
}

// known checks that the file is a journal of a version that is known here.
func (s *SQLite) known() error {
	app, have, err := s.header()
	switch {
	case err != nil:
		return s.plain(err)
	case app != application:
		return fmt.Errorf("journal %s: %w", s.path, ErrForeign)
	case have > version:
		return fmt.Errorf("journal %s: %w", s.path, &NewerError{Have: have, Know: version})
	}
	return nil
}

func (s *SQLite) header() (app, have int, err error) {
	if err = s.db.QueryRow("PRAGMA application_id").Scan(&app); err == nil {
		err = s.db.QueryRow("PRAGMA user_version").Scan(&have)
	}
	return app, have, err
}

// prepare makes the tables of a new file and reads where the journal ends.
func (s *SQLite) prepare() error {
	app, have, err := s.header()
	if err != nil {
		return s.plain(err)
	}
	if app == 0 && have == 0 {
		if err := s.found(); err != nil {
			return err
		}
	}
	if err := s.known(); err != nil {
		return err
	}
	if s.head, err = s.last(); err != nil {
		return s.plain(err)
	}
	return nil
}

// found makes a new journal, unless somebody else's tables are in the file.
func (s *SQLite) found() error {
	var tables int
	if err := s.db.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return s.plain(err)
	}
	if tables > 0 {
		return fmt.Errorf("journal %s: %w", s.path, ErrForeign)
	}
	if _, err := s.db.Exec("PRAGMA journal_mode = WAL"); err != nil {
		return s.plain(err)
	}
	// One transaction: a crash leaves an empty file or a whole journal.
	_, err := s.db.Exec(fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", schema, application, version))
	return s.plain(err)
}

func (s *SQLite) last() (Head, error) {
	var h Head
	var hash []byte
	err := s.db.QueryRow("SELECT seq, hash FROM record ORDER BY seq DESC LIMIT 1").Scan(&h.Seq, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return Head{}, nil
	}
	if copy(h.Hash[:], hash) != len(h.Hash) && err == nil {
		err = fmt.Errorf("hash of record %d has %d bytes", h.Seq, len(hash))
	}
	return h, err
}

// Head implements Store.
func (s *SQLite) Head() (Head, error) {
	if s.lock != nil {
		return s.head, nil
	}
	h, err := s.last()
	return h, s.plain(err)
}

// Append implements Store: one transaction, one flush.
func (s *SQLite) Append(wall time.Time, entries []ledger.Entry) (Head, error) {
	if s.lock == nil {
		return Head{}, fmt.Errorf("journal %s: opened for reading", s.path)
	}
	if len(entries) == 0 {
		return s.head, nil
	}
	tx, err := s.db.Begin()
	if err != nil {
		return s.head, s.plain(err)
	}
	head, err := write(tx, s.head, wall, entries)
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		_ = tx.Rollback() // after a failed commit there may be nothing to take back
		return s.head, s.plain(err)
	}
	s.head = head
	return head, nil
}

func write(tx *sql.Tx, head Head, wall time.Time, entries []ledger.Entry) (Head, error) {
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

// everything is each record with its account or one of its transfers.
const everything = `
SELECT r.seq, r.wall, r.change, r.hash, a.id, a.name, a.kind, a.flags,
       t.part, t.id, t.debit, t.credit, t.pending, t.amount, t.timeout, t.purpose, t.flags, t.user_data, t.at
FROM record r LEFT JOIN account a ON a.seq = r.seq LEFT JOIN transfer t ON t.seq = r.seq
ORDER BY r.seq, t.part`

// Records implements Store.
func (s *SQLite) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		rows, err := s.db.Query(everything)
		if err != nil {
			yield(Record{}, s.plain(err))
			return
		}
		defer rows.Close()
		var rec Record // whose transfers are being collected
		for rows.Next() {
			next, err := scan(rows)
			if err != nil {
				yield(Record{Seq: rec.Seq + 1}, s.plain(fmt.Errorf("read record %d: %w", rec.Seq+1, err)))
				return
			}
			if next.Seq == rec.Seq {
				rec.Chain = append(rec.Chain, next.Chain...)
				continue
			}
			if rec.Seq != 0 && !yield(rec, nil) {
				return
			}
			rec = next
		}
		if err := rows.Err(); err != nil {
			yield(Record{Seq: rec.Seq}, s.plain(err))
			return
		}
		if rec.Seq != 0 {
			yield(rec, nil)
		}
	}
}

// scan reads one row of everything.
func scan(rows *sql.Rows) (Record, error) {
	var rec Record
	var wall int64
	var hash, aid, tid, debit, credit, pending []byte
	var name sql.NullString
	var kind, aflags, part, amount, timeout, purpose, tflags, data, at sql.NullInt64
	err := rows.Scan(&rec.Seq, &wall, &rec.Change, &hash, &aid, &name, &kind, &aflags,
		&part, &tid, &debit, &credit, &pending, &amount, &timeout, &purpose, &tflags, &data, &at)
	if err != nil {
		return rec, err
	}
	rec.Wall = time.Unix(0, wall).UTC()
	copy(rec.Hash[:], hash)
	if aid != nil {
		rec.Account = ledger.Account{Name: name.String, Code: ledger.Kind(kind.Int64), Flags: ledger.AccountFlags(aflags.Int64)}
		copy(rec.Account.ID[:], aid)
	}
	if part.Valid {
		t := ledger.Transfer{
			Amount: unit.Credits(amount.Int64), Timeout: time.Duration(timeout.Int64), Code: ledger.Purpose(purpose.Int64),
			Flags: ledger.TransferFlags(tflags.Int64), UserData: uint64(data.Int64), At: unit.Instant(at.Int64),
		}
		copy(t.ID[:], tid)
		copy(t.Debit[:], debit)
		copy(t.Credit[:], credit)
		copy(t.PendingID[:], pending)
		rec.Chain = []ledger.Transfer{t}
	}
	return rec, nil
}

// Close implements Store. What is in the write-ahead log is moved into the file.
func (s *SQLite) Close() error {
	err := s.plain(s.db.Close())
	if s.lock != nil {
		err = errors.Join(err, s.lock.Release())
	}
	return err
}

// plain names the file, and the class of failure where a caller can tell them
// apart.
func (s *SQLite) plain(err error) error {
	if err == nil {
		return nil
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
