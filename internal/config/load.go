package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/strict"
)

// Problem is one fault of a configuration, with its place.
type Problem struct {
	Place string // file:line:column, a variable, or --set and a key
	Path  string // the key in a file; empty if the place says it
	Err   error

	layer        Layer
	line, column int
}

// Error is one line: maxwell.yaml:4:12: node.cores: reason; fix.
func (p Problem) Error() string {
	text := p.Place + ": "
	if p.Path != "" {
		text += p.Path + ": "
	}
	return strings.Map(func(r rune) rune {
		if control(r) {
			return ' '
		}
		return r
	}, text+p.Err.Error())
}

func (p Problem) Unwrap() error { return p.Err }

// Problems are all faults of a configuration, in the order of layers and lines.
type Problems []Problem

// Error is one line: the first fault, and how many more there are.
func (p Problems) Error() string {
	switch len(p) {
	case 0:
		return "no problem"
	case 1:
		return p[0].Error()
	}
	return fmt.Sprintf("%v (and %d more: --check lists them)", p[0], len(p)-1)
}

// Unwrap gives errors.Is and errors.As every fault.
func (p Problems) Unwrap() []error {
	out := make([]error, len(p))
	for i := range p {
		out[i] = p[i]
	}
	return out
}

// Load reads the configuration: the file ("" is DefaultFile, which may be absent),
// the environment as of os.Environ, and key=value pairs of flags. An error is
// Problems.
func Load(file string, environ, set []string) (*Config, error) {
	name := file
	if name == "" {
		name = DefaultFile
	}
	text, err := read(name, caller(environ))
	if errors.Is(err, fs.ErrNotExist) && file == "" {
		text, err = nil, nil
	}
	if err != nil {
		return nil, Problems{{Place: name, Err: cause(err), layer: File}}
	}
	return Parse(name, text, environ, set)
}

// cause drops what an *fs.PathError repeats, and says what to do.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		if errors.Is(err, fs.ErrNotExist) {
			return errors.New("no such file; write it, or leave out its name for the defaults")
		}
		return p.Err
	}
	return err
}

func read(name string, as fleet.Caller) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("is a directory; name a file")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		err := as.Trusts("it", info.Mode(), int(st.Uid), int(st.Gid), "it decides who may spend")
		if err != nil {
			return nil, errors.New(strings.TrimPrefix(strings.TrimSuffix(err.Error(), " it")+" "+name, "it: "))
		}
	}
	return io.ReadAll(io.LimitReader(f, strict.MaxFile+1))
}

func caller(environ []string) fleet.Caller {
	c := fleet.Caller{UID: os.Geteuid(), SudoUID: -1, SudoGID: -1}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		switch {
		case err != nil:
		case name == "SUDO_UID":
			c.SudoUID = int(n)
		case name == "SUDO_GID":
			c.SudoGID = int(n)
		}
	}
	return c
}

// Parse is Load with the text of the file. The file's name is only used in errors
// and origins.
func Parse(file string, text []byte, environ, set []string) (*Config, error) {
	l := loader{
		Document: strict.Document{File: file, Kind: "a configuration", Levels: "six"},
		c:        New(), keys: keys(),
	}
	l.c.file = file
	l.file(text)
	l.environment(environ)
	l.flags(set)
	l.finish()
	if len(l.problems) > 0 {
		slices.SortStableFunc(l.problems, func(a, b Problem) int {
			return slices.Compare([]int{int(a.layer), a.line, a.column}, []int{int(b.layer), b.line, b.column})
		})
		return nil, l.problems
	}
	return l.c, nil
}

type loader struct {
	strict.Document
	c        *Config
	keys     []key
	rules    []strict.Node // decoded last: they build on defaults
	problems Problems
}

// fault notes a problem of the file.
func (l *loader) fault(err error) {
	p := Problem{Place: l.File, Err: err, layer: File}
	if placed, ok := errors.AsType[*strict.Error](err); ok {
		p.Path, p.Err = placed.Path, placed.Err
		if placed.Line > 0 {
			p.line, p.column = placed.Line, placed.Column
			p.Place = fmt.Sprintf("%s:%d:%d", l.File, placed.Line, placed.Column)
		}
	}
	l.problems = append(l.problems, p)
}

// blame notes a problem of a value, where it was set.
func (l *loader) blame(path string, err error) {
	at, ok := l.c.origins[path]
	switch {
	case !ok: // a default: only in company of another key
		l.problems = append(l.problems, Problem{Place: path, Err: err})
	case at.Layer == File:
		l.fault(&strict.Error{File: l.File, Line: at.Line, Column: at.Column, Path: path, Err: err})
	default:
		l.problems = append(l.problems, Problem{Place: at.place(), Err: err, layer: at.Layer})
	}
}

func (o Origin) place() string {
	switch o.Layer {
	case File:
		return o.Name + ":" + strconv.Itoa(o.Line)
	case Environment:
		return o.Name
	case Flag:
		return "--set " + o.Name
	default:
		return "default"
	}
}

func (l *loader) file(text []byte) {
	body, err := l.Read(text)
	if err != nil {
		l.fault(err)
		return
	}
	if body == nil {
		return
	}
	top, err := l.Mapping(body, "", "node:, enforce:, rules: and the like")
	if err != nil {
		l.fault(err)
	}
	known := append(l.names(""), "rules")
	for _, e := range top {
		switch {
		case e.Key == "rules":
			l.list(e)
		case l.find(e.Key) != nil:
			l.entry(e, l.find(e.Key))
		case len(l.names(e.Key)) > 0 && e.Key != "":
			l.section(e)
		default:
			l.fault(l.Unknown(e, "", known))
		}
	}
}

