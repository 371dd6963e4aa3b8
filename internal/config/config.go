package config

import (
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// DefaultFile is read if no file is named, and may be absent.
const DefaultFile = "/etc/maxwell/maxwell.yaml"

// Config is the effective configuration of the daemon.
type Config struct {
	Node    Node
	State   string // directory of the journal
	Socket  Socket
	Admins  Admins
	Enforce Enforce // for work that no rule matches, and rules that do not say
	// Defaults is the wallet of work that no rule matches, and what rules leave
	// out.
	Defaults Wallet
	Rules    []Rule // the first match wins
	Grid     Grid
	Metrics  Metrics
	TCP      TCP
	// EnergyQuantum is the shortest time over which somebody who is no admin is
	// told an energy: finer readings give secrets of other processes away.
	EnergyQuantum time.Duration
	Engines       []string // sockets of container engines; none = the usual ones
	Log           Log
	Keep          Keep

	file    string
	origins map[string]Origin // by path; absent: the default
}

// Node is what the market sells, and how it is enforced.
type Node struct {
	fleet.Node
	Enforcement string // auto, cgroup or signal
}

// Socket is where clients call.
type Socket struct {
	Path   string
	Access Access
}

// Access says who may connect to the socket; what a caller may do is decided by
// who it is.
type Access struct {
	Group string // not empty: this group and root
	Owner bool   // root alone
}

// Mode is the permission of the socket's file. With a Group the file belongs to
// it.
func (a Access) Mode() fs.FileMode {
	switch {
	case a.Owner:
		return 0o600
	case a.Group != "":
		return 0o660
	default:
		return 0o666
	}
}

// Admins may act for everybody, as root may.
type Admins struct {
	Users, Groups []string // names or numbers
}

// Grid says where the grid price is told: how dear electricity is now.
type Grid struct {
	File  string        // of one factor, as 1.5x; empty: 1x
	Valid time.Duration // how long what was written holds; 0: as long as it is there
}

// Metrics is the endpoint for Prometheus.
type Metrics struct {
	Listen Address
}

// TCP is the API for other machines, by mutual TLS only.
type TCP struct {
	Listen              Address
	Cert, Key, ClientCA string // files
}

// Address is where to listen.
type Address struct {
	Network string // "" (off), "unix" or "tcp"
	Text    string // a path, or host:port
}

// Log is how much is logged.
type Log struct {
	Level slog.Level
}

// Keep says how long what is over can be asked for. The sums of the ledger are kept for
// ever; Journal is for the closed files that prove how they came about, 0 = for ever too.
type Keep struct {
	Receipts, Events, Journal time.Duration
}

// Enforce says what Maxwell does about work that it governs.
type Enforce uint8

// The steps of an introduction. Observe and Warn meter and change no weight; both
// note what On would have done, Warn also tells those whom it would have hit.
const (
	Observe Enforce = iota
	Warn
	On
)

// String is the word in the file.
func (e Enforce) String() string {
	switch e {
	case Warn:
		return "warn"
	case On:
		return "on"
	default:
		return "observe"
	}
}

// ParseEnforce reads "observe", "warn" or "on".
func ParseEnforce(text string) (Enforce, error) {
	for _, e := range []Enforce{Observe, Warn, On} {
		if text == e.String() {
			return e, nil
		}
	}
	return 0, &fleet.Problem{Text: text, Reason: "unknown choice", Fix: "write observe, warn or on"}
}

// Wallet is a template: what the wallet of matching work is called and has.
type Wallet struct {
	Name      string // template, as "{user}"
	Parent    string // template; empty: none
	Allowance unit.Allowance
	Most      unit.Credits // cap on saving, 0: see Saves
	Bid       fleet.Bid
	MaxBid    unit.Price
	Cores     unit.MilliCores // 0: all that are for sale
	Memory    unit.Bytes      // 0: no cap
	Pids      int64           // 0: no cap
	WhenBroke fleet.WhenBroke
}

// Open says that the wallet has no allowance: it is minted as used, and nothing
// is limited by money.
func (w *Wallet) Open() bool { return w.Allowance == unit.Allowance{} }

// Personal says that the wallet is named after its user: nobody else's work is ever
// paid from it.
func (w *Wallet) Personal() bool {
	return strings.Contains(w.Name, "{user}") || strings.Contains(w.Name, "{uid}")
}

// Saves is the most that the allowance fills the wallet to: Most, or if that is
// not set what comes in one period.
func (w *Wallet) Saves() unit.Credits {
	if w.Most == 0 {
		return w.Allowance.Amount
	}
	return w.Most
}

// Rule binds work to a wallet.
type Rule struct {
	Match   Match
	Enforce Enforce
	Wallet  Wallet
	Place   fleet.Place // in the file; zero for the defaults
}

// Match says which work a rule is for: all keys that are set must hold, and of
// each one word.
type Match struct {
	Users      []string // names or uids
	Groups     []string // names or gids
	Cgroups    []string // patterns
	Containers []string // ids or their beginnings; * is any
	Labels     []string // key=value
}

// Layer is where a value came from.
type Layer uint8

// The layers, in the order in which they win.
const (
	Default Layer = iota
	File
	Environment
	Flag
)

// Origin is where a value was set.
type Origin struct {
	Layer  Layer
	Name   string // the file, the variable or the key of the flag
	Line   int    // in the file
	Column int
}

// Origin tells where the value of a key such as "node.cores" came from.
func (c *Config) Origin(path string) Origin { return c.origins[path] }

// New is the configuration without any layer: what is there after installation.
func New() *Config {
	return &Config{
		Node:   Node{Enforcement: "auto"},
		State:  "/var/lib/maxwell",
		Socket: Socket{Path: "/run/maxwell/market.sock"},
		Defaults: Wallet{
			Name:   "{user}",
			Bid:    fleet.Bid{Price: fleet.DefaultBid},
			MaxBid: fleet.DefaultMaxBid,
		},
		EnergyQuantum: minQuantum,
		Keep:          Keep{Receipts: 30 * day, Events: 7 * day},
		origins:       map[string]Origin{},
	}
}

const (
	day = 24 * time.Hour
	// minQuantum is the interval from which on the energy counters of others
	// tell nothing about their secrets (PLATYPUS, CVE-2020-8694).
	minQuantum = 100 * time.Millisecond
	maxQuantum = time.Hour
)
