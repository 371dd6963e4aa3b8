package config

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/maxwell-hypervisor/maxwell/internal/strict"
)

// WriteYAML writes the effective configuration: every key with its value, and
// where that came from. Load reads it back as the same configuration.
func (c *Config) WriteYAML(w io.Writer) error {
	var b bytes.Buffer
	section := ""
	for _, k := range keys() {
		s, name := k.split()
		if section == "defaults" && s != section {
			b.Write(c.rules())
		}
		if s != section && s != "" {
			fmt.Fprintf(&b, "%s:\n", s)
		}
		section = s
		indent := ""
		if s != "" {
			indent = "  "
		}
		value := k.value(c)
		if len(value) == 0 && !k.list {
			line(&b, indent+"# "+name+":", "default: "+strings.ReplaceAll(k.absent, "`", ""))
			continue
		}
		line(&b, indent+name+": "+flow(value, k.list), c.origin(k.path, "default"))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// rules are written with everything that they inherit.
func (c *Config) rules() []byte {
	var b bytes.Buffer
	if len(c.Rules) == 0 {
		b.WriteString("rules: []\n")
		return b.Bytes()
	}
	b.WriteString("rules:\n")
	for i := range c.Rules {
		r := &c.Rules[i]
		path := fmt.Sprintf("rules[%d]", i+1)
		b.WriteString("  - match:\n")
		for _, m := range matchers() {
			if words := *m.target(&r.Match); len(words) > 0 {
				line(&b, "      "+m.name+": "+flow(words, true), Origin{Layer: File, Name: c.file, Line: r.Place.Line}.place())
			}
		}
		line(&b, "    enforce: "+r.Enforce.String(), c.origin(path+".enforce", "enforce"))
		b.WriteString("    wallet:\n")
		for j, f := range walletFields() {
			value := f.Get(&r.Wallet)
			if value == "" {
				value = walletNotes[j].standard
			}
			if value == "" {
				value = none
			}
			line(&b, "      "+f.Name+": "+scalar(value), c.origin(path+".wallet."+f.Name, c.inherited(f.Name)))
		}
	}
	return b.Bytes()
}

// inherited is where a rule's wallet has a key from that the rule leaves out.
func (c *Config) inherited(name string) string {
	if _, ok := c.origins["defaults."+name]; ok && name != "name" {
		return "defaults"
	}
	return "default"
}

// origin is where a key was set, or the word for where it was not.
func (c *Config) origin(path, otherwise string) string {
	if o, ok := c.origins[path]; ok {
		return o.place()
	}
	return otherwise
}

func line(b *bytes.Buffer, text, from string) {
	from = strings.Map(func(r rune) rune {
		if control(r) {
			return '?'
		}
		return r
	}, from)
	fmt.Fprintf(b, "%-44s # %s\n", text, from)
}

func flow(words []string, list bool) string {
	if !list {
		return scalar(words[0])
	}
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strict.Quote(w)
		if !strings.ContainsRune(w, ' ') {
			out[i] = scalar(w)
		}
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// bare is what YAML reads as it stands, in a line of its own.
var bare = regexp.MustCompile(`^[A-Za-z0-9/]( ?[A-Za-z0-9_./%$-])*$`)

func scalar(text string) string {
	if bare.MatchString(text) && !strings.EqualFold(text, "null") {
		return text
	}
	return strict.Quote(text)
}

// Row is one key of the schema, for manuals.
type Row struct {
	Path, Example, Default, About string
}

// Schema are all keys but the rules, in the order in which they are written.
func Schema() []Row {
	var out []Row
	for _, k := range keys() {
		standard := k.absent
		if standard == "" {
			standard = "`" + k.standard + "`"
		}
		out = append(out, Row{k.path, k.example, standard, k.about})
	}
	return out
}

// MatchKeys are the keys of a rule's match.
func MatchKeys() []Row {
	var out []Row
	for _, m := range matchers() {
		out = append(out, Row{Path: m.name, Example: m.example, About: m.about})
	}
	return out
}

// preamble begins the file that the package installs.
const preamble = `# Configuration of maxwell daemon, see maxwell.yaml(5). Every key is here with its
# default, commented out. After a change:
#
#   maxwell daemon --check && systemctl restart maxwell
#
# Nothing is limited until enforce says so: observe measures and notes what would
# have been done; warn also tells people; on does it.
`

// ruleExample stands where rules go.
const ruleExample = `# Rules: the first match wins. What a wallet leaves out it takes from defaults.
#rules:
#  - match: {group: students}
#    wallet: {allowance: 20k/day, parent: "{group}"}
#  - match: {user: ci}
#    enforce: on
#    wallet: {allowance: 200k/day, bid: 1x, when_broke: stop}
#  - match: {container: "*"}
#    wallet: {memory: 8G}

`

// WriteTemplate writes a file with every key and its meaning, commented out but
// for enforce, which says its default: what is there after installation.
func WriteTemplate(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString(preamble)
	section := ""
	for _, k := range keys() {
		s, name := k.split()
		if section == "defaults" && s != section {
			b.WriteString("\n" + ruleExample)
		} else if s != section || s == "" {
			b.WriteString("\n")
		}
		indent := ""
		if s != "" {
			indent = "  "
		}
		if s != section && s != "" {
			fmt.Fprintf(&b, "#%s:\n", s)
		}
		section = s
		about := strings.ReplaceAll(k.about, "`", "")
		value, mark := k.standard, "#"
		if value == "" {
			value, about = k.example, about+". Default: "+strings.ReplaceAll(k.absent, "`", "")
		}
		if k.path == "enforce" {
			mark = "" // the one key that somebody will change
		}
		for _, text := range wrapped(about, 78-len(indent)) {
			fmt.Fprintf(&b, "%s# %s\n", strings.Replace(indent, "  ", "#  ", 1), text)
		}
		if !k.list {
			value = scalar(value)
		}
		fmt.Fprintf(&b, "%s%s%s: %s\n", mark, indent, name, value)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// wrapped breaks a text between words.
func wrapped(text string, width int) []string {
	var lines []string
	last := ""
	for word := range strings.FieldsSeq(text) {
		if last != "" && len(last)+1+len(word) > width {
			lines, last = append(lines, last), ""
		}
		if last != "" {
			last += " "
		}
		last += word
	}
	return append(lines, last)
}
