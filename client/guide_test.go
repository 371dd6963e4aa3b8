package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// blocks are the guide's blocks of code in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	page, err := os.ReadFile("../docs/guide/agents.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, b := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		if b[1] == language {
			found = append(found, b[2])
		}
	}
	return found
}

// TestGuideCurl: what the guide says for curl does what it says.
func TestGuideCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		hosttest.Skip(t, "curl", err.Error())
	}
	s := newStub()
	socket := s.serve(t)
	tried := 0
	for _, script := range blocks(t, "sh") {
		if !strings.Contains(script, "curl ") {
			continue
		}
		tried++
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
		cmd.Env = append(os.Environ(), "MAXWELL_SOCKET="+socket)
		out, err := cmd.Output()
		var answer struct {
			Workload struct{ Name, BalanceUcredits, BidMilli string }
		}
		if err = errors.Join(err, json.Unmarshal(out, &answer)); err != nil || answer.Workload.Name != "agent-7" {
			t.Errorf("%s%v: %s", script, err, out)
		}
	}
	if tried != 2 || s.bids["agent-7"].GetBidMilli() != 1500 {
		t.Errorf("%d tried, bids %v", tried, s.bids)
	}
}

// TestGuidePython: the guide's Python compiles, and names calls that exist.
func TestGuidePython(t *testing.T) {
	for _, text := range blocks(t, "python") {
		_, trouble, code := python{}.run(t, "-c", "import sys; compile(sys.argv[1], 'guide', 'exec')", text)
		if code != 0 {
			t.Errorf("%s%s", text, trouble)
		}
	}
	module, err := os.ReadFile("python/maxwell.py")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/guide/agents.md")
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile("`([a-z]+)\\(([^)`]*)\\)`").FindAllStringSubmatch(string(page), -1)
	for _, c := range calls {
		names := regexp.MustCompile(`=[^,]*`).ReplaceAllString(c[2], "")
		signature := "def " + c[1] + "(self"
		line := regexp.MustCompile(regexp.QuoteMeta(signature) + `[,)].*`).FindString(string(module))
		if line == "" {
			t.Errorf("no call %s", c[0])
			continue
		}
		for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' }) {
			if !strings.Contains(line, ", "+name+":") {
				t.Errorf("%s: %s", c[0], line)
			}
		}
	}
	if len(calls) < 10 {
		t.Errorf("%d calls found", len(calls))
	}
}

// TestExampleAgent: it bids less at 80 %, saves at 95 %, ends by itself when the
// next step does not fit, and goes on from what it saved.
func TestExampleAgent(t *testing.T) {
	s := newStub()
	at := int64(1)
	for _, percent := range []int32{80, 95} {
		s.events = append(s.events, &v1.Event{Workload: "agent-7", Kind: "warned", What: "budget", Percent: percent, WallNs: at})
		at++
	}
	s.self.Workload.MaxEnergyUj = 0
	s.onSelf = func() { // a step burns some J; money goes once both warnings were heeded
		next := proto.CloneOf(s.self)
		next.Workload.EnergyUj += 2_000_000
		if s.bids["agent-7"] != nil {
			next.Workload.BalanceUcredits -= 2_000_000
		}
		s.self = next
	}
	state := filepath.Join(t.TempDir(), "state.json")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := python{socket: s.serve(t), report: w}
	out, trouble, code := p.run(t, "../examples/agent/agent.py", state)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || trouble != "" || len(lines) != 4 || lines[0] != "80 % spent: bidding 1.5x" || !strings.HasPrefix(lines[1], "95 % spent: saved ") ||
		!regexp.MustCompile(`^stopping: a step of \d+ J costs about \d+ \$J at 2x and \d \$J is left; `).MatchString(lines[2]) {
		t.Fatalf("exit %d: %s%s", code, out, trouble)
	}
	var saved struct{ Steps int }
	text, err := os.ReadFile(state)
	if err = errors.Join(err, json.Unmarshal(text, &saved)); err != nil || saved.Steps < 1 || lines[3] != fmt.Sprintf("%d steps done", saved.Steps) {
		t.Fatalf("saved %s, %v: %s", text, err, out)
	}
	s.set(func() { s.self.Workload.BalanceUcredits, s.events = 1_000_000_000, nil })
	out, trouble, code = p.run(t, "../examples/agent/agent.py", state, "2")
	if want := fmt.Sprintf("%d steps done\n", saved.Steps+2); code != 0 || out != want {
		t.Errorf("exit %d: %s%s, want %s", code, out, trouble, want)
	}
	_ = w.Close()
	reports := make([]byte, 1<<16)
	n, _ := r.Read(reports)
	_ = r.Close()
	if have := strings.Count(string(reports[:n]), "work 1 step\n"); have != saved.Steps+2 {
		t.Errorf("%d steps reported of %d", have, saved.Steps+2)
	}
	out, trouble, code = python{socket: "/none"}.run(t, "../examples/agent/agent.py", state)
	if code != 1 || out != "" || !strings.HasPrefix(trouble, "agent: no market runs here") {
		t.Errorf("exit %d: %s%s", code, out, trouble)
	}
}
