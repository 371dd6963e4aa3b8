package config

import (
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// census is the users of a machine, who are alone in groups of their names.
type census map[string]uint32

func (c census) User(word string) (Subject, bool) {
	uid, known := c[word]
	if n, err := strconv.ParseUint(word, 10, 32); err == nil {
		for name, uid := range c {
			if uid == uint32(n) {
				return c.User(name)
			}
		}
		return Subject{UID: uint32(n)}, true
	}
	return Subject{UID: uid, User: word, Groups: []string{word}, GIDs: []uint32{uid}}, known
}

func (c census) Group(name string) bool { _, known := c[name]; return known }

func TestReserves(t *testing.T) {
	all := census{"anna": 1001, "ben": 1002, "john.doe": 1003, "_apt": 42}
	for _, tt := range []struct {
		rules    string
		reserved []string
		free     []string
	}{
		{"rules: [{match: {user: anna}, wallet: {name: lab, parent: team, allowance: 1k/day}}]", []string{"lab", "team"}, []string{"anna", "lab2", "t"}},
		{"rules: [{match: {user: anna}, wallet: {name: lab, parent: team}}]", nil, []string{"lab", "team"}},
		{
			"defaults: {allowance: 1k/day, parent: \"{group}s\"}",
			[]string{"anna", "john_2edoe", "x_66_apt", "user_754711", "annas", "aaaaaaaaaaaa_6c0123456789abcdef"},
			[]string{"pocket", "anna2", "anna-pocket", "pockets"},
		},
		{"rules: [{match: {user: anna}, wallet: {allowance: 1k/day}}]", []string{"anna"}, []string{"ben"}},
		{"rules: [{match: {group: anna}, wallet: {name: \"{group}-{user}\", allowance: 1k/day}}]", []string{"anna-anna"}, []string{"anna", "anna-ben", "ben-anna"}},
		{"rules: [{match: {user: anna}, wallet: {name: \"u{uid}\", allowance: 1k/day}}]", []string{"u1001"}, []string{"u1002", "u", "ux"}},
		{"rules: [{match: {container: \"*\"}, wallet: {name: \"c-{container}\", allowance: 1k/day}}]", []string{"c-3f4e9a01b2c3"}, []string{"c-3f", "c-web"}},
		{"rules: [{match: {cgroup: \"*.service\"}, wallet: {allowance: 1k/day}}]", []string{"web_2eservice", "system_2eslice_2fweb_2eservice"}, []string{"web", "web_2eslice"}},
		{"rules: [{match: {cgroup: a/b_?/c}, wallet: {allowance: 1k/day}}]", []string{"b_1_2fc", "b_5f1_2fc", "b__2e_2fc"}, []string{"b__2fc", "c", "b_1"}},
		{"rules: [{match: {cgroup: \"docker/*\"}, wallet: {allowance: 1k/day}}]", []string{"anything"}, nil},
	} {
		c, err := Parse("maxwell.yaml", []byte(tt.rules), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range tt.reserved {
			if !c.Reserves(name, all) {
				t.Errorf("%s: %q is free", tt.rules, name)
			}
		}
		for _, name := range tt.free {
			if c.Reserves(name, all) {
				t.Errorf("%s: %q is reserved", tt.rules, name)
			}
		}
	}
}

// TestWhatARuleGivesIsReserved: whatever a rule calls a wallet and its parent, nobody
// else may have opened it.
func TestWhatARuleGivesIsReserved(t *testing.T) {
	word := rapid.StringMatching(`([a-d0-7_.@-]|_75|_66|_6c|_2e|é){1,12}`)
	rapid.Check(t, func(t *rapid.T) {
		templates := []string{"{user}", "{group}", "{uid}", "{cgroup}", "u{user}", "u_{user}75", "{group}-{user}", "{user}7-5{group}", "a-{cgroup}-{user}_", "lab"}
		s := Subject{UID: rapid.Uint32Range(8, 20).Draw(t, "uid"), User: word.Draw(t, "user"), Cgroup: word.Draw(t, "cgroup") + "/" + word.Draw(t, "below")}
		s.Groups, s.GIDs = []string{s.User}, []uint32{s.UID}
		r := Rule{Wallet: Wallet{
			Name: rapid.SampledFrom(templates).Draw(t, "name"), Parent: rapid.SampledFrom(templates).Draw(t, "parent"),
		}}
		if pattern := rapid.SampledFrom([]string{"", "*", "*/*", "?*", "a*/**", "*_?*/*", "*d"}).Draw(t, "pattern"); pattern != "" {
			r.Match.Cgroups = []string{pattern}
		}
		if !r.Match.holds(&s) {
			return
		}
		r.Wallet.Allowance.Amount = 1
		c := &Config{Rules: []Rule{r}}
		name, parent := r.Names(s)
		for _, name := range []string{name, parent} {
			if name != "" && !c.Reserves(name, census{s.User: s.UID}) {
				t.Fatalf("%q is free: %+v of %+v", name, r, s)
			}
		}
	})
}
