package journal

// upgrades make version n+1 of the file of version n, beginning with an empty one.
// They are history: what was released is never changed.
var upgrades = [version]string{records, documents, origins}

// records are append-only: nothing is ever updated or deleted. Ids and hashes are
// blobs; amounts are micro-$J; times are nanoseconds: wall since 1970, at and
// timeout on the node's own clock.
const records = `
CREATE TABLE record (
  seq    INTEGER PRIMARY KEY CHECK (seq > 0),
  wall   INTEGER NOT NULL,
  change INTEGER NOT NULL CHECK (change BETWEEN 1 AND 3), -- 1 opened, 2 forgot, 3 applied
  hash   BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TABLE account ( -- of a record that opened or forgot one
  seq   INTEGER PRIMARY KEY REFERENCES record (seq),
  id    BLOB    NOT NULL CHECK (length(id) = 16),
  name  TEXT    NOT NULL, -- empty where it was forgotten
  kind  INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 65535),
  flags INTEGER NOT NULL CHECK (flags BETWEEN 0 AND 255)
) STRICT;

CREATE TABLE transfer ( -- of a record that applied a chain of them
  seq       INTEGER NOT NULL REFERENCES record (seq),
  part      INTEGER NOT NULL CHECK (part >= 0), -- in the chain
  id        BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
  debit     BLOB    NOT NULL CHECK (length(debit) = 16),
  credit    BLOB    NOT NULL CHECK (length(credit) = 16),
  pending   BLOB    NOT NULL CHECK (length(pending) = 16),
  amount    INTEGER NOT NULL CHECK (amount >= 0),
  timeout   INTEGER NOT NULL CHECK (timeout >= 0),
  purpose   INTEGER NOT NULL CHECK (purpose BETWEEN 0 AND 65535),
  flags     INTEGER NOT NULL CHECK (flags BETWEEN 0 AND 255),
  user_data INTEGER NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (seq, part)
) STRICT, WITHOUT ROWID;
`

// documents are state: replaced and dropped. number is the order in which their
// names came. Beside them what finds the transfers of an account (the rows of an
// index on it are in the order of the primary key), and its name.
const documents = `
CREATE TABLE document (
  number INTEGER PRIMARY KEY,
  kind   TEXT    NOT NULL CHECK (kind <> ''),
  key    TEXT    NOT NULL CHECK (key <> ''),
  uid    INTEGER NOT NULL CHECK (uid BETWEEN 0 AND 4294967295),
  wall   INTEGER NOT NULL,
  body   BLOB    NOT NULL,
  UNIQUE (kind, key)
) STRICT;

CREATE INDEX document_wall ON document (kind, wall);
CREATE INDEX document_uid ON document (kind, uid, wall);

CREATE INDEX transfer_debit ON transfer (debit);
CREATE INDEX transfer_credit ON transfer (credit);
CREATE INDEX account_id ON account (id);
`

// origins are what a file that goes on from another begins with, in one record: the
// books that the files before it gave. Sums are unsigned, 128 bits, big-endian;
// place is the order of a list.
const origins = `
CREATE TABLE carried ( -- one row, or none where the journal begins
  seq     INTEGER PRIMARY KEY CHECK (seq > 1),
  wall    INTEGER NOT NULL,
  hash    BLOB    NOT NULL CHECK (length(hash) = 32),
  before  BLOB    NOT NULL CHECK (length(before) = 32), -- hash of record seq - 1
  last    INTEGER NOT NULL, -- at of the newest transfer
  highest INTEGER NOT NULL  -- user_data
) STRICT;

CREATE TABLE carried_account (
  place           INTEGER PRIMARY KEY,
  id              BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
  name            TEXT    NOT NULL,
  kind            INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 65535),
  flags           INTEGER NOT NULL CHECK (flags BETWEEN 0 AND 255),
  debits_posted   BLOB    NOT NULL CHECK (length(debits_posted) = 16),
  debits_pending  BLOB    NOT NULL CHECK (length(debits_pending) = 16),
  credits_posted  BLOB    NOT NULL CHECK (length(credits_posted) = 16),
  credits_pending BLOB    NOT NULL CHECK (length(credits_pending) = 16)
) STRICT;

CREATE TABLE carried_total ( -- of the accounts that were forgotten
  place    INTEGER PRIMARY KEY, -- their kind
  accounts INTEGER NOT NULL,
  debits   BLOB    NOT NULL CHECK (length(debits) = 16),
  credits  BLOB    NOT NULL CHECK (length(credits) = 16)
) STRICT;

CREATE TABLE carried_hold (
  place     INTEGER PRIMARY KEY,
  id        BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
  debit     BLOB    NOT NULL CHECK (length(debit) = 16),
  credit    BLOB    NOT NULL CHECK (length(credit) = 16),
  amount    INTEGER NOT NULL CHECK (amount >= 0),
  timeout   INTEGER NOT NULL CHECK (timeout >= 0),
  purpose   INTEGER NOT NULL CHECK (purpose BETWEEN 0 AND 65535),
  flags     INTEGER NOT NULL CHECK (flags BETWEEN 0 AND 255),
  user_data INTEGER NOT NULL,
  at        INTEGER NOT NULL
) STRICT;

CREATE TABLE carried_prefix (
  place  INTEGER PRIMARY KEY,
  prefix INTEGER NOT NULL
) STRICT;

CREATE TABLE carried_request (
  place  INTEGER PRIMARY KEY,
  id     BLOB    NOT NULL CHECK (length(id) = 16),
  debit  BLOB    NOT NULL CHECK (length(debit) = 16),
  credit BLOB    NOT NULL CHECK (length(credit) = 16),
  amount INTEGER NOT NULL
) STRICT;
`
