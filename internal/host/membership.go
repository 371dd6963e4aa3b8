package host

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Membership says in which cgroup of each hierarchy a process is.
type Membership struct {
	V2    string                // path in the cgroup2 hierarchy, "" when there is none
	V1    map[Controller]string // path in the hierarchy of each v1 controller
	Named map[string]string     // path in named hierarchies without controller ("systemd")
}

// ParseMembership parses /proc/PID/cgroup: lines "id:controllers:path"
// (cgroups(7)). Paths may hold colons, but never a newline: the kernel refuses
// to make such a group.
func ParseMembership(text []byte) (Membership, error) {
	m := Membership{V1: map[Controller]string{}, Named: map[string]string{}}
	number := 0
	for raw := range bytes.Lines(text) {
		number++
		line := strings.TrimSuffix(string(raw), "\n")
		if line == "" {
			continue
		}
		if err := m.add(line); err != nil {
			return Membership{}, fmt.Errorf("parse cgroup line %d: %w", number, err)
		}
	}
	return m, nil
}

func (m *Membership) add(line string) error {
	part := strings.SplitN(line, ":", 3)
	if len(part) != 3 || !strings.HasPrefix(part[2], "/") {
		return fmt.Errorf("not id:controllers:path: %q", line)
	}
	id, err := strconv.ParseUint(part[0], 10, 32)
	if err != nil {
		return fmt.Errorf("read hierarchy id: %w", err)
	}
	path := strings.TrimSuffix(part[2], " (deleted)")
	if id == 0 && part[1] == "" {
		m.V2 = path
		return nil
	}
	for name := range strings.SplitSeq(part[1], ",") {
		if title, ok := strings.CutPrefix(name, "name="); ok {
			m.Named[title] = path
		} else if name != "" {
			m.V1[Controller(name)] = path
		}
	}
	return nil
}
