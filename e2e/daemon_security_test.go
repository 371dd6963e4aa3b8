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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// service is a daemon of a lab, with its own state and socket.
type service struct {
	*lab
	home, socket, state string
	daemon              *watched
}

// newService starts a daemon; sets are further settings.
func newService(t *testing.T, sets ...string) *service {
	t.Helper()
	needCgroups(t)
	home, err := os.MkdirTemp("", "mxd-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	must(t, os.Chmod(home, 0o755))
	s := &service{lab: newLab(t), home: home, socket: filepath.Join(home, "run", "market.sock"), state: filepath.Join(home, "state")}
	args := []string{"daemon", "--set", "state=" + s.state, "--set", "socket.path=" + s.socket, "--set", "enforce=on", "--set", "log.level=debug"}
	for _, set := range append([]string{"socket.access=everybody"}, sets...) {
		args = append(args, "--set", set)
	}
	cmd := exec.Command(maxwell(t), args...) // it ends after the test
	cmd.Env, cmd.Dir = s.environ(), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s.daemon = s.observe(cmd)
	await(t, "the daemon", func() bool { return strings.Contains(s.daemon.errors.String(), "ready on") })
	t.Cleanup(s.close)
	return s
}

// close ends what runs, which a daemon's end does not, and the daemon.
func (s *service) close() {
	gone := eventually(prompt, func() bool {
		list := s.living()
		for _, w := range list {
			s.call(0, "Stop", `{"now":true,"name":"`+w.Name+`"}`)
		}
		return len(list) == 0
	})
	if !gone {
		s.t.Errorf("still alive: %v", s.living())
	}
	s.daemon.signal(syscall.SIGTERM)
	s.daemon.end()
}

// standing is what must not change of a workload.
type standing struct {
	Name, BudgetUcredits, BidMilli, MaxBidMilli, Client string
	UID                                                 int
}

// living are all workloads, by name.
func (s *service) living() []standing {
	s.t.Helper()
	_, text := s.call(0, "Snapshot", "{}")
	var snap struct {
		Snapshot struct{ Workloads []standing }
	}
	must(s.t, json.Unmarshal([]byte(text), &snap))
	slices.SortFunc(snap.Snapshot.Workloads, func(a, b standing) int { return strings.Compare(a.Name, b.Name) })
	return snap.Snapshot.Workloads
}

// work starts a workload of root's and returns when it runs.
func (s *service) work(env []string, name string, command ...string) *watched {
	s.t.Helper()
	cmd := s.command(append([]string{"run", "--name", name, "--budget", "5000", "--"}, command...)...)
	cmd.Env = append(append(cmd.Env, "MAXWELL_SOCKET="+s.socket), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	return s.observe(cmd)
}

// call asks the market one thing as a user, as curl would.
func (s *service) call(uid int, verb, body string) (int, string) {
	s.t.Helper()
	code, text, err := post(func() (net.Conn, error) { return hosttest.DialAs(uid, s.socket) }, verb, body)
	if err != nil {
		s.t.Fatalf("%s as %d: %v", verb, uid, err)
	}
	return code, text
}

const prefix = "/maxwell.v1.MarketService/"

// post makes a call over a connection of its own. A stream's messages come one a
// line.
func post(dial func() (net.Conn, error), verb, body string) (int, string, error) {
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }}
	defer tr.CloseIdleConnections()
	kind, payload := "application/json", []byte(body)
	if verb == "Watch" || verb == "Join" {
		kind = "application/connect+json"
		payload = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	}
	r, err := (&http.Client{Transport: tr}).Post("http://market"+prefix+verb, kind, bytes.NewReader(payload))
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	if kind == "application/json" {
		text, err := io.ReadAll(r.Body)
		return r.StatusCode, string(text), err
	}
	code, lines := r.StatusCode, ""
	for {
		var head [5]byte
		if _, err := io.ReadFull(r.Body, head[:]); err != nil {
			return code, lines, nil
		}
		text := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(r.Body, text); err != nil {
			return code, lines, err
		}
		lines += string(text) + "\n"
		if strings.Contains(string(text), `"error"`) {
			code = http.StatusForbidden
		}
		if head[0]&2 != 0 || verb == "Join" {
			return code, lines, nil
		}
	}
}

