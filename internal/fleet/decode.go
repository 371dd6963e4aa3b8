package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Bounds on a file before the YAML parser sees it: its cost grows with the
// square of the nesting, and a fleet file nests five levels.
const (
	maxFile    = 32 << 20
	maxNesting = 32
)

// Error is a fault of a fleet file, with its place.
type Error struct {
	File         string
	Line, Column int
	Path         string // workloads.leech.budget
	Err          error
}

// Error is one line: fleet.yaml:4:12: workloads.leech.budget: reason; fix.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", e.Line, e.Column)
	}
	if e.Path != "" {
		fmt.Fprintf(&b, " %s:", e.Path)
	}
	fmt.Fprintf(&b, " %v", e.Err)
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(b.String())
}

func (e *Error) Unwrap() error { return e.Err }

// Parse reads a fleet file. The name is only used in errors.
func Parse(file string, text []byte) (Fleet, error) {
	d := decoder{file: file}
	body, err := d.read(text)
	if err != nil {
		return Fleet{}, err
	}
	if err := d.fleet(body); err != nil {
		return Fleet{}, err
	}
	return d.out, nil
}

// decoder walks the syntax tree by hand: every value is still text there, so
// "0o17" or "1e30" reaches the unit's own parser as it was written, and every
// fault has its place.
type decoder struct {
	file string
	out  Fleet
}

func (d *decoder) read(text []byte) (ast.Node, error) {
	if len(text) > maxFile {
		return nil, &Error{File: d.file, Err: fmt.Errorf("the file is larger than %d MiB; split it", maxFile>>20)}
	}
	if !utf8.Valid(text) {
		line := 1 + bytes.Count(text[:validPrefix(text)], []byte("\n"))
		return nil, &Error{File: d.file, Line: line, Column: 1, Err: errors.New("the text is not UTF-8")}
	}
	tokens := lexer.Tokenize(string(text))
	if err := d.checkNesting(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // mapping names the line and the key
	if err != nil {
		return nil, d.syntax(err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			return nil, d.fault(doc.Body, "", "a fleet file is one document; remove the second ---")
		}
		body = doc.Body
	}
	if body == nil {
		return nil, &Error{File: d.file, Err: errors.New("the file is empty; it needs the key workloads")}
	}
	return body, nil
}

func validPrefix(text []byte) int {
	i := 0
	for i < len(text) {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	return i
}

// checkNesting refuses depth before the recursive parser meets it.
func (d *decoder) checkNesting(tokens token.Tokens) error {
	flow, entries, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position != nil && t.Position.Line != line {
			line, entries = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow = max(0, flow-1)
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			entries++
		}
		deep := t.Position != nil && t.Position.IndentNum > 16*maxNesting
		if flow > maxNesting || entries > maxNesting || deep {
			return &Error{File: d.file, Line: t.Position.Line, Column: t.Position.Column, Err: errors.New("nested too deeply; a fleet file needs five levels")}
		}
	}
	return nil
}

// syntax turns the parser's many-line message into one line with a place.
func (d *decoder) syntax(err error) error {
	type placed interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if p, ok := err.(placed); ok && p.GetToken() != nil && p.GetToken().Position != nil {
		at := p.GetToken().Position
		return &Error{File: d.file, Line: at.Line, Column: at.Column, Err: errors.New(strings.ReplaceAll(p.GetMessage(), "'\t'", "tab (indent with spaces)"))}
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return &Error{File: d.file, Err: errors.New(first)}
}

func (d *decoder) fault(n ast.Node, path, reason string) error {
	return d.wrap(n, path, errors.New(reason))
}

func (d *decoder) wrap(n ast.Node, path string, err error) error {
	e := &Error{File: d.file, Path: path, Err: err}
	if at := position(n); at != nil {
		e.Line, e.Column = at.Line, at.Column
	}
	return e
}

func position(n ast.Node) *token.Position {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return position(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(v.Key)
	}
	if n == nil || n.GetToken() == nil {
		return nil
	}
	return n.GetToken().Position
}

// entry is one key of a mapping with its value.
type entry struct {
	key   string
	at    ast.Node
	value ast.Node
}

// mapping returns the entries of n in the order of the file.
func (d *decoder) mapping(n ast.Node, path, want string) ([]entry, error) {
	var values []*ast.MappingValueNode
	switch v := n.(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	case *ast.NullNode:
		return nil, nil
	default:
		return nil, d.fault(n, path, kind(n)+" where "+want+" belongs")
	}
	out := make([]entry, 0, len(values))
	lines := make(map[string]int, len(values))
	for _, v := range values {
		key, ok := scalar(v.Key)
		if !ok {
			return nil, d.fault(v.Key, path, kind(v.Key)+" cannot be a key here; write a plain word")
		}
		if line, twice := lines[key]; twice {
			return nil, d.fault(v.Key, path, fmt.Sprintf("%q is already on line %d; keep one", key, line))
		}
		lines[key] = position(v.Key).Line
		out = append(out, entry{key, v.Key, v.Value})
	}
	return out, nil
}

// scalar returns a value's text as it was written.
func scalar(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// kind names a node as a reader of the file would.
func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode, nil:
		return "nothing"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor or alias (not supported: write the value out)"
	case *ast.TagNode:
		return "a tag (not supported)"
	}
	return "a plain value"
}

// text returns a scalar or says what is there instead.
func (d *decoder) text(e entry, path, example string) (string, error) {
	s, ok := scalar(e.value)
	if !ok {
		at := e.value
		if _, null := at.(*ast.NullNode); null {
			at = e.at
		}
		return "", d.fault(at, path, kind(e.value)+" where a value belongs; write "+example)
	}
	return s, nil
}

// unknown reports a key that does not exist, with the nearest that does.
func (d *decoder) unknown(e entry, path string, known []string) error {
	reason := fmt.Sprintf("unknown key %q", e.key)
	if near := Nearest(e.key, known); near != "" {
		reason += fmt.Sprintf("; did you mean %q?", near)
	} else {
		reason += "; known keys: " + strings.Join(known, ", ")
	}
	return d.fault(e.at, path, reason)
}

func (d *decoder) fleet(body ast.Node) error {
	top, err := d.mapping(body, "", "node: and workloads:")
	if err != nil {
		return err
	}
	known := []string{"node", "workloads"}
	for _, e := range top {
		switch e.key {
		case "node":
			err = d.node(e)
		case "workloads":
			err = d.workloads(e)
		default:
			err = d.unknown(e, "", known)
		}
		if err != nil {
			return err
		}
	}
	if len(d.out.Workloads) == 0 {
		return &Error{File: d.file, Err: errors.New("no workloads; write workloads: {NAME: {command: [...]}}")}
	}
	return nil
}

func (d *decoder) node(e entry) error {
	entries, err := d.mapping(e.value, "node", "{cores: 2, watts: 25}")
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := "node." + e.key
		field := findField(nodeFields, e.key)
		if field == nil {
			return d.unknown(e, "node", fieldNames(nodeFields))
		}
		text, err := d.text(e, path, field.example)
		if err != nil {
			return err
		}
		if err := field.set(&d.out.Node, text); err != nil {
			return d.wrap(e.value, path, err)
		}
	}
	return nil
}

