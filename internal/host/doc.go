// Package host reads the kernel's files and tries the kernel's abilities,
// always from injected roots.
//
// Roots is the machine as files: opened once in main, handed down, and
// replaced in tests by a recorded machine (see package hosttest). No other
// package names /proc or /sys by itself. A kernel file that is read every
// epoch is a File: found once through a Root, kept open, read by pread into
// its own buffer without allocation.
//
// Abilities are never inferred from a configuration, a version or a list:
// each probe uses the ability once, for real, and puts everything back. What
// is missing is an *Unavailable with the reason and, where there is one, the
// operator's remedy.
package host
