// Package fleet holds what a person asks Maxwell to run: one workload from
// flags, or many from a fleet file.
//
// It turns bytes into values and back and touches nothing else: no file, no
// process, no clock. A fleet file is YAML read strictly (internal/strict): an
// unknown key, a key given twice, an amount in the wrong unit or a name used
// twice is an error that names the line, the column and the fix, on one line,
// and nothing starts. Anchors, aliases, tags and merge keys are refused: they make one
// line stand for many, and a file that hands out money should say what it
// means where it means it.
//
// The caller reads the file, asks Trusted whether its mode lets others write
// it, and checks what only the node knows (a budget below twice the deposit,
// names taken in the running market).
package fleet
