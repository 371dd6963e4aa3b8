package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/strict"
)

// matcher is a key of a match; its value is a word or a list of words.
type matcher struct {
	name, example, about string
	target               func(*Match) *[]string
	check                func(word string) error
}

func matchers() []matcher {
	return []matcher{
		{
			"user", "anna", "a user by name or number",
			func(m *Match) *[]string { return &m.Users }, checkAccount,
		},
		{
			"group", "students", "members of a group, by name or number",
			func(m *Match) *[]string { return &m.Groups }, checkAccount,
		},
		{
			"cgroup", "user.slice/user-*.slice", "everything in a cgroup and below it, by a pattern",
			func(m *Match) *[]string { return &m.Cgroups }, checkPattern,
		},
		{
			"container", "3f4e9a01b2c3", "a container by its id or the first 6 digits of it or more; `*` is any container",
			func(m *Match) *[]string { return &m.Containers }, checkContainer,
		},
		{
			"label", "team=blue", "a label of a container",
			func(m *Match) *[]string { return &m.Labels }, checkLabel,
		},
	}
}

func checkContainer(word string) error {
	if word != "*" && (len(word) < 6 || len(word) > 64 || !isHex(word)) {
		return &fleet.Problem{Text: word, Reason: "not a container's id", Fix: "write 6 to 64 of its hexadecimal digits, or * for any container"}
	}
	return nil
}

func checkLabel(word string) error {
	name, _, found := strings.Cut(word, "=")
	if !found || name == "" || strings.ContainsFunc(word, control) {
		return &fleet.Problem{Text: word, Reason: "not a label", Fix: "write key=value"}
	}
	return nil
}

// standardName is what a rule's wallet is called if the rule does not say.
func (m *Match) standardName() string {
	switch {
	case len(m.Containers) > 0, len(m.Labels) > 0:
		return "{container}"
	case len(m.Cgroups) > 0:
		return "{cgroup}"
	default:
		return "{user}"
	}
}

// finish decodes the rules and checks what spans several keys.
func (l *loader) finish() {
	c := l.c
	said := func(name string) bool { _, ok := c.origins["defaults."+name]; return ok }
	c.Defaults.settle(said)
	if p := c.Defaults.check(); p != nil {
		l.blame(guilty("defaults.", p.Field, said), p)
	}
	for i, n := range l.rules {
		l.rule(n, fmt.Sprintf("rules[%d]", i+1), said)
	}
	if c.TCP.Listen.Network != "" {
		for _, f := range []struct{ path, value string }{{"cert", c.TCP.Cert}, {"key", c.TCP.Key}, {"client_ca", c.TCP.ClientCA}} {
			if f.value == "" {
				l.blame("tcp.listen", errors.New("TCP is mutual TLS only and tcp."+f.path+" is missing; set it, or write off"))
			}
		}
	}
	if c.Grid.Valid > 0 && c.Grid.File == "" {
		l.blame("grid.valid", errors.New("there is no file whose number it is for; set grid.file"))
	}
	if c.Metrics.Listen.Network == "unix" && c.Metrics.Listen.Text == c.Socket.Path {
		l.blame("metrics.listen", errors.New("the path is socket.path too; choose another"))
	}
	if c.Metrics.Listen.Network == "tcp" && c.Metrics.Listen == c.TCP.Listen {
		l.blame("metrics.listen", errors.New("the address is tcp.listen too; choose another port"))
	}
}

// guilty is the key to show for a problem of a wallet: the one at fault, or if
// nobody wrote that, another that somebody wrote and that took part.
func guilty(prefix, field string, said func(string) bool) string {
	for _, name := range []string{field, "max_bid", "allowance"} {
		if said(name) {
			return prefix + name
		}
	}
	return prefix + field
}

