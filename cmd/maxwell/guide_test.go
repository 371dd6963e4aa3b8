package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/golden"
)

//go:generate go test -count=1 -run ^TestReference$ . -args -update

// documents is where the texts for people are, seen from here.
const documents = "../../docs/"

// reference writes the manual of all verbs from the verbs themselves.
func reference() string {
	root := (&app{out: os.Stdout, err: os.Stderr, environ: os.Environ}).root()
	root.InitDefaultCompletionCmd("sh") // added by cobra only when a command line is read
	var b strings.Builder
	b.WriteString("# The verbs of maxwell\n\nWritten by `make generate` from the command itself; do not edit.\n" +
		"Exit codes are in [receipts and exit codes](guide/receipts.md).\n")
	section(&b, root)
	return b.String()
}

func section(b *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden || cmd.Name() == "help" {
		return
	}
	cmd.InitDefaultHelpFlag()
	fmt.Fprintf(b, "\n## %s\n\n", cmd.CommandPath())
	if cmd.Runnable() && cmd.HasParent() {
		fmt.Fprintf(b, "    %s\n\n", cmd.UseLine())
	}
	about := cmd.Long
	if about == "" {
		about = cmd.Short + "."
	}
	fmt.Fprintf(b, "```text\n%s\n```\n", strings.TrimSpace(about))
	if cmd.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n\n```sh\n%s\n```\n", strings.TrimRight(unindent(cmd.Example), "\n"))
	}
	var rows []string
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" {
			rows = append(rows, flagRow(f))
		}
	})
	if len(rows) > 0 {
		b.WriteString("\n| flag | default | |\n|---|---|---|\n" + strings.Join(rows, ""))
	}
	if cmd.Name() == "completion" { // one paragraph of cobra's for each shell
		return
	}
	for _, sub := range cmd.Commands() {
		section(b, sub)
	}
}

func flagRow(f *pflag.Flag) string {
	kind, usage := pflag.UnquoteUsage(f)
	name := "`--" + f.Name
	if f.Shorthand != "" {
		name = "`-" + f.Shorthand + "`, " + name
	}
	if kind != "" {
		name += " " + kind
	}
	standard := f.DefValue
	switch standard {
	case "", "false", "0":
		standard = ""
	default:
		standard = "`" + standard + "`"
	}
	return "| " + name + "` | " + standard + " | " + strings.ReplaceAll(usage, "|", "\\|") + " |\n"
}

func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

// TestReference: docs/cli.md is what the verbs say of themselves.
func TestReference(t *testing.T) {
	golden.Check(t, "../"+documents+"cli.md", reference())
}

// texts are the documents whose commands are tried.
func texts(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, pattern := range []string{"../../*.md", documents + "*.md", documents + "*/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = string(text)
		}
	}
	return all
}

var block = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// commandLine is a call of maxwell in a block of shell, up to a pipe or the
// end; what precedes it (sudo, a variable, the go command) is not tried.
var commandLine = regexp.MustCompile(`(?m)^(?:\$ )?(?:[\w/.=&-]+ )*?(?:\./)?(?:cmd/|bin/)?maxwell((?: [^|>&;\n#]*)?)`)

// TestDocumentedCommands: every command line in the documents has a verb and
// flags that exist, with values that parse.
func TestDocumentedCommands(t *testing.T) {
	tried := 0
	for name, text := range texts(t) {
		for _, b := range block.FindAllStringSubmatch(text, -1) {
			if b[1] != "sh" && b[1] != "console" {
				continue
			}
			for _, line := range commandLine.FindAllStringSubmatch(b[2], -1) {
				if strings.HasPrefix(line[0], "go build") { // its argument is the program, not a verb
					continue
				}
				args := shellWords(line[1])
				if err := parses(args); err != nil {
					t.Errorf("%s: maxwell%s: %v", name, line[1], err)
				}
				tried++
			}
		}
	}
	if tried < 30 {
		t.Errorf("%d command lines found", tried)
	}
}

// parses reads a command line as the program does, and runs nothing.
func parses(args []string) error {
	root := (&app{out: os.Stdout, err: os.Stderr, environ: os.Environ}).root()
	root.InitDefaultCompletionCmd("sh")
	root.InitDefaultHelpFlag()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if cmd == root && len(rest) > 0 && cmd.Flags().NArg() > 0 {
		return fmt.Errorf("unknown verb %q", rest[0])
	}
	return nil
}

// shellWords splits a line at blanks outside quotes.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	var quote rune
	open := false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, open = r, true
		case quote == 0 && r == ' ':
			if open || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
		}
	}
	if open || word.Len() > 0 {
		words = append(words, word.String())
	}
	return words
}

// TestDocumentedCommandsCanFail keeps the test above honest.
func TestDocumentedCommandsCanFail(t *testing.T) {
	for _, bad := range []string{"runn -- true", "run --bugdet 5 -- true", "run --budget 5J -- true", "doctor --fast", "node"} {
		if parses(shellWords(bad)) == nil {
			t.Errorf("maxwell %s parses", bad)
		}
	}
	found := commandLine.FindAllStringSubmatch("$ maxwell run -- 'a b'\nsudo ./bin/maxwell doctor\ngo run ./cmd/maxwell up x | tee y\n  maxwell no\n", -1)
	want := [][]string{{"run", "--", "a b"}, {"doctor"}, {"up", "x"}}
	var got [][]string
	for _, f := range found {
		got = append(got, shellWords(f[1]))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command lines (-want +got):\n%s", diff)
	}
}

// administration are the pages whose YAML configures the daemon: internal/config
// reads it.
var administration = []string{"daemon.md", "administrators-week.md"}

// TestDocumentedFleets: every fleet file in the documents can be read.
func TestDocumentedFleets(t *testing.T) {
	read := 0
	for name, text := range texts(t) {
		for _, b := range block.FindAllStringSubmatch(text, -1) {
			if b[1] != "yaml" || slices.Contains(administration, filepath.Base(name)) {
				continue
			}
			read++
			f, err := fleet.Parse(name, []byte(b[2]))
			if err != nil {
				t.Errorf("%v in\n%s", err, b[2])
				continue
			}
			for i := range f.Workloads {
				if p := f.Workloads[i].Validate(); p != nil {
					t.Errorf("%s: %s: %v", name, f.Workloads[i].Name, p)
				}
			}
		}
	}
	if read < 3 {
		t.Errorf("%d fleet files found", read)
	}
}

// TestWorkedExamples: what the theory says about its books is what clearing
// them gives.
func TestWorkedExamples(t *testing.T) {
	page, err := os.ReadFile(documents + "theory/market.md")
	if err != nil {
		t.Fatal(err)
	}
	books, err := filepath.Glob(documents + "theory/*.json")
	if err != nil || len(books) < 2 {
		t.Fatalf("%d books, %v", len(books), err)
	}
	for _, name := range books {
		o := newFakeMarket().run("clear", name)
		if o.code != 0 || o.err != "" {
			t.Fatalf("%s: %+v", name, o)
		}
		if !bytes.Contains(page, []byte("```console\n$ maxwell clear docs/theory/"+filepath.Base(name)+"\n"+o.out+"```")) {
			t.Errorf("theory/market.md does not show what clearing %s gives:\n%s", filepath.Base(name), o.out)
		}
	}
}
