package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// refused checks what a person sees for bad input: one line on standard error
// that names the place and the fix, nothing on standard output, nothing
// started and nothing left.
func refused(t *testing.T, l *lab, r result, code int, words ...string) {
	t.Helper()
	said := strings.TrimSuffix(r.stderr, "\n")
	if r.code != code || r.stdout != "" || strings.Contains(said, "\n") || !strings.HasPrefix(said, "maxwell: ") {
		t.Errorf("want exit %d and one line on standard error:\n%v", code, r)
	}
	for _, word := range words {
		if !strings.Contains(said, word) {
			t.Errorf("the line %q does not name %q", said, word)
		}
	}
	l.clean()
}

// witness is a command that leaves a file behind if it is ever started.
func witness(t *testing.T) (command []string, started func() bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "started")
	return []string{"touch", file}, func() bool { _, err := os.Stat(file); return err == nil }
}

// TestBadRuns are calls of `maxwell run` that cannot work.
func TestBadRuns(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	notExecutable := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(notExecutable, []byte("text"), 0o644))
	for name, c := range map[string]struct {
		flags []string
		words []string
	}{
		"negative money":     {[]string{"--budget", "-5"}, []string{"--budget", `"-5"`, "negative"}},
		"absurd energy":      {[]string{"--max-energy", "1e30kWh"}, []string{"--max-energy", "1e30kWh", "kWh"}},
		"overflow":           {[]string{"--budget", "99999999999999999999"}, []string{"--budget", "more than"}},
		"energy for money":   {[]string{"--budget", "500J"}, []string{`"500J" is energy`, `500 or "500 $J"`}},
		"not a number":       {[]string{"--budget", "NaN"}, []string{"--budget", "NaN"}},
		"infinite":           {[]string{"--bid", "infx"}, []string{"--bid", "inf"}},
		"unknown unit":       {[]string{"--memory", "4Q"}, []string{"--memory", `"Q"`, "512M"}},
		"no unit":            {[]string{"--timeout", "10"}, []string{"--timeout", "10m"}},
		"negative time":      {[]string{"--timeout", "-1s"}, []string{"--timeout", "negative"}},
		"century":            {[]string{"--timeout", "99999999h"}, []string{"--timeout"}},
		"no processes":       {[]string{"--pids", "0"}, []string{"--pids"}},
		"zero cores":         {[]string{"--cores", "0"}, []string{"--cores", "zero"}},
		"bad name":           {[]string{"--name", "a/b"}, []string{"--name", `"a/b"`, "letters"}},
		"unknown flag":       {[]string{"--budegt", "5"}, []string{"--budget"}},
		"auto without money": {[]string{"--bid", "auto"}, []string{"--bid", "budget"}},
		"unknown choice":     {[]string{"--when-broke", "beg"}, []string{"--when-broke", "pause"}},
		"below two deposits": {[]string{"--budget", "1"}, []string{"budget", "deposit", "at least"}},
		"receipt nowhere":    {[]string{"--receipt", "/nonexistent/r.json"}, []string{"/nonexistent/r.json"}},
		"receipt descriptor": {[]string{"--receipt", "fd:77"}, []string{"77"}},
	} {
		t.Run(name, func(t *testing.T) {
			command, started := witness(t)
			r := l.run(append(append(append([]string{"run"}, c.flags...), "--"), command...)...)
			refused(t, l, r, 125, c.words...)
			if started() {
				t.Error("the command was started")
			}
		})
	}
	for name, c := range map[string]struct {
		command []string
		code    int
		words   []string
	}{
		"missing program": {[]string{"no-such-program"}, 127, []string{"no-such-program", "not found"}},
		"missing path":    {[]string{"/no/such/program"}, 127, []string{"/no/such/program"}},
		"not executable":  {[]string{notExecutable}, 126, []string{notExecutable, "permission denied"}},
		"a directory":     {[]string{"/tmp"}, 126, []string{"/tmp"}},
		"empty word":      {[]string{""}, 125, []string{"empty"}},
		"no command":      {nil, 125, []string{"empty", "maxwell run -- COMMAND"}},
		"through a file":  {[]string{"/etc/passwd/x"}, 127, []string{"/etc/passwd/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, l, l.run(append([]string{"run", "--"}, c.command...)...), c.code, c.words...)
		})
	}
}

