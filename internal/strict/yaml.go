package strict

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on a file before the YAML parser sees it: its cost grows with the
// square of the nesting, and no file of Maxwell's nests more than six levels.
const (
	MaxFile    = 32 << 20
	maxNesting = 32
)

// Error is a fault of a file, with its place.
type Error struct {
	File         string
	Line, Column int
	Path         string // the key, as in workloads.leech.budget
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

// Document is a file that is read: its name for errors, and what it is called.
type Document struct {
	File   string
	Kind   string // "a fleet file"
	Levels string // how deep such a file nests, in words: "five"
}

// Node is a value of the syntax tree.
type Node = ast.Node

// Read returns the document's only value, nil if there is none.
func (d Document) Read(text []byte) (Node, error) {
	if len(text) > MaxFile {
		return nil, &Error{File: d.File, Err: fmt.Errorf("the file is larger than %d MiB; split it", MaxFile>>20)}
	}
	if !utf8.Valid(text) {
		line := 1 + bytes.Count(text[:validPrefix(text)], []byte("\n"))
		return nil, &Error{File: d.File, Line: line, Column: 1, Err: errors.New("the text is not UTF-8")}
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
			return nil, d.Fault(doc.Body, "", d.Kind+" is one document; remove the second ---")
		}
		body = doc.Body
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
func (d Document) checkNesting(tokens token.Tokens) error {
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
			return &Error{File: d.File, Line: t.Position.Line, Column: t.Position.Column, Err: fmt.Errorf("nested too deeply; %s needs %s levels", d.Kind, d.Levels)}
		}
	}
	return nil
}

// syntax turns the parser's many-line message into one line with a place.
func (d Document) syntax(err error) error {
	type placed interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if p, ok := err.(placed); ok && p.GetToken() != nil && p.GetToken().Position != nil {
		at := p.GetToken().Position
		return &Error{File: d.File, Line: at.Line, Column: at.Column, Err: errors.New(strings.ReplaceAll(p.GetMessage(), "'\t'", "tab (indent with spaces)"))}
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return &Error{File: d.File, Err: errors.New(first)}
}

// Fault is an error at a value's place.
func (d Document) Fault(n Node, path, reason string) error {
	return d.Wrap(n, path, errors.New(reason))
}

// Wrap gives err a value's place.
func (d Document) Wrap(n Node, path string, err error) error {
	e := &Error{File: d.File, Path: path, Err: err}
	if at := Position(n); at != nil {
		e.Line, e.Column = at.Line, at.Column
	}
	return e
}

// Position is where a value begins, nil if unknown: for a block mapping its
// first key.
func Position(n Node) *token.Position {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return Position(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return Position(v.Key)
	}
	if n == nil || n.GetToken() == nil {
		return nil
	}
	return n.GetToken().Position
}

// Entry is one key of a mapping with its value.
type Entry struct {
	Key   string
	At    Node
	Value Node
}

// Place is where a fault of the value is shown: at the key if there is no value.
func (e Entry) Place() Node {
	if IsNull(e.Value) {
		return e.At
	}
	return e.Value
}

// IsNull says that a key has no value.
func IsNull(n Node) bool {
	_, null := n.(*ast.NullNode)
	return null || n == nil
}

// List returns the values of a list.
func List(n Node) ([]Node, bool) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		return nil, false
	}
	return list.Values, true
}

// Mapping returns the entries of n in the order of the file.
func (d Document) Mapping(n Node, path, want string) ([]Entry, error) {
	var values []*ast.MappingValueNode
	switch v := n.(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	case *ast.NullNode:
		return nil, nil
	default:
		return nil, d.Fault(n, path, KindOf(n)+" where "+want+" belongs")
	}
	out := make([]Entry, 0, len(values))
	lines := make(map[string]int, len(values))
	for _, v := range values {
		key, ok := Scalar(v.Key)
		if !ok {
			return nil, d.Fault(v.Key, path, KindOf(v.Key)+" cannot be a key here; write a plain word")
		}
		if line, twice := lines[key]; twice {
			return nil, d.Fault(v.Key, path, fmt.Sprintf("%q is already on line %d; keep one", key, line))
		}
		lines[key] = Position(v.Key).Line
		out = append(out, Entry{key, v.Key, v.Value})
	}
	return out, nil
}

// Scalar returns a value's text as it was written.
func Scalar(n Node) (string, bool) {
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

// KindOf names a node as a reader of the file would.
func KindOf(n Node) string {
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

// Text returns a scalar or says what is there instead.
func (d Document) Text(e Entry, path, example string) (string, error) {
	s, ok := Scalar(e.Value)
	if !ok {
		return "", d.Fault(e.Place(), path, KindOf(e.Value)+" where a value belongs; write "+example)
	}
	return s, nil
}

// Unknown reports a key that does not exist, with the nearest that does.
func (d Document) Unknown(e Entry, path string, known []string) error {
	reason := fmt.Sprintf("unknown key %q", e.Key)
	if near := Nearest(e.Key, known); near != "" {
		reason += fmt.Sprintf("; did you mean %q?", near)
	} else {
		reason += "; known keys: " + strings.Join(known, ", ")
	}
	return d.Fault(e.At, path, reason)
}
