package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// reads are the calls that change nothing.
var reads = []string{"Snapshot", "Self", "Wait", "Watch", "Receipts", "Postings", "Explain", "ListWallets"}

// onceRow is a kind of change.
type onceRow struct {
	// make prepares what change n of its kind is about. It is not delivered yet.
	make func(w *onceWorld, n int) onceChange
	// nature is why it needs no request id.
	nature string
	// late is an answer that a second delivery may have, beside the first one's.
	late connect.Code
	// volatile: it is not promised to be kept. A kill may undo it, and the next
	// delivery makes it again.
	volatile bool
}

// onceChange is one change: the same request at each delivery.
type onceChange struct {
	send func(l *Connection) (proto.Message, error)
	// undo makes another change that takes the first one's effect back, so that a
	// delivery after it would be seen to make it again. nil = effects are counted.
	undo func(l *Connection) error
	// effects says how often it was made, and with undo was made again after it.
	effects func(l *Connection) int
}

// onceRows has every call that changes something.
var onceRows = map[string]onceRow{
	"Join":         {make: joinOnce, nature: "a session is named by its token, and one that nobody keeps ends by itself"},
	"Admit":        {make: admitOnce},
	"Started":      {make: startedOnce, nature: "a workload starts once"},
	"Exited":       {make: exitedOnce, nature: "the first word about its end holds"},
	"Report":       {make: reportOnce, nature: "batches are numbered", volatile: true},
	"Stop":         {make: stopOnce},
	"Suspend":      {make: suspendOnce},
	"Fund":         {make: fundOnce},
	"Transfer":     {make: transferOnce},
	"SetBid":       {make: bidOnce},
	"Attach":       {make: attachOnce},
	"Detach":       {make: detachOnce},
	"SetEnforce":   {make: enforceOnce},
	"CreateWallet": {make: createOnce},
	"RemoveWallet": {make: removeOnce},
	"Leave":        {make: leaveOnce, nature: "a session ends once", late: connect.CodeUnauthenticated},
}

// TestEveryChangeHasItsRow: a new call says here whether it changes something, and one
// that does is delivered by the test below.
func TestEveryChangeHasItsRow(t *testing.T) {
	all := v1.File_maxwell_v1_market_proto.Services().Get(0).Methods()
	for i := range all.Len() {
		m := all.Get(i)
		row, changes := onceRows[string(m.Name())]
		hasID := false
		if f := m.Input().Fields().ByName("request_id"); f != nil {
			hasID = f.Kind() == protoreflect.BytesKind
		}
		switch {
		case changes == slices.Contains(reads, string(m.Name())):
			t.Errorf("%s: name it among the reads, or give it a row in onceRows", m.Name())
		case changes && hasID == (row.nature != ""):
			t.Errorf("%s: a change has a request_id, or says why it needs none (nature)", m.Name())
		case !changes && hasID:
			t.Errorf("%s: what changes nothing needs no request_id", m.Name())
		}
	}
	if all.Len() != len(onceRows)+len(reads) {
		t.Errorf("%d calls, %d rows and %d reads", all.Len(), len(onceRows), len(reads))
	}
}

