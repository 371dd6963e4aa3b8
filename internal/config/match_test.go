package config

import (
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
)

const (
	anID    = "3f4e9a01b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d"
	otherID = "0000000000000000000000000000000000000000000000000000000000000001"
)

func TestMatch(t *testing.T) {
	const noGroup = "x_66"
	c := parse(t, `
enforce: warn
defaults: {name: all, parent: "{group}"}
rules:
  - match: {user: anna, cgroup: "*.service"}
    wallet: {name: annas-services}
  - match: {user: [anna, "1001"]}
  - match: {group: [students, "2000"]}
    enforce: on
    wallet: {parent: "{group}"}
  - match: {container: 3f4e9a, label: team=blue}
    wallet: {name: blue}
  - match: {container: "*"}
  - match: {cgroup: user.slice/user-*.slice}
  - match: {cgroup: /docker}
  - match: {cgroup: [system.slice/**, batch.slice/*]}
`, nil, nil)
	for _, tt := range []struct {
		name         string
		s            Subject
		line         int // of the rule; 0: none
		wallet, from string
	}{
		{"all keys must hold", Subject{User: "anna", Cgroup: "system.slice/x.service/a"}, 5, "annas-services", noGroup},
		{"the first wins", Subject{User: "anna", Cgroup: "system.slice/x.scope"}, 7, "anna", noGroup},
		{"a user by number", Subject{UID: 1001, User: "1000"}, 7, "1000", noGroup},
		{"a number is no name", Subject{UID: 1000, User: "1001"}, 0, "all", noGroup},
		{"a group that is not the first", Subject{UID: 7, User: "ben", GIDs: []uint32{100, 2001}, Groups: []string{"users", "students"}}, 8, "ben", "students"},
		{"a group by number", Subject{User: "carl", GIDs: []uint32{100, 2000}, Groups: []string{"users", ""}}, 8, "carl", "group_752000"},
		{"a container by its beginning and a label", Subject{Container: anID, Labels: map[string]string{"team": "blue"}}, 11, "blue", noGroup},
		{"another label", Subject{Container: anID, Labels: map[string]string{"team": "red"}, Groups: []string{"root"}}, 13, "3f4e9a01b2c3", "root"},
		{"no container, and no wallet in itself", Subject{Labels: map[string]string{"team": "blue"}, UID: 5, Groups: []string{"all"}}, 0, "all", ""},
		{"below a cgroup", Subject{Cgroup: "/user.slice/user-1000.slice/session-3.scope", Groups: []string{"g"}}, 14, "user-1000_2eslice", "g"},
		{"a cgroup without wildcards", Subject{Cgroup: "docker/buildx/1"}, 15, "docker", noGroup},
		{"the same name deeper", Subject{Cgroup: "x/docker"}, 0, "all", noGroup},
		{"one of many patterns", Subject{Cgroup: "batch.slice/a/b"}, 16, "batch_2eslice_2fa", noGroup},
		{"above a pattern", Subject{Cgroup: "batch.slice"}, 0, "all", noGroup},
		{"nothing known", Subject{}, 0, "all", noGroup},
	} {
		r, ok := c.Match(tt.s)
		if ok != (tt.line != 0) || r == nil || ok && r.Place.Line != tt.line {
			t.Errorf("%s: got %v on line %v, want %d", tt.name, ok, r.Place, tt.line)
			continue
		}
		name, parent := r.Names(tt.s)
		if name != tt.wallet || parent != tt.from {
			t.Errorf("%s: pays from %q of %q, want %q of %q", tt.name, name, parent, tt.wallet, tt.from)
		}
	}
	r, _ := c.Match(Subject{User: "x"})
	if want := (&Rule{Enforce: Warn, Wallet: c.Defaults}); !cmp.Equal(r, want) {
		t.Errorf("without a rule: %+v", r)
	}
}

