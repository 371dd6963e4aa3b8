package journal

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// nextSuffix is that of the file in the making. Whatever of it is there when nobody
// makes one is dropped.
const nextSuffix = ".next"

// readersPatience bounds the wait for queries of this process to end.
const readersPatience = time.Second

// Rotate implements Store.
//
//	begun    JOURNAL.next is whole and on the disk; nobody knows it yet
//	alone    nobody reads JOURNAL, and its log is in it
//	linked   JOURNAL has its closed name too
//	renamed  JOURNAL.next is JOURNAL
//
// Until the last step JOURNAL is the old file, and from it on the new one: there is
// never a moment without it, and never one with two that go on. What a crash leaves of
// the steps before, tidy drops.
func (s *SQLite) Rotate(wall time.Time, books ledger.Books) (Head, error) {
	if err := s.ready(); err != nil {
		return Head{}, err
	}
	before := *s.head.Load()
	if before.Seq == 0 {
		return before, fmt.Errorf("journal %s: it is empty: there is nothing to bring forward", s.path)
	}
	rec := Record{Seq: before.Seq + 1, Wall: wall, Entry: ledger.Entry{Change: ledger.Carried, Books: &books}}
	rec.Hash = seal(before.Hash, rec.Seq, wall, &rec.Entry)
	err := s.begin(before.Hash, &rec)
	if err == nil {
		s.step("begun")
		err = s.change()
	}
	if err != nil {
		return before, s.plain(errors.Join(err, dropNext(s.path)))
	}
	return *s.head.Load(), nil
}

func (s *SQLite) step(name string) {
	if s.reached != nil {
		s.reached(name)
	}
}

// begin makes the new file, up to its last byte. It needs no log and no flush but the
// last: half of it is nothing.
func (s *SQLite) begin(before Hash, rec *Record) error {
	next := s.path + nextSuffix
	if err := dropNext(s.path); err != nil {
		return err
	}
	f, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_RDWR, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	db, err := connect(next, writing+"&_pragma=main.journal_mode(OFF)")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	err = s.fill(db, before, rec)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return f.Sync()
}

// fill writes what a new file begins with: the books, and all documents.
func (s *SQLite) fill(db *sql.DB, before Hash, rec *Record) error {
	if _, err := db.Exec("ATTACH ? AS old", s.path); err != nil {
		return err
	}
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to take back
	_, err = tx.Exec(fmt.Sprintf("%s; PRAGMA application_id = %d; PRAGMA user_version = %d", strings.Join(upgrades[:], ";"), application, version))
	if err != nil {
		return err
	}
	if err := writeCarried(tx, before, rec); err != nil {
		return err
	}
	s.step("half")
	if _, err := tx.Exec("INSERT INTO main.document SELECT * FROM old.document"); err != nil {
		return err
	}
	return tx.Commit()
}

// change makes the new file the journal, and the old one a closed file.
func (s *SQLite) change() error {
	for until := time.Now().Add(readersPatience); !s.gate.TryLock(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) { // not Lock: who reads may begin another query before he ends
			return ErrReading
		}
	}
	defer s.gate.Unlock()
	closed := closedName(s.path, s.origin.Seq+1, s.head.Load().Seq)
	if err := s.disconnect(); err != nil {
		return errors.Join(err, s.reconnect())
	}
	s.step("alone")
	err := os.Link(s.path, closed)
	if err == nil {
		err = syncDir(s.path)
		s.step("linked")
		if err == nil {
			err = os.Rename(s.path+nextSuffix, s.path)
		}
		if err != nil { // it is still the old one, and has one name
			err = errors.Join(err, os.Remove(closed))
		} else {
			err = syncDir(s.path)
			s.step("renamed")
		}
	}
	return errors.Join(err, s.reconnect())
}

// disconnect closes every connection, after the log was moved into the file and the
// file made one without a log: the name of a log is that of its file, and the next file
// of this name must not find this one's. It fails with ErrReading while another process
// reads the file.
func (s *SQLite) disconnect() error {
	err := s.readers.Close()
	s.readers = nil
	var have string
	if err == nil {
		_, err = s.writer.Exec("PRAGMA busy_timeout = 0")
	}
	if err == nil {
		err = s.writer.QueryRow("PRAGMA journal_mode = DELETE").Scan(&have)
		if isBusy(err) || err == nil && have != "delete" {
			err = ErrReading
		}
	}
	err = errors.Join(err, s.writer.Close())
	s.writer = nil
	return err
}

// reconnect connects to the file that has the journal's name now.
func (s *SQLite) reconnect() error {
	err := s.prepare()
	if err == nil {
		return nil
	}
	for _, db := range []**sql.DB{&s.readers, &s.writer} {
		if *db != nil {
			err = errors.Join(err, (*db).Close())
			*db = nil
		}
	}
	return err
}

// DropClosed implements Store.
func (s *SQLite) DropClosed(before time.Time) (int, error) {
	if err := s.ready(); err != nil {
		return 0, err
	}
	list, err := closedFiles(s.path)
	dropped := 0
	for _, f := range list {
		info, failed := os.Stat(f.path) // closed is when it was last written to
		if failed == nil && info.ModTime().Before(before) {
			if failed = os.Remove(f.path); failed == nil {
				dropped++
			}
		}
		if failed != nil && !errors.Is(failed, fs.ErrNotExist) {
			err = errors.Join(err, failed)
		}
	}
	return dropped, s.plain(err)
}

// tidy drops what a crash has left of a Rotate, and refuses to begin a journal anew
// beside closed files.
func tidy(path string) error {
	if err := dropNext(path); err != nil {
		return err
	}
	list, err := closedFiles(path)
	if err != nil || len(list) == 0 {
		return err
	}
	current, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("it is missing, and %s, which it goes on from, is there: put it back, or move the closed files away to begin anew",
			filepath.Base(list[len(list)-1].path))
	}
	if err != nil {
		return err
	}
	for _, f := range list {
		info, err := os.Stat(f.path)
		if err == nil && os.SameFile(current, info) { // linked, and not yet renamed
			err = errors.Join(os.Remove(f.path), syncDir(path))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropNext removes a file in the making.
func dropNext(path string) error {
	var errs []error
	for _, end := range []string{"", "-journal", "-wal", "-shm"} {
		if err := os.Remove(path + nextSuffix + end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// syncDir makes the names beside path durable.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
