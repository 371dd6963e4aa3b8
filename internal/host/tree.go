package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Tree is a recorded machine: the kernel files that Maxwell reads, as text
// that people can read, edit and attach to a report.
//
//	maxwell-tree 1
//	# any number of notes: what machine, recorded or made by hand
//	dir 0755 /sys/class/powercap
//	link /sys/class/powercap/intel-rapl:0 ../../devices/virtual/powercap/intel-rapl:0
//	file 0444 /proc/version
//		one line of content, after a tab
//	file 0400 /sys/secret quoted
//		"bytes that are \x00 not lines of text"
//
// One header line per entry: kind, mode, path. Directories above an entry need
// no entry of their own. A file of lines ends in a newline; every other
// content is quoted as in Go, so that every file survives a round trip.
type Tree struct {
	Notes   []string
	Entries []Entry
}

// Entry is one file, directory or link.
type Entry struct {
	Path    string      // absolute, clean
	Mode    fs.FileMode // permission bits, and fs.ModeDir or fs.ModeSymlink
	Content []byte      // of a file
	Target  string      // of a link
}

const treeVersion = "maxwell-tree 1"

// treeLimit bounds a parsed tree: a recording is some 100 KiB.
const treeLimit = 16 << 20

var errTree = errors.New("bad tree")

// ParseTree parses the text form.
func ParseTree(text []byte) (Tree, error) {
	if len(text) > treeLimit {
		return Tree{}, fmt.Errorf("%w: %d bytes, more than %d", errTree, len(text), treeLimit)
	}
	p := treeParser{seen: map[string]bool{}}
	number := 0
	for raw := range bytes.Lines(text) {
		number++
		line, ok := strings.CutSuffix(string(raw), "\n")
		if !ok {
			return Tree{}, fmt.Errorf("%w: line %d does not end", errTree, number)
		}
		if err := p.line(number, line); err != nil {
			return Tree{}, fmt.Errorf("%w: line %d: %w", errTree, number, err)
		}
	}
	if number == 0 {
		return Tree{}, fmt.Errorf("%w: empty", errTree)
	}
	return p.tree, nil
}

type treeParser struct {
	tree   Tree
	seen   map[string]bool
	quoted bool
	open   bool // the last entry is a file, which may take content
}

func (p *treeParser) line(number int, line string) error {
	if number == 1 {
		if line != treeVersion {
			return fmt.Errorf("want %q, have %q", treeVersion, line)
		}
		return nil
	}
	if note, ok := strings.CutPrefix(line, "#"); ok {
		if len(p.tree.Entries) > 0 {
			return errors.New("a note after the first entry")
		}
		p.tree.Notes = append(p.tree.Notes, strings.TrimPrefix(note, " "))
		return nil
	}
	if content, ok := strings.CutPrefix(line, "\t"); ok {
		return p.content(content)
	}
	return p.header(line)
}

func (p *treeParser) content(line string) error {
	if !p.open {
		return errors.New("content without a file")
	}
	e := &p.tree.Entries[len(p.tree.Entries)-1]
	if !p.quoted {
		e.Content = append(append(e.Content, line...), '\n')
		return nil
	}
	s, err := strconv.Unquote(line)
	if err != nil {
		return fmt.Errorf("unquote: %w", err)
	}
	e.Content = append(e.Content, s...)
	return nil
}

func (p *treeParser) header(line string) error {
	part := strings.Split(line, " ")
	var e Entry
	switch {
	case part[0] == "link" && len(part) == 3:
		e = Entry{Path: part[1], Mode: fs.ModeSymlink | 0o777, Target: part[2]}
		if e.Target == "" {
			return errors.New("a link without a target")
		}
	case (part[0] == "file" || part[0] == "dir") && len(part) >= 3:
		mode, err := strconv.ParseUint(part[1], 8, 9)
		if err != nil || len(part[1]) != 4 {
			return fmt.Errorf("mode %q is not four octal digits", part[1])
		}
		e = Entry{Path: part[2], Mode: fs.FileMode(mode)}
		if part[0] == "dir" {
			e.Mode |= fs.ModeDir
		}
	default:
		return fmt.Errorf("want file, dir or link and its fields, have %q", line)
	}
	p.open = e.Mode.IsRegular()
	p.quoted = p.open && len(part) == 4 && part[3] == "quoted"
	if len(part) == 4 && !p.quoted || len(part) > 4 {
		return fmt.Errorf("unknown field in %q", line)
	}
	if err := p.check(e); err != nil {
		return err
	}
	p.tree.Entries = append(p.tree.Entries, e)
	return nil
}

func (p *treeParser) check(e Entry) error {
	switch {
	case e.Path == "/" || !strings.HasPrefix(e.Path, "/") || path.Clean(e.Path) != e.Path:
		return fmt.Errorf("path %q is not absolute and clean", e.Path)
	case strings.ContainsAny(e.Path+e.Target, "\x00\t\r\n"):
		return fmt.Errorf("path %q holds white space", e.Path)
	case p.seen[e.Path]:
		return fmt.Errorf("path %s occurs twice", e.Path)
	}
	p.seen[e.Path] = true
	return nil
}

// String is the text form; ParseTree of it gives the same tree.
func (t Tree) String() string {
	var b strings.Builder
	b.WriteString(treeVersion + "\n")
	for _, n := range t.Notes {
		b.WriteString("# " + n + "\n")
	}
	for _, e := range t.Entries {
		e.format(&b)
	}
	return b.String()
}

func (e Entry) format(b *strings.Builder) {
	switch {
	case e.Mode&fs.ModeSymlink != 0:
		fmt.Fprintf(b, "link %s %s\n", e.Path, e.Target)
	case e.Mode.IsDir():
		fmt.Fprintf(b, "dir %04o %s\n", e.Mode.Perm(), e.Path)
	case e.lines():
		fmt.Fprintf(b, "file %04o %s\n", e.Mode.Perm(), e.Path)
		for line := range bytes.Lines(e.Content) {
			b.WriteByte('\t')
			b.Write(line)
		}
	default:
		fmt.Fprintf(b, "file %04o %s quoted\n\t%s\n", e.Mode.Perm(), e.Path, strconv.Quote(string(e.Content)))
	}
}

// lines reports whether the content can be written as lines of text.
func (e Entry) lines() bool {
	if len(e.Content) == 0 {
		return true
	}
	plain := !bytes.ContainsFunc(e.Content, func(r rune) bool {
		return r == '\uFFFD' || (r < ' ' && r != '\n' && r != '\t')
	})
	return plain && e.Content[len(e.Content)-1] == '\n'
}

// sortEntries puts entries into the order of their paths.
func (t *Tree) sortEntries() {
	slices.SortFunc(t.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
}
