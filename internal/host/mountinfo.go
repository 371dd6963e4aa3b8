package host

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mount is one line of /proc/self/mountinfo
// (Documentation/filesystems/proc.rst, section 3.5).
type Mount struct {
	ID, Parent int
	Root       string // directory of the file system that the mount shows
	Point      string // where it shows it
	Type       string // cgroup, cgroup2, tmpfs...
	Options    string // of the mount: "rw,nosuid"
	Super      string // of the file system: v1 controllers are listed here
}

// Mounts is a mount table in the kernel's order.
type Mounts []Mount

// ParseMounts parses a mountinfo file.
func ParseMounts(text []byte) (Mounts, error) {
	var list Mounts
	number := 0
	for line := range bytes.Lines(text) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		m, err := parseMount(string(line))
		if err != nil {
			return nil, fmt.Errorf("parse mountinfo line %d: %w", number, err)
		}
		list = append(list, m)
	}
	return list, nil
}

// parseMount parses "36 35 98:0 /root /point rw shared:1 - ext4 /dev/sda rw".
// The optional fields before the dash vary in number. A source may be empty,
// so the fields after the dash are counted from the left only as far as the
// type, and the super options are the last.
func parseMount(line string) (Mount, error) {
	head, tail, ok := strings.Cut(strings.TrimRight(line, "\n"), " - ")
	if !ok {
		return Mount{}, fmt.Errorf("no separator in %q", line)
	}
	left, right := strings.Split(head, " "), strings.Split(tail, " ")
	if len(left) < 6 || len(right) < 2 {
		return Mount{}, fmt.Errorf("too few fields in %q", line)
	}
	id, err := strconv.Atoi(left[0])
	if err != nil {
		return Mount{}, fmt.Errorf("read mount id: %w", err)
	}
	parent, err := strconv.Atoi(left[1])
	if err != nil {
		return Mount{}, fmt.Errorf("read parent id: %w", err)
	}
	return Mount{
		ID:      id,
		Parent:  parent,
		Root:    unescape(left[3]),
		Point:   unescape(left[4]),
		Options: left[5],
		Type:    unescape(right[0]),
		Super:   right[len(right)-1],
	}, nil
}

// unescape undoes the kernel's octal escapes (\040 is a space).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Visible drops the mounts that a path look-up does not reach because others
// cover them.
func (l Mounts) Visible() Mounts {
	byID := make(map[int]Mount, len(l))
	children := make(map[int]Mounts, len(l))
	for _, m := range l {
		byID[m.ID] = m
		if m.Parent != m.ID { // the first ram disk is its own parent: "1 1 0:2 / /"
			children[m.Parent] = append(children[m.Parent], m)
		}
	}
	var seen Mounts
	for _, m := range l {
		onTop := slices.ContainsFunc(children[m.ID], func(o Mount) bool { return o.Point == m.Point && o.ID != m.ID })
		if !onTop && reached(m, byID, children) {
			seen = append(seen, m)
		}
	}
	return seen
}

// reached walks from a mount up to the root: at each mount on the way the
// look-up must not turn off into a sibling that lies higher on the path. The bound on the steps ends a loop, which only a
// forged table has.
func reached(m Mount, byID map[int]Mount, children map[int]Mounts) bool {
	for range byID {
		for _, o := range children[m.Parent] {
			if o.ID == m.ID {
				continue
			}
			if within(m.Point, o.Point) && o.Point != m.Point {
				return false
			}
		}
		parent, ok := byID[m.Parent]
		if !ok || parent.ID == m.ID {
			return true
		}
		m = parent
	}
	return true
}

// within reports whether path is dir or lies below it.
func within(path, dir string) bool {
	if dir == "/" || path == dir {
		return true
	}
	return len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/'
}

// hasOption reports whether a comma-separated option list holds a word.
func hasOption(list, word string) bool {
	return slices.Contains(strings.Split(list, ","), word)
}
