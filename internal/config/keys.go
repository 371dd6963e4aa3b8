package config

import (
	"strings"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/strict"
)

// key is one row of the schema. The guide, the installed file, the names of the
// environment's variables and all reading and writing come from it.
type key struct {
	path     string // node.cores
	example  string // parses
	standard string // the default as it is written; empty if it has no text
	absent   string // what the default is then, in words
	about    string
	list     bool
	set      func(c *Config, words []string) error // one word unless list
	get      func(c *Config) []string              // empty: at its default, or none
}

// notes are the words about a field that is declared elsewhere.
type notes struct {
	name, example, standard, absent, about string
}

var nodeNotes = []notes{
	{name: "cores", absent: "all that the daemon may use", about: "cores for sale; `0.5` is half of one"},
	{name: "watts", absent: "not limited", about: "the most that sold work may burn above idle"},
	{name: "watts_per_core", absent: "the sensor's or model's figure", about: "what a busy core draws; narrows the model to +-10 %"},
	{name: "idle_watts", absent: "observed, or the model's", about: "what the machine draws at rest"},
	{name: "floor", absent: "`2%`", about: "share of supply that goes round among all who wait; `0` turns it off, at most `20%`"},
	{name: "epoch", absent: "`50ms` up to 200 workloads, `100ms` above", about: "one round of the market, `10ms` to `1s`"},
}

var walletNotes = []notes{
	{"name", "{user}", "{user}", "", "the wallet's name; `{user}` `{uid}` `{group}` `{container}` `{cgroup}` stand for what matched"},
	{"parent", "{group}", "", "none", "the wallet that it draws from, a name like `name`; made when it is first needed, empty: fund it or give it an allowance"},
	{"allowance", "50k/day", "", "none: the wallet is open, nothing is limited by money", "$J that come by the `day`, `h`, `min` or `s`, little by little"},
	{"most", "100k", "", "one period of the allowance", "cap on saving: what the allowance fills the wallet to"},
	{"bid", "2x", "2x", "", "what work bids unless its owner says otherwise; `auto` spends the allowance evenly"},
	{"max_bid", "8x", "8x", "", "the most that anybody but an admin may bid from this wallet"},
	{"cores", "2", "", "all that are for sale", "most cores at any moment, for all work of the wallet together"},
	{"memory", "4G", "", "no cap", "memory cap, likewise (`4G` is 4 GiB)"},
	{"pids", "512", "", "no cap", "most processes and threads, likewise"},
	{"when_broke", "pause", "", "`pause` with an allowance, else `stop`", "`pause`: frozen until there is money again; `stop`: ends after the grace"},
}

// keys is the schema, in the order in which it is written.
func keys() []key {
	var all []key
	for _, n := range nodeNotes {
		all = append(all, nodeKey(n))
	}
	all = append(
		all,
		word("node.enforcement", "auto", "auto", "", "how winners run and losers wait: `cgroup` (weights, freezer), `signal` (stop signals), or the best of them",
			func(c *Config, s string) (err error) {
				c.Node.Enforcement, err = choice(s, "auto", "cgroup", "signal")
				return err
			},
			func(c *Config) string { return c.Node.Enforcement }),
		word("state", "/var/lib/maxwell", "/var/lib/maxwell", "", "directory of the journal (`journal.sqlite`) and of receipts",
			func(c *Config, s string) (err error) { c.State, err = absolute(s); return err },
			func(c *Config) string { return c.State }),
		word("socket.path", "/run/maxwell/market.sock", "/run/maxwell/market.sock", "", "where clients call",
			func(c *Config, s string) (err error) { c.Socket.Path, err = socketPath(s); return err },
			func(c *Config) string { return c.Socket.Path }),
		word("socket.access", "everybody", "everybody", "", "who may connect: `everybody` (each acts for itself only), `group:NAME`, or `owner` (root)",
			func(c *Config, s string) (err error) { c.Socket.Access, err = parseAccess(s); return err },
			func(c *Config) string { return c.Socket.Access.String() }),
		listed("admins.users", "[anna]", "nobody but root", "users who may act for everybody",
			func(c *Config) *[]string { return &c.Admins.Users }),
		listed("admins.groups", "[maxwell]", "none", "groups whose members may",
			func(c *Config) *[]string { return &c.Admins.Groups }),
		word("enforce", "observe", "observe", "", "`observe`: measure and note what would have been done; `warn`: tell people too; `on`: do it. For work that no rule matches, and rules that do not say",
			func(c *Config, s string) (err error) { c.Enforce, err = ParseEnforce(s); return err },
			func(c *Config) string { return c.Enforce.String() }),
	)
	for _, n := range walletNotes {
		f := walletField(n.name)
		all = append(all, key{
			path: "defaults." + n.name, example: n.example, standard: n.standard, absent: n.absent, about: n.about,
			set: func(c *Config, words []string) error { return f.Set(&c.Defaults, words[0]) },
			get: func(c *Config) []string { return some(f.Get(&c.Defaults)) },
		})
	}
	return append(all, serviceKeys()...)
}