func TestMatchCgroup(t *testing.T) {
	for _, tt := range []struct{ pattern, cgroup, group string }{
		{"docker/*", "docker/abc", "docker/abc"},
		{"docker/*", "/docker/abc/", "docker/abc"},
		{"docker/*", "docker/abc/nested/deep", "docker/abc"},
		{"docker/*/**", "docker/abc/nested", "docker/abc"},
		{"docker/*", "docker", ""},
		{"docker/*", "x/docker/abc", ""},
		{"*.service", "system.slice/nginx.service", "system.slice/nginx.service"},
		{"*.service/**", "system.slice/nginx.service/worker", "system.slice/nginx.service"},
		{"*.service", "user.slice/user-1.slice/user@1.service/app.slice/a.service", "user.slice/user-1.slice/user@1.service"},
		{"*.service", "nginx.service.d", ""},
		{"/*.service", "system.slice/nginx.service", ""},
		{"user.slice/user-?.slice", "user.slice/user-7.slice/x", "user.slice/user-7.slice"},
		{"user.slice/user-?.slice", "user.slice/user-77.slice/x", ""},
		{"*", "a/b", "a"},
		{"*", "", ""},
		{"a*b*c", "aXbXbXc", "aXbXbXc"},
		{"a*b*c", "aXbXbX", ""},
		{`app-a\x2db.scope`, `app.slice/app-a\x2db.scope`, `app.slice/app-a\x2db.scope`},
		{"é?", "éö", "éö"},
	} {
		if err := checkPattern(tt.pattern); err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
		}
		group, ok := matchCgroup(tt.pattern, tt.cgroup)
		if ok != (tt.group != "") || ok && group != tt.group {
			t.Errorf("%q in %q: %q, %v; want %q", tt.cgroup, tt.pattern, group, ok, tt.group)
		}
	}
}

// FuzzGlob compares a segment's match with the standard library's, and a path's
// with a regular expression.
func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{
		{"docker/*", "docker/abc"}, {"*.service", "a/b.service/c"}, {"a*b?c", "aXbbc"}, {"***", ""}, {"?", "é"}, {"a/**", "a/b"}, {"*a*a*a*b", "aaaaaaaaaaaaaaaa"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 200 || len(name) > 200 || !utf8.ValidString(pattern) || !utf8.ValidString(name) {
			return
		}
		if !strings.ContainsAny(pattern+name, `/\[`) {
			want, err := path.Match(pattern, name)
			if got := glob(pattern, name); err != nil || got != want {
				t.Errorf("glob(%q, %q) = %v, want %v, %v", pattern, name, got, want, err)
			}
		}
		if checkPattern(pattern) != nil {
			return
		}
		expression := strings.NewReplacer(`\*`, "[^/]*", `\?`, "[^/]").Replace(regexp.QuoteMeta(strings.Trim(strings.TrimSuffix(pattern, "/**"), "/")))
		before := ""
		if !strings.Contains(strings.TrimSuffix(pattern, "/**"), "/") {
			before = "(?:[^/]*/)*?"
		}
		slow := regexp.MustCompile("(?s)^(" + before + expression + ")(?:/|$)").FindStringSubmatch(strings.Trim(name, "/"))
		group, ok := matchCgroup(pattern, name)
		if strings.Trim(name, "/") == "" {
			slow = nil // the root belongs to nobody
		}
		if ok != (slow != nil) || ok && group != slow[1] {
			t.Errorf("%q in %q: %q, %v; a regular expression says %q", name, pattern, group, ok, slow)
		}
	})
}

func TestContainerOf(t *testing.T) {
	for _, tt := range []struct{ cgroup, id string }{
		{"/docker/" + anID, anID},
		{"docker/" + anID + "/init.scope", anID},
		{"system.slice/docker-" + anID + ".scope", anID},
		{"machine.slice/libpod-" + anID + ".scope/container", anID},
		{"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + anID + ".scope", anID},
		{"libpod_parent/libpod-" + anID, anID},
		{"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-" + anID + ".scope", anID},
		{"kubepods.slice/kubepods-pod1.slice/crio-" + anID + ".scope", anID},
		{"kubepods/besteffort/pod6f1e/" + anID, anID},
		{"system.slice/kubepods-pod1.slice:cri-containerd:" + anID, anID},
		{"docker/" + anID + "/docker/" + otherID, anID}, // an engine in a container
		{"machine.slice/libpod-conmon-" + anID + ".scope", ""},
		{"system.slice/docker.service", ""},
		{"system.slice/docker-" + anID[:63] + ".scope", ""},
		{"system.slice/docker-" + strings.ToUpper(anID) + ".scope", ""},
		{"docker/buildx", ""},
		{anID, ""},
		{"kubepods/besteffort/pod6f1e", ""},
		{"", ""},
		{"/", ""},
	} {
		id, ok := ContainerOf(tt.cgroup)
		if id != tt.id || ok != (tt.id != "") {
			t.Errorf("%s: %q, %v; want %q", tt.cgroup, id, ok, tt.id)
		}
	}
}

func FuzzContainerOf(f *testing.F) {
	for _, seed := range []string{"docker/" + anID, "a/docker-" + anID + ".scope", "kubepods/x/y/" + anID, "s:cri-containerd:" + anID, "//", "docker"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cgroup string) {
		id, ok := ContainerOf(cgroup)
		if ok != (id != "") || ok && (!isContainerID(id) || !strings.Contains(cgroup, id)) {
			t.Errorf("%q: %q, %v", cgroup, id, ok)
		}
		if inner, below := ContainerOf(cgroup + "/x"); inner != id || below != ok {
			t.Errorf("%q: %q, and below it %q", cgroup, id, inner)
		}
	})
}

