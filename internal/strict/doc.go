// Package strict reads YAML that people write for a program that hands out
// money: fleet files and the daemon's configuration.
//
// The syntax tree is walked by hand, so that every value is still the text that
// was written ("0o17" or "1e30" reaches the unit's own parser), and every fault
// is one line with its place: file:line:column: key: reason; fix. A key that does
// not exist, a key given twice and a second document are faults. Anchors,
// aliases, tags and merge keys are refused: they make one line stand for many,
// and a file about money should say what it means where it means it.
//
// It touches nothing but the text that it is given.
package strict
