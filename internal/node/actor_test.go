package node

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// line opens a connection without a session to the market of s.
func line(t *testing.T, s *Session) *Connection {
	t.Helper()
	c, err := Connect(t.Context(), filepath.Join(s.dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// inside runs calls from within a workload: the whole of a market's agent.
// It returns what each printed and whether it was let.
func inside(t *testing.T, s *Session, terms *v1.AdmitRequest, calls ...[2]string) (said []string, let []bool) {
	t.Helper()
	if s.Node().GetEnforcement() != "cgroup" {
		hosttest.Skip(t, "cgroup", "without groups a workload is known by its user alone")
	}
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for i, c := range calls {
		n := strconv.Itoa(i)
		script.WriteString("'" + exe + "' call '" + filepath.Join(s.dir, SocketName) + "' " + c[0] + " '" + c[1] + "' > " + dir + "/" + n + "; echo $? > " + dir + "/code" + n + "\n")
	}
	r, err := s.Start(t.Context(), Workload{Terms: terms, Spec: launch.Spec{Args: []string{"sh", "-c", script.String()}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Result(); err != nil {
		t.Fatal(err)
	}
	for i := range calls {
		text, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		code, err := os.ReadFile(filepath.Join(dir, "code"+strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		said, let = append(said, string(text)), append(let, string(code) == "0\n")
	}
	return said, let
}

// TestAWorkloadActsForItselfAlone: what an agent inside a workload may do is
// decided by the group it calls from; a name in a request changes nothing.
func TestAWorkloadActsForItselfAlone(t *testing.T) {
	s := join(t, Settings{})
	start(t, s, &v1.AdmitRequest{Name: "victim", BudgetUcredits: 5e9}, []string{"sleep", "1000"})
	said, let := inside(t, s, &v1.AdmitRequest{Name: "agent", BudgetUcredits: 1e9, BidMilli: 4000, MaxBidMilli: 8000},
		[2]string{"Self", `{}`},
		[2]string{"SetBid", `{"bidMilli":"3000"}`},
		[2]string{"Snapshot", `{"dead":true}`},
		[2]string{"SetBid", `{"bidMilli":"5000"}`},
		[2]string{"SetBid", `{"name":"victim","bidMilli":"100"}`},
		[2]string{"Stop", `{"name":"victim"}`},
		[2]string{"Fund", `{"name":"agent","amountUcredits":"1000000"}`},
		[2]string{"Fund", `{"name":"victim","amountUcredits":"1000000"}`},
		[2]string{"Wait", `{"name":"victim"}`},
		[2]string{"Snapshot", `{"own":true,"token":"` + s.token + `"}`},
		[2]string{"Stop", `{"token":"` + s.token + `"}`},
		[2]string{"Admit", `{"token":"` + s.token + `","name":"escape"}`},
		[2]string{"SetBid", `{"auto":true}`},
		[2]string{"SetBid", `{"auto":true,"maxBidMilli":"5000"}`},
	)
	want := []bool{true, true, true, false, false, false, false, false, false, false, false, false, true, false}
	for i := range want {
		if let[i] != want[i] {
			t.Errorf("call %d: let %v, want %v: %s", i, let[i], want[i], said[i])
		}
	}
	var self struct {
		Workload struct{ Name, BalanceUcredits string }
	}
	if err := json.Unmarshal([]byte(said[0]), &self); err != nil || self.Workload.Name != "agent" || self.Workload.BalanceUcredits == "" {
		t.Errorf("Self: %v, %s", err, said[0])
	}
	if !strings.Contains(said[2], `"agent"`) || strings.Contains(said[2], "victim") {
		t.Errorf("a workload sees more or less than itself: %s", said[2])
	}
	if !strings.Contains(said[12], `"maxBidMilli":"4000"`) {
		t.Errorf("an automatic bid of its own is not held by the bid it was started with: %s", said[12])
	}
	if w := used(t, s)["victim"]; w.GetBudgetUcredits() != 5e9 || w.GetState() == "dead" {
		t.Errorf("the other workload was changed: %v", w)
	}
}

// TestAnotherUser: who is neither the owner nor root is not let in where the
// market is one user's own.
func TestAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "there is no other user to be")
	}
	s := join(t, Settings{})
	start(t, s, &v1.AdmitRequest{Name: "mine"}, []string{"sleep", "1000"})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for dir := s.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(s.dir, SocketName)
	if err := os.Chmod(socket, 0o666); err != nil { // as if the file's own mode had failed
		t.Fatal(err)
	}
	cmd := exec.Command(exe, callVerb, socket, "Snapshot", "{}")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("another user was let in: %s", out)
	} else if strings.Contains(string(out), "permission denied") && strings.Contains(string(out), exe) {
		t.Fatalf("the test could not call: %s", out)
	}
}

// TestChangesAreMadeOnce: a change with an id has one effect however often and in
// whatever order it is delivered; an id is not for another change.
func TestChangesAreMadeOnce(t *testing.T) {
	s := join(t, Settings{})
	start(t, s, &v1.AdmitRequest{Name: "job", BudgetUcredits: 1e9}, []string{"sleep", "1000"})
	c := line(t, s)
	id := func(n byte) []byte { return append(make([]byte, 15), n) }
	var all sync.WaitGroup
	for n := range byte(20) {
		for range n % 4 { // delivered 0 to 3 times, all at once
			all.Go(func() {
				req := &v1.FundRequest{Name: "job", AmountUcredits: 1e6 << (n / 4), RequestId: id(n)}
				if _, err := c.Fund(t.Context(), req); err != nil {
					t.Errorf("fund %d: %v", n, err)
				}
			})
		}
	}
	all.Wait()
	want := int64(1e9)
	for n := range byte(20) {
		if n%4 > 0 {
			want += 1e6 << (n / 4)
		}
	}
	if got := used(t, s)["job"].GetBudgetUcredits(); got != want {
		t.Errorf("funded to %d, want %d", got, want)
	}
	_, err := c.Fund(t.Context(), &v1.FundRequest{Name: "job", AmountUcredits: 7, RequestId: id(3)})
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("an id that was used: %v", err)
	}
	if _, err = c.Fund(t.Context(), &v1.FundRequest{Name: "job", AmountUcredits: 7, RequestId: []byte("short")}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a short id: %v", err)
	}
	// A refusal is an answer too.
	for range 2 {
		_, err := c.Fund(t.Context(), &v1.FundRequest{Name: "job", AmountUcredits: -5, RequestId: id(99)})
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("a negative amount: %v", err)
		}
	}
}

// TestWithoutASession: whoever started a workload sees it, waits for it, stops it
// and reads its receipt from another connection, and hears what happened.
func TestWithoutASession(t *testing.T) {
	s := join(t, Settings{})
	start(t, s, &v1.AdmitRequest{Name: "job", BudgetUcredits: 1e9, GraceNs: 1e9, Command: []string{"sleep", "1000"}, Log: "/tmp/x"}, []string{"sleep", "1000"})
	c := line(t, s)
	ctx := t.Context()
	events, err := c.Watch(ctx, &v1.WatchRequest{Name: "job", SinceWallNs: 1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := c.Snapshot(ctx, &v1.SnapshotRequest{})
	if err != nil || len(snap.GetSnapshot().GetWorkloads()) != 1 {
		t.Fatalf("%v, %v", snap, err)
	}
	w := snap.GetSnapshot().GetWorkloads()[0]
	if w.GetUid() != uint32(unix.Getuid()) || w.GetClient() != "test" || len(w.GetCommand()) != 2 || w.GetLog() != "/tmp/x" || w.GetAdmittedWallNs() == 0 {
		t.Errorf("described as %v", w)
	}
	if _, err := c.Stop(ctx, &v1.StopRequest{Name: "nobody"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("stop nobody: %v", err)
	}
	if _, err := c.Stop(ctx, &v1.StopRequest{Name: "job"}); err != nil {
		t.Fatal(err)
	}
	out, err := c.Wait(ctx, &v1.WaitRequest{Name: "job"})
	if err != nil || out.GetWorkload().GetReason() != "stopped" {
		t.Fatalf("wait: %v, %v", out, err)
	}
	if again, err := c.Wait(ctx, &v1.WaitRequest{Name: w.GetId()}); err != nil || again.GetWorkload().GetName() != "job" {
		t.Errorf("wait for the dead by id: %v, %v", again, err)
	}
	r, err := c.Receipts(ctx, &v1.ReceiptsRequest{Name: "job"})
	if err != nil || len(r.GetWorkloads()) != 1 || r.GetWorkloads()[0].GetReason() != "stopped" || r.GetWorkloads()[0].GetEndedWallNs() == 0 {
		t.Errorf("receipts: %v, %v", r, err)
	}
	var kinds []string
	for events.Receive() {
		kinds = append(kinds, events.Msg().GetEvent().GetKind())
		if events.Msg().GetEvent().GetKind() == "dead" {
			break
		}
	}
	if strings.Join(kinds, " ") != "started dying dead" {
		t.Errorf("heard %v: %v", kinds, events.Err())
	}
	if _, err := c.Postings(ctx, &v1.PostingsRequest{}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("postings without a journal: %v", err)
	}
}

// TestAWorkloadIsToldCoresThatThereAre: a program that makes a thread a core would
// make 64 for the two that are for sale.
func TestAWorkloadIsToldCoresThatThereAre(t *testing.T) {
	s := &Session{node: &v1.Node{CoresMilli: 2000}}
	for cores, want := range map[int64]string{500: "1", 1500: "2", 64000: "2"} {
		got := s.environ([]string{"OMP_NUM_THREADS=7"}, "a", cores)
		if !slices.Contains(got, "GOMAXPROCS="+want) || slices.Contains(got, "OMP_NUM_THREADS="+want) {
			t.Errorf("%d thousandths of a core: %q, want GOMAXPROCS=%s and the owner's own", cores, got, want)
		}
	}
	if got := s.environ(nil, "a", 0); len(got) != 3 {
		t.Errorf("without --cores it is told %q", got)
	}
}

// TestALateEndOfAnOldStreamEndsNoSession: a client may be back before the market
// notices that its stream has broken.
func TestALateEndOfAnOldStreamEndsNoSession(t *testing.T) {
	m := openNursery(t).m
	a := actor{uid: 1001}
	own, old, _, err := m.enter(a, process{}, &v1.JoinRequest{Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	same, current, _, err := m.enter(a, process{}, &v1.JoinRequest{Resume: own.token})
	if err != nil || same != own {
		t.Fatalf("back in %p, %v; want %p", same, err, own)
	}
	there := own.here
	if m.part(own, old); !there() {
		t.Error("the end of the stream before takes the client for gone")
	}
	if m.part(own, current); there() {
		t.Error("the end of its last stream does not")
	}
}

// TestReportsWaitForTheirClient: after a restart a report does not come before those that
// the daemon before had taken and not kept. They would be taken for told already.
func TestReportsWaitForTheirClient(t *testing.T) {
	n := openNursery(t)
	if _, err := n.rpc.Admit(t.Context(), &v1.AdmitRequest{Token: n.token, Name: "a", BudgetUcredits: 1e9, Command: []string{"true"}}); err != nil {
		t.Fatal(err)
	}
	n.m.mu.Lock()
	own := n.m.session[n.token]
	n.m.mu.Unlock()
	back := func(joined bool) {
		own.mu.Lock()
		own.joined = joined
		own.mu.Unlock()
	}
	report := func() error {
		_, err := n.rpc.Report(t.Context(), &v1.ReportRequest{Token: n.token, Name: "a", Units: 1, Batch: 2})
		return err
	}
	back(false)
	if err := report(); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("away: %v, want unavailable: the client asks again", err)
	}
	back(true)
	if err := report(); err != nil {
		t.Errorf("back: %v", err)
	}
	if _, err := n.rpc.Exited(t.Context(), &v1.ExitedRequest{Token: n.token, Name: "a"}); err != nil {
		t.Error(err)
	}
}

// TestAStoppedClientIsNotGone: a client that was stopped (^Z) when the daemon was
// restarted does not come back in time, and has not ended: its workloads wait for it.
func TestAStoppedClientIsNotGone(t *testing.T) {
	n := openNursery(t)
	m := n.m
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	t.Cleanup(end)
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	known := func(own *session) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.session[own.token] == own
	}
	own := newSession("stopped", "run", 1001)
	nobodys := newSession("nobodys", "run", 1001)
	own.process, nobodys.process = processOf(c.Process.Pid), process{PID: c.Process.Pid, Start: 1}
	m.mu.Lock()
	m.session[own.token], m.session[nobodys.token] = own, nobodys
	m.mu.Unlock()
	m.parted(own, time.Millisecond, own.made())
	m.parted(nobodys, time.Millisecond, nobodys.made())
	for known(nobodys) { // another process of that number is nobody's client
		m.loop.through(func() {})
	}
	for range 5 {
		m.loop.through(func() {})
	}
	if !known(own) {
		t.Fatal("its session is ended while it lives")
	}
	end()
	for known(own) {
		m.loop.through(func() {})
	}
}

// TestTheNextDaemonKnowsItsClients: which process a client is comes back with its
// workload.
func TestTheNextDaemonKnowsItsClients(t *testing.T) {
	n := openNursery(t)
	if _, err := n.rpc.Admit(t.Context(), &v1.AdmitRequest{Token: n.token, Name: "job", BidMilli: 2000}); err != nil {
		t.Fatal(err)
	}
	m := n.m
	m.mu.Lock()
	mem := m.names["job"]
	m.mu.Unlock()
	m.loop.do(func() {
		kept, ok := m.loop.noteOf(mem.saved)
		if !ok {
			t.Error("a living workload is not noted")
			return
		}
		text, err := kept.body.encode()
		a := alive{uid: mem.uid}
		a.Asked = message{&v1.AdmitRequest{}}
		if err = errors.Join(err, json.Unmarshal(text, &a.kept)); err != nil {
			t.Error(err)
			return
		}
		a.Session = "of the next daemon"
		m.mu.Lock()
		defer m.mu.Unlock()
		if got, want := m.memberOf(&a).session.process, processOf(os.Getpid()); got != want || !got.lives() {
			t.Errorf("the client is process %v, want %v", got, want)
		}
		delete(m.session, a.Session)
	})
}
