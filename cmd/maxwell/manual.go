package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/maxwell-hypervisor/maxwell/internal/config"
)

// manualVerb writes the pages of man for the package. It is hidden: people have
// man, and docs/cli.md.
func (a *app) manualVerb() *cobra.Command {
	return &cobra.Command{
		Use:     "manual DIR",
		Short:   "Write the pages of man into a directory",
		Hidden:  true,
		Example: "  maxwell manual /tmp/man",
		Args:    oneArg("a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.InitDefaultCompletionCmd("sh")
			if err := writeManuals(root, args[0]); err != nil {
				return usagef("manual: %v", err)
			}
			return nil
		},
	}
}

func writeManuals(root *cobra.Command, dir string) error {
	pages := map[string]string{"maxwell.yaml.5": configurationPage()}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" {
			return
		}
		pages[pageName(cmd)+".1"] = verbPage(cmd)
		if cmd.Name() == "completion" { // one page says it for all shells
			return
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// verbPage is the page of one verb, in the language of man(7). It carries no date:
// the same source gives the same package.
func verbPage(cmd *cobra.Command) string {
	cmd.InitDefaultHelpFlag()
	var b strings.Builder
	name := pageName(cmd)
	fmt.Fprintf(&b, ".TH %s 1 \"\" Maxwell \"Maxwell\"\n", roffWord(strings.ToUpper(name)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n.SH SYNOPSIS\n", roff(name), roff(lowerFirst(cmd.Short)))
	use := cmd.UseLine()
	if !cmd.Runnable() || !cmd.HasParent() {
		use = cmd.CommandPath() + " VERB"
	}
	fmt.Fprintf(&b, "%s\n.SH DESCRIPTION\n", roff(use))
	about := cmd.Long
	if about == "" {
		about = cmd.Short + "."
	}
	preformatted(&b, about)
	var flags []*pflag.Flag
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			flags = append(flags, f)
		}
	})
	if len(flags) > 0 {
		b.WriteString(".SH OPTIONS\n")
	}
	for _, f := range flags {
		optionEntry(&b, f)
	}
	if cmd.Example != "" {
		b.WriteString(".SH EXAMPLES\n")
		preformatted(&b, unindented(cmd.Example))
	}
	b.WriteString(".SH SEE ALSO\n" + seeAlso(cmd) + "\n")
	return b.String()
}

func optionEntry(b *strings.Builder, f *pflag.Flag) {
	kind, usage := pflag.UnquoteUsage(f)
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	if kind != "" {
		name += " " + kind
	}
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
		usage += " (default " + f.DefValue + ")"
	}
	fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(name), roff(usage))
}

func seeAlso(cmd *cobra.Command) string {
	var pages []string
	if cmd.HasParent() {
		pages = append(pages, pageName(cmd.Parent())+"(1)")
	} else {
		pages = append(pages, "maxwell.yaml(5)")
	}
	for _, sub := range cmd.Commands() {
		if !sub.Hidden && sub.Name() != "help" && cmd.Name() != "completion" {
			pages = append(pages, pageName(sub)+"(1)")
		}
	}
	return roff(strings.Join(pages, ", "))
}

// configurationPage is maxwell.yaml(5), from the daemon's schema.
func configurationPage() string {
	var b strings.Builder
	b.WriteString(`.TH MAXWELL.YAML 5 "" Maxwell "Maxwell"
.SH NAME
maxwell.yaml \- configuration of the Maxwell daemon
.SH SYNOPSIS
` + roff(config.DefaultFile) + `
.SH DESCRIPTION
YAML, read strictly: an unknown key, a key given twice or an amount in the wrong unit is
one line with its place and the fix, and the daemon does not start.
Keys of a section are written below it: node.cores is cores below node.
Every key can also be set in the environment (MAXWELL_NODE_CORES), which wins over the
file, and by a flag (\-\-set node.cores=2), which wins over both.
.SH KEYS
`)
	for _, r := range config.Schema() {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s. For example %s. Default: %s.\n", roff(r.Path), roff(plainText(r.About)), roff(r.Example), roff(plainText(r.Default)))
	}
	b.WriteString(`.SH RULES
The key rules is a list; the first rule that matches wins. Each has a match, and may have
enforce and a wallet with the keys of defaults. All keys of a match must hold, and of a
list of words one.
`)
	for _, r := range config.MatchKeys() {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s. For example %s.\n", roff(r.Path), roff(plainText(r.About)), roff(r.Example))
	}
	b.WriteString(".SH SEE ALSO\nmaxwell(1)\n")
	return b.String()
}

func plainText(text string) string { return strings.ReplaceAll(text, "`", "") }

// roff writes text that man(7) shows as it is.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

// roffWord is an argument of a macro.
func roffWord(text string) string { return `"` + strings.ReplaceAll(roff(text), `"`, `\(dq`) + `"` }

// preformatted keeps line breaks: the texts of the verbs are written for a
// terminal.
func preformatted(b *strings.Builder, text string) {
	b.WriteString(".nf\n")
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		b.WriteString(roff(strings.TrimRight(line, "\n")) + "\n")
	}
	b.WriteString(".fi\n")
}

func unindented(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

func lowerFirst(text string) string {
	if text == "" {
		return text
	}
	return strings.ToLower(text[:1]) + text[1:]
}
