package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/golden"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

//go:generate go test -count=1 -run ^TestDocuments$ . -args -update

// same compares what configurations say, not where it was written.
var same = cmp.Options{cmpopts.IgnoreUnexported(Config{}), cmpopts.IgnoreFields(Rule{}, "Place"), cmpopts.EquateEmpty()}

func parse(t testing.TB, text string, environ, set []string) *Config {
	t.Helper()
	c, err := Parse("maxwell.yaml", []byte(text), environ, set)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// failer is what testing and rapid have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func written(t failer, c *Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.WriteYAML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestParseReadsEveryKey(t *testing.T) {
	got := parse(t, `
node: {cores: 2, watts: 25, watts_per_core: 12W, idle_watts: 5, floor: 3%, epoch: 100ms, enforcement: cgroup}
state: /srv/maxwell/
socket: {path: /run/m.sock, access: "group:staff"}
admins: {users: [anna, "1001"], groups: wheel}
enforce: warn
defaults: {name: "u-{user}", parent: "{group}", allowance: 50k/day, most: 100k, bid: 4x, max_bid: 16x, cores: 0.5, memory: 4G, pids: 512, when_broke: stop}
rules:
  - match: {user: ben, group: [students, "2000"], cgroup: "*.service", container: "*", label: team=blue=x}
    enforce: on
    wallet: {name: ben, parent: none, allowance: none, bid: 1x, cores: none, memory: 1G, pids: none}
  - match: {user: 1000}
grid: {file: /srv/grid, valid: 90m}
metrics: {listen: "[::1]:9273"}
tcp: {listen: 0.0.0.0:9274, cert: /c, key: /k, client_ca: /ca}
energy_quantum: 1s
log: {level: debug}
keep: {receipts: 12h, events: 1d, journal: 365d}
`, nil, nil)
	defaults := Wallet{
		Name: "u-{user}", Parent: "{group}", Allowance: unit.Allowance{Amount: 50_000e6, Every: day}, Most: 100_000e6,
		Bid: fleet.Bid{Price: 4000}, MaxBid: 16_000, Cores: 500, Memory: 4 << 30, Pids: 512, WhenBroke: fleet.Stop,
	}
	second := defaults
	second.Name = "{user}"
	want := &Config{
		Node: Node{fleet.Node{
			Cores: 2000, Watts: 25e6, WattsPerCore: 12e6, IdleWatts: 5e6, Floor: new(unit.PPM(30_000)), Epoch: 100 * time.Millisecond,
		}, "cgroup"},
		State:    "/srv/maxwell",
		Socket:   Socket{"/run/m.sock", Access{Group: "staff"}},
		Admins:   Admins{[]string{"anna", "1001"}, []string{"wheel"}},
		Enforce:  Warn,
		Defaults: defaults,
		Rules: []Rule{
			{
				Match: Match{
					Users: []string{"ben"}, Groups: []string{"students", "2000"}, Cgroups: []string{"*.service"},
					Containers: []string{"*"}, Labels: []string{"team=blue=x"},
				},
				Enforce: On,
				Wallet:  Wallet{Name: "ben", Bid: fleet.Bid{Price: 1000}, MaxBid: 16_000, Memory: 1 << 30, WhenBroke: fleet.Stop},
				Place:   fleet.Place{Line: 9, Column: 5},
			},
			{Match: Match{Users: []string{"1000"}}, Enforce: Warn, Wallet: second, Place: fleet.Place{Line: 12, Column: 5}},
		},
		Grid:          Grid{"/srv/grid", 90 * time.Minute},
		Metrics:       Metrics{Address{"tcp", "[::1]:9273"}},
		TCP:           TCP{Address{"tcp", "0.0.0.0:9274"}, "/c", "/k", "/ca"},
		EnergyQuantum: time.Second,
		Log:           Log{slog.LevelDebug},
		Keep:          Keep{12 * time.Hour, day, 365 * day},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for access, mode := range map[Access]fs.FileMode{{}: 0o666, {Group: "a"}: 0o660, {Owner: true}: 0o600} {
		if access.Mode() != mode {
			t.Errorf("%v has mode %v", access, access.Mode())
		}
	}
}

// TestDefaults: nothing is limited and nothing listens to the network until
// somebody says so.
func TestDefaults(t *testing.T) {
	c := parse(t, "", nil, nil)
	if diff := cmp.Diff(New(), c, same); diff != "" {
		t.Errorf("an empty file is not the default (-want +got):\n%s", diff)
	}
	if c.Enforce != Observe || !c.Defaults.Open() || c.Metrics.Listen.Network != "" || c.TCP.Listen.Network != "" || len(c.Admins.Users)+len(c.Admins.Groups) > 0 {
		t.Errorf("the defaults are %+v", c)
	}
	for _, k := range keys() {
		if v := strings.Join(k.value(c), ","); v != k.standard && k.path != "defaults.when_broke" {
			t.Errorf("%s is %q by default and the table says %q", k.path, v, k.standard)
		}
		if (k.standard == "") == (k.absent == "") {
			t.Errorf("%s has the default %q and the words %q, want one", k.path, k.standard, k.absent)
		}
		if o := c.Origin(k.path); o != (Origin{}) {
			t.Errorf("%s came from %v", k.path, o)
		}
	}
}

// TestBadFiles compares all problems of each file of testdata/bad.txt with
// bad.golden.
func TestBadFiles(t *testing.T) {
	raw, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for block := range strings.SplitSeq(string(raw), "== ") {
		name, text, found := strings.Cut(block, "\n")
		if !found {
			continue
		}
		c, err := Parse("maxwell.yaml", []byte(text), nil, nil)
		fmt.Fprintf(&out, "%s\n", name)
		writeProblems(t, &out, name, c, err)
	}
	golden.CheckFile(t, "testdata/bad.golden", out.String())
}

func writeProblems(t *testing.T, out *strings.Builder, name string, c *Config, err error) {
	t.Helper()
	problems, ok := errors.AsType[Problems](err)
	if !ok || c != nil || len(problems) == 0 {
		t.Errorf("%s: got %v, %v; want problems and no configuration", name, c, err)
		return
	}
	for _, p := range problems {
		if strings.ContainsAny(p.Error(), "\n\r\x1b") {
			t.Errorf("%s: not one plain line: %q", name, p)
		}
		fmt.Fprintf(out, "    %v\n", p)
	}
}

// TestBadVariablesAndFlags is the same for the other two layers.
func TestBadVariablesAndFlags(t *testing.T) {
	var out strings.Builder
	for _, tt := range []struct {
		name         string
		environ, set []string
	}{
		{"a variable's value", []string{"MAXWELL_NODE_CORES=0", "MAXWELL_ENFORCE=yes"}, nil},
		{"a slip in a variable", []string{"MAXWELL_ENFROCE=on", "MAXWELL_NODE_CORE=2", "MAXWELL_NODE_VOLTS=2"}, nil},
		{"rules in a variable", []string{"MAXWELL_RULES=x"}, nil},
		{"a list in a variable", []string{"MAXWELL_ADMINS_USERS=anna,b/n"}, nil},
		{"a flag's value", nil, []string{"node.cores=two", "defaults.allowance=50k"}},
		{"a flag without a value", nil, []string{"node.cores"}},
		{"an unknown flag", nil, []string{"node.core=2", "zebra=3"}},
		{"rules in a flag", nil, []string{"rules=x", "rules[1].enforce=on"}},
		{"what spans keys, by layer", []string{"MAXWELL_TCP_LISTEN=0.0.0.0:1"}, []string{"defaults.bid=auto"}},
		{"the lower layer is named if the upper is right", []string{"MAXWELL_DEFAULTS_BID=9x"}, []string{"log.level=warn"}},
	} {
		c, err := Parse("maxwell.yaml", nil, tt.environ, tt.set)
		fmt.Fprintf(&out, "%s\n", tt.name)
		writeProblems(t, &out, tt.name, c, err)
	}
	golden.CheckFile(t, "testdata/layers.golden", out.String())
}

func TestProblemsAreOneLine(t *testing.T) {
	_, err := Parse("maxwell.yaml", []byte("enforce: yes\nstate: x\nlog: {level: loud}\n"), nil, nil)
	want := `maxwell.yaml:1:10: enforce: "yes": unknown choice; write observe, warn or on (and 2 more: --check lists them)`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if p, ok := errors.AsType[*fleet.Problem](err); !ok || p.Text != "yes" {
		t.Errorf("the cause is lost: %v", p)
	}
}

// TestLayers: flags win over the environment, and that over the file, key by key.
func TestLayers(t *testing.T) {
	c := parse(t, "node: {cores: 1, watts: 10, epoch: 10ms}\nadmins: {users: [a, b]}\n",
		[]string{"MAXWELL_NODE_CORES=2", "MAXWELL_NODE_WATTS=20", "MAXWELL_STATE=", "MAXWELL_SOCKET=/other", "MAXWELL_WALLET=w", "MAXWELL_ADMINS_USERS=c, d", "HOME=/root"},
		[]string{"node.cores=3", "node.cores=4", "admins.groups="})
	if c.Node.Cores != 4000 || c.Node.Watts != 20e6 || c.Node.Epoch != 10*time.Millisecond {
		t.Errorf("node is %+v", c.Node)
	}
	if !slices.Equal(c.Admins.Users, []string{"c", "d"}) || len(c.Admins.Groups) != 0 {
		t.Errorf("admins are %+v", c.Admins)
	}
	for path, want := range map[string]Origin{
		"node.cores": {Layer: Flag, Name: "node.cores"}, "node.watts": {Layer: Environment, Name: "MAXWELL_NODE_WATTS"},
		"node.epoch": {Layer: File, Name: "maxwell.yaml", Line: 1, Column: 36}, "state": {},
	} {
		if got := c.Origin(path); got != want {
			t.Errorf("%s came from %+v, want %+v", path, got, want)
		}
	}
}

func TestVariablesAreDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, k := range keys() {
		if other := seen[k.variable()]; other != "" {
			t.Errorf("%s and %s are both %s", other, k.path, k.variable())
		}
		seen[k.variable()] = k.path
		if v := k.variable(); v == "MAXWELL_SOCKET" || v == "MAXWELL_WALLET" || v == "MAXWELL_TOKEN_FILE" {
			t.Errorf("%s is what clients have in their environment", v)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "maxwell.yaml")
	if err := os.WriteFile(name, []byte("enforce: warn\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name, []string{"MAXWELL_NODE_CORES=1"}, []string{"log.level=error"})
	if err != nil || c.Enforce != Warn || c.Node.Cores != 1000 || c.Log.Level != slog.LevelError {
		t.Errorf("got %+v, %v", c, err)
	}
	absent := filepath.Join(dir, "absent.yaml")
	for file, want := range map[string]string{
		absent: absent + ": no such file; write it, or leave out its name for the defaults",
		dir:    dir + ": is a directory; name a file",
	} {
		if _, err := Load(file, nil, nil); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if _, err := os.Stat(DefaultFile); errors.Is(err, fs.ErrNotExist) {
		if c, err := Load("", nil, nil); err != nil || c.Enforce != Observe {
			t.Errorf("without the default file: %v, %v", c, err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	for mode, want := range map[fs.FileMode]string{
		0o600: "", 0o666: name + ": everybody may write it (mode 0666) and it decides who may spend; chmod go-w " + name,
	} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(name, nil, nil); err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("mode %v: got %v, want %q", mode, err, want)
		}
	}
}

// choices are texts that each key takes; an amount is drawn for some.
func drawText(t *rapid.T, k key) string {
	n := rapid.IntRange(1, 1000).Draw(t, "n")
	switch name := k.path[strings.LastIndexByte(k.path, '.')+1:]; name {
	case "allowance":
		return fmt.Sprintf("%d.%03d/%s", n, n, rapid.SampledFrom([]string{"s", "min", "h", "day"}).Draw(t, "period"))
	case "most":
		return fmt.Sprintf("%dk", n)
	case "cores", "pids":
		return fmt.Sprint(n + 1)
	case "enforce":
		return rapid.SampledFrom([]string{"observe", "warn", "on"}).Draw(t, "enforce")
	case "name", "parent":
		return rapid.SampledFrom([]string{"{user}", "{group}-{user}", "all", "x_{container}", "{uid}-{cgroup}-"}).Draw(t, "template")
	case "users", "groups":
		return rapid.StringMatching(`[a-z0-9@.#"'é\[\]{}&*!|>%-]{1,6}`).Draw(t, "account")
	case "state", "path", "file", "cert", "key", "client_ca":
		return "/" + rapid.StringMatching(`[a-z0-9@. #"'é\[\]{}&*!|>%:\\-]{1,6}`).Draw(t, "path")
	case "when_broke":
		return rapid.SampledFrom([]string{"stop", "pause"}).Draw(t, "when broke")
	default:
		return k.example
	}
}

func drawWallet(t *rapid.T, b *strings.Builder, indent string) {
	for _, k := range keys() {
		name, ok := strings.CutPrefix(k.path, "defaults.")
		if !ok || !rapid.Bool().Draw(t, k.path) {
			continue
		}
		text := drawText(t, k)
		if k.absent != "" && name != "when_broke" && rapid.IntRange(0, 3).Draw(t, "none") == 0 {
			text = none
		}
		fmt.Fprintf(b, "%s%s: %q\n", indent, name, text)
	}
}

// TestWriteRoundTrips: the effective configuration is read back as itself, and
// written again to the same values.
func TestWriteRoundTrips(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		var set []string
		for _, k := range keys() {
			if !strings.HasPrefix(k.path, "defaults.") && rapid.Bool().Draw(t, k.path) {
				set = append(set, k.path+"="+drawText(t, k))
			}
		}
		var b strings.Builder
		b.WriteString("defaults:\n")
		drawWallet(t, &b, "  ")
		b.WriteString("rules:\n")
		for i := range rapid.IntRange(0, 3).Draw(t, "rules") {
			m := rapid.SampledFrom(matchers()).Draw(t, "matcher")
			fmt.Fprintf(&b, "  - match: {user: u%d, %s: [%q]}\n", i, strings.Replace(m.name, "user", "group", 1), m.example)
			if rapid.Bool().Draw(t, "enforce") {
				b.WriteString("    enforce: on\n")
			}
			b.WriteString("    wallet:\n")
			drawWallet(t, &b, "      ")
		}
		c, err := Parse("maxwell.yaml", []byte(b.String()), nil, set)
		if err != nil {
			return
		}
		accepted++
		text := written(t, c)
		again, err := Parse("maxwell.yaml", []byte(text), nil, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(c, again, same); diff != "" {
			t.Fatalf("(-want +got):\n%s\n%s", diff, text)
		}
		if diff := cmp.Diff(values(text), values(written(t, again))); diff != "" {
			t.Fatalf("written again (-want +got):\n%s", diff)
		}
	})
	if accepted < 10 {
		t.Errorf("only %d drawn configurations are valid", accepted)
	}
}

// values drops the comments, which say where a value came from.
func values(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		before, _, _ := strings.Cut(line, "  #")
		b.WriteString(strings.TrimRight(before, " \n") + "\n")
	}
	return b.String()
}

func TestWriteYAML(t *testing.T) {
	c := parse(t, `node: {cores: 2, watts: 25}
admins: {users: [anna, "1001"]}
enforce: warn
defaults: {allowance: 50k/day, parent: "{group}"}
rules:
  - match: {cgroup: docker/*}
    enforce: on
    wallet: {allowance: none, memory: 4G}
  - match:
      user: [ben, carl]
    wallet: {bid: auto, most: 1M}
metrics: {listen: "127.0.0.1:9273"}
`, []string{"MAXWELL_NODE_WATTS=30W"}, []string{"log.level=debug", "admins.groups=maxwell,wheel"})
	golden.CheckFile(t, "testdata/effective.golden", written(t, c))
}

func FuzzParse(f *testing.F) {
	raw, err := os.ReadFile("testdata/bad.txt")
	if err != nil {
		f.Fatal(err)
	}
	for block := range strings.SplitSeq(string(raw), "== ") {
		_, text, _ := strings.Cut(block, "\n")
		f.Add(text, "MAXWELL_NODE_CORES=2", "log.level=debug")
	}
	effective, err := os.ReadFile("testdata/effective.golden")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(effective), "MAXWELL_ADMINS_USERS=a,b", "defaults.allowance=1/s")
	f.Fuzz(func(t *testing.T, text, variable, set string) {
		if len(text) > 1<<14 {
			return
		}
		c, err := Parse("f", []byte(text), []string{variable}, []string{set})
		if err != nil {
			problems, ok := errors.AsType[Problems](err)
			if !ok || len(problems) == 0 || c != nil {
				t.Fatalf("%v, %T %v", c, err, err)
			}
			for _, p := range problems {
				if p.Place == "" || strings.ContainsAny(p.Error(), "\n\r\x1b") {
					t.Fatalf("not one placed line: %q", p)
				}
			}
			return
		}
		again, err := Parse("f", []byte(written(t, c)), nil, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, written(t, c))
		}
		if diff := cmp.Diff(c, again, same); diff != "" {
			t.Fatalf("(-want +got):\n%s\n%s", diff, written(t, c))
		}
		r, _ := c.Match(Subject{UID: 1, User: "anna", Cgroup: "user.slice/user-1.slice/x.scope"})
		if name, _ := r.Names(Subject{UID: 1, User: "anna"}); fleet.CheckName(name) != nil {
			t.Fatalf("%q is no name", name)
		}
	})
}
