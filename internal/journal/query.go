package journal

import (
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// everything is each record with its account or one of its transfers.
const everything = `
SELECT r.seq, r.wall, r.change, r.hash, a.id, a.name, a.kind, a.flags,
       t.part, t.id, t.debit, t.credit, t.pending, t.amount, t.timeout, t.purpose, t.flags, t.user_data, t.at
FROM record r LEFT JOIN account a ON a.seq = r.seq LEFT JOIN transfer t ON t.seq = r.seq
ORDER BY r.seq, t.part`

// Records implements Store.
func (s *SQLite) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s.gate.RLock()
		defer s.gate.RUnlock()
		var rec Record // whose transfers are being collected
		failed := func(err error) {
			yield(Record{Seq: rec.Seq + 1}, s.plain(fmt.Errorf("read record %d: %w", rec.Seq+1, err)))
		}
		if s.readers == nil {
			failed(errAway)
			return
		}
		first, ok, err := s.carried()
		if err != nil {
			failed(err)
			return
		}
		if ok && !yield(first, nil) {
			return
		}
		rows, err := s.readers.Query(everything)
		if err != nil {
			failed(err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			next, err := scan(rows)
			if err != nil {
				failed(err)
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
			failed(err)
			return
		}
		if rec.Seq != 0 {
			yield(rec, nil)
		}
	}
}

// carried is the record that brings the books forward, if the file begins with one.
func (s *SQLite) carried() (Record, bool, error) {
	if s.version < 3 {
		return Record{}, false, nil
	}
	rec, _, ok, err := firstCarried(s.readers)
	if !ok || err != nil {
		return Record{}, false, err
	}
	return rec, true, readCarried(s.readers, rec.Books)
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

// Documents implements Store. A file of version 1 has none.
func (s *SQLite) Documents(q Query) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		if q.Kind == "" {
			yield(Document{}, errors.New("a query of documents names no kind"))
			return
		}
		s.gate.RLock()
		defer s.gate.RUnlock()
		if s.version >= 2 {
			text, args := q.sql()
			each(s, text, args, scanDocument, yield)
		}
	}
}

// sql is the query in SQL. An index gives the order, so that a limit is the work.
func (q *Query) sql() (string, []any) {
	var b strings.Builder
	b.WriteString("SELECT kind, key, uid, wall, body FROM document WHERE kind = ?")
	args := []any{q.Kind}
	and := func(condition string, arg any) {
		b.WriteString(" AND " + condition)
		args = append(args, arg)
	}
	if q.Key != "" {
		and("key = ?", q.Key)
	}
	if q.UID != nil {
		and("uid = ?", *q.UID)
	}
	if !q.Since.IsZero() {
		and("wall >= ?", nanos(q.Since))
	}
	if q.Newest {
		b.WriteString(" ORDER BY wall DESC, number DESC LIMIT ?")
	} else {
		b.WriteString(" ORDER BY wall, number LIMIT ?")
	}
	return b.String(), append(args, limit(q.Limit))
}

func limit(n int) int {
	if n == 0 {
		return math.MaxInt
	}
	return n
}

