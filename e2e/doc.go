// Package e2e tries the whole of Maxwell as a stranger would: it builds the
// real command once, starts real processes with it on this machine, and judges
// what comes back by its own readings. Nothing of the market is imported: what
// a test compares with is the kernel's own counters, plain arithmetic written
// again here, or the document that the command promises.
//
// Each test opens a market of its own in a runtime directory of its own. Tests
// that judge shares of the processor run alone; the others run side by side.
package e2e