// TestEveryChangeIsMadeOnce delivers changes of every kind 0 to 3 times, out of order,
// some of them over a kill, and each that was made once more after another kill: it has
// one effect, and the same answer.
func TestEveryChangeIsMadeOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	w := newOnceWorld(t)
	type change struct {
		onceChange
		row   onceRow
		name  string
		times int // it is to be delivered
		first proto.Message
		made  bool
		sure  bool // delivered since the last kill
	}
	var all, deliveries []*change
	for _, name := range sortedKeys(onceRows) {
		for n := range 2 {
			c := &change{onceChange: onceRows[name].make(w, n), row: onceRows[name], name: fmt.Sprintf("%s %d", name, n), times: rng.IntN(4)}
			all = append(all, c)
			for range c.times {
				deliveries = append(deliveries, c)
			}
		}
	}
	rng.Shuffle(len(deliveries), func(i, j int) { deliveries[i], deliveries[j] = deliveries[j], deliveries[i] })
	deliver := func(c *change) {
		t.Helper()
		out, err := c.send(w.line())
		switch {
		case err != nil && c.made && c.row.late != 0 && connect.CodeOf(err) == c.row.late:
			return
		case err != nil:
			t.Fatalf("%s: %v", c.name, err)
		case c.made && !proto.Equal(out, c.first):
			t.Errorf("%s: answered %v, and again %v", c.name, c.first, out)
		}
		c.sure = true
		if c.made {
			return
		}
		c.made, c.first = true, out
		if c.undo != nil {
			if err := c.undo(w.line()); err != nil {
				t.Fatalf("undo %s: %v", c.name, err)
			}
		}
	}
	kill := func() {
		t.Helper()
		w.crash()
		for _, c := range all {
			c.sure = false
		}
	}
	check := func(when string) {
		t.Helper()
		for _, c := range all {
			want := 0
			if c.made && c.undo == nil {
				want = 1
			}
			got := c.effects(w.line())
			if got != want && !(c.row.volatile && !c.sure && got < want) {
				t.Errorf("%s, delivered %d times, %s: %d effects, want %d", c.name, c.times, when, got, want)
			}
		}
	}
	crashes := []int{rng.IntN(len(deliveries)), rng.IntN(len(deliveries))}
	for i, c := range deliveries {
		if slices.Contains(crashes, i) {
			kill()
		}
		deliver(c)
	}
	check("at the end")
	kill()
	for _, c := range all {
		if c.made {
			deliver(c)
		}
	}
	check("after a kill and one more")
}

func sortedKeys[V any](m map[string]V) (list []string) {
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// TestARefusedChangeIsANewTryAfterARestart: a refusal is remembered while the process
// lives. The next one does not know of it: the change is tried again, and if it is made
// then, it is made once.
func TestARefusedChangeIsANewTryAfterARestart(t *testing.T) {
	d := startLasting(t)
	d.create(&v1.CreateWalletRequest{Name: "from"})
	d.create(&v1.CreateWalletRequest{Name: "to"})
	d.fund("from", 5e6)
	move := &v1.TransferRequest{From: "from", To: "to", AmountUcredits: 8e6, RequestId: drawID()}
	balances := func(from, to int64) {
		t.Helper()
		if all := d.wallets(); all["from"].GetBalanceUcredits() != from || all["to"].GetBalanceUcredits() != to {
			t.Errorf("the wallets have %d and %d, want %d and %d", all["from"].GetBalanceUcredits(), all["to"].GetBalanceUcredits(), from, to)
		}
	}
	refused := func() {
		t.Helper()
		if _, err := d.line().Transfer(t.Context(), move); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("more than there is: %v", err)
		}
	}
	refused()
	d.fund("from", 5e6)
	refused() // whoever was told so is told so again
	balances(10e6, 0)
	d.crash()
	again := func() {
		t.Helper()
		if _, err := d.line().Transfer(t.Context(), move); err != nil {
			t.Errorf("a new try: %v", err)
		}
	}
	again()
	balances(2e6, 8e6)
	d.fund("from", 20e6) // enough to make it again
	for range 2 {
		again()
		balances(22e6, 8e6)
		d.crash()
	}
	balances(22e6, 8e6)
}

// onceWorld is a market that lasts, with what the changes are about.
type onceWorld struct {
	*lasting
	token    string
	sessions []string
	streams  []context.CancelFunc
	crew     sync.WaitGroup
	groups   int
}

func newOnceWorld(t *testing.T) *onceWorld {
	w := &onceWorld{lasting: startLasting(t)}
	t.Cleanup(func() {
		for _, token := range w.sessions { // what runs outlives the market
			_, _ = w.line().Leave(context.Background(), &v1.LeaveRequest{Token: token})
		}
		for _, end := range w.streams {
			end()
		}
		w.crew.Wait()
	})
	w.token = w.session("")
	w.begin(w.token, "once-anchor") // a session that has nobody is not kept
	return w
}

