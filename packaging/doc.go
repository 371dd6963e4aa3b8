// Package packaging is what make package puts into a deb beside the program, and
// the test of it: the package is installed, upgraded, removed and purged in a tree
// of its own, and systemd's tools judge the units.
package packaging