func (d *decoder) workloads(e entry) error {
	entries, err := d.mapping(e.value, "workloads", "{NAME: {command: [...]}}")
	if err != nil {
		return err
	}
	names := make(map[string]int, len(entries))
	for _, e := range entries {
		w, err := d.workload(e)
		if err != nil {
			return err
		}
		if err := d.claim(names, e, &w); err != nil {
			return err
		}
		d.out.Workloads = append(d.out.Workloads, w)
	}
	return nil
}

// claim enters the names of a template into names, refusing a second use.
func (d *decoder) claim(names map[string]int, e entry, w *Workload) error {
	if len(names)+max(1, w.Replicas) > MaxWorkloads {
		return d.fault(e.at, "workloads", fmt.Sprintf("more than %d workloads; start fewer", MaxWorkloads))
	}
	for i := range max(1, w.Replicas) {
		name := w.Name
		if w.Replicas > 0 {
			name = replicaName(w.Name, i+1)
		}
		if p := CheckName(name); p != nil {
			return d.wrap(e.at, "workloads."+w.Name, p)
		}
		if line, taken := names[name]; taken {
			return d.fault(e.at, "workloads."+w.Name, fmt.Sprintf("the name %q is already used by line %d; rename one", name, line))
		}
		names[name] = w.Place.Line
	}
	return nil
}

