package config

import (
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func choice(text string, words ...string) (string, error) {
	if slices.Contains(words, text) {
		return text, nil
	}
	last := len(words) - 1
	fix := "write " + strings.Join(words[:last], ", ") + " or " + words[last]
	return "", &fleet.Problem{Text: text, Reason: "unknown choice", Fix: fix}
}

// absolute reads an absolute path; a daemon's own directory is no place to start from.
func absolute(text string) (string, error) {
	if !filepath.IsAbs(text) || strings.ContainsFunc(text, control) {
		return "", &fleet.Problem{Text: text, Reason: "not an absolute path", Fix: "write one that begins with /"}
	}
	return filepath.Clean(text), nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }

// maxSocket is the longest path of a unix socket (sun_path, with its NUL).
const maxSocket = 107

func socketPath(text string) (string, error) {
	p, err := absolute(text)
	if err == nil && len(p) > maxSocket {
		return "", &fleet.Problem{Text: text, Reason: "longer than the 107 bytes of a socket's path", Fix: "write a shorter one"}
	}
	return p, err
}

// String is the word in the file.
func (a Access) String() string {
	switch {
	case a.Owner:
		return "owner"
	case a.Group != "":
		return "group:" + a.Group
	default:
		return "everybody"
	}
}

func parseAccess(text string) (Access, error) {
	switch name, group := strings.CutPrefix(text, "group:"); {
	case group && checkAccount(name) == nil:
		return Access{Group: name}, nil
	case text == "everybody":
		return Access{}, nil
	case text == "owner":
		return Access{Owner: true}, nil
	}
	return Access{}, &fleet.Problem{Text: text, Reason: "unknown choice", Fix: "write everybody, group:NAME or owner"}
}

// checkAccount says why a text is no name or number of a user or group. Whether it
// exists only the machine knows.
func checkAccount(name string) error {
	bad := func(r rune) bool { return control(r) || strings.ContainsRune(" ,:/", r) }
	if name == "" || len(name) > 256 || strings.ContainsFunc(name, bad) {
		return &fleet.Problem{Text: name, Reason: "not the name of a user or group", Fix: "write a name as in /etc/passwd, or a number"}
	}
	return nil
}

// off turns an endpoint off where an empty text cannot be written.
const off = "off"

func metricsAddress(text string) (Address, error) {
	fix := "write 127.0.0.1:9273, the path of a unix socket, or off"
	switch {
	case text == "" || text == off:
		return Address{}, nil
	case strings.HasPrefix(text, "/"):
		p, err := socketPath(text)
		return Address{Network: "unix", Text: p}, err
	}
	at, err := hostPort(text)
	if err != nil {
		return Address{}, &fleet.Problem{Text: text, Reason: err.Error(), Fix: fix}
	}
	if !at.Addr().IsLoopback() {
		return Address{}, &fleet.Problem{
			Text: text, Reason: "anybody on the network could read it",
			Fix: "write 127.0.0.1:9273 and put a proxy that asks who calls before it",
		}
	}
	return Address{Network: "tcp", Text: at.String()}, nil
}

func tcpAddress(text string) (Address, error) {
	if text == "" || text == off {
		return Address{}, nil
	}
	at, err := hostPort(text)
	if err != nil {
		return Address{}, &fleet.Problem{Text: text, Reason: err.Error(), Fix: "write 0.0.0.0:9274, or off"}
	}
	return Address{Network: "tcp", Text: at.String()}, nil
}

// hostPort reads an address by number: a name could come to mean another machine.
func hostPort(text string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(text)
	switch {
	case err != nil:
		return at, errors.New("not an address and a port")
	case at.Port() == 0:
		return at, errors.New("the port is zero")
	case at.Addr().Zone() != "":
		return at, errors.New("an address with a zone")
	}
	return at, nil
}

func quantum(text string) (time.Duration, error) {
	v, err := unit.ParseDuration(text)
	if err == nil && (v < minQuantum || v > maxQuantum) {
		return 0, &fleet.Problem{Text: text, Reason: "the energy quantum is 100ms to 1h", Fix: "leave it out for 100ms"}
	}
	return v, err
}

func level(text string) (slog.Level, error) {
	if _, err := choice(text, "debug", "info", "warn", "error"); err != nil {
		return 0, err
	}
	var l slog.Level
	return l, l.UnmarshalText([]byte(text))
}

// span reads how long something is kept.
func span(text string) (time.Duration, error) {
	v, err := fleet.ParseSpan(text)
	if err == nil && v < time.Minute {
		return 0, &fleet.Problem{Text: text, Reason: "less than a minute", Fix: "write 30d or 12h"}
	}
	return v, err
}

// spanOrNone is formatSpan, and nothing for none.
func spanOrNone(v time.Duration) string {
	if v == 0 {
		return ""
	}
	return formatSpan(v)
}

func formatSpan(v time.Duration) string {
	if v%day == 0 && v > 0 {
		return strconv.FormatInt(int64(v/day), 10) + "d"
	}
	return v.String()
}
