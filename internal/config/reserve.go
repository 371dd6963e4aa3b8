package config

import (
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
)

// Accounts are the machine's users and groups.
type Accounts interface {
	// User finds a user by name or number.
	User(word string) (Subject, bool)
	// Group reports whether there is a group of that name.
	Group(name string) bool
}

// Reserves reports whether a rule, or defaults, may give a name to a wallet or to its
// parent. Opened by somebody else before, the wallet would have what the rule means for
// its subject. It errs on the side of the rules: of two rules for one user only the first
// counts, and both names are reserved.
func (c *Config) Reserves(name string, all Accounts) bool {
	name = strings.TrimPrefix(name, "x"+markFirst)
	if cut.MatchString(name) {
		return true // the hash does not say what was cut
	}
	for _, r := range append(slices.Clone(c.Rules), Rule{Wallet: c.Defaults}) {
		if !r.Wallet.Open() && (r.gives(r.Wallet.Name, name, all) || r.gives(r.Wallet.Parent, name, all)) {
			return true
		}
	}
	return false
}

// cut is a name that expand has cut short.
var cut = regexp.MustCompile(markLong + "[0-9a-f]{16}$")

// gives reports whether a template may come out as a name.
func (r *Rule) gives(template, name string, all Accounts) bool {
	list, err := pieces(template)
	if err != nil || template == "" {
		return false
	}
	var pattern strings.Builder
	var words []string
	for _, p := range list {
		if !p.value {
			pattern.WriteString(regexp.QuoteMeta(p.text))
			continue
		}
		words = append(words, p.text)
		pattern.WriteString("(" + r.values(p.text, strings.Count(template, "{") > 1) + ")")
	}
	found := regexp.MustCompile("^" + pattern.String() + "$").FindStringSubmatch(name)
	for i, word := range words {
		if found != nil && !r.mayBe(word, found[1+i], all) {
			return false
		}
	}
	return found != nil
}

// values is a pattern of what may stand in a name for a placeholder; dash: '-' is
// escaped.
func (r *Rule) values(word string, dash bool) string {
	switch {
	case word == "uid":
		return "[0-9]+"
	case word == "container":
		return "[0-9a-f]{12}"
	case word != "cgroup" || len(r.Match.Cgroups) == 0:
		return ".+?" // of several values none holds the '-' between them
	}
	var all []string
	for _, p := range r.Match.Cgroups {
		group := strings.Join(patternSegments(p), "/")
		if anchored(p) && len(r.Match.Cgroups) == 1 {
			group = varying(p, group)
		}
		text := wild.Replace(regexp.QuoteMeta(escape(group, dash)))
		if !anchored(p) {
			text = "(?:.*_2f)?" + text
		}
		all = append(all, text)
	}
	return strings.Join(all, "|")
}

// wild makes a pattern of a cgroup pattern that was escaped: a '_' before a wildcard may
// come out as an escape itself.
var wild = strings.NewReplacer("__2a", "_(?:5f)?.*", "__3f", "_(?:5f)?.+", "_2a", ".*", "_3f", ".+")

// mayBe reports whether a placeholder of this rule may stand for a value.
func (r *Rule) mayBe(word, value string, all Accounts) bool {
	plain := unescape(value)
	if number, is := strings.CutPrefix(value, word+markNumber); is {
		plain = number
	}
	switch word {
	case "user", "uid":
		s, known := all.User(plain)
		_, grouped := r.Match.group(&s)
		return known && grouped && (len(r.Match.Users) == 0 || slices.ContainsFunc(r.Match.Users, s.isUser))
	case "group":
		if len(r.Match.Groups) > 0 {
			return slices.Contains(r.Match.Groups, plain)
		}
		return all.Group(plain)
	}
	return true
}

// unescape is what escape was given.
func unescape(value string) string {
	return escaped.ReplaceAllStringFunc(value, func(s string) string {
		b, _ := hex.DecodeString(s[1:])
		return string(b)
	})
}

var escaped = regexp.MustCompile("_[0-9a-f]{2}")
