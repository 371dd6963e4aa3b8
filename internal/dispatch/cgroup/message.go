package cgroup

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// verb is what a node tells its watchdog.
type verb string

const (
	verbNone     verb = ""
	verbHold     verb = "hold"     // a group: stopped if the node dies, ended at a time
	verbFree     verb = "free"     // a group: as all others
	verbFarewell verb = "farewell" // the node has taken everything away
	verbHandover verb = "handover" // the node goes, its workloads live on
)

// message is one line from a node to its watchdog.
type message struct {
	verb  verb
	name  string       // of a group's directories
	until unit.Instant // of hold: when its grace ends, 0 for never
}

var errMessage = errors.New("not a word of ours")

// String is the line: "hold NAME NS", "free NAME", "farewell" or "handover".
func (m message) String() string {
	switch m.verb {
	case verbHold:
		return fmt.Sprintf("%s %s %d", m.verb, m.name, int64(m.until))
	case verbFree:
		return string(m.verb) + " " + m.name
	default:
		return string(m.verb)
	}
}

// parseMessage is the inverse of String.
func parseMessage(line string) (message, error) {
	word := strings.Split(line, " ")
	m := message{verb: verb(word[0])}
	want := map[verb]int{verbHold: 3, verbFree: 2, verbFarewell: 1, verbHandover: 1}[m.verb]
	if len(word) != want {
		return message{}, fmt.Errorf("read %.80q: %w", line, errMessage)
	}
	if want > 1 {
		m.name = word[1]
		if !groupName(m.name) {
			return message{}, fmt.Errorf("read %.80q: %w", line, errMessage)
		}
	}
	if want > 2 {
		until, err := strconv.ParseUint(word[2], 10, 63)
		if err != nil || strconv.FormatUint(until, 10) != word[2] {
			return message{}, fmt.Errorf("read %.80q: %w", line, errMessage)
		}
		m.until = unit.Instant(until)
	}
	return m, nil
}

// groupName reports whether name can be that of a group's directories: nothing
// that leads out of a root.
func groupName(name string) bool {
	rest, ok := strings.CutPrefix(name, groupPrefix)
	return ok && len(name) <= 255 && strings.IndexFunc(rest, func(r rune) bool { return !plain(r) }) < 0
}
