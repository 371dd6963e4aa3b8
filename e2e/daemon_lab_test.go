package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// daemonLab is a lab in which a daemon runs, or is away.
type daemonLab struct {
	*lab
	now    *watched // the daemon's process; nil = none
	root   string   // name of its directories
	flags  []string // beside those that name its places
	wrap   func(*exec.Cmd)
	client *http.Client
}

// newDaemonLab makes a lab and starts its daemon. The caller closes it: what a daemon
// governs outlives it.
func newDaemonLab(t *testing.T, flags ...string) *daemonLab {
	t.Helper()
	s := idleDaemonLab(t, flags...)
	s.start()
	return s
}

// idleDaemonLab is newDaemonLab without a daemon yet.
func idleDaemonLab(t *testing.T, flags ...string) *daemonLab {
	t.Helper()
	needCgroups(t)
	s := &daemonLab{lab: newLab(t), flags: flags}
	s.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", s.socket())
		},
		DisableKeepAlives: true, // the daemon at the other end changes
	}}
	return s
}

func (s *daemonLab) socket() string  { return filepath.Join(s.dir, "market.sock") }
func (s *daemonLab) state() string   { return filepath.Join(s.dir, "state") }
func (s *daemonLab) journal() string { return filepath.Join(s.state(), "journal.sqlite") }

// environ is that of the place, with the outputs of detached commands in it.
func (s *daemonLab) environ() []string {
	return append(s.place.environ(), "MAXWELL_OUTPUT_DIR="+filepath.Join(s.dir, "logs"))
}

// command is `maxwell args...` as its clients call it.
func (s *daemonLab) command(args ...string) *exec.Cmd {
	cmd := s.place.command(args...)
	cmd.Env = s.environ()
	return cmd
}

func (s *daemonLab) run(args ...string) result {
	s.t.Helper()
	return s.finish(s.place.start(s.command(args...)))
}

// daemon is the daemon's command, not yet started. It does not end with the test's
// context: close has to find it.
func (s *daemonLab) daemon(flags ...string) *exec.Cmd {
	cmd := exec.Command(maxwell(s.t), append([]string{
		"daemon", "--set", "enforce=on", "--set", "socket.path=" + s.socket(), "--set", "state=" + s.state(),
	}, flags...)...)
	cmd.Env = s.environ()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.wrap != nil {
		s.wrap(cmd)
	}
	return cmd
}

// begin starts the daemon and does not wait for it.
func (s *daemonLab) begin() {
	s.t.Helper()
	s.now = s.observe(s.daemon(s.flags...))
}

const readyText = "maxwell: daemon: ready on "

// ready waits until the daemon serves.
func (s *daemonLab) ready() {
	s.t.Helper()
	s.waitFor("the daemon", func() bool {
		select {
		case <-s.now.ended:
			s.t.Fatalf("the daemon ended with %d:\n%s", s.now.code, s.now.errors.String())
		default:
		}
		return strings.Contains(s.now.errors.String(), readyText)
	})
	s.root = rootOf(s.now.cmd.Process.Pid)
	if s.root == "" {
		s.t.Fatal("the daemon has no directories")
	}
}

// rootOf is what the directories of a daemon are called: its turn is noted on them.
func rootOf(pid int) string {
	for _, mount := range mountsOf("cgroup2") {
		found, _ := filepath.Glob(filepath.Join(mount, "maxwell*"))
		for _, dir := range found {
			var turn [64]byte
			n, err := unix.Lgetxattr(dir, "trusted.maxwell.turn", turn[:])
			if err == nil && strings.HasPrefix(string(turn[:n]), fmt.Sprintf("%d-", pid)) {
				return filepath.Base(dir)
			}
		}
	}
	return ""
}

// waitFor is await, for a machine on which a score of workloads compete.
func (s *daemonLab) waitFor(what string, holds func() bool) {
	s.t.Helper()
	if !eventually(3*prompt, holds) {
		s.t.Fatalf("waited %v for %s", 3*prompt, what)
	}
}

func (s *daemonLab) start() {
	s.t.Helper()
	s.begin()
	s.ready()
}

// kill ends the daemon as nothing else does.
func (s *daemonLab) kill() {
	s.t.Helper()
	_ = s.now.cmd.Process.Kill()
	<-s.now.ended
	s.now = nil
}

// stop ends the daemon in order.
func (s *daemonLab) stop() {
	s.t.Helper()
	s.now.signal(syscall.SIGTERM)
	if code := s.now.end(); code != 0 {
		s.t.Errorf("the daemon ended with %d:\n%s", code, tail(s.now.errors.String()))
	}
	s.now = nil
}

// close ends what is left in the daemon's care, then the daemon, and checks that
// nothing stays: it is deferred, so that it comes before the test's end.
func (s *daemonLab) close() {
	if s.t.Failed() || s.now == nil {
		s.wreck()
		return
	}
	s.endAll()
	s.stop()
	for _, mount := range cgroupMounts() {
		if _, err := os.Stat(filepath.Join(mount, s.root)); err == nil {
			s.t.Errorf("left behind: %s", filepath.Join(mount, s.root))
		}
	}
	_ = os.RemoveAll(s.state())
	_ = os.RemoveAll(filepath.Join(s.dir, "logs"))
	s.clean()
}