// session opens one for a user and keeps it until the test ends.
func (s *service) session(uid int) string {
	s.t.Helper()
	c, err := hosttest.DialAs(uid, s.socket)
	must(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	body := append(binary.BigEndian.AppendUint32([]byte{0}, 2), "{}"...)
	_, err = fmt.Fprintf(c, "POST %sJoin HTTP/1.1\r\nHost: market\r\nContent-Type: application/connect+json\r\nContent-Length: %d\r\n\r\n%s", prefix, len(body), body)
	must(s.t, err)
	buf, all := make([]byte, 4096), ""
	for {
		n, err := c.Read(buf)
		must(s.t, err)
		all += string(buf[:n])
		if m := regexp.MustCompile(`"token":\s*"([0-9a-f]{32})"`).FindStringSubmatch(all); m != nil {
			return m[1]
		}
	}
}

// victims are a workload of root's that runs and one of another user.
func (s *service) victims() (tokens [2]string) {
	s.t.Helper()
	w := s.work(nil, "rootjob", "sh", "-c", "echo up; exec sleep 31337")
	w.says("up")
	tokens[0] = s.session(0)
	tokens[1] = s.session(65534)
	if code, text := s.call(65534, "Admit", `{"token":"`+tokens[1]+`","name":"annasjob","budgetUcredits":"777000000"}`); code != http.StatusOK {
		s.t.Fatalf("admit: %s", text)
	}
	if code, text := s.call(0, "Fund", `{"name":"rootjob","amountUcredits":"1"}`); code != http.StatusOK {
		s.t.Fatalf("fund: %s", text)
	}
	return tokens
}

// rule is what a call may do for somebody who is neither the owner nor an admin. In
// bodies NAME stands for a workload's name, and TOKEN for a session's token.
type rule struct {
	named   []string // refused, and just as for what does not exist
	unnamed []string // answered, without a word of others
}

// rules has every call of the service.
var rules = map[string]rule{
	"Join":         {named: []string{`{"resume":"TOKEN"}`}},
	"Admit":        {named: []string{`{"token":"TOKEN","name":"mine","budgetUcredits":"900000000"}`}},
	"Started":      {named: []string{`{"token":"TOKEN","name":"NAME","pid":1}`}},
	"Exited":       {named: []string{`{"token":"TOKEN","name":"NAME","childExit":1}`}},
	"Report":       {named: []string{`{"token":"TOKEN","name":"NAME","units":"5"}`}},
	"Stop":         {named: []string{`{"name":"NAME"}`, `{"name":"NAME","now":true}`, `{"token":"TOKEN"}`, `{"token":"TOKEN","name":"NAME","now":true}`}},
	"Suspend":      {named: []string{`{"token":"TOKEN","suspend":true}`}},
	"Fund":         {named: []string{`{"name":"NAME","amountUcredits":"5000000"}`, `{"token":"TOKEN","name":"NAME","amountUcredits":"5000000"}`}},
	"Transfer":     {named: []string{`{"from":"NAME","to":"mine","amountUcredits":"5"}`, `{"from":"mine","to":"NAME","amountUcredits":"5"}`}},
	"SetBid":       {named: []string{`{"name":"NAME","bidMilli":"9000"}`, `{"token":"TOKEN","name":"NAME","bidMilli":"9000"}`}},
	"Snapshot":     {unnamed: []string{`{}`, `{"dead":true}`}, named: []string{`{"token":"TOKEN","own":true}`}},
	"Self":         {unnamed: []string{`{}`}},
	"Wait":         {named: []string{`{"name":"NAME"}`, `{"name":"1"}`, `{"name":"2"}`}},
	"Watch":        {unnamed: []string{`{"sinceWallNs":"1"}`}, named: []string{`{"name":"NAME","sinceWallNs":"1"}`}},
	"Receipts":     {unnamed: []string{`{}`, `{"name":"NAME"}`, `{"name":"1"}`}},
	"Postings":     {named: []string{`{"account":"NAME"}`, `{"account":"wallet:NAME"}`, `{"account":"deposit:NAME"}`, `{"account":"lease:node"}`}},
	"Explain":      {named: []string{`{"name":"NAME"}`}},
	"Attach":       {named: []string{`{"pid":1,"terms":{"name":"mine"}}`, `{"cgroup":"/","terms":{"name":"mine"}}`, `{"cgroup":"/maxwell/w-NAME","terms":{"name":"mine"}}`}},
	"Detach":       {named: []string{`{"name":"NAME"}`}},
	"SetEnforce":   {named: []string{`{"name":"NAME","enforce":"observe"}`, `{"all":true,"enforce":"observe"}`}},
	"CreateWallet": {named: []string{`{"name":"mine","parent":"NAME"}`, `{"name":"mine","owner":0}`}},
	"RemoveWallet": {named: []string{`{"name":"NAME"}`}},
	"ListWallets":  {unnamed: []string{`{}`}},
	"Leave":        {named: []string{`{"token":"TOKEN"}`}},
}

// secrets are what nobody else may read of the victims.
func secrets(tokens [2]string) []string {
	return []string{"rootjob", "annasjob", "31337", "777000000", tokens[0], tokens[1]}
}

// TestAnotherUserMayNothing: for every call of the service, another user gets the
// answer that it would get if the victims did not exist.
func TestAnotherUserMayNothing(t *testing.T) {
	s := newService(t)
	tokens := s.victims()
	before := s.living()
	methods := v1.File_maxwell_v1_market_proto.Services().Get(0).Methods()
	for i := range methods.Len() {
		verb := string(methods.Get(i).Name())
		r, known := rules[verb]
		if !known || len(r.named)+len(r.unnamed) == 0 {
			t.Errorf("%s has no rule: say in this test what another user may do with it", verb)
			continue
		}
		for _, uid := range []int{1001, 65534} {
			name, token := "rootjob", tokens[0]
			if uid == 1001 {
				name, token = "annasjob", tokens[1]
			}
			s.refuses(uid, verb, r, name, token, tokens)
		}
		s.refuses(1001, verb, r, "rootjob", tokens[0], tokens)
	}
	if after := s.living(); !slices.Equal(after, before) {
		t.Errorf("the victims were changed:\n%v\n%v", before, after)
	}
}

// refuses checks one call by a user about another's workload.
func (s *service) refuses(uid int, verb string, r rule, name, token string, tokens [2]string) {
	s.t.Helper()
	fill := func(body, name, token string) string {
		return strings.NewReplacer("NAME", name, "TOKEN", token).Replace(body)
	}
	const nobody = "nosuchjob"
	for _, body := range r.named {
		code, text := s.call(uid, verb, fill(body, name, token))
		_, want := s.call(uid, verb, fill(body, nobody, strings.Repeat("0", 32)))
		if code == http.StatusOK {
			s.t.Errorf("%s %s by %d was let: %s", verb, fill(body, name, token), uid, text)
		}
		if got := strings.ReplaceAll(text, name, nobody); got != want {
			s.t.Errorf("%s %s by %d tells that it exists:\n%s\n%s", verb, fill(body, name, token), uid, text, want)
		}
	}
	for _, body := range r.unnamed {
		code, text := s.call(uid, verb, fill(body, name, token))
		if code != http.StatusOK {
			s.t.Errorf("%s %s by %d: %d %s", verb, body, uid, code, text)
		}
		for _, secret := range secrets(tokens) {
			own := uid == 65534 && (secret == "annasjob" || secret == "777000000")
			if !own && strings.Contains(text, secret) {
				s.t.Errorf("%s %s tells %d of %q: %s", verb, body, uid, secret, text)
			}
		}
	}
}

// TestOwnersAndAdminsMay: who is refused above is let where it is the owner's, or an
// admin's, to do.
func TestOwnersAndAdminsMay(t *testing.T) {
	s := newService(t, "admins.users=1003")
	s.victims()
	for uid, name := range map[int]string{0: "annasjob", 1003: "annasjob", 65534: "annasjob"} {
		for verb, body := range map[string]string{
			"Fund": `{"name":"NAME","amountUcredits":"1000000"}`, "SetBid": `{"name":"NAME","bidMilli":"3000"}`,
			"Explain": `{"name":"NAME"}`, "Postings": `{"account":"NAME"}`, "Snapshot": `{}`,
		} {
			if verb == "Fund" && uid == 65534 {
				continue // money is made by admins alone
			}
			if code, text := s.call(uid, verb, strings.ReplaceAll(body, "NAME", name)); code != http.StatusOK || !strings.Contains(text, "ucredits") && !strings.Contains(text, "Ucredits") {
				t.Errorf("%s by %d: %d %s", verb, uid, code, text)
			}
		}
	}
	for uid, sees := range map[int]bool{0: true, 1003: true, 65534: false} {
		if _, text := s.call(uid, "Snapshot", "{}"); strings.Contains(text, "rootjob") != sees {
			t.Errorf("%d sees root's workload: want %v", uid, sees)
		}
	}
}

// TestAccess: who may connect is the socket's mode.
func TestAccess(t *testing.T) {
	for access, want := range map[string]map[int]bool{
		"everybody": {0: true, 1001: true}, "owner": {0: true, 1001: false}, "group:0": {0: true, 1001: false},
	} {
		t.Run(access, func(t *testing.T) {
			s := newService(t, "socket.access="+access)
			for uid, let := range want {
				_, _, err := post(func() (net.Conn, error) { return hosttest.DialAs(uid, s.socket) }, "Self", "{}")
				if (err == nil) != let {
					t.Errorf("uid %d: %v", uid, err)
				}
			}
		})
	}
}

// asking are the variables that tell an agent (this binary, inside a workload) what
// to ask, how to get there, and where to write the answers.
const (
	askCalls = "E2E_CALLS"
	askHow   = "E2E_HOW"
	askOut   = "E2E_OUT"
	askDoor  = "E2E_DOOR"
)

// askMarket is the agent.
func askMarket() {
	if err := askAs(os.Getenv(askHow)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func askAs(how string) error {
	switch how {
	case "session", "user namespace":
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), askHow+"=")
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if how == "user namespace" {
			cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		}
		return cmd.Run()
	case "group of its own":
		dir := groupOfSelf()
		inner := filepath.Join(dir, "maxwell..w-victim")
		if err := os.Mkdir(inner, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
		defer func() { // so that the directory can be removed
			_ = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
			_ = os.Remove(inner)
		}()
	case "descriptor":
		return askOverDoor()
	}
	var calls [][2]string
	if err := json.Unmarshal([]byte(os.Getenv(askCalls)), &calls); err != nil {
		return err
	}
	var answers [][2]string
	for _, c := range calls {
		code, text, err := post(dialMarket, c[0], c[1])
		if err != nil {
			return err
		}
		answers = append(answers, [2]string{strconv.Itoa(code), text})
	}
	return writeAnswers(answers)
}

func writeAnswers(answers [][2]string) error {
	text, err := json.Marshal(answers)
	if err != nil {
		return err
	}
	return os.WriteFile(os.Getenv(askOut), text, 0o644)
}

func dialMarket() (net.Conn, error) { return net.Dial("unix", os.Getenv("MAXWELL_SOCKET")) }

// groupOfSelf is the cgroup2 directory of this process.
func groupOfSelf() string {
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return mountsOf("cgroup2")[0] + path
		}
	}
	return ""
}

