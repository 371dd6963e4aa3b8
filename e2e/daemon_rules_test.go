package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// frozenGroup reports whether a group is stopped.
func (o *office) frozenGroup(path string) bool {
	text, _ := os.ReadFile(filepath.Join(o.top, path, "cgroup.freeze"))
	return strings.HasPrefix(string(text), "1")
}

// id is a container's, of 64 digits.
func id(c string) string { return strings.Repeat(c, 64) }

// TestRulesFindGroups: the first match wins; users' slices and containers are found
// where systemd and docker put them, also those that come later, go and come again.
func TestRulesFindGroups(t *testing.T) {
	o := newOffice(t, `enforce: on
rules:
  - match: {cgroup: TOP/docker/`+id("c")+`}
    enforce: warn
  - match: {cgroup: TOP/**, container: "*"}
    enforce: observe
    wallet: {bid: 1x}
  - match: {user: 4242, cgroup: TOP/**}
    enforce: warn
    wallet: {bid: 3x}
  - match: {cgroup: TOP/*.service}
    enforce: observe
  - match: {cgroup: TOP/user.slice/user-*.slice}
    enforce: observe
`)
	o.enter("docker/"+id("a"), idleLoad...)
	o.enter("docker/"+id("c"), idleLoad...)
	o.enter("system.slice/docker-"+id("b")+".scope", idleLoad...)
	o.enter("user.slice/user-4242.slice/session-1.scope", idleLoad...)
	o.enter("user.slice/user-4243.slice/session-2.scope", idleLoad...)
	o.enter("web.service", idleLoad...)
	o.enter("other", idleLoad...)
	o.open()
	want := map[string]string{
		"docker/" + id("a"): "observe 1000", "docker/" + id("c"): "warn 2000", "system.slice/docker-" + id("b") + ".scope": "observe 1000",
		"user.slice/user-4242.slice": "warn 3000", "user.slice/user-4243.slice": "observe 2000", "web.service": "observe 2000",
	}
	got := map[string]string{}
	same := eventually(prompt, func() bool {
		got = map[string]string{}
		for path, w := range o.all() {
			got[path] = fmt.Sprintf("%s %d", w.Enforce, w.Bid)
		}
		return maps.Equal(got, want)
	})
	if !same {
		t.Errorf("attached %v, want %v", got, want)
	}
	if w := o.all()["user.slice/user-4242.slice"]; w.UID != 4242 || w.Client != "rule" {
		t.Errorf("whose is it? %+v", w)
	}
	o.enter("late.service", idleLoad...)
	first := o.sees("late.service", "attached", func(w seen) bool { return w.State != "dead" })
	o.leave("late.service")
	o.sees("late.service", "gone", func(w seen) bool { return w.State == "dead" })
	o.enter("late.service", idleLoad...)
	again := o.sees("late.service", "attached again", func(w seen) bool { return w.State != "dead" })
	if again.ID == first.ID {
		t.Errorf("the same workload came back: %+v", again)
	}
	// One that is made anew between two looks, or while no daemon is there, is another.
	o.crash()
	o.leave("web.service")
	o.enter("web.service", idleLoad...)
	was := first
	first = again
	o.open()
	o.sees("late.service", "taken back", func(w seen) bool { return w.ID == first.ID && w.ID != was.ID })
	o.sees("web.service", "another", func(w seen) bool { return w.State != "dead" })
	o.close()
}