func (l *loader) list(e strict.Entry) {
	if list, ok := strict.List(e.Value); ok {
		l.rules = list
		return
	}
	if strict.IsNull(e.Value) {
		return
	}
	l.fault(l.Fault(e.Place(), "rules", strict.KindOf(e.Value)+" where a list belongs; write - match: {user: anna}"))
}

func (l *loader) section(e strict.Entry) {
	known := l.names(e.Key)
	entries, err := l.Mapping(e.Value, e.Key, "{"+known[0]+": "+l.find(e.Key+"."+known[0]).example+"}")
	if err != nil {
		l.fault(err)
	}
	for _, f := range entries {
		if k := l.find(e.Key + "." + f.Key); k != nil {
			l.entry(f, k)
			continue
		}
		l.fault(l.Unknown(f, e.Key, known))
	}
}

// entry sets one key from the file.
func (l *loader) entry(e strict.Entry, k *key) {
	words, err := l.words(e, k.path, k.example, k.list)
	if err == nil {
		err = l.wrap(e, k.path, k.set(l.c, words))
	}
	if err != nil {
		l.fault(err)
		return
	}
	l.c.origins[k.path] = l.origin(e)
}

func (l *loader) wrap(e strict.Entry, path string, err error) error {
	if err == nil {
		return nil
	}
	return l.Wrap(e.Value, path, err)
}

func (l *loader) origin(e strict.Entry) Origin {
	o := Origin{Layer: File, Name: l.File}
	if at := strict.Position(e.Value); at != nil {
		o.Line, o.Column = at.Line, at.Column
	}
	return o
}

// words reads a value: one word, or where a list is allowed also many.
func (l *loader) words(e strict.Entry, path, example string, list bool) ([]string, error) {
	values, many := strict.List(e.Value)
	if !list || !many {
		text, err := l.Text(e, path, example)
		return []string{text}, err
	}
	words := make([]string, 0, len(values))
	for _, v := range values {
		word, ok := strict.Scalar(v)
		if !ok {
			return nil, l.Fault(v, path, strict.KindOf(v)+" where a word belongs; write "+example)
		}
		words = append(words, word)
	}
	return words, nil
}

// names are the keys of a section, or without one the words of the first level.
func (l *loader) names(section string) []string {
	var out []string
	for i := range l.keys {
		s, name := l.keys[i].split()
		switch {
		case s == section:
			out = append(out, name)
		case section == "" && !slices.Contains(out, s):
			out = append(out, s)
		}
	}
	return out
}

func (l *loader) find(path string) *key {
	i := slices.IndexFunc(l.keys, func(k key) bool { return k.path == path })
	if i < 0 {
		return nil
	}
	return &l.keys[i]
}

// environment reads the variables of the schema. Others that begin with MAXWELL_
// belong to clients and scripts, unless they look like a slip.
func (l *loader) environment(environ []string) {
	known := make([]string, len(l.keys))
	for i := range l.keys {
		known[i] = l.keys[i].variable()
	}
	for _, e := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, prefix) || value == "" {
			continue
		}
		at := Origin{Layer: Environment, Name: name}
		if i := slices.Index(known, name); i >= 0 {
			l.assign(&l.keys[i], value, at)
			continue
		}
		if reason := l.slip(name, known); reason != "" {
			l.problems = append(l.problems, Problem{Place: name, Err: errors.New(reason), layer: Environment})
		}
	}
}

func (l *loader) slip(name string, known []string) string {
	if near := strict.Nearest(name, known); near != "" {
		return fmt.Sprintf("unknown variable; did you mean %s?", near)
	}
	for _, section := range l.names("") {
		mark := prefix + strings.ToUpper(section) + "_"
		if len(l.names(section)) > 0 && strings.HasPrefix(name, mark) {
			of := slices.DeleteFunc(slices.Clone(known), func(k string) bool { return !strings.HasPrefix(k, mark) })
			return "unknown variable; known are " + strings.Join(of, ", ")
		}
	}
	if strings.HasPrefix(name, prefix+"RULES") {
		return "rules are written in the file; unset it"
	}
	return ""
}

func (l *loader) flags(set []string) {
	known := make([]string, len(l.keys))
	for i := range l.keys {
		known[i] = l.keys[i].path
	}
	for _, s := range set {
		path, value, found := strings.Cut(s, "=")
		k := l.find(path)
		at := Origin{Layer: Flag, Name: path}
		reason := ""
		switch {
		case !found:
			reason = "a key without a value; write --set node.cores=2"
		case path == "rules" || strings.HasPrefix(path, "rules["):
			reason = "rules are written in the file"
		case k == nil:
			reason = "unknown key; known are " + strings.Join(known, ", ")
			if near := strict.Nearest(path, known); near != "" {
				reason = fmt.Sprintf("unknown key; did you mean %q?", near)
			}
		}
		if reason != "" {
			l.problems = append(l.problems, Problem{Place: at.place(), Err: errors.New(reason), layer: Flag})
			continue
		}
		l.assign(k, value, at)
	}
}

// assign sets a key from a text of one line.
func (l *loader) assign(k *key, value string, at Origin) {
	words := []string{value}
	if k.list {
		words = strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
	}
	if err := k.set(l.c, words); err != nil {
		l.problems = append(l.problems, Problem{Place: at.place(), Err: err, layer: at.Layer})
		return
	}
	l.c.origins[k.path] = at
}