// askOverDoor takes a connection to the market from outside, asks over it who it is,
// and gives one of its own away.
func askOverDoor() error {
	door, err := net.Dial("unix", os.Getenv(askDoor))
	if err != nil {
		return err
	}
	defer door.Close()
	theirs, err := receive(door.(*net.UnixConn))
	if err != nil {
		return err
	}
	code, text, err := post(func() (net.Conn, error) { return theirs, nil }, "Self", "{}")
	if err != nil {
		return err
	}
	if err := writeAnswers([][2]string{{strconv.Itoa(code), text}}); err != nil {
		return err
	}
	ours, err := dialMarket()
	if err != nil {
		return err
	}
	if err := pass(door.(*net.UnixConn), ours.(*net.UnixConn)); err != nil {
		return err
	}
	_, err = door.Read(make([]byte, 1)) // stay until it was used
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// pass sends a connection's descriptor to another process; receive takes one.
func pass(over, c *net.UnixConn) error {
	f, err := c.File()
	if err != nil {
		return err
	}
	defer f.Close()
	_, _, err = over.WriteMsgUnix([]byte("c"), unix.UnixRights(int(f.Fd())), nil)
	return err
}

func receive(over *net.UnixConn) (net.Conn, error) {
	control := make([]byte, 64)
	_, n, _, _, err := over.ReadMsgUnix(make([]byte, 1), control)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) == 0 {
		return nil, fmt.Errorf("no descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "passed")
	defer f.Close()
	return net.FileConn(f)
}

// agent runs one inside a workload of root's and returns its answers.
func (s *service) agent(name, how string, calls [][2]string, env ...string) [][2]string {
	s.t.Helper()
	out := filepath.Join(s.t.TempDir(), "answers")
	text, err := json.Marshal(calls)
	must(s.t, err)
	exe, err := os.Executable()
	must(s.t, err)
	w := s.work(append(env, actVariable+"=ask", askHow+"="+how, askCalls+"="+string(text), askOut+"="+out), name, exe)
	if code := w.end(); code != 0 {
		s.t.Fatalf("the agent ended with %d: %s", code, w.errors.String())
	}
	return answersIn(s.t, out)
}

func answersIn(t *testing.T, name string) (answers [][2]string) {
	t.Helper()
	text, err := os.ReadFile(name)
	must(t, err)
	must(t, json.Unmarshal(text, &answers))
	return answers
}

// TestAWorkloadIsItself: however a process inside a workload of root's hides, it is
// that workload and may nothing for others, with their names and tokens known.
func TestAWorkloadIsItself(t *testing.T) {
	s := newService(t)
	tokens := s.victims()
	before := s.living()
	calls := [][2]string{{"Self", "{}"}, {"Snapshot", `{"dead":true}`}}
	for verb, r := range rules {
		for _, body := range r.named {
			for _, name := range []string{"rootjob", "annasjob", "../rootjob", "rootjob\\n", "root\\u200bjob", "w-rootjob"} {
				calls = append(calls, [2]string{verb, strings.NewReplacer("NAME", name, "TOKEN", tokens[0]).Replace(body)})
			}
		}
	}
	for i, how := range []string{"", "session", "group of its own", "user namespace"} {
		t.Run("by "+how, func(t *testing.T) {
			name := "agent" + strconv.Itoa(i)
			answers := s.agent(name, how, calls)
			if !strings.Contains(answers[0][1], `"`+name+`"`) || strings.Contains(answers[0][1], `"admin":true`) {
				t.Errorf("it is not itself: %s", answers[0][1])
			}
			if strings.Contains(answers[1][1], "rootjob") || !strings.Contains(answers[1][1], name) {
				t.Errorf("it sees others: %s", answers[1][1])
			}
			for j, a := range answers[2:] {
				if a[0] == "200" {
					t.Errorf("%v was let: %s", calls[j+2], a[1])
				}
			}
		})
	}
	if after := s.living(); !slices.Equal(after, before) {
		t.Errorf("the victims were changed:\n%v\n%v", before, after)
	}
}

// TestPassedDescriptors: a connection speaks for whoever made it. Passed in, it gives
// away what its maker may do; passed out, it is still the workload's.
func TestPassedDescriptors(t *testing.T) {
	s := newService(t)
	at := filepath.Join(s.home, "door")
	door, err := net.Listen("unix", at)
	must(t, err)
	defer door.Close()
	passed := make(chan string, 1)
	failed := make(chan error, 1)
	go func() { // ends with the agent
		c, err := door.Accept()
		if err != nil {
			failed <- err
			return
		}
		defer c.Close()
		ours, err := hosttest.DialAs(1001, s.socket)
		if err == nil {
			err = pass(c.(*net.UnixConn), ours.(*net.UnixConn))
		}
		var theirs net.Conn
		if err == nil {
			theirs, err = receive(c.(*net.UnixConn))
		}
		if err != nil {
			failed <- err
			return
		}
		_, text, err := post(func() (net.Conn, error) { return theirs, nil }, "Self", "{}")
		if err != nil {
			failed <- err
			return
		}
		passed <- text
	}()
	inside := s.agent("agent", "descriptor", nil, askDoor+"="+at)
	if !strings.Contains(inside[0][1], `"uid":1001`) || strings.Contains(inside[0][1], "agent") {
		t.Errorf("over a connection from outside it is %s", inside[0][1])
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	case text := <-passed:
		if !strings.Contains(text, `"agent"`) || strings.Contains(text, `"admin":true`) {
			t.Errorf("root outside, over a connection from inside, is %s", text)
		}
	}
}

// TestNothingOfTheMarketIsInherited: a command has no descriptor of its client's line
// to the market.
func TestNothingOfTheMarketIsInherited(t *testing.T) {
	s := newService(t)
	w := s.work(nil, "look", "sh", "-c", `for f in /proc/$$/fd/*; do echo "$f $(readlink $f)"; done; echo end`)
	w.says("end")
	if text := w.out.String(); strings.Contains(text, "socket:") {
		t.Errorf("inherited:\n%s", text)
	}
	w.end()
}

// TestSecrets: a session's token is in no log, argument or environment, and in no file
// that others can read.
func TestSecrets(t *testing.T) {
	s := newService(t)
	tokens := s.victims()
	known := tokens[:]
	for _, name := range []string{"journal.sqlite", "journal.sqlite-wal"} {
		text, err := os.ReadFile(filepath.Join(s.state, name))
		must(t, err)
		for _, m := range regexp.MustCompile(`"session":"([0-9a-f]{32})"`).FindAllSubmatch(text, -1) {
			known = append(known, string(m[1]))
		}
	}
	if len(known) < 4 {
		t.Fatalf("the token of a run was not found: %d are known", len(known))
	}
	texts := map[string]string{"the daemon's log": s.daemon.errors.String() + s.daemon.out.String(), "market.log": s.log()}
	for _, pid := range append(s.processes(), s.daemon.cmd.Process.Pid) {
		for _, what := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, what))
			must(t, err)
			texts[fmt.Sprintf("%s of %d", what, pid)] = string(text)
		}
	}
	for where, text := range texts {
		for _, token := range known {
			if strings.Contains(text, token) {
				t.Errorf("a token is in %s", where)
			}
		}
	}
	info, err := os.Stat(s.state)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v", info.Mode())
	}
	files, err := os.ReadDir(s.state)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", f.Name(), info.Mode())
		}
	}
}

// TestAThousandConnections: one user takes what it can get, and root is served.
func TestAThousandConnections(t *testing.T) {
	s := newService(t)
	for range 1000 {
		c, err := hosttest.DialAs(1001, s.socket)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		must(t, err)
		defer c.Close()
	}
	cmd := s.command("ps", "--json")
	cmd.Env = append(cmd.Env, "MAXWELL_SOCKET="+s.socket)
	if r := s.finish(s.place.start(cmd)); r.code != 0 {
		t.Errorf("ps: %v", r)
	}
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.daemon.cmd.Process.Pid))
	must(t, err)
	if len(open) > 500 {
		t.Errorf("the daemon holds %d descriptors", len(open))
	}
}