// TestRulesByLabel: the label that Podman tells decides, and while the engine fails no
// later rule takes the container instead.
func TestRulesByLabel(t *testing.T) {
	recorded, err := os.ReadFile("../internal/container/testdata/podman-4.3.1.json")
	must(t, err)
	engine := hosttest.NewEngine(t)
	engine.Know(id("a"), recorded)
	engine.Know(id("b"), nil)
	o := newOffice(t, `enforce: on
engines: [`+engine.Socket+`]
rules:
  - match: {cgroup: TOP/**, label: team=blue}
    enforce: observe
    wallet: {bid: 3x}
  - match: {cgroup: TOP/**, container: "*"}
    enforce: observe
    wallet: {bid: 1x}
`)
	for _, c := range []string{"a", "b", "c"} {
		o.enter("docker/"+id(c), idleLoad...)
	}
	o.open()
	bids := func(want map[string]int64) {
		t.Helper()
		got := map[string]int64{}
		if !eventually(prompt, func() bool {
			got = map[string]int64{}
			for path, w := range o.all() {
				got[strings.TrimPrefix(path, "docker/")] = w.Bid
			}
			return maps.Equal(got, want)
		}) {
			t.Fatalf("bids %v, want %v", got, want)
		}
	}
	bids(map[string]int64{id("a"): 3000, id("c"): 1000})
	engine.Know(id("b"), recorded)
	bids(map[string]int64{id("a"): 3000, id("b"): 3000, id("c"): 1000})
	o.close()
}

// TestRulesChange: a daemon that is started with other rules lets go what none names
// any more, governs what it only observed, and the other way round; what was detached
// stays so, until its group is gone.
func TestRulesChange(t *testing.T) {
	o := newOffice(t, "enforce: observe\nrules:\n  - match: {cgroup: TOP/*}\n    wallet: {bid: 2x}\n")
	for _, path := range []string{"arm", "keep", "drop", "free"} {
		o.enter(path, busyLoad...)
	}
	before := o.settings()
	o.open()
	for _, path := range []string{"arm", "keep", "drop", "free"} {
		o.sees(path, "attached", func(w seen) bool { return w.State != "dead" && w.CPU > 0 })
	}
	o.do("detach", o.all()["free"].Name)
	o.do("bid", o.all()["keep"].Name, "3x")
	ids := map[string]string{"arm": o.all()["arm"].ID, "keep": o.all()["keep"].ID}
	o.crash()
	o.rule("", "enforce: observe\nrules:\n  - match: {cgroup: [TOP/arm, TOP/free]}\n    enforce: on\n  - match: {cgroup: TOP/keep}\n    wallet: {bid: 2x}\n")
	o.open()
	armed := o.sees("arm", "on", func(w seen) bool { return w.Enforce == "on" })
	kept := o.sees("keep", "observed", func(w seen) bool { return w.Enforce == "observe" })
	if armed.ID != ids["arm"] || kept.ID != ids["keep"] || kept.Bid != 3000 {
		t.Errorf("not taken back as they were: %+v, %+v", armed, kept)
	}
	dropped := o.sees("drop", "let go", func(w seen) bool { return w.State == "dead" })
	if dropped.CPU == 0 || dropped.Reason != "exited" {
		t.Errorf("let go without its bill: %+v", dropped)
	}
	if len(attributes(t, filepath.Join(o.top, "arm"))) == 0 {
		t.Error("nothing is noted on a governed group")
	}
	// Two looks later it is still free.
	o.enter("later", idleLoad...)
	o.enter("arm/below", idleLoad...)
	if w := o.all()["free"]; w.State != "dead" {
		t.Errorf("a rule took again what was detached: %+v", w)
	}
	o.leave("later")
	o.leave("arm/below")
	// Disarmed at once, over a restart, and armed again.
	o.do("enforce", "--all", "observe")
	o.sees("arm", "disarmed", func(w seen) bool { return w.Enforce == "observe" })
	if diff := differs(before, o.settings()); diff != "" {
		t.Errorf("disarmed:\n%s", diff)
	}
	o.crash()
	o.leave("free")
	o.open()
	o.sees("arm", "still disarmed", func(w seen) bool { return w.Enforce == "observe" })
	o.do("enforce", "--all", "on")
	o.sees("arm", "on", func(w seen) bool { return w.Enforce == "on" })
	o.enter("free", busyLoad...)
	o.sees("free", "attached, being another group", func(w seen) bool { return w.State != "dead" })
	o.leave("free")
	o.do("enforce", o.all()["arm"].Name, "observe")
	o.rule("", "enforce: observe\nrules:\n  - match: {cgroup: TOP/arm}\n    enforce: on\n")
	o.close()
	o.open()
	o.sees("arm", "as a person said, for its rule says nothing new", func(w seen) bool { return w.Enforce == "observe" })
	o.do("enforce", o.all()["arm"].Name, "on")
	o.crash()
	o.rule("", "enforce: observe\nrules:\n  - match: {cgroup: TOP/arm}\n")
	o.open()
	o.sees("arm", "observed", func(w seen) bool { return w.Enforce == "observe" })
	o.close()
	delete(before, "free/")
	for key := range before {
		if strings.HasPrefix(key, "free/") || strings.HasSuffix(key, " free") {
			delete(before, key)
		}
	}
	if diff := differs(before, o.settings()); diff != "" {
		t.Errorf("at the end:\n%s", diff)
	}
}

