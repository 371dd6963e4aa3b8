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
