package client_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// python runs a scenario of testdata/verbs.py, or maxwell.py itself, against a
// socket.
type python struct {
	socket string
	report *os.File
}

func (p python) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	program, err := exec.LookPath("python3")
	if err != nil {
		hosttest.Skip(t, "python3", err.Error())
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=python", "PYTHONWARNINGS=error", "MAXWELL_SOCKET="+p.socket)
	if p.report != nil {
		cmd.ExtraFiles = []*os.File{p.report}
		cmd.Env = append(cmd.Env, "MAXWELL_REPORT=3")
	}
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	err = cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return out.String(), trouble.String(), cmd.ProcessState.ExitCode()
}

// scenario runs one and wants its output.
func (p python) scenario(t *testing.T, name, want string) {
	t.Helper()
	out, trouble, code := p.run(t, "testdata/verbs.py", name)
	if diff := cmp.Diff(want, out); diff != "" || trouble != "" || code != 0 {
		t.Errorf("exit %d, %s (-want +got):\n%s", code, trouble, diff)
	}
}

// TestPythonVerbs: the Python client says and hears the same as the Go one.
func TestPythonVerbs(t *testing.T) {
	s := newStub()
	p := python{socket: s.serve(t)}
	p.scenario(t, "verbs", `1000 False True v9 agent-7 running 37000000 463000000 412000000
0 '' False
2000 9800000 500000
[('agent-7', ''), ('spare', 'outbid')]
40000000
4000000 41000000
1500 6000
None
insolvent 122 True
outbid 4100 3 9 4000000000
`)
	if !s.stopped["spare"] || s.bids["agent-7"].GetBidMilli() != 1500 || !s.bids["spare"].GetAuto() {
		t.Errorf("the market heard %v, %v", s.stopped, s.bids)
	}
	p.scenario(t, "bad", strings.Repeat("invalid_argument\n", 9))
	p.scenario(t, "refused", "not_found|fund nobody: no workload \"nobody\" of yours|see maxwell ps -a\n")
}

// TestPythonChangeHappensOnce: three answers are lost after the change, or break off.
func TestPythonChangeHappensOnce(t *testing.T) {
	for _, half := range []bool{false, true} {
		pythonChangeHappensOnce(t, half)
	}
}

func pythonChangeHappensOnce(t *testing.T, half bool) {
	s := newStub()
	s.drop, s.half = 3, half
	p := python{socket: s.serve(t)}
	p.scenario(t, "once", "5000007\n")
	if len(s.delivered) != 1 || s.wallets["spare"] != 5_000_007 {
		t.Errorf("%d ids, %v", len(s.delivered), s.wallets)
	}
	for _, n := range s.delivered {
		if n != 4 {
			t.Errorf("delivered %d times, want 4", n)
		}
	}
	s.set(func() { s.drop = 900 })
	out, _, code := p.run(t, "testdata/verbs.py", "gives_up")
	if code != 0 || !strings.HasPrefix(out, "unavailable|fund spare: ") || !strings.Contains(out, "it may or may not have happened|look at the balance") {
		t.Errorf("exit %d: %s", code, out)
	}
	s.set(func() {
		s.drop = 0
		s.hang[maxwellv1connect.MarketServiceFundProcedure] = make(chan bool)
	})
	p.scenario(t, "hangs", "deadline_exceeded|fund spare: no answer in time; it may or may not have happened|look at the balance before asking again\n")
}

// TestPythonMalformed: what is no market's answer is said to be none, at once.
func TestPythonMalformed(t *testing.T) {
	message := func(text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { answer(w, "application/json", text) }
	}
	stream := func(text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { answer(w, "application/connect+json", text) }
	}
	page := func(w http.ResponseWriter) { answer(w, "text/html", "<html>") }
	calls := []func(http.ResponseWriter){
		page, message("<html>"), message("[1]"), message("null"), message(`{"workload": {"balanceUcredits": "x"}}`),
		message(strings.Repeat("[", 1<<20)), message("\xff\xfe\x00"),
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		func(w http.ResponseWriter) { spoken(w, "SSH-2.0-OpenSSH_9.2\r\n") },
	}
	streams := []func(http.ResponseWriter){
		page, stream("\x00\x00\x00\x00\x03[1]"), stream("\x00\x00\x00\x00\x01{"), stream("\x02\x00\x00\x00\x0d{\"error\":\"x\"}"),
	}
	s, next := newStub(), 0
	s.raw = func(w http.ResponseWriter) {
		s.mu.Lock()
		turn := next
		next++
		s.mu.Unlock()
		all := append(slices.Clone(calls), streams...)
		all[min(turn, len(all)-1)](w) // a client that asks again gets the next: all are wrong
	}
	out, trouble, code := python{socket: s.serve(t)}.run(t, "testdata/verbs.py", "malformed", strconv.Itoa(len(calls)), strconv.Itoa(len(streams)))
	want := strings.Repeat("malformed|self: no market's answer|check what listens on the socket\n", len(calls)) +
		strings.Repeat("malformed|events: no market's answer|check what listens on the socket\n", len(streams))
	if diff := cmp.Diff(want, out); diff != "" || code != 0 {
		t.Errorf("exit %d: %s (-want +got):\n%s", code, trouble, diff)
	}
}

func answer(w http.ResponseWriter, kind, text string) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write([]byte(text))
}