func (l *loader) rule(n strict.Node, path string, inherited func(string) bool) {
	entries, err := l.Mapping(n, path, "{match: {user: anna}, enforce: warn}")
	if err != nil {
		l.fault(err)
		return
	}
	r := Rule{Enforce: l.c.Enforce, Wallet: l.c.Defaults}
	if at := strict.Position(n); at != nil {
		r.Place = fleet.Place{Line: at.Line, Column: at.Column}
	}
	before := len(l.problems)
	var wallet *strict.Entry
	for _, e := range entries {
		switch e.Key {
		case "match":
			l.match(&r.Match, e, path+".match")
		case "enforce":
			text, err := l.Text(e, path+".enforce", "observe, warn or on")
			if err == nil {
				r.Enforce, err = ParseEnforce(text)
				err = l.wrap(e, path+".enforce", err)
			}
			if err != nil {
				l.fault(err)
			}
			l.c.origins[path+".enforce"] = l.origin(e)
		case "wallet":
			wallet = &e
		default:
			l.fault(l.Unknown(e, path, []string{"match", "enforce", "wallet"}))
		}
	}
	r.Wallet.Name = r.Match.standardName()
	l.wallet(&r.Wallet, wallet, path+".wallet", inherited)
	if len(l.problems) > before {
		return
	}
	if r.Match.empty() {
		l.fault(l.Fault(n, path, "a rule needs a match; write match: {user: anna}, and what holds for all others in defaults"))
		return
	}
	for i, other := range l.c.Rules {
		if r.Match.equal(&other.Match) {
			l.fault(l.Fault(n, path, fmt.Sprintf("the rule on line %d has the same match and is first; remove one", l.c.Rules[i].Place.Line)))
			return
		}
	}
	l.c.Rules = append(l.c.Rules, r)
}

func (l *loader) match(m *Match, e strict.Entry, path string) {
	entries, err := l.Mapping(e.Value, path, "{user: anna}")
	if err != nil {
		l.fault(err)
		return
	}
	all := matchers()
	for _, f := range entries {
		i := slices.IndexFunc(all, func(k matcher) bool { return k.name == f.Key })
		if i < 0 {
			known := make([]string, len(all))
			for i := range all {
				known[i] = all[i].name
			}
			l.fault(l.Unknown(f, path, known))
			continue
		}
		words, err := l.words(f, path+"."+f.Key, all[i].example, true)
		if err == nil && len(words) == 0 {
			err = l.Fault(f.Value, path+"."+f.Key, "an empty list matches nothing; write "+all[i].example)
		}
		for _, w := range words {
			if err == nil {
				err = l.wrap(f, path+"."+f.Key, all[i].check(w))
			}
		}
		if err != nil {
			l.fault(err)
			continue
		}
		*all[i].target(m) = words
	}
}

func (l *loader) wallet(w *Wallet, e *strict.Entry, path string, inherited func(string) bool) {
	var entries []strict.Entry
	if e != nil {
		var err error
		entries, err = l.Mapping(e.Value, path, "{allowance: 50k/day}")
		if err != nil {
			l.fault(err)
			return
		}
	}
	fields := walletFields()
	before := len(l.problems)
	for _, f := range entries {
		field := strict.Find(fields, f.Key)
		if field == nil {
			l.fault(l.Unknown(f, path, strict.Names(fields)))
			continue
		}
		text, err := l.Text(f, path+"."+f.Key, "a value as in the guide")
		if err == nil {
			err = l.wrap(f, path+"."+f.Key, field.Set(w, text))
		}
		if err != nil {
			l.fault(err)
			continue
		}
		l.c.origins[path+"."+f.Key] = l.origin(f)
	}
	said := func(name string) bool { _, ok := l.c.origins[path+"."+name]; return ok }
	if said("allowance") && w.Open() && !said("most") {
		w.Most = 0 // the cap of an allowance that this rule takes away
	}
	w.settle(func(name string) bool { return said(name) || inherited(name) })
	if p := w.check(); p != nil && len(l.problems) == before {
		l.blame(guilty(path+".", p.Field, said), p)
	}
}

func (m *Match) lists() [][]string {
	return [][]string{m.Users, m.Groups, m.Cgroups, m.Containers, m.Labels}
}

func (m *Match) empty() bool {
	return !slices.ContainsFunc(m.lists(), func(l []string) bool { return len(l) > 0 })
}

func (m *Match) equal(o *Match) bool {
	return slices.EqualFunc(m.lists(), o.lists(), slices.Equal)
}