// line is lasting's, which may be opened at the test's end too.
func (w *onceWorld) line() *Connection {
	w.t.Helper()
	c, err := Connect(context.Background(), filepath.Join(w.dir, SocketName))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// crash kills the market, and brings the sessions back into the next one.
func (w *onceWorld) crash() {
	w.t.Helper()
	w.lasting.crash()
	for _, token := range w.sessions {
		w.session(token)
	}
}

// session opens one, or goes on with one; "" if the market does not know it any more.
func (w *onceWorld) session(resume string) string {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := w.line()
	stream, err := l.Join(ctx, &v1.JoinRequest{Client: "test", Resume: resume})
	if err == nil && !stream.Receive() {
		err = stream.Err()
	}
	if err != nil {
		cancel()
		if resume == "" || connect.CodeOf(err) != connect.CodeUnauthenticated {
			w.t.Fatalf("join: %v", err)
		}
		return ""
	}
	token := stream.Msg().GetSession().GetToken()
	w.crew.Go(func() {
		for stream.Receive() {
		}
		l.Close()
	})
	w.streams = append(w.streams, cancel)
	if resume == "" {
		w.sessions = append(w.sessions, token)
	}
	return token
}

// begin starts a workload, without telling the market so, and returns its process.
func (w *onceWorld) begin(token, name string) (pid int) {
	w.t.Helper()
	out, err := w.line().Admit(w.t.Context(), &v1.AdmitRequest{Token: token, Name: name, BudgetUcredits: 1e9, BidMilli: 2000})
	if err != nil {
		w.t.Fatalf("admit %s: %v", name, err)
	}
	proc, pid, err := begin(launch.Spec{Args: []string{"sleep", "1000"}, Env: os.Environ()}, placed(out.GetPlacement()))
	if err != nil {
		w.t.Fatalf("start %s: %v", name, err)
	}
	w.crew.Go(func() { // until the market ends it, at the latest when its session leaves
		for {
			if st, err := proc.Wait(); err != nil || st.Ended() {
				return
			}
		}
	})
	return pid
}

// work starts a workload.
func (w *onceWorld) work(token, name string) (pid int) {
	w.t.Helper()
	pid = w.begin(token, name)
	w.started(token, name, pid)
	return pid
}

func (w *onceWorld) started(token, name string, pid int) {
	w.t.Helper()
	if _, err := w.line().Started(w.t.Context(), &v1.StartedRequest{Token: token, Name: name, Pid: int32(pid)}); err != nil {
		w.t.Fatalf("started %s: %v", name, err)
	}
}

// alive is the living workload of a name; nil if there is none.
func (w *onceWorld) alive(l *Connection, name string) *v1.Workload {
	w.t.Helper()
	r, err := l.Explain(w.t.Context(), &v1.ExplainRequest{Name: name})
	if connect.CodeOf(err) == connect.CodeNotFound || r.GetWorkload().GetState() == "dead" {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return r.GetWorkload()
}

// dead are the receipts of a name.
func (w *onceWorld) dead(l *Connection, name string) []*v1.Workload {
	w.t.Helper()
	r, err := l.Receipts(w.t.Context(), &v1.ReceiptsRequest{Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.GetWorkloads()
}

// gone waits for a workload's end.
func (w *onceWorld) gone(l *Connection, name string) error {
	_, err := l.Wait(w.t.Context(), &v1.WaitRequest{Name: name})
	return err
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

// answerOf makes an answer a message also where it is none.
func answerOf[T proto.Message](out T, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return out, nil
}

// joinOnce: who joins again with its token has the same session.
func joinOnce(w *onceWorld, _ int) onceChange {
	return onceChange{
		send: func(*Connection) (proto.Message, error) { return &v1.Session{Token: w.session(w.token)}, nil },
		undo: func(*Connection) error { return nil },
		effects: func(l *Connection) int {
			return count(w.alive(l, "once-anchor") == nil)
		},
	}
}

// admitOnce: when it has ended, a late delivery admits no other.
func admitOnce(w *onceWorld, n int) onceChange {
	req := &v1.AdmitRequest{Token: w.token, Name: fmt.Sprintf("admitted%d", n), BudgetUcredits: 1e9, RequestId: drawID()}
	req.Command = []string{"sh", "-c", strings.Repeat("x", 2*maxCommand)} // which is not kept whole
	return onceChange{
		send: func(l *Connection) (proto.Message, error) { return answerOf(l.Admit(w.t.Context(), req)) },
		undo: func(l *Connection) error {
			_, err := l.Exited(w.t.Context(), &v1.ExitedRequest{Token: w.token, Name: req.Name, NeverStarted: true})
			return err
		},
		effects: func(l *Connection) int {
			return count(w.alive(l, req.Name) != nil) + max(0, len(w.dead(l, req.Name))-1)
		},
	}
}

func startedOnce(w *onceWorld, n int) onceChange {
	name := fmt.Sprintf("starting%d", n)
	pid := w.begin(w.token, name)
	return onceChange{
		send: func(l *Connection) (proto.Message, error) {
			return answerOf(l.Started(w.t.Context(), &v1.StartedRequest{Token: w.token, Name: name, Pid: int32(pid)}))
		},
		undo: func(*Connection) error { return nil },
		effects: func(l *Connection) int { // events come with the tick
			if _, err := l.Suspend(w.t.Context(), &v1.SuspendRequest{Token: w.token}); err != nil {
				w.t.Fatal(err)
			}
			stream, err := l.Watch(w.t.Context(), &v1.WatchRequest{Name: name, SinceWallNs: 1})
			if err != nil {
				w.t.Fatal(err)
			}
			started := 0
			for stream.Receive() {
				started += count(stream.Msg().GetEvent().GetKind() == "started")
			}
			return max(0, started-1)
		},
	}
}

func exitedOnce(w *onceWorld, n int) onceChange {
	name := fmt.Sprintf("ended%d", n)
	pid := w.work(w.token, name)
	return onceChange{
		send: func(l *Connection) (proto.Message, error) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return answerOf(l.Exited(w.t.Context(), &v1.ExitedRequest{Token: w.token, Name: name, ChildExit: 3}))
		},
		effects: func(l *Connection) int { return len(w.dead(l, name)) },
	}
}

func reportOnce(w *onceWorld, n int) onceChange {
	name := fmt.Sprintf("worker%d", n)
	w.work(w.token, name)
	return onceChange{
		send: func(l *Connection) (proto.Message, error) {
			return answerOf(l.Report(w.t.Context(), &v1.ReportRequest{Token: w.token, Name: name, Units: 7, Batch: 1}))
		},
		effects: func(l *Connection) int { return int(w.alive(l, name).GetWork() / 7) },
	}
}

// stopOnce: a late delivery does not end the next one of the name.
func stopOnce(w *onceWorld, n int) onceChange {
	name := fmt.Sprintf("stopped%d", n)
	w.work(w.token, name)
	req := &v1.StopRequest{Name: name, Now: n == 0, RequestId: drawID()}
	return onceChange{
		send: func(l *Connection) (proto.Message, error) { return answerOf(l.Stop(w.t.Context(), req)) },
		undo: func(l *Connection) error {
			err := w.gone(l, name)
			w.work(w.token, name)
			return err
		},
		effects: func(l *Connection) int {
			x := w.alive(l, name)
			return count(x == nil || x.GetState() == "dying")
		},
	}
}

// suspendOnce: a late ^Z does not stop what was let go on since.
func suspendOnce(w *onceWorld, n int) onceChange {
	token, name := w.session(""), fmt.Sprintf("asleep%d", n)
	w.work(token, name)
	req := &v1.SuspendRequest{Token: token, Suspend: true, RequestId: drawID()}
	return onceChange{
		send: func(l *Connection) (proto.Message, error) { return answerOf(l.Suspend(w.t.Context(), req)) },
		undo: func(l *Connection) error {
			_, err := l.Suspend(w.t.Context(), &v1.SuspendRequest{Token: token, RequestId: drawID()})
			return err
		},
		effects: func(l *Connection) int {
			r, err := l.Explain(w.t.Context(), &v1.ExplainRequest{Name: name})
			if err != nil {
				w.t.Fatal(err)
			}
			return count(r.GetVerdict() == "suspended")
		},
	}
}

func fundOnce(w *onceWorld, n int) onceChange {
	name := fmt.Sprintf("funded%d", n)
	w.create(&v1.CreateWalletRequest{Name: name})
	req := &v1.FundRequest{Name: name, AmountUcredits: 3e6, RequestId: drawID()}
	return onceChange{
		send:    func(l *Connection) (proto.Message, error) { return answerOf(l.Fund(w.t.Context(), req)) },
		effects: func(*Connection) int { return int(w.wallets()[name].GetBalanceUcredits() / 3e6) },
	}
}

func transferOnce(w *onceWorld, n int) onceChange {
	from, to := fmt.Sprintf("giver%d", n), fmt.Sprintf("taker%d", n)
	w.create(&v1.CreateWalletRequest{Name: from})
	w.create(&v1.CreateWalletRequest{Name: to})
	w.fund(from, 20e6)
	req := &v1.TransferRequest{From: from, To: to, AmountUcredits: 4e6, RequestId: drawID()}
	return onceChange{
		send:    func(l *Connection) (proto.Message, error) { return answerOf(l.Transfer(w.t.Context(), req)) },
		effects: func(*Connection) int { return int(w.wallets()[to].GetBalanceUcredits() / 4e6) },
	}
}

// bidOnce: an old bid that comes late does not replace a newer one.
func bidOnce(w *onceWorld, n int) onceChange {
	name := fmt.Sprintf("bidder%d", n)
	w.work(w.token, name)
	req := &v1.SetBidRequest{Name: name, BidMilli: 7000, RequestId: drawID()}
	return onceChange{
		send: func(l *Connection) (proto.Message, error) {
			out, err := l.SetBid(w.t.Context(), req)
			return &v1.Workload{Name: out.GetWorkload().GetName(), BidMilli: out.GetWorkload().GetBidMilli()}, err
		},
		undo: func(l *Connection) error {
			_, err := l.SetBid(w.t.Context(), &v1.SetBidRequest{Name: name, BidMilli: 2500, RequestId: drawID()})
			return err
		},
		effects: func(l *Connection) int {
			// A bid holds from the next epoch on: this returns after a tick.
			if _, err := l.Suspend(w.t.Context(), &v1.SuspendRequest{Token: w.token}); err != nil {
				w.t.Fatal(err)
			}
			return count(w.alive(l, name).GetBidMilli() == 7000)
		},
	}
}

// group makes a group as others do, with somebody in it.
func (w *onceWorld) group() (path string) {
	w.t.Helper()
	roots, err := host.Open()
	if err != nil {
		w.t.Fatal(err)
	}
	defer roots.Close()
	layout, err := host.Discover(roots)
	if err != nil {
		w.t.Fatal(err)
	}
	w.groups++
	path = fmt.Sprintf("/mxonce-%d-%d", os.Getpid(), w.groups)
	dir := layout.V2.Mount + path
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		for range 100 {
			if os.Remove(dir) == nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // nobody tells when the kernel is done with it
		}
		w.t.Errorf("%s is still there", dir)
	})
	return path
}

// attachOnce: what was let go is not taken again by a late delivery.
func attachOnce(w *onceWorld, n int) onceChange {
	name, path := fmt.Sprintf("guest%d", n), w.group()
	req := &v1.AttachRequest{Group: &v1.AttachRequest_Cgroup{Cgroup: path}, Enforce: "observe", Terms: &v1.AdmitRequest{Name: name}, RequestId: drawID()}
	return onceChange{
		send: func(l *Connection) (proto.Message, error) { return answerOf(l.Attach(w.t.Context(), req)) },
		undo: func(l *Connection) error {
			_, err := l.Detach(w.t.Context(), &v1.DetachRequest{Name: name, RequestId: drawID()})
			return err
		},
		effects: func(l *Connection) int { return count(w.alive(l, name) != nil) + max(0, len(w.dead(l, name))-1) },
	}
}

// detachOnce: what was attached again is not let go by a late delivery.
func detachOnce(w *onceWorld, n int) onceChange {
	name, path := fmt.Sprintf("kept%d", n), w.group()
	attach := func(l *Connection) error {
		_, err := l.Attach(w.t.Context(), &v1.AttachRequest{
			Group: &v1.AttachRequest_Cgroup{Cgroup: path}, Enforce: "observe", Terms: &v1.AdmitRequest{Name: name}, RequestId: drawID(),
		})
		return err
	}
	if err := attach(w.line()); err != nil {
		w.t.Fatal(err)
	}
	req := &v1.DetachRequest{Name: name, RequestId: drawID()}
	return onceChange{
		send:    func(l *Connection) (proto.Message, error) { return answerOf(l.Detach(w.t.Context(), req)) },
		undo:    attach,
		effects: func(l *Connection) int { return count(w.alive(l, name) == nil) },
	}
}

func enforceOnce(w *onceWorld, n int) onceChange {
	name := fmt.Sprintf("watched%d", n)
	w.work(w.token, name)
	req := &v1.SetEnforceRequest{Name: name, Enforce: "observe", RequestId: drawID()}
	if n == 0 {
		req.Name, req.All = "", true
	}
	return onceChange{
		send: func(l *Connection) (proto.Message, error) { return answerOf(l.SetEnforce(w.t.Context(), req)) },
		undo: func(l *Connection) error {
			_, err := l.SetEnforce(w.t.Context(), &v1.SetEnforceRequest{Name: req.Name, All: req.All, Enforce: "on", RequestId: drawID()})
			return err
		},
		effects: func(l *Connection) int { return count(w.alive(l, name).GetEnforce() != "") },
	}
}

// createOnce: a wallet that was removed is not made again by a late delivery, with
// another period's allowance in it.
func createOnce(w *onceWorld, n int) onceChange {
	req := &v1.CreateWalletRequest{
		Name: fmt.Sprintf("wallet%d", n), AllowanceUcredits: 9e6, AllowanceEveryNs: int64(24 * time.Hour), RequestId: drawID(),
	}
	return onceChange{
		send: func(l *Connection) (proto.Message, error) { return answerOf(l.CreateWallet(w.t.Context(), req)) },
		undo: func(l *Connection) error {
			_, err := l.RemoveWallet(w.t.Context(), &v1.RemoveWalletRequest{Name: req.Name, RequestId: drawID()})
			return err
		},
		effects: func(*Connection) int { return count(w.wallets()[req.Name] != nil) },
	}
}

// removeOnce: a late delivery does not remove the next wallet of the name.
func removeOnce(w *onceWorld, n int) onceChange {
	name := fmt.Sprintf("away%d", n)
	w.create(&v1.CreateWalletRequest{Name: name})
	w.fund(name, 6e6)
	req := &v1.RemoveWalletRequest{Name: name, RequestId: drawID()}
	return onceChange{
		send: func(l *Connection) (proto.Message, error) { return answerOf(l.RemoveWallet(w.t.Context(), req)) },
		undo: func(l *Connection) error {
			_, err := l.CreateWallet(w.t.Context(), &v1.CreateWalletRequest{Name: name, RequestId: drawID()})
			return err
		},
		effects: func(*Connection) int { return count(w.wallets()[name] == nil) },
	}
}

// leaveOnce: it ends the session's workloads, and nobody else's.
func leaveOnce(w *onceWorld, n int) onceChange {
	token, name := w.session(""), fmt.Sprintf("left%d", n)
	w.work(token, name)
	return onceChange{
		send: func(l *Connection) (proto.Message, error) {
			_, err := l.Leave(w.t.Context(), &v1.LeaveRequest{Token: token})
			return &v1.LeaveResponse{}, err
		},
		effects: func(l *Connection) int { return len(w.dead(l, name)) },
	}
}

// TestAGuestsCapsAreItsMakers: caps that the market would not hold are refused, with
// what to do instead, and nothing is attached.
func TestAGuestsCapsAreItsMakers(t *testing.T) {
	w := newOnceWorld(t)
	path := w.group()
	for what, terms := range map[string]*v1.AdmitRequest{"memory": {Name: "capped", MemoryBytes: 1 << 30}, "pids": {Name: "capped", Pids: 100}} {
		for _, enforce := range []string{"observe", "on"} {
			_, err := w.line().Attach(t.Context(), &v1.AttachRequest{Group: &v1.AttachRequest_Cgroup{Cgroup: path}, Enforce: enforce, Terms: terms})
			if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), what+": ") || !strings.Contains(err.Error(), "systemctl set-property") {
				t.Errorf("attached with a cap of %s to %s: %v", what, enforce, err)
			}
		}
	}
	if w.alive(w.line(), "capped") != nil {
		t.Error("it was attached")
	}
}