// TestNamesDoNotCollide: two subjects that differ in what the template names have
// different wallets, whatever they are called, and every name is a plain one.
func TestNamesDoNotCollide(t *testing.T) {
	word := rapid.StringMatching(`([a-d0-7_.@-]|_75|_66|_6c|_2e|é|/){0,8}`)
	long := rapid.Custom(func(t *rapid.T) string {
		return strings.Repeat(word.Draw(t, "part"), rapid.SampledFrom([]int{1, 1, 1, 9}).Draw(t, "times"))
	})
	rapid.Check(t, func(t *rapid.T) {
		template := rapid.SampledFrom([]string{
			"{user}", "{group}", "{cgroup}", "u{user}", "u_{user}75", "{group}-{user}", "{user}7-5{group}", "a-{cgroup}-{user}_",
		}).Draw(t, "template")
		if _, err := parseTemplate(template); err != nil {
			t.Fatal(err)
		}
		draw := func() Subject {
			return Subject{
				UID: rapid.Uint32Range(0, 20).Draw(t, "uid"), User: long.Draw(t, "user"),
				GIDs: []uint32{rapid.Uint32Range(0, 20).Draw(t, "gid")}, Groups: []string{long.Draw(t, "group")},
				Cgroup: long.Draw(t, "cgroup"),
			}
		}
		r := Rule{Wallet: Wallet{Name: template}}
		a, b := draw(), draw()
		switch rapid.SampledFrom([]string{"strangers", "imitates", "shifts"}).Draw(t, "b") {
		case "imitates": // is called as a is written
			b = a
			b.User, b.Groups, b.Cgroup = escape(a.User, false), []string{escape(a.Groups[0], false)}, escape(a.Cgroup, false)
		case "shifts": // has a piece in one value that a has in the other
			left, middle, right := word.Draw(t, "left"), word.Draw(t, "middle"), word.Draw(t, "right")
			a.Groups[0], a.User = left+"-"+middle, right
			b.Groups[0], b.User = left, middle+"-"+right
			a.Cgroup, b.Cgroup = a.Groups[0], b.Groups[0]
		}
		nameA, _ := r.Names(a)
		nameB, _ := r.Names(b)
		for _, name := range []string{nameA, nameB} {
			if p := fleet.CheckName(name); p != nil {
				t.Fatal(p)
			}
		}
		if (nameA == nameB) != (seen(template, a) == seen(template, b)) {
			t.Fatalf("%q and %q of %+v and %+v", nameA, nameB, a, b)
		}
	})
}

// seen is what a template looks at.
func seen(template string, s Subject) [3]string {
	var out [3]string
	if strings.Contains(template, "{user}") {
		out[0] = "name " + s.User
		if s.User == "" {
			out[0] = "number " + string(rune(s.UID))
		}
	}
	if strings.Contains(template, "{group}") {
		out[1] = "name " + s.Groups[0]
		if s.Groups[0] == "" {
			out[1] = "number " + string(rune(s.GIDs[0]))
		}
	}
	if strings.Contains(template, "{cgroup}") {
		out[2] = strings.Trim(s.Cgroup, "/")
	}
	return out
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		template string
		s        Subject
		want     string
	}{
		{"{user}", Subject{User: "anna"}, "anna"},
		{"{user}", Subject{User: "john.doe"}, "john_2edoe"},
		{"{user}", Subject{User: "svc_web"}, "svc_web"},
		{"{user}", Subject{User: "a_bad"}, "a_5fbad"},
		{"{user}", Subject{User: "_apt"}, "x_66_apt"},
		{"{user}", Subject{User: "../../etc"}, "x_66_2e_2e_2f_2e_2e_2fetc"},
		{"{user}", Subject{UID: 4711}, "user_754711"},
		{"{uid}", Subject{UID: 4711, User: "x"}, "4711"},
		{"{group}-{user}", Subject{User: "www-data", Groups: []string{"web"}}, "web-www_2ddata"},
		{"{container}", Subject{Container: anID}, "3f4e9a01b2c3"},
		{"c-{container}", Subject{}, "c-"},
		{"{cgroup}", Subject{Cgroup: "/docker/" + anID}, "docker_2f3f4e9a01b2c3d4e5f60718293a4b5c6d7e8_6c69c6935d7a197eb6"},
		{"all", Subject{User: "x"}, "all"},
	} {
		r := Rule{Wallet: Wallet{Name: tt.template, Parent: tt.template}}
		name, parent := r.Names(tt.s)
		if name != tt.want || parent != "" {
			t.Errorf("%s of %+v: %q of %q, want %q", tt.template, tt.s, name, parent, tt.want)
		}
	}
}