// serviceKeys are those after the rules.
func serviceKeys() []key {
	return []key{
		{
			path: "engines", example: "[/run/docker.sock]", absent: "`/run/docker.sock` and `/run/podman/podman.sock`", list: true,
			about: "sockets of container engines that are asked for labels, if a rule has one",
			set: func(c *Config, words []string) error {
				c.Engines = nil
				for _, w := range words {
					path, err := socketPath(w)
					if err != nil {
						return err
					}
					c.Engines = append(c.Engines, path)
				}
				return nil
			},
			get: func(c *Config) []string { return c.Engines },
		},
		word("grid.file", "/var/lib/maxwell/grid-price", "", "none: always 1x", "a file of one number: how dear electricity is now, as a multiple of the reference, `1.5x`. Read once a second; prices follow it by at most 10 % a minute, within 0.1x and 10x",
			func(c *Config, s string) (err error) { c.Grid.File, err = absolute(s); return err },
			func(c *Config) string { return c.Grid.File }),
		word("grid.valid", "2h", "", "as long as it is there", "how long the number holds after it was written; then prices return to 1x. One that can no longer be read holds as long, or for an hour",
			func(c *Config, s string) (err error) { c.Grid.Valid, err = span(s); return err },
			func(c *Config) string { return spanOrNone(c.Grid.Valid) }),
		word("metrics.listen", "127.0.0.1:9273", "", "off", "figures for Prometheus: a port of this machine, or the path of a unix socket",
			func(c *Config, s string) (err error) { c.Metrics.Listen, err = metricsAddress(s); return err },
			func(c *Config) string { return c.Metrics.Listen.Text }),
		word("tcp.listen", "0.0.0.0:9274", "", "off", "the API for other machines; needs the three files below",
			func(c *Config, s string) (err error) { c.TCP.Listen, err = tcpAddress(s); return err },
			func(c *Config) string { return c.TCP.Listen.Text }),
		word("tcp.cert", "/etc/maxwell/tls/cert.pem", "", "none", "certificate of this machine",
			func(c *Config, s string) (err error) { c.TCP.Cert, err = absolute(s); return err },
			func(c *Config) string { return c.TCP.Cert }),
		word("tcp.key", "/etc/maxwell/tls/key.pem", "", "none", "its key",
			func(c *Config, s string) (err error) { c.TCP.Key, err = absolute(s); return err },
			func(c *Config) string { return c.TCP.Key }),
		word("tcp.client_ca", "/etc/maxwell/tls/clients.pem", "", "none", "who signs the certificates of callers",
			func(c *Config, s string) (err error) { c.TCP.ClientCA, err = absolute(s); return err },
			func(c *Config) string { return c.TCP.ClientCA }),
		word("energy_quantum", "100ms", "100ms", "", "the shortest time over which anybody but an admin is told an energy, `100ms` or more: finer readings give secrets away",
			func(c *Config, s string) (err error) { c.EnergyQuantum, err = quantum(s); return err },
			func(c *Config) string { return c.EnergyQuantum.String() }),
		word("log.level", "info", "info", "", "`debug`, `info`, `warn` or `error`",
			func(c *Config, s string) (err error) { c.Log.Level, err = level(s); return err },
			func(c *Config) string { return strings.ToLower(c.Log.Level.String()) }),
		word("keep.receipts", "30d", "30d", "", "how long receipts can be asked for; the ledger itself is kept",
			func(c *Config, s string) (err error) { c.Keep.Receipts, err = span(s); return err },
			func(c *Config) string { return formatSpan(c.Keep.Receipts) }),
		word("keep.events", "7d", "7d", "", "how long events can",
			func(c *Config, s string) (err error) { c.Keep.Events, err = span(s); return err },
			func(c *Config) string { return formatSpan(c.Keep.Events) }),
		word("keep.journal", "365d", "", "for ever", "how long closed files of the journal stay in `state`: every 200,000 records one is closed, of about 160 MB. Without the older ones the books are whole, but no longer proved from the beginning",
			func(c *Config, s string) (err error) { c.Keep.Journal, err = span(s); return err },
			func(c *Config) string {
				if c.Keep.Journal == 0 {
					return ""
				}
				return formatSpan(c.Keep.Journal)
			}),
	}
}

func word(path, example, standard, absent, about string, set func(*Config, string) error, get func(*Config) string) key {
	return key{
		path: path, example: example, standard: standard, absent: absent, about: about,
		set: func(c *Config, words []string) error { return set(c, words[0]) },
		get: func(c *Config) []string { return some(get(c)) },
	}
}

func listed(path, example, absent, about string, target func(*Config) *[]string) key {
	return key{
		path: path, example: example, absent: absent, about: about, list: true,
		set: func(c *Config, words []string) error {
			for _, w := range words {
				if err := checkAccount(w); err != nil {
					return err
				}
			}
			*target(c) = words
			return nil
		},
		get: func(c *Config) []string { return *target(c) },
	}
}

// nodeKey is a key that fleet files have too.
func nodeKey(n notes) key {
	f := strict.Find(fleet.NodeFields(), n.name)
	return word("node."+n.name, f.Example, n.standard, n.absent, n.about,
		func(c *Config, s string) error { return f.Set(&c.Node.Node, s) },
		func(c *Config) string { return f.Get(&c.Node.Node) })
}

func some(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// value is what a key has, as it is written: its default if it is at that.
func (k *key) value(c *Config) []string {
	if v := k.get(c); len(v) > 0 {
		return v
	}
	return some(k.standard)
}

// variable is the key's name in the environment.
func (k *key) variable() string {
	return prefix + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
}

const prefix = "MAXWELL_"

// split is a path's section and the name in it; a section is one level.
func (k *key) split() (section, name string) {
	if section, name, found := strings.Cut(k.path, "."); found {
		return section, name
	}
	return "", k.path
}
