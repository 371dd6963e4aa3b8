package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
)

// placeholders are what a template may name.
var placeholders = []string{"user", "uid", "group", "container", "cgroup"}

// piece is a part of a template: text as it is, or a placeholder.
type piece struct {
	text  string
	value bool
}

func pieces(template string) ([]piece, error) {
	bad := func(reason string) error {
		return &fleet.Problem{Text: template, Reason: reason, Fix: "write {user}, {uid}, {group}, {container} or {cgroup}, and letters, digits, '-' and '_'"}
	}
	var out []piece
	for rest := template; rest != ""; {
		i := strings.IndexAny(rest, "{}")
		if i != 0 {
			if i < 0 {
				i = len(rest)
			}
			out = append(out, piece{text: rest[:i]})
			rest = rest[i:]
			continue
		}
		end := strings.IndexByte(rest, '}')
		if rest[0] == '}' || end < 0 {
			return nil, bad("a brace without its other")
		}
		word := rest[1:end]
		if _, err := choice(word, placeholders...); err != nil {
			return nil, bad("unknown word {" + word + "}")
		}
		out = append(out, piece{text: word, value: true})
		rest = rest[end+1:]
	}
	return out, nil
}

// parseTemplate checks a template. Between two values there has to be a '-', which
// no value then holds: otherwise {user}{group} could mean two things.
func parseTemplate(text string) (string, error) {
	list, err := pieces(text)
	if err != nil {
		return "", err
	}
	if text == "" || len(text) > maxTemplate {
		return "", &fleet.Problem{Text: text, Reason: fmt.Sprintf("a name has 1 to %d characters", maxTemplate), Fix: "write {user}"}
	}
	apart := true
	for i, p := range list {
		switch {
		case p.value && !apart:
			return "", &fleet.Problem{Text: text, Reason: "two values with no '-' between them could be read as others", Fix: "write {group}-{user}"}
		case p.value:
			apart = false
		case i == 0:
			if p := fleet.CheckName(p.text); p != nil {
				return "", &fleet.Problem{Text: text, Reason: p.Reason, Fix: p.Fix}
			}
		default:
			if p := fleet.CheckName("a" + p.text); p != nil {
				return "", &fleet.Problem{Text: text, Reason: p.Reason, Fix: p.Fix}
			}
		}
		if !p.value && strings.Contains(p.text, "-") {
			apart = true
		}
	}
	return text, nil
}

const (
	// maxTemplate leaves room for a value.
	maxTemplate = 48
	// maxWallet is the longest name of a wallet, in bytes.
	maxWallet = 63
)

// Marks are escapes of characters that never are escaped, so that no value can
// imitate them.
const (
	markNumber = "_75" // an id that has no name on this machine
	markFirst  = "_66" // a name that would not begin with a letter or digit
	markLong   = "_6c" // a name cut short, with a hash of the whole
)

// Names expands the templates of a rule that matched: the name of the wallet that
// pays, and of the one it draws from, "" for none. A wallet whose two names come
// out the same has no parent.
func (r *Rule) Names(s Subject) (name, parent string) {
	name = r.expand(r.Wallet.Name, &s)
	if r.Wallet.Parent != "" {
		parent = r.expand(r.Wallet.Parent, &s)
	}
	if parent == name {
		parent = ""
	}
	return name, parent
}

func (r *Rule) expand(template string, s *Subject) string {
	list, err := pieces(template)
	if err != nil { // Load has checked it
		panic(fmt.Sprintf("config: template %q: %v", template, err))
	}
	values := 0
	for _, p := range list {
		if p.value {
			values++
		}
	}
	var b strings.Builder
	for _, p := range list {
		if !p.value {
			b.WriteString(p.text)
			continue
		}
		value, number := r.value(p.text, s)
		if number {
			b.WriteString(p.text + markNumber)
		}
		b.WriteString(escape(value, values > 1))
	}
	name := b.String()
	if name == "" || !plain(name[0]) {
		name = "x" + markFirst + name
	}
	if len(name) > maxWallet {
		sum := sha256.Sum256([]byte(name))
		tail := markLong + hex.EncodeToString(sum[:8])
		name = name[:maxWallet-len(tail)] + tail
	}
	return name
}

// value is what a placeholder stands for; number says that it is an id in place of
// a name.
func (r *Rule) value(word string, s *Subject) (text string, number bool) {
	id := func(v uint32) string { return strconv.FormatUint(uint64(v), 10) }
	switch word {
	case "uid":
		return id(s.UID), false
	case "user":
		if s.User == "" {
			return id(s.UID), true
		}
		return s.User, false
	case "group":
		i, _ := r.Match.group(s)
		if i < len(s.Groups) && s.Groups[i] != "" {
			return s.Groups[i], false
		}
		if i < len(s.GIDs) {
			return id(s.GIDs[i]), true
		}
		return "", false
	case "container":
		if isContainerID(s.Container) {
			return s.Container[:12], false // as engines print it
		}
		return s.Container, false
	default:
		group, _ := r.Match.cgroup(s)
		return group, false
	}
}

func plain(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' }

// escape makes a value part of a name: every byte but letters, digits, '_' and '-'
// becomes _ and its two hexadecimal digits; so does a '_' that could be taken for
// such an escape, and '-' where it separates values.
func escape(value string, dash bool) string {
	var b strings.Builder
	for i := range len(value) {
		c := value[i]
		escaped := i+2 < len(value) && isHex(value[i+1:i+3])
		switch {
		case plain(c), c == '-' && !dash, c == '_' && !escaped:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}