// TestPythonUnknownFields: what a newer market says is kept and harms nothing.
func TestPythonUnknownFields(t *testing.T) {
	s := newStub()
	s.raw = func(w http.ResponseWriter) {
		answer(w, "application/json", `{"uid": 7, "newMeters": {"deepUj": "9007199254740993"}, "workload": {"name": "123", "balanceUcredits": "9007199254740993"}}`)
	}
	out, trouble, code := python{socket: s.serve(t)}.run(t, "python/maxwell.py", "self")
	if want := `{"uid": 7, "new_meters": {"deep_uj": 9007199254740993}, "workload": {"name": "123", "balance_ucredits": 9007199254740993}}` + "\n"; out != want || code != 0 {
		t.Errorf("exit %d, %s%s", code, trouble, out)
	}
}

// TestPythonAfford judges as Go does.
func TestPythonAfford(t *testing.T) {
	s := newStub()
	p := python{socket: s.serve(t)}
	p.scenario(t, "afford", `{'cost_ucredits': 37000000, 'at_milli': 2000, 'left_ucredits': 37000000, 'open': False, 'draws': False, 'left_uj': 38000000}
unaffordable balance, 37000000 micro-$J and 38000000 uJ left: a step of 37 J costs about 37 $J at 2x and 37 $J is left; take a smaller step, or fund agent-7
unaffordable energy, 37000000 micro-$J and 38000000 uJ left: a step of 39 J does not fit below the energy cap, 38 J is left; raise --max-energy of agent-7
`)
	s.set(func() { s.self.Workload.Draws, s.self.Workload.MaxEnergyUj = true, 0 })
	p.scenario(t, "afford", `{'cost_ucredits': 37000000, 'at_milli': 2000, 'left_ucredits': 37000000, 'open': False, 'draws': True, 'left_uj': None}
{'cost_ucredits': 37000002, 'at_milli': 2000, 'left_ucredits': 37000000, 'open': False, 'draws': True, 'left_uj': None}
{'cost_ucredits': 39000000, 'at_milli': 2000, 'left_ucredits': 37000000, 'open': False, 'draws': True, 'left_uj': None}
`)
	s.set(func() { s.self = &v1.SelfResponse{} })
	out, trouble, code := p.run(t, "testdata/verbs.py", "outside")
	if lines := strings.Split(out, "\n"); code != 0 || len(lines) != 3 || !strings.HasPrefix(lines[0], "outside|afford: ") || !strings.HasPrefix(lines[1], "outside|report: ") {
		t.Errorf("exit %d: %s%s", code, out, trouble)
	}
}

// TestPythonReport writes the market's lines.
func TestPythonReport(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	python{socket: newStub().serve(t), report: w}.scenario(t, "report", "")
	_ = w.Close()
	text := make([]byte, 100)
	n, err := r.Read(text)
	_ = r.Close()
	if want := "work 3 page\nwork 1099511627776\n"; string(text[:n]) != want {
		t.Errorf("%q, %v", text[:n], err)
	}
}

// TestPythonEvents: in order, each once, over breaks of the connection.
func TestPythonEvents(t *testing.T) {
	for _, perStream := range []int{0, 3} {
		s := newStub()
		s.perStream = perStream
		for i, kind := range []string{"started", "warned", "warned", "broke", "dead"} {
			s.events = append(s.events, &v1.Event{
				Workload: "a", Kind: kind, Percent: int32(80 + i), WallNs: int64(10 + i/2), WorkloadState: &v1.Workload{Name: "a"},
			})
		}
		python{socket: s.serve(t)}.scenario(t, "events", "started 80 10 a\nwarned 81 10 a\nwarned 82 11 a\nbroke 83 11 a\ndead 84 12 a\n")
		if r := s.watched[0]; r.GetSinceWallNs() != 5 || !r.GetFollow() {
			t.Errorf("asked for %v", r)
		}
	}
}

// TestPythonCommandLine: four verbs, JSON on standard output, one line of
// trouble, and the usual exit codes.
func TestPythonCommandLine(t *testing.T) {
	s := newStub()
	s.events = []*v1.Event{{Workload: "a", Kind: "dead", WallNs: time.Now().UnixNano()}}
	p := python{socket: s.serve(t)}
	for _, c := range []struct {
		args, out, trouble string
		code               int
	}{
		{"self", `{"uid": 1000, "workload": {"name": "agent-7"`, "", 0},
		{"price", `{"base_ucredits_per_core_s": 9800000, "spot_x_milli": 2000`, "", 0},
		{"bid 1.5x", `{"name": "agent-7", "bid_milli": 1500`, "", 0},
		{"events", `{"workload": "a", "kind": "dead"`, "", 0},
		{"bid 0", "", "maxwell: bid: no price; give thousandths of 1x above zero, or auto=True\n", 1},
		{"", "", "usage: ", 125},
		{"bid -1", "", "usage: ", 125},
		{"self more", "", "usage: ", 125},
	} {
		out, trouble, code := p.run(t, append([]string{"python/maxwell.py"}, strings.Fields(c.args)...)...)
		if !strings.HasPrefix(out, c.out) || !strings.HasPrefix(trouble, c.trouble) || code != c.code || (out == "") != (c.out == "") {
			t.Errorf("%s: exit %d, %q, %q", c.args, code, out, trouble)
		}
	}
	out, trouble, code := python{socket: filepath.Join(t.TempDir(), "none")}.run(t, "python/maxwell.py", "self")
	if out != "" || code != 1 || !strings.HasPrefix(trouble, "maxwell: no market runs here") || strings.Count(trouble, "\n") != 1 {
		t.Errorf("exit %d, %q, %q", code, out, trouble)
	}
}

// spoken answers in another protocol.
func spoken(w http.ResponseWriter, text string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = conn.Write([]byte(text))
	_ = conn.Close()
}
