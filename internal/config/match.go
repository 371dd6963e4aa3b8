package config

import (
	"slices"
	"strconv"
	"strings"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
)

// Subject is work that looks for its rule.
type Subject struct {
	UID       uint32
	User      string // empty if the machine has no name for the uid
	GIDs      []uint32
	Groups    []string // names, primary group first; empty where there is none
	Cgroup    string   // path below the root of the cgroup2 tree
	Container string   // see ContainerOf
	Labels    map[string]string
}

// Match returns the rule for a subject. Without a match that is the daemon's own
// enforce and the wallet of defaults, and false.
func (c *Config) Match(s Subject) (*Rule, bool) {
	for i := range c.Rules {
		if c.Rules[i].Match.holds(&s) {
			return &c.Rules[i], true
		}
	}
	return &Rule{Enforce: c.Enforce, Wallet: c.Defaults}, false
}

// Labelled reports whether a rule asks for labels of containers.
func (c *Config) Labelled() bool {
	return slices.ContainsFunc(c.Rules, func(r Rule) bool { return len(r.Match.Labels) > 0 })
}

func (m *Match) holds(s *Subject) bool {
	holds := func(words []string, is func(string) bool) bool {
		return len(words) == 0 || slices.ContainsFunc(words, is)
	}
	_, grouped := m.group(s)
	_, found := m.cgroup(s)
	return holds(m.Users, s.isUser) && grouped && found && holds(m.Containers, s.inContainer) && holds(m.Labels, s.labelled)
}

func (s *Subject) isUser(word string) bool {
	if isNumber(word) {
		return word == strconv.FormatUint(uint64(s.UID), 10)
	}
	return word == s.User
}

// group is the group of a subject that matched, or its primary group if the rule
// names none.
func (m *Match) group(s *Subject) (int, bool) {
	if len(m.Groups) == 0 {
		return 0, true
	}
	for _, word := range m.Groups {
		i := slices.Index(s.Groups, word)
		if isNumber(word) {
			i = slices.IndexFunc(s.GIDs, func(gid uint32) bool { return word == strconv.FormatUint(uint64(gid), 10) })
		}
		if i >= 0 {
			return i, true
		}
	}
	return 0, false
}

func (s *Subject) inContainer(word string) bool {
	return s.Container != "" && (word == "*" || strings.HasPrefix(s.Container, word))
}

func (s *Subject) labelled(word string) bool {
	name, value, _ := strings.Cut(word, "=")
	got, ok := s.Labels[name]
	return ok && got == value
}

// cgroup is the group that matched, as the shortest text that tells it from the
// others of its rule: from the first segment of a pattern that may vary. Without a
// pattern it is the subject's own path.
func (m *Match) cgroup(s *Subject) (string, bool) {
	for _, pattern := range m.Cgroups {
		group, ok := matchCgroup(pattern, s.Cgroup)
		if !ok {
			continue
		}
		if len(m.Cgroups) == 1 && anchored(pattern) {
			group = varying(pattern, group)
		}
		return group, true
	}
	return strings.Trim(s.Cgroup, "/"), len(m.Cgroups) == 0
}

func varying(pattern, group string) string {
	segments := strings.Split(group, "/")
	for i, p := range patternSegments(pattern) {
		if strings.ContainsAny(p, "*?") || i == len(segments)-1 {
			return strings.Join(segments[i:], "/")
		}
	}
	return group
}

// anchored says that a pattern begins at the root of the tree.
func anchored(pattern string) bool { return strings.Contains(strings.TrimSuffix(pattern, "/**"), "/") }

func patternSegments(pattern string) []string {
	return strings.Split(strings.Trim(strings.TrimSuffix(pattern, "/**"), "/"), "/")
}

// matchCgroup tells whether a cgroup is, or is below, a group that the pattern
// names, and returns that group.
func matchCgroup(pattern, cgroup string) (group string, ok bool) {
	cgroup = strings.Trim(cgroup, "/")
	if cgroup == "" {
		return "", false
	}
	segments := strings.Split(cgroup, "/")
	wanted := patternSegments(pattern)
	if !anchored(pattern) {
		i := slices.IndexFunc(segments, func(s string) bool { return glob(wanted[0], s) })
		return strings.Join(segments[:i+1], "/"), i >= 0
	}
	if len(wanted) > len(segments) {
		return "", false
	}
	for i, p := range wanted {
		if !glob(p, segments[i]) {
			return "", false
		}
	}
	return strings.Join(segments[:len(wanted)], "/"), true
}

// glob matches one segment: * is any text, ? one character. It goes back to the
// last star only, so its cost is at most the product of the lengths.
func glob(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(n) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == n[j]):
			i, j = i+1, j+1
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// checkPattern says why a text is no cgroup pattern.
func checkPattern(text string) error {
	bad := func(reason, fix string) error { return &fleet.Problem{Text: text, Reason: reason, Fix: fix} }
	body := strings.TrimPrefix(strings.TrimSuffix(text, "/**"), "/")
	switch {
	case body == "" || strings.ContainsFunc(text, control):
		return bad("not a cgroup", "write docker/*, *.service or user.slice/user-*.slice")
	case strings.Contains(body, "**"):
		return bad("** stands only at the end, after a /", "write * for each segment")
	}
	for segment := range strings.SplitSeq(body, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return bad("a cgroup's path has no empty, . or .. segment", "write it as in /proc/PID/cgroup")
		}
	}
	return nil
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 32)
	return err == nil
}
