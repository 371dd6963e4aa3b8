package report

import (
	"strings"
	"unicode"
)

// wide are the characters that fill two cells of a terminal: the writing of
// East Asia and pictures. A terminal that shows one of them in a single cell
// gets a gap; the other way round a line would wrap.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1},
		{0x231a, 0x231b, 1},
		{0x2329, 0x232a, 1},
		{0x23e9, 0x23f3, 1},
		{0x25fd, 0x25fe, 1},
		{0x2614, 0x2615, 1},
		{0x2630, 0x2637, 1},
		{0x2648, 0x2653, 1},
		{0x267f, 0x26ff, 1},
		{0x2705, 0x27bf, 1},
		{0x2b1b, 0x2b1c, 1},
		{0x2b50, 0x2b55, 1},
		{0x2e80, 0x303e, 1},
		{0x3041, 0x4dff, 1},
		{0x4e00, 0xa4cf, 1},
		{0xa960, 0xa97f, 1},
		{0xac00, 0xd7a3, 1},
		{0xf900, 0xfaff, 1},
		{0xfe10, 0xfe19, 1},
		{0xfe30, 0xfe6f, 1},
		{0xff01, 0xff60, 1},
		{0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{
		{0x16fe0, 0x18dff, 1}, {0x1aff0, 0x1b2ff, 1}, {0x1d300, 0x1d37f, 1}, {0x1f000, 0x1faff, 1}, {0x20000, 0x3fffd, 1},
	},
}

// emojiSelector makes the character before it a picture of two cells.
const emojiSelector = 0xfe0f

// cellsOf is the number of terminal cells that a character fills.
func cellsOf(r rune) int {
	switch {
	case r < 0x300 || r == emojiSelector:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// widthOf is the number of terminal cells that a printable text fills.
func widthOf(s string) int {
	n := 0
	for _, r := range s {
		n += cellsOf(r)
	}
	return n
}

// clip is the beginning of a text that fits into n cells.
func clip(s string, n int) string {
	used := 0
	for i, r := range s {
		if used += cellsOf(r); used > n {
			return s[:i]
		}
	}
	return s
}

// cutTo is a text in at most n cells; two dots stand for what was cut if there
// is room for them.
func cutTo(s string, n int) string {
	const mark = ".."
	switch {
	case widthOf(s) <= n:
		return s
	case n <= 2*len(mark):
		return clip(s, n)
	}
	return clip(s, n-len(mark)) + mark
}

// padTo fills a text with blanks up to n cells.
func padTo(s string, n int) string { return s + strings.Repeat(" ", max(0, n-widthOf(s))) }

// printable keeps foreign text from steering the terminal: control characters,
// and those that hide or reorder others, become question marks.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