// TestOnStopsAndRestores: on stops what is broke, lets it go on when it is funded,
// and gives everything back when it is let go, and when the daemon ends or dies.
func TestOnStopsAndRestores(t *testing.T) {
	for _, way := range []string{"detach", "stop", "kill", "observe"} {
		t.Run(way, func(t *testing.T) {
			o := newOffice(t, "enforce: on")
			o.enter("hog", busyLoad...)
			before := o.settings()
			o.open()
			o.do("attach", "--cgroup", o.name+"/hog", "--name", o.name, "--budget", "15", "--cores", "1", "--when-broke", "pause")
			o.sees("hog", "paused", func(w seen) bool { return w.State == "paused" })
			await(t, "the group to be frozen", func() bool { return o.frozenGroup("hog") })
			o.do("fund", o.name, "15")
			o.sees("hog", "funded", func(w seen) bool { return w.State != "paused" })
			o.sees("hog", "paused again", func(w seen) bool { return w.State == "paused" })
			if w := o.all()["hog"]; w.Loss != 0 {
				t.Errorf("the operator lost %d micro-$J", w.Loss)
			}
			switch way {
			case "detach":
				o.do("detach", o.name)
			case "observe":
				o.do("enforce", o.name, "observe")
				if w := o.all()["hog"]; w.Enforce != "observe" {
					t.Errorf("%+v", w)
				}
			case "stop":
				o.close()
			case "kill":
				o.crash()
			}
			await(t, "everything to be as it was", func() bool { return differs(before, o.settings()) == "" })
			if way == "kill" {
				o.open() // it is broke still
				await(t, "the group to be frozen", func() bool { return o.frozenGroup("hog") })
			}
			if way != "stop" {
				o.close()
			}
			if diff := differs(before, o.settings()); diff != "" {
				t.Errorf("at the end:\n%s", diff)
			}
		})
	}
}