// endAll stops every workload and waits for their clients to leave.
func (s *daemonLab) endAll() {
	s.t.Helper()
	for _, w := range s.snapshot(false).Workloads {
		_ = s.call("Stop", stopRequest{Name: w.Name, Now: true, ID: newID()}, nil)
	}
	s.waitFor("the last workload to end", func() bool { return len(s.snapshot(false).Workloads) == 0 })
	s.waitFor("the clients to leave", func() bool { return len(s.clients()) == 0 })
}

// clients are the processes of the lab but the daemon and its watchdogs.
func (s *daemonLab) clients() []int {
	return slices.DeleteFunc(s.processes(), func(pid int) bool {
		args := strings.Fields(commandLine(pid))
		return len(args) == 0 || len(args) > 1 && (args[1] == "daemon" || args[1] == "watchdog")
	})
}

// wreck ends everything at once, for a test that failed.
func (s *daemonLab) wreck() {
	if s.now != nil && s.t.Failed() {
		s.t.Logf("the daemon said:\n%s", tail(s.now.errors.String()))
	}
	gone := func() bool {
		list := s.processes()
		for _, pid := range list {
			_ = syscall.Kill(pid, syscall.SIGCONT)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(list) == 0
	}
	eventually(prompt, gone)
	_ = exec.Command(maxwell(s.t), "doctor", "--repair").Run() // thaws what is stopped
	eventually(prompt, gone)
	_ = exec.Command(maxwell(s.t), "doctor", "--repair").Run()
	_ = os.RemoveAll(s.state())
	_ = os.RemoveAll(filepath.Join(s.dir, "logs"))
	for _, name := range []string{"market.sock", "market.lock", "market.daemon"} {
		_ = os.Remove(filepath.Join(s.dir, name))
	}
}

// What the tests send and read, as Connect's JSON has it: 64-bit numbers are text.
type (
	fundRequest struct {
		Name   string `json:"name"`
		Amount int64  `json:"amountUcredits,string"`
		ID     []byte `json:"requestId,omitempty"`
	}
	bidRequest struct {
		Name string `json:"name"`
		Bid  int64  `json:"bidMilli,string"`
		ID   []byte `json:"requestId,omitempty"`
	}
	stopRequest struct {
		Token string `json:"token,omitempty"`
		Name  string `json:"name"`
		Now   bool   `json:"now,omitempty"`
		ID    []byte `json:"requestId,omitempty"`
	}
	purse struct {
		Name      string `json:"name"`
		ID        string `json:"id"`
		State     string `json:"state"`
		Reason    string `json:"reason"`
		Exit      int    `json:"exitCode"`
		Open      bool   `json:"open"`
		Budget    int64  `json:"budgetUcredits,string"`
		Income    int64  `json:"incomeUcredits,string"`
		Spent     int64  `json:"spentUcredits,string"`
		Energy    int64  `json:"energyUcredits,string"`
		Rent      int64  `json:"rentUcredits,string"`
		Erasure   int64  `json:"erasureUcredits,string"`
		Other     int64  `json:"otherUcredits,string"`
		Deposit   int64  `json:"depositUcredits,string"`
		Balance   int64  `json:"balanceUcredits,string"`
		CPU       int64  `json:"cpuNs,string"`
		Work      int64  `json:"work,string"`
		Bid       int64  `json:"bidMilli,string"`
		Readopted int64  `json:"readoptedCpuNs,string"`
		GapCost   int64  `json:"readoptedUcredits,string"`
	}
	snapshot struct {
		Node struct {
			Epochs int64 `json:"epochs,string"`
			Cores  int64 `json:"coresMilli,string"`
		} `json:"node"`
		Workloads []purse `json:"workloads"`
		Price     struct {
			Base int64 `json:"baseUcreditsPerCoreS,string"`
			Grid int64 `json:"gridPpm,string"`
		} `json:"price"`
		Ledger struct {
			Sum int64 `json:"sumUcredits,string"`
		} `json:"ledger"`
	}
)

// refusal is an answer that is an error.
type refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (r *refusal) Error() string { return r.Code + ": " + r.Message }

// call asks the daemon once. An error that is no *refusal is the connection's.
func (s *daemonLab) call(method string, in, out any) error {
	body, err := json.Marshal(in)
	must(s.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), prompt)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://market/maxwell.v1.MarketService/"+method, bytes.NewReader(body))
	must(s.t, err)
	req.Header.Set("Content-Type", "application/json")
	r, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		no := &refusal{}
		if err := json.Unmarshal(text, no); err != nil || no.Code == "" {
			return fmt.Errorf("%s: status %d: %s", method, r.StatusCode, text)
		}
		return no
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// definite makes a call until it is answered, over whatever happens to the daemon,
// as a client does that draws an id once. unsure reports whether a delivery before
// the last was not answered.
func (s *daemonLab) definite(method string, in, out any) (unsure bool, err error) {
	s.t.Helper()
	deadline := time.Now().Add(3 * prompt)
	for {
		err = s.call(method, in, out)
		no, answered := errors.AsType[*refusal](err)
		if err == nil || answered && no.Code != "unavailable" {
			return unsure, err
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%s: not answered within %v: %v", method, 3*prompt, err)
			return true, err
		}
		unsure = true
		time.Sleep(5 * time.Millisecond) // as a client does between two tries
	}
}

// snapshot is the market now; dead: with those that have ended.
func (s *daemonLab) snapshot(dead bool) snapshot {
	s.t.Helper()
	var out struct {
		Snapshot snapshot `json:"snapshot"`
	}
	_, err := s.definite("Snapshot", map[string]any{"dead": dead}, &out)
	must(s.t, err)
	return out.Snapshot
}

// wallet is a workload, alive or dead: the newest of that name.
func (s *daemonLab) wallet(name string) (purse, bool) {
	s.t.Helper()
	list := s.snapshot(true).Workloads
	i := slices.IndexFunc(list, func(w purse) bool { return w.Name == name && w.State != "dead" })
	if i >= 0 {
		return list[i], true
	}
	for _, w := range slices.Backward(list) {
		if w.Name == name {
			return w, true
		}
	}
	return purse{}, false
}

// dead waits for a workload's end and returns its last statement.
func (s *daemonLab) dead(name string) purse {
	s.t.Helper()
	var w purse
	s.waitFor(name+" to end", func() bool {
		var known bool
		w, known = s.wallet(name)
		return known && w.State == "dead"
	})
	return w
}

// detach runs a command in the background and returns its wallet's name.
func (s *daemonLab) detach(args ...string) string {
	s.t.Helper()
	r := s.run(append([]string{"run", "-d"}, args...)...)
	if r.code != 0 {
		s.t.Fatalf("run -d %v: %v", args, r)
	}
	return strings.TrimSpace(r.stdout)
}

var idCount atomic.Uint64

// newID draws a request's id.
func newID() []byte {
	id := make([]byte, 16)
	binary.LittleEndian.PutUint64(id, uint64(time.Now().UnixNano()))
	binary.LittleEndian.PutUint64(id[8:], idCount.Add(1))
	return id
}

// whole checks what is true of a wallet at every moment.
func (w *purse) whole(t testing.TB) {
	t.Helper()
	if w.Energy+w.Rent+w.Erasure+w.Other != w.Spent {
		t.Errorf("%s: energy %d, rent %d, erasure %d and other %d are not the %d spent", w.Name, w.Energy, w.Rent, w.Erasure, w.Other, w.Spent)
	}
	if w.Budget+w.Income != w.Spent+w.Balance+w.Deposit {
		t.Errorf("%s: granted %d and earned %d, spent %d, has %d and %d locked: %+v", w.Name, w.Budget, w.Income, w.Spent, w.Balance, w.Deposit, *w)
	}
	if w.Spent > w.Budget+w.Income || w.Balance < 0 || w.Deposit < 0 {
		t.Errorf("%s: overdrawn: %+v", w.Name, *w)
	}
	if w.GapCost > w.Spent || w.Readopted > w.CPU {
		t.Errorf("%s: more of it away than in all: %+v", w.Name, *w)
	}
}

// join opens a session, or goes on with one, and keeps its stream, as a client does.
// It returns the session's token.
func (s *daemonLab) join(resume string) (token string, leave func()) {
	s.t.Helper()
	token, leave, err := s.tryJoin(resume)
	must(s.t, err)
	return token, leave
}

func (s *daemonLab) tryJoin(resume string) (token string, leave func(), err error) {
	s.t.Helper()
	message, err := json.Marshal(map[string]string{"client": "test", "resume": resume})
	must(s.t, err)
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://market/maxwell.v1.MarketService/Join", bytes.NewReader(append(body, message...)))
	must(s.t, err)
	req.Header.Set("Content-Type", "application/connect+json")
	r, err := s.client.Do(req)
	if err != nil {
		cancel()
		return "", nil, err
	}
	leave = func() { cancel(); r.Body.Close() }
	var head [5]byte
	var hello struct {
		Session struct {
			Token string `json:"token"`
		} `json:"session"`
		Error *refusal `json:"error"`
	}
	if _, err = io.ReadFull(r.Body, head[:]); err == nil {
		text := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err = io.ReadFull(r.Body, text); err == nil {
			err = json.Unmarshal(text, &hello)
		}
	}
	if err == nil && hello.Error != nil {
		err = hello.Error
	}
	if err != nil {
		leave()
		return "", nil, err
	}
	go func() { _, _ = io.Copy(io.Discard, r.Body) }() // ends with the stream
	s.t.Cleanup(leave)
	return hello.Session.Token, leave, nil
}

func mkfifo(name string) error { return syscall.Mkfifo(name, 0o600) }

// populated is how many processes are in a group.
func populated(t testing.TB, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	must(t, err)
	return len(strings.Fields(string(text)))
}
