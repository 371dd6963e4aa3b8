// Package config holds what an administrator asks of the daemon: one documented
// schema, read from three layers.
//
// # Layers
//
// The file (DefaultFile; YAML, read by internal/strict), then the environment
// (MAXWELL_ and the key's path in capitals: MAXWELL_NODE_CORES), then flags
// (key=value). A later layer wins, key by key. Lists are separated by commas
// outside the file. Rules are written in the file only.
//
// Every key is one row of the table in keys.go: how it is read and written, its
// default, and what it means. The guide's table and the file that the package
// installs are written from it.
//
// # Rules
//
// A rule says which work it is for, how strictly it is enforced, and which wallet
// pays. The first rule that matches wins; work that no rule matches gets the
// wallet in defaults and the daemon's own enforce. What a rule's wallet leaves out
// it takes from defaults, except the name.
//
// Within a match every key must hold, and of a key's list any word. A cgroup
// pattern names a group by segments: * stands for any characters but /, ? for one;
// a pattern with a / begins at the root of the tree, one without is looked for at
// every depth, the outermost winning. It holds for the group and everything below
// it, since processes live in a group's leaves: user.slice/user-*.slice is all
// work of all sessions. A trailing /** says the same aloud.
//
// # Names
//
// The name of a wallet is a template. What is put into it is escaped (_2e for a
// dot), so that the result is a plain name of at most 63 bytes and two users,
// groups, containers or cgroups of one rule never share one by accident. Two rules
// that should not share a wallet need different text in their templates.
//
// # Faults
//
// Load reports all faults, not the first: each is one line with its place (file,
// line and column, variable, or flag) and the remedy. Nothing is half loaded.
package config