func (d *decoder) workload(e entry) (Workload, error) {
	path := "workloads." + e.key
	w := New(e.key)
	if at := position(e.at); at != nil {
		w.Place = Place{at.Line, at.Column}
	}
	if p := CheckName(w.Name); p != nil {
		return w, d.wrap(e.at, "workloads", p)
	}
	entries, err := d.mapping(e.value, path, "{command: [...], budget: 500}")
	if err != nil {
		return w, err
	}
	at := make(map[string]ast.Node, len(entries))
	for _, f := range entries {
		if err := d.key(&w, f, path); err != nil {
			return w, err
		}
		at[f.key] = f.value
	}
	w.Fill()
	if p := w.Validate(); p != nil {
		where, found := at[p.Field]
		if !found {
			where = e.at
		}
		full := path
		if p.Field != "" {
			full += "." + p.Field
		}
		return w, d.wrap(where, full, p)
	}
	return w, nil
}

// key sets one key of a workload.
func (d *decoder) key(w *Workload, e entry, parent string) error {
	path := parent + "." + e.key
	switch e.key {
	case "command":
		return d.command(w, e, path)
	case "income":
		return d.income(w, e, path)
	case "env":
		return d.env(w, e, path)
	}
	field := findField(workloadFields, e.key)
	if field == nil {
		known := append([]string{"command", "income", "env"}, fieldNames(workloadFields)...)
		return d.unknown(e, parent, known)
	}
	text, err := d.text(e, path, field.example)
	if err != nil {
		return err
	}
	if err := field.set(w, text); err != nil {
		return d.wrap(e.value, path, err)
	}
	return nil
}

func (d *decoder) command(w *Workload, e entry, path string) error {
	const fix = `write a list: [sleep, "5"]`
	list, ok := e.value.(*ast.SequenceNode)
	if !ok {
		at := e.value
		if _, null := at.(*ast.NullNode); null {
			at = e.at
		}
		return d.fault(at, path, kind(e.value)+" where a list belongs; "+fix)
	}
	for _, v := range list.Values {
		word, ok := scalar(v)
		if !ok {
			return d.fault(v, path, kind(v)+" where a word belongs; "+fix)
		}
		w.Command = append(w.Command, word)
	}
	if p := checkCommand(w.Command); p != nil {
		return d.wrap(e.value, path, p)
	}
	return nil
}

func (d *decoder) income(w *Workload, e entry, path string) error {
	entries, err := d.mapping(e.value, path, "{per: prime-batch, amount: 10}")
	if err != nil {
		return err
	}
	for _, f := range entries {
		text, err := d.text(f, path+"."+f.key, "a word or an amount")
		if err != nil {
			return err
		}
		switch f.key {
		case "per":
			if p := CheckName(text); p != nil {
				p.Reason = strings.Replace(p.Reason, "the name", "the kind of work", 1)
				return d.wrap(f.value, path+".per", p)
			}
			w.Income.Per = text
		case "amount":
			w.Income.Amount, err = above(unit.ParseCredits(text))
			if err != nil {
				return d.wrap(f.value, path+".amount", err)
			}
		default:
			return d.unknown(f, path, []string{"per", "amount"})
		}
	}
	return nil
}

func (d *decoder) env(w *Workload, e entry, path string) error {
	entries, err := d.mapping(e.value, path, "{NAME: value}")
	if err != nil {
		return err
	}
	w.Env = make(map[string]string, len(entries))
	for _, f := range entries {
		text, err := d.text(f, path+"."+f.key, `"value"`)
		if err != nil {
			return err
		}
		if f.key == "" || strings.ContainsAny(f.key, "=\x00") || strings.Contains(text, "\x00") {
			return d.fault(f.at, path, fmt.Sprintf("%q cannot be a variable; write {NAME: value}", f.key))
		}
		if strings.HasPrefix(f.key, "MAXWELL_") {
			return d.fault(f.at, path, fmt.Sprintf("%q is set by Maxwell; choose another name", f.key))
		}
		w.Env[f.key] = text
	}
	return nil
}

// count reads a whole number above zero.
func count(text string, limit int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > limit {
		return 0, &Problem{Text: text, Reason: fmt.Sprintf("not a whole number from 1 to %d", limit)}
	}
	return n, nil
}

// above refuses zero: an amount of nothing is a slip, absence is no limit.
func above[T ~int64](v T, err error) (T, error) {
	if err == nil && v <= 0 {
		return 0, &Problem{Reason: "the amount is zero", Fix: "leave it out for no limit"}
	}
	return v, err
}

// ParseSpan reads a time above zero and below a century.
func ParseSpan(text string) (time.Duration, error) { return duration("", text) }

func duration(field, text string) (time.Duration, error) {
	v, err := above(unit.ParseDuration(text))
	if err != nil {
		return 0, err
	}
	if p := checkDuration(field, text, v); p != nil {
		return 0, p
	}
	return v, nil
}