// TestAttachIsRefused: what is not somebody's to attach, and what cannot be.
func TestAttachIsRefused(t *testing.T) {
	o := newOffice(t, "enforce: observe\nrules:\n  - match: {cgroup: TOP/ruled}\n")
	o.enter("theirs", idleLoad...)
	o.enter("mine/part", idleLoad...)
	o.enter("ruled", idleLoad...)
	o.enter("docker/"+id("a"), idleLoad...)
	o.enter("docker/"+id("a")[:63]+"b", idleLoad...)
	must(t, os.Chown(filepath.Join(o.top, "mine"), nobodyUID, nobodyUID))
	before := o.picture()
	o.open()
	ruled := o.sees("ruled", "attached", func(w seen) bool { return w.State != "dead" })
	as := func(uid uint32, args ...string) result {
		cmd := o.command(args...)
		cmd.Env = append(cmd.Env, "MAXWELL_SOCKET="+o.socket)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		cmd.Dir = "/"
		return o.finish(o.start(cmd))
	}
	for _, c := range []struct {
		uid  uint32
		line string
		want string
	}{
		{nobodyUID, "attach --cgroup TOP/theirs", "no such group of yours"},
		{nobodyUID, "attach --cgroup TOP/mine/part", "no such group of yours"},
		{nobodyUID, "attach --cgroup TOP/mine/../theirs", "no such group of yours"},
		{nobodyUID, "attach --pid PID", "not yours; an admin may attach it"},
		{nobodyUID, "attach --container " + id("a"), "not yours; an admin may attach it"},
		{nobodyUID, "detach " + ruled.Name, "no workload"},
		{nobodyUID, "enforce --all observe", "for admins"},
		{nobodyUID, "enforce " + ruled.Name + " on", "for admins"},
		{0, "attach --cgroup TOP/nowhere", "no such group"},
		{0, "attach --cgroup /", "whole hierarchy"},
		{0, "attach --cgroup ../../etc", "no such group"},
		{0, "attach --pid 1", ""},
		{0, "attach --pid 4194304", "no process"},
		{0, "attach --container aa", "at least 4"},
		{0, "attach --container ffffffff", "no container"},
		{0, "attach --container aaaa", "2 containers begin"},
		{0, "attach --cgroup TOP/ruled", "overlaps"},
		{0, "attach --cgroup TOP", "overlaps"},
		{0, "attach --cgroup TOP/theirs --name " + ruled.Name, "taken"},
		{0, "attach --cgroup TOP/theirs --budget 0.001", "below twice the deposit"},
	} {
		line := strings.NewReplacer("TOP", o.name, "PID", strconv.Itoa(o.pidIn("theirs"))).Replace(c.line)
		r := as(c.uid, strings.Fields(line)...)
		if r.code != 125 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%d: %s: %v, want one line with %q", c.uid, c.line, r, c.want)
		}
	}
	if list := o.all(); len(list) != 1 {
		t.Errorf("attached all the same: %v", list)
	}
	if r := as(nobodyUID, "attach", "--cgroup", o.name+"/mine", "--enforce", "observe"); r.code != 0 {
		t.Errorf("a delegated group: %v", r)
	}
	mine := o.sees("mine", "attached", func(w seen) bool { return w.UID == nobodyUID && w.Enforce == "observe" })
	if r := as(nobodyUID+1, "detach", mine.Name); r.code != 125 || !strings.Contains(r.stderr, "no workload") {
		t.Errorf("a stranger detaches it: %v", r)
	}
	if r := as(nobodyUID, "detach", mine.Name); r.code != 0 {
		t.Errorf("its owner cannot detach it: %v", r)
	}
	if r := o.run("attach", "--cgroup", o.name+"/mine"); r.code != 0 { // a person may, though no rule does
		t.Errorf("attached again: %v", r)
	}
	o.close()
	if diff := differs(before, o.picture()); diff != "" {
		t.Error(diff)
	}
}

// nobodyUID is a user without rights.
const nobodyUID = 65534

// pidIn is a process in a group.
func (o *office) pidIn(path string) int {
	text, _ := os.ReadFile(filepath.Join(o.top, path, "cgroup.procs"))
	n, _ := strconv.Atoi(strings.TrimSpace(strings.SplitN(string(text), "\n", 2)[0]))
	return n
}

// TestRulesCapsAreNotForGuests: caps of memory and processes that a rule has for what
// its user starts are not foretold of a group that others made, where nothing would
// hold them, and the log says so.
func TestRulesCapsAreNotForGuests(t *testing.T) {
	o := newOffice(t, "enforce: observe\nrules:\n  - match: {cgroup: TOP/capped}\n    wallet: {memory: 1M, pids: 2}\n")
	o.enter("capped", "sh", "-c", "x=$(head -c 8000000 /dev/zero | tr '\\0' x); sleep 1000 & sleep 1000 & while :; do :; done")
	o.open()
	w := o.sees("capped", "looked at more than once", func(w seen) bool { return w.CPU > 500e6 })
	if w.Would != "" || w.State == "dead" {
		t.Errorf("it would be stopped for a cap that is not held: %+v", w)
	}
	if said := o.daemon.errors.String(); !strings.Contains(said, "it keeps its own caps") {
		t.Errorf("the log does not say that the caps do not hold:\n%s", said)
	}
	o.close()
}