// TestBadFleets are fleet files that cannot work: the line and the column of
// the fault are named, and no workload of the file was started, also not those
// before the bad one.
func TestBadFleets(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, c := range map[string]struct {
		text  string // GOOD stands for a workload that would start
		words []string
		code  int
	}{
		"not yaml":          {"GOOD  b: {command: [true", []string{":3:"}, 125},
		"a tab":             {"GOOD\tb: 1\n", []string{":3:1"}, 125},
		"unknown key":       {"GOOD  b: {command: [\"true\"], bugdet: 5}\n", []string{":3:26", "bugdet", "budget"}, 125},
		"unknown top key":   {"GOODworkload: {}\n", []string{":3:1", "workload"}, 125},
		"duplicate name":    {"GOOD  b: {command: [\"true\"]}\n  b: {command: [\"true\"]}\n", []string{":4:3", "b"}, 125},
		"clash of replicas": {"GOOD  b-1: {command: [\"true\"]}\n  b: {command: [\"true\"], replicas: 2}\n", []string{"b-1"}, 125},
		"negative":          {"GOOD  b: {command: [\"true\"], budget: -5}\n", []string{":3:", "budget", "negative"}, 125},
		"absurd":            {"GOOD  b: {command: [\"true\"], max_energy: 1e30kWh}\n", []string{":3:", "max_energy", "1e30kWh"}, 125},
		"unit":              {"GOOD  b: {command: [\"true\"], memory: 4Q}\n", []string{":3:", "memory", `"Q"`}, 125},
		"empty command":     {"GOOD  b: {command: []}\n", []string{":3:", "command", "empty"}, 125},
		"no command":        {"GOOD  b: {budget: 500}\n", []string{":3:", "command"}, 125},
		"no workloads":      {"node: {cores: 1}\n", []string{"workloads"}, 125},
		"empty file":        {"", []string{"workloads"}, 125},
		"two deposits":      {"GOOD  b: {command: [\"true\"], budget: 1}\n", []string{":3:", "b", "deposit", "at least"}, 125},
		"missing program":   {"GOOD  b: {command: [no-such-program]}\n", []string{":3:", "b", "no-such-program"}, 127},
		"not executable":    {"GOOD  b: {command: [/etc/passwd]}\n", []string{":3:", "b", "/etc/passwd"}, 126},
		"too many cores":    {"node: {cores: 100000}\nGOOD", []string{"cores", "at most"}, 125},
	} {
		t.Run(name, func(t *testing.T) {
			command, started := witness(t)
			good := fmt.Sprintf("workloads:\n  a: {command: [touch, %q]}\n", command[1])
			file := writeFleet(t, strings.Replace(c.text, "GOOD", good, 1))
			refused(t, l, l.run("up", file), c.code, c.words...)
			if started() {
				t.Error("a workload of a bad fleet was started")
			}
		})
	}
	for name, c := range map[string][]string{
		"missing file": {"up", "/no/such/fleet.yaml"},
		"directory":    {"up", "/tmp"},
		"two files":    {"up", "a.yaml", "b.yaml"},
		"zero time":    {"up", "--for", "0s", "a.yaml"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, l, l.run(c...), 125) })
	}
}

// TestManyWorkloads starts a large fleet, or is refused with the name of the
// limit that binds; either way nothing is left. Ten thousand take minutes on a
// small machine: that is the long mode.
func TestManyWorkloads(t *testing.T) {
	needCgroups(t)
	count := 300
	if os.Getenv("MAXWELL_LONG") != "" {
		count = 10_000
	}
	l := newLab(t)
	w := l.watch("up", writeFleet(t, fmt.Sprintf("workloads:\n  many: {command: [sleep, \"86400\"], replicas: %d}\n", count)))
	running := func() bool {
		select {
		case <-w.ended: // refused
			return true
		default:
			return len(l.workers("sleep 86400")) == count
		}
	}
	if !eventually(5*time.Minute, running) {
		t.Fatalf("%d of %d run", len(l.workers("sleep 86400")), count)
	}
	l.remember()
	_ = w.cmd.Process.Signal(syscall.SIGINT) // an error: it was refused and is gone
	if !eventually(2*time.Minute, func() bool {
		select {
		case <-w.ended:
			return true
		default:
			return false
		}
	}) {
		t.Fatal("it does not end")
	}
	if w.code != 130 {
		refused(t, l, result{code: w.code, stdout: w.out.String(), stderr: w.errors.String()}, 125, "many", "limit")
	}
	l.clean()
}

// TestFewDescriptors: where the limit of open files binds, it is named, and
// nothing of the fleet runs.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	enforcements(t, func(t *testing.T, enforce string) {
		l := newLab(t)
		command, started := witness(t)
		file := writeFleet(t, fmt.Sprintf("workloads:\n  many: {command: [touch, %q], replicas: 200}\n", command[1]))
		w := l.command("up", "--enforcement", enforce, file)
		w.Args = append([]string{"sh", "-c", `ulimit -n 100; exec "$0" "$@"`, w.Path}, w.Args[1:]...)
		w.Path = "/bin/sh"
		r := l.finish(l.place.start(w))
		refused(t, l, r, 125, ":2:3", "many-", "RLIMIT_NOFILE", "ulimit -n")
		if started() {
			t.Error("a part of the fleet was started")
		}
	})
}
