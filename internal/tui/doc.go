// Package tui is the screen of `maxwell top`: the market as its owner sees it,
// redrawn as it changes, and the few things that can be done about it.
//
// The package has two halves. Model is the screen as a value: keys, sizes and
// answers of the market go in, a frame of text and what to ask the market come
// out. It knows no terminal, no clock and no library, so that tests play scripts
// of keys and compare frames. Run is the other half, which ties a Model to a
// terminal by bubbletea; nothing else in Maxwell knows that library.
//
// Rules of the screen: no line is wider than the terminal and no frame higher;
// what comes from a workload (its name above all) is reduced to characters that
// are one column wide and do nothing. Colour adds nothing: the selected row has a
// mark, and words say what is modelled.
package tui
