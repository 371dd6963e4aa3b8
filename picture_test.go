package maxwell

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

//go:generate go test -count=1 -run ^TestPicture$ . -args -update

var update = flag.Bool("update", false, "rewrite docs/picture.svg")

// The picture of the README is drawn from a capture of a real terminal of 100
// columns: docs/picture.txt, by `tmux capture-pane -p`. Nothing in it is
// coloured by Maxwell; the prompt line is shown dimmer.
const (
	capture = "docs/picture.txt"
	picture = "docs/picture.svg"
	columns = 100
)

// Pixels of one character and of the space around the text.
const (
	charWidth  = 8
	lineHeight = 18
	margin     = 16
	title      = 28
)

// draw renders a capture as SVG. Every line is stretched to its number of
// characters, so that columns stay columns whatever font the reader has.
func draw(text string) (string, error) {
	lines := strings.Split(strings.TrimRight(text, "\n "), "\n")
	width, height := columns*charWidth+2*margin, title+len(lines)*lineHeight+2*margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="maxwell up in a terminal">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="#16181d"/>`+"\n", width, height)
	for i, colour := range []string{"#ff5f57", "#febc2e", "#28c840"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="16" r="5" fill="%s"/>`+"\n", margin+5+i*18, colour)
	}
	b.WriteString(`<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="13" fill="#d6deeb" xml:space="preserve">` + "\n")
	for i, line := range lines {
		line = strings.TrimRight(line, " ")
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
			return "", fmt.Errorf("line %d holds a control character", i+1)
		}
		n := len([]rune(line))
		if n > columns {
			return "", fmt.Errorf("line %d has %d columns, more than %d", i+1, n, columns)
		}
		if n == 0 {
			continue
		}
		colour := ""
		if strings.HasPrefix(line, "$ ") {
			colour = ` fill="#7fdbca"`
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" textLength="%d"%s>%s</text>`+"\n", margin, title+margin+(i+1)*lineHeight-5, n*charWidth, colour, escape.Replace(line))
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String(), nil
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// TestPicture: the picture shows what was captured.
func TestPicture(t *testing.T) {
	text, err := os.ReadFile(capture)
	if err != nil {
		t.Fatal(err)
	}
	want, err := draw(string(text))
	if err != nil {
		t.Fatalf("%s: %v", capture, err)
	}
	if *update {
		if err := os.WriteFile(picture, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what %s says; run go generate .", picture, capture)
	}
}

// TestDraw: a line is one text element, escaped, as wide as it is long.
func TestDraw(t *testing.T) {
	got, err := draw("$ a <b>\n\nplain & simple  \n\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`textLength="56" fill="#7fdbca">$ a &lt;b&gt;</text>`, `y="93" textLength="112">plain &amp; simple</text>`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "<text"); n != 2 {
		t.Errorf("%d lines, want 2", n)
	}
	for _, bad := range []string{"a\x1b[1m", strings.Repeat("x", columns+1)} {
		if _, err := draw(bad); err == nil {
			t.Errorf("%q is drawn", bad)
		}
	}
}
