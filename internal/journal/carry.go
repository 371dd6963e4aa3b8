package journal

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func wideBlob(w unit.Wide) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, w.Hi), w.Lo)
}

// parseWide reads what wideBlob wrote; anything else is 0, which no hash fits.
func parseWide(b []byte) unit.Wide {
	if len(b) != 16 {
		return unit.Wide{}
	}
	return unit.Wide{Hi: binary.BigEndian.Uint64(b), Lo: binary.BigEndian.Uint64(b[8:])}
}

// writeCarried writes the record rec, which carries books forward from the record
// with hash before.
func writeCarried(tx *sql.Tx, before Hash, rec *Record) error {
	b := rec.Books
	_, err := tx.Exec("INSERT INTO carried VALUES (?, ?, ?, ?, ?, ?)",
		rec.Seq, rec.Wall.UnixNano(), rec.Hash[:], before[:], int64(b.Last), int64(b.Highest))
	if err != nil {
		return err
	}
	err = insert(tx, "carried_account VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", len(b.Accounts), func(i int) []any {
		a := &b.Accounts[i]
		return []any{
			i, a.ID[:], a.Name, int(a.Code), int(a.Flags), wideBlob(a.DebitsPosted), wideBlob(a.DebitsPending),
			wideBlob(a.CreditsPosted), wideBlob(a.CreditsPending),
		}
	})
	if err != nil {
		return err
	}
	err = insert(tx, "carried_total VALUES (?, ?, ?, ?)", len(b.Retired), func(i int) []any {
		t := &b.Retired[i]
		return []any{i, t.Accounts, wideBlob(t.Debits), wideBlob(t.Credits)}
	})
	if err != nil {
		return err
	}
	err = insert(tx, "carried_hold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", len(b.Holds), func(i int) []any {
		t := &b.Holds[i]
		return []any{
			i, t.ID[:], t.Debit[:], t.Credit[:], int64(t.Amount), int64(t.Timeout), int(t.Code), int(t.Flags),
			int64(t.UserData), int64(t.At),
		}
	})
	if err != nil {
		return err
	}
	err = insert(tx, "carried_prefix VALUES (?, ?)", len(b.Prefixes), func(i int) []any {
		return []any{i, int64(b.Prefixes[i])}
	})
	if err != nil {
		return err
	}
	return insert(tx, "carried_request VALUES (?, ?, ?, ?, ?)", len(b.Requests), func(i int) []any {
		r := &b.Requests[i]
		return []any{i, r.ID[:], r.Debit[:], r.Credit[:], int64(r.Amount)}
	})
}

// insert inserts n rows.
func insert(tx *sql.Tx, into string, n int, row func(i int) []any) error {
	statement, err := tx.Prepare("INSERT INTO " + into)
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := statement.Exec(row(i)...); err != nil {
			return err
		}
	}
	return statement.Close()
}

// firstCarried reads what a file that goes on from another begins with, without its
// books, and after which record; ok says that there is one.
func firstCarried(db *sql.DB) (rec Record, origin Head, ok bool, err error) {
	var wall int64
	var hash, before []byte
	rec = Record{Entry: ledger.Entry{Change: ledger.Carried, Books: &ledger.Books{}}}
	err = db.QueryRow("SELECT seq, wall, hash, before, last, highest FROM carried ORDER BY seq LIMIT 1").Scan(
		&rec.Seq, &wall, &hash, &before, &rec.Books.Last, (*signed)(&rec.Books.Highest))
	if errors.Is(err, sql.ErrNoRows) {
		return rec, origin, false, nil
	}
	rec.Wall = time.Unix(0, wall).UTC()
	copy(rec.Hash[:], hash)
	copy(origin.Hash[:], before)
	origin.Seq = rec.Seq - 1
	return rec, origin, err == nil, err
}

// signed is an unsigned number that is kept in SQLite's signed one.
type signed uint64

// Scan implements sql.Scanner.
func (s *signed) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return errors.New("not an integer")
	}
	*s = signed(n)
	return nil
}

// readCarried reads the books of that record.
func readCarried(db *sql.DB, b *ledger.Books) error {
	var id, debit, credit []byte
	err := selectAll(db, "id, name, kind, flags, debits_posted, debits_pending, credits_posted, credits_pending FROM carried_account", func(rows *sql.Rows) error {
		var a ledger.Account
		var sums [4][]byte
		err := rows.Scan(&id, &a.Name, &a.Code, &a.Flags, &sums[0], &sums[1], &sums[2], &sums[3])
		copy(a.ID[:], id)
		a.DebitsPosted, a.DebitsPending = parseWide(sums[0]), parseWide(sums[1])
		a.CreditsPosted, a.CreditsPending = parseWide(sums[2]), parseWide(sums[3])
		b.Accounts = append(b.Accounts, a)
		return err
	})
	if err != nil {
		return err
	}
	err = selectAll(db, "accounts, debits, credits FROM carried_total", func(rows *sql.Rows) error {
		var t ledger.Total
		err := rows.Scan(&t.Accounts, &debit, &credit)
		t.Debits, t.Credits = parseWide(debit), parseWide(credit)
		b.Retired = append(b.Retired, t)
		return err
	})
	if err != nil {
		return err
	}
	err = selectAll(db, "id, debit, credit, amount, timeout, purpose, flags, user_data, at FROM carried_hold", func(rows *sql.Rows) error {
		var t ledger.Transfer
		err := rows.Scan(&id, &debit, &credit, &t.Amount, &t.Timeout, &t.Code, &t.Flags, (*signed)(&t.UserData), &t.At)
		copy(t.ID[:], id)
		copy(t.Debit[:], debit)
		copy(t.Credit[:], credit)
		b.Holds = append(b.Holds, t)
		return err
	})
	if err != nil {
		return err
	}
	err = selectAll(db, "prefix FROM carried_prefix", func(rows *sql.Rows) error {
		var prefix signed
		err := rows.Scan(&prefix)
		b.Prefixes = append(b.Prefixes, uint64(prefix))
		return err
	})
	if err != nil {
		return err
	}
	return selectAll(db, "id, debit, credit, amount FROM carried_request", func(rows *sql.Rows) error {
		var r ledger.Request
		err := rows.Scan(&id, &debit, &credit, &r.Amount)
		copy(r.ID[:], id)
		copy(r.Debit[:], debit)
		copy(r.Credit[:], credit)
		b.Requests = append(b.Requests, r)
		return err
	})
}

// selectAll reads a list in its order.
func selectAll(db *sql.DB, what string, row func(*sql.Rows) error) error {
	rows, err := db.Query("SELECT " + what + " ORDER BY place")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
