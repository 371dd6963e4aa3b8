// Package report turns what the market did into text and JSON for people and
// programs: notices, closing lines, receipts, statements, the live table, the
// doctor's screen and the experiment's result.
//
// It takes plain values and writes to an io.Writer. It opens nothing, reads no
// clock and keeps nothing, except Screen, which remembers how many lines it
// drew last so that it can draw over them.
//
// Rules of the screens: power W, energy J, money $J, price x. A figure that
// rests on a model says "modelled" and its one-sigma band on the same line.
// Sums shown are exact: parts are rounded so that they add up to the whole as
// printed. Nothing is coloured; a terminal gets the same words as a file.
package report