// nanos is a bound in the file's time, also where it is before or after all of that.
func nanos(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func scanDocument(rows *sql.Rows) (Document, error) {
	var d Document
	var wall int64
	err := rows.Scan(&d.Kind, &d.Key, &d.UID, &wall, &d.Body)
	d.Wall = time.Unix(0, wall).UTC()
	return d, err
}

// Transfers implements Store. In a file of version 1 it looks at every transfer.
func (s *SQLite) Transfers(q TransferQuery) iter.Seq2[Posting, error] {
	return func(yield func(Posting, error) bool) {
		s.gate.RLock()
		defer s.gate.RUnlock()
		found := 0
		counted := func(p Posting, err error) bool {
			found++
			return yield(p, err) && err == nil
		}
		text, args := q.sql(s.version)
		more, at := each(s, text, args, scanPosting, counted), s.origin
		for left := q; more && at.Seq > 0; {
			if left.Limit = q.Limit - found; q.Limit > 0 && left.Limit <= 0 {
				return
			}
			f, ok, err := closedAt(s.path, at.Seq)
			if err != nil {
				counted(Posting{}, s.plain(err))
			}
			if !ok || err != nil { // moved away, and so are those before it
				return
			}
			at, more = f.transfers(&left, counted)
		}
	}
}

// transfers reads a closed file, and returns after which record it begins and whether
// to go on before it.
func (f *closedFile) transfers(q *TransferQuery, yield func(Posting, error) bool) (origin Head, more bool) {
	s, err := Open(f.path)
	if err != nil {
		yield(Posting{}, err)
		return Head{}, false
	}
	text, args := q.sql(s.version)
	more = each(s, text, args, scanPosting, yield)
	if err := s.Close(); err != nil && more {
		yield(Posting{}, err)
		return Head{}, false
	}
	return s.origin, more
}

// postings is each transfer with what other tables know of it.
func postings(version int) string {
	name := func(id string) string {
		text := "(SELECT a.name FROM account a WHERE a.id = " + id + " AND a.name <> '' ORDER BY a.seq DESC LIMIT 1)"
		if version < 3 {
			return text
		}
		return "coalesce(" + text + ", (SELECT c.name FROM carried_account c WHERE c.id = " + id + "))"
	}
	return `
SELECT seq, part, id, debit, credit, pending, amount, timeout, purpose, flags, user_data, at,
  (SELECT r.wall FROM record r WHERE r.seq = t.seq), ` + name("t.debit") + ", " + name("t.credit") + `
FROM transfer t`
}

// sql is the query in SQL. Two indices give one half each of an account's transfers,
// in order, and SQLite merges them: here too a limit is the work. (No transfer is in
// both: the books refuse one from an account to itself.)
func (q *TransferQuery) sql(version int) (string, []any) {
	postings := postings(version)
	const newest = " ORDER BY seq DESC, part DESC LIMIT ?"
	if q.Account.IsZero() {
		return postings + newest, []any{limit(q.Limit)}
	}
	id := q.Account[:]
	return postings + " WHERE debit = ? UNION ALL " + postings + " WHERE credit = ?" + newest,
		[]any{id, id, limit(q.Limit)}
}

func scanPosting(rows *sql.Rows) (Posting, error) {
	var p Posting
	var part int
	var id, debit, credit, pending []byte
	var data int64
	var wall sql.NullInt64
	var debitName, creditName sql.NullString
	err := rows.Scan(&p.Seq, &part, &id, &debit, &credit, &pending, &p.Amount, &p.Timeout, &p.Code, &p.Flags, &data, &p.At,
		&wall, &debitName, &creditName)
	if err != nil {
		return p, err
	}
	copy(p.ID[:], id)
	copy(p.Debit[:], debit)
	copy(p.Credit[:], credit)
	copy(p.PendingID[:], pending)
	p.UserData, p.Wall = uint64(data), time.Unix(0, wall.Int64).UTC()
	p.DebitName, p.CreditName = debitName.String, creditName.String
	return p, nil
}

// errAway is why a query cannot be answered: a Rotate ended badly, and the next that
// is written connects again.
var errAway = errors.New("not open; the next that is written opens it again")

// each yields what scan makes of each row. It returns false where the rest is not
// wanted, or could not be read.
func each[T any](s *SQLite, text string, args []any, scan func(*sql.Rows) (T, error), yield func(T, error) bool) bool {
	var none T
	if s.readers == nil {
		yield(none, s.plain(errAway))
		return false
	}
	rows, err := s.readers.Query(text, args...)
	if err != nil {
		yield(none, s.plain(err))
		return false
	}
	defer rows.Close()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			yield(none, s.plain(err))
			return false
		}
		if !yield(v, nil) {
			return false
		}
	}
	if err := rows.Err(); err != nil {
		yield(none, s.plain(err))
		return false
	}
	return true
}
