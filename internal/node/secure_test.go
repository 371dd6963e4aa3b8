package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/internal/api"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/internal/config"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// hosted is a daemon's market in this process, by signals, which makes nothing that
// outlives it. Every user may connect.
type hosted struct {
	t           testing.TB
	dir, socket string
}

func hostMarket(t testing.TB, change ...func(*Daemon)) *hosted {
	t.Helper()
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "there is no other user to be")
	}
	dir, err := os.MkdirTemp("", "mxhost-") // a socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &hosted{t: t, dir: dir, socket: filepath.Join(dir, SocketName)}
	d := &Daemon{Config: config.New(), Journal: filepath.Join(dir, "journal.sqlite"), Socket: h.socket, Access: api.Access{Everybody: true}}
	for _, f := range change {
		f(d)
	}
	ctx, stop := context.WithCancel(context.Background())
	ready := make(chan error, 1)
	var crew sync.WaitGroup
	crew.Go(func() {
		if err := Serve(ctx, dir, Settings{Enforce: "signal", Daemon: d}, func(err error) { ready <- err }); err != nil && ctx.Err() == nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { stop(); crew.Wait() })
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return h
}

// as is a line to the market of another user.
func (h *hosted) as(uid int) maxwellv1connect.MarketServiceClient {
	tr := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return hosttest.DialAs(uid, h.socket) },
		Protocols:   new(http.Protocols),
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	h.t.Cleanup(tr.CloseIdleConnections)
	return maxwellv1connect.NewMarketServiceClient(&http.Client{Transport: tr}, "http://market")
}

// session opens one and keeps it until the test ends. It returns its token.
func (h *hosted) session(c maxwellv1connect.MarketServiceClient) string {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := c.Join(ctx, &v1.JoinRequest{Client: "test"})
	if err != nil || !stream.Receive() {
		h.t.Fatalf("join: %v, %v", err, stream.Err())
	}
	token := stream.Msg().GetSession().GetToken()
	var crew sync.WaitGroup
	crew.Go(func() {
		for stream.Receive() {
		}
	})
	h.t.Cleanup(func() { cancel(); crew.Wait() })
	return token
}

func (h *hosted) admit(c maxwellv1connect.MarketServiceClient, token, name string, budget int64) {
	h.t.Helper()
	if _, err := c.Admit(h.t.Context(), &v1.AdmitRequest{Token: token, Name: name, BudgetUcredits: budget, BidMilli: 2000}); err != nil {
		h.t.Fatalf("admit %s: %v", name, err)
	}
}

// bury ends a workload that was never started.
func (h *hosted) bury(c maxwellv1connect.MarketServiceClient, token, name string) {
	h.t.Helper()
	if _, err := c.Exited(h.t.Context(), &v1.ExitedRequest{Token: token, Name: name, NeverStarted: true}); err != nil {
		h.t.Fatalf("bury %s: %v", name, err)
	}
}

// TestANameThatWasAnothers: a name passes from user to user; what each did under it
// does not.
func TestANameThatWasAnothers(t *testing.T) {
	h := hostMarket(t)
	anna, ben, ctx := h.as(1001), h.as(1002), t.Context()
	hers, his := h.session(anna), h.session(ben)
	h.admit(anna, hers, "job", 111e6)
	h.bury(anna, hers, "job")
	h.admit(ben, his, "job", 222e6)
	amounts := func(c maxwellv1connect.MarketServiceClient, account string) (list []int64) {
		t.Helper()
		r, err := c.Postings(ctx, &v1.PostingsRequest{Account: account, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.GetPostings() {
			if p.GetPurpose() == "funding" {
				list = append(list, p.GetAmountUcredits())
			}
		}
		return list
	}
	for _, account := range []string{"job", "wallet:job"} {
		if got := amounts(anna, account); !slices.Equal(got, []int64{111e6}) {
			t.Errorf("she sees %v in %s", got, account)
		}
		if got := amounts(ben, account); !slices.Equal(got, []int64{222e6}) {
			t.Errorf("he sees %v in %s", got, account)
		}
	}
	snap, err := anna.Snapshot(ctx, &v1.SnapshotRequest{Dead: true})
	if err != nil {
		t.Fatal(err)
	}
	for account := range snap.GetSnapshot().GetLedger().GetAccounts() {
		if strings.HasSuffix(account, ":job") {
			t.Errorf("she sees the account %s, which is his by now", account)
		}
	}
	h.bury(ben, his, "job")
	if snap, err = anna.Snapshot(ctx, &v1.SnapshotRequest{Dead: true}); err != nil {
		t.Fatal(err)
	}
	if n := len(snap.GetSnapshot().GetWorkloads()); n != 1 {
		t.Errorf("she sees %d dead, want her own", n)
	}
	for account := range snap.GetSnapshot().GetLedger().GetAccounts() {
		if strings.HasSuffix(account, ":job") {
			t.Errorf("she sees the account %s, which he had last", account)
		}
	}
	r, err := ben.Receipts(ctx, &v1.ReceiptsRequest{Name: "job"})
	if err != nil || len(r.GetWorkloads()) != 1 || r.GetWorkloads()[0].GetUid() != 1002 {
		t.Errorf("his receipts: %v, %v", r, err)
	}
}

// TestASessionSeesNoOthers: what a session is shown of the books is its user's.
func TestASessionSeesNoOthers(t *testing.T) {
	h := hostMarket(t)
	anna, ben, ctx := h.as(1001), h.as(1002), t.Context()
	hers, his := h.session(anna), h.session(ben)
	h.admit(anna, hers, "secret", 111e6)
	h.admit(ben, his, "plain", 222e6)
	own, err := ben.Snapshot(ctx, &v1.SnapshotRequest{Token: his, Own: true})
	if err != nil || len(own.GetSnapshot().GetWorkloads()) != 1 {
		t.Fatalf("%v, %v", own, err)
	}
	if _, err := ben.Snapshot(ctx, &v1.SnapshotRequest{Token: hers, Own: true}); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("with her token: %v", err)
	}
	last, err := ben.Leave(ctx, &v1.LeaveRequest{Token: his})
	if err != nil {
		t.Fatal(err)
	}
	for what, m := range map[string]fmt.Stringer{"a snapshot": own, "the last one": last} {
		if strings.Contains(m.String(), "secret") || !strings.Contains(m.String(), "plain") {
			t.Errorf("%s of his session: %v", what, m)
		}
	}
	if sum := last.GetSnapshot().GetLedger().GetSumUcredits(); sum != 0 {
		t.Errorf("the books sum to %d", sum)
	}
}

// TestNames: what a name may not be is refused, in one line that repeats no control
// character.
func TestNames(t *testing.T) {
	h := hostMarket(t)
	c := h.as(1001)
	token := h.session(c)
	for _, name := range []string{
		"", ".", "..", "../job", "a/b", "a\nb", "a\x00b", "\x1b[2J", "jöb", "a\u202eb", "wallet:job", "a b", ".hidden", strings.Repeat("a", 129),
		strings.Repeat("\x1b", 1000),
	} {
		_, err := c.Admit(t.Context(), &v1.AdmitRequest{Token: token, Name: name, BudgetUcredits: 1e9})
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if text := err.Error(); strings.ContainsAny(text, "\x1b\n\x00") || len(text) > 1000 {
			t.Errorf("%q: refused with %q", name, text)
		}
	}
	long := slices.Repeat([]string{"\x1b[2J word"}, 50_000)
	if _, err := c.Admit(t.Context(), &v1.AdmitRequest{Token: token, Name: "long", Command: long}); err != nil {
		t.Fatal(err)
	}
	snap, err := c.Snapshot(t.Context(), &v1.SnapshotRequest{})
	if err != nil || len(snap.GetSnapshot().GetWorkloads()) != 1 {
		t.Fatalf("%v, %v", snap, err)
	}
	if n := len(snap.GetSnapshot().GetWorkloads()[0].GetCommand()); n < 10 || n > 1000 {
		t.Errorf("kept %d words of a command line", n)
	}
}

// TestStopIsForOne: stop --now that is delivered again kills nobody who got the name
// since.
func TestStopIsForOne(t *testing.T) {
	h := hostMarket(t)
	c := h.as(1001)
	token := h.session(c)
	stop := &v1.StopRequest{Name: "job", Now: true, RequestId: []byte("0123456789abcdef")}
	h.admit(c, token, "job", 1e9)
	if _, err := c.Stop(t.Context(), stop); err != nil {
		t.Fatal(err)
	}
	h.bury(c, token, "job")
	h.admit(c, token, "job", 1e9)
	if _, err := c.Stop(t.Context(), stop); err != nil {
		t.Fatal(err)
	}
	root := h.as(0)
	var at int64
	for { // some ticks later it is still there
		snap, err := root.Snapshot(t.Context(), &v1.SnapshotRequest{})
		if err != nil {
			t.Fatal(err)
		}
		list := snap.GetSnapshot().GetWorkloads()
		if len(list) != 1 || list[0].GetState() != "pending" {
			t.Fatalf("the second delivery reached the next of that name: %v", list)
		}
		if at == 0 {
			at = snap.GetSnapshot().GetAtNs()
		}
		if snap.GetSnapshot().GetAtNs() > at+int64(400*time.Millisecond) {
			return
		}
	}
}

// TestProcessOfAnother: a user has nobody else's process metered as its own.
func TestProcessOfAnother(t *testing.T) {
	h := hostMarket(t)
	c := h.as(1001)
	token := h.session(c)
	h.admit(c, token, "job", 1e9)
	_, err := c.Started(t.Context(), &v1.StartedRequest{Token: token, Name: "job", Pid: int32(os.Getpid())})
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a process of root: %v", err)
	}
}

// figures are what tells of energy in an answer.
func figures(w *v1.Workload) string {
	return fmt.Sprint(w.GetEnergyUj(), w.GetPowerUw(), w.GetSpentUcredits(), w.GetEnergyUcredits(), w.GetBalanceUcredits()-w.GetBudgetUcredits())
}

// TestEnergyByTheQuantum polls everything that tells of energy as fast as it goes: a
// user hears a new figure once a quantum at most, and root more often.
func TestEnergyByTheQuantum(t *testing.T) {
	const quantum = 300 * time.Millisecond
	h := hostMarket(t, func(d *Daemon) { d.Quantum = quantum })
	c, root, ctx := h.as(1001), h.as(0), t.Context()
	token := h.session(c)
	h.admit(c, token, "job", 1e12)
	hogs := exec.Command(hog[0], hog[1:]...)
	hogs.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1001, Gid: 1001}, Pdeathsig: syscall.SIGKILL}
	hogs.Dir = "/"
	if err := hogs.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hogs.Process.Kill(); _ = hogs.Wait() }()
	if _, err := c.Started(ctx, &v1.StartedRequest{Token: token, Name: "job", Pid: int32(hogs.Process.Pid)}); err != nil {
		t.Fatal(err)
	}
	asks := map[string]func(c maxwellv1connect.MarketServiceClient) (string, error){
		"Snapshot": func(c maxwellv1connect.MarketServiceClient) (string, error) {
			r, err := c.Snapshot(ctx, &v1.SnapshotRequest{})
			n := r.GetSnapshot().GetNode()
			if len(r.GetSnapshot().GetWorkloads()) == 0 {
				return "", err
			}
			return figures(r.GetSnapshot().GetWorkloads()[0]) + fmt.Sprint(n.GetEnergyUj(), n.GetIdleUj(), n.GetSystemUj(), n.GetWattsUw()), err
		},
		"own Snapshot": func(c maxwellv1connect.MarketServiceClient) (string, error) {
			r, err := c.Snapshot(ctx, &v1.SnapshotRequest{Token: token, Own: true})
			if len(r.GetSnapshot().GetWorkloads()) == 0 {
				return "", err
			}
			n := r.GetSnapshot().GetNode()
			return figures(r.GetSnapshot().GetWorkloads()[0]) + fmt.Sprint(n.GetEnergyUj(), n.GetIdleUj(), n.GetSystemUj(), n.GetWattsUw()), err
		},
		"Explain": func(c maxwellv1connect.MarketServiceClient) (string, error) {
			r, err := c.Explain(ctx, &v1.ExplainRequest{Name: "job"})
			return figures(r.GetWorkload()) + fmt.Sprint(r.GetReserveMilli(), r.GetLastsNs(), r.GetPacedUcreditsPerS()), err
		},
		"SetBid": func(c maxwellv1connect.MarketServiceClient) (string, error) {
			r, err := c.SetBid(ctx, &v1.SetBidRequest{Name: "job", BidMilli: 2000})
			return figures(r.GetWorkload()), err
		},
		"Join": func(c maxwellv1connect.MarketServiceClient) (string, error) {
			life, cancel := context.WithCancel(ctx)
			defer cancel()
			s, err := c.Join(life, &v1.JoinRequest{})
			if err != nil || !s.Receive() {
				return "", err
			}
			n := s.Msg().GetSession().GetNode()
			return fmt.Sprint(n.GetEnergyUj(), n.GetIdleUj(), n.GetSystemUj(), n.GetWattsUw()), nil
		},
	}
	// changes counts how often an answer was new in four quanta or a little more, and
	// how often it may have been.
	changes := func(c maxwellv1connect.MarketServiceClient, ask func(maxwellv1connect.MarketServiceClient) (string, error)) (n, most int) {
		t.Helper()
		last, began := "", time.Now()
		for time.Since(began) < 4*quantum {
			got, err := ask(c)
			if err != nil {
				t.Fatal(err)
			}
			if got != last {
				n++
				last = got
			}
		}
		return n, int(time.Since(began)/quantum) + 2 // one stood before, one came at once
	}
	for name, ask := range asks {
		changed := false
		for try := 0; try < 5 && !changed; try++ { // on a crowded machine nothing may happen for a while
			n, most := changes(c, ask)
			if n > most {
				t.Errorf("%s: %d figures in %v, want at most %d: one in %v", name, n, 4*quantum, most, quantum)
			}
			changed = n > 1
		}
		if !changed {
			t.Errorf("%s: nothing changed: the test sees nothing", name)
		}
	}
	finer := false
	for try := 0; try < 10 && !finer; try++ {
		n, most := changes(root, asks["Explain"])
		finer = n > most
	}
	if !finer {
		t.Error("root sees no finer figures: the test could not see them")
	}
}

// TestEventsTellNoEnergy: what an event says of energy is said at the end.
func TestEventsTellNoEnergy(t *testing.T) {
	a := actor{uid: 1001}
	w := &v1.Workload{Name: "job", EnergyUj: 5, PowerUw: 6, SpentUcredits: 7, EnergyUcredits: 7, BalanceUcredits: 93, BudgetUcredits: 100}
	told := a.news(&v1.Event{Workload: "job", Kind: "warned", Percent: 80, WorkloadState: w})
	s := told.GetWorkloadState()
	if s.GetEnergyUj()+s.GetPowerUw()+s.GetSpentUcredits()+s.GetEnergyUcredits()+s.GetBalanceUcredits() != 0 || s.GetBudgetUcredits() != 100 || told.GetPercent() != 80 {
		t.Errorf("told %v", told)
	}
	if w.GetEnergyUj() != 5 {
		t.Error("the event itself was changed")
	}
	dead := &v1.Event{Workload: "job", Kind: "dead", WorkloadState: w}
	if a.news(dead) != dead || (actor{admin: true}).news(told) != told {
		t.Error("what is settled, or for an admin, is kept back")
	}
	inside := actor{uid: 0, admin: true, self: &member{}}
	if inside.news(&v1.Event{Kind: "warned", WorkloadState: w}).GetWorkloadState().GetEnergyUj() != 0 {
		t.Error("a workload of root's is told")
	}
}

// TestWatchersThatDoNotRead: the market goes on, and a watcher that comes back finds
// the latest.
func TestWatchersThatDoNotRead(t *testing.T) {
	h := hostMarket(t)
	c := h.as(1001)
	token := h.session(c)
	h.admit(c, token, "job", 1e9)
	ctx, cancel := context.WithCancel(t.Context())
	var crew sync.WaitGroup
	defer func() { cancel(); crew.Wait() }()
	for range 60 {
		crew.Go(func() { // returns with the first event
			if _, err := c.Watch(ctx, &v1.WatchRequest{SinceWallNs: 1, Follow: true}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	root := h.as(0)
	for i := range 300 {
		if _, err := root.Fund(t.Context(), &v1.FundRequest{Name: "job", AmountUcredits: 1}); err != nil {
			t.Fatalf("fund %d: %v", i, err)
		}
	}
	if _, err := c.Snapshot(t.Context(), &v1.SnapshotRequest{}); err != nil {
		t.Errorf("the watcher's own next call: %v", err)
	}
}

// TestHistoryInParts: a watcher gets everything that is remembered, in order, once.
func TestHistoryInParts(t *testing.T) {
	c := &chronicle{}
	const n = mostEvents + 700
	for i := range n {
		c.add(0, &v1.Event{AtNs: int64(i)})
	}
	want, next := int64(c.first), uint64(0)
	for {
		list, after, news := c.after(next)
		if len(list) > atOnce {
			t.Fatalf("%d at once", len(list))
		}
		for _, h := range list {
			if h.e.GetAtNs() != want {
				t.Fatalf("event %d, want %d", h.e.GetAtNs(), want)
			}
			want++
		}
		next = after
		if news != nil {
			break
		}
	}
	if want != n || next != c.last() {
		t.Errorf("ended at %d and %d, want %d", want, next, n)
	}
}

// TestOtherMachines: a caller with a certificate is its user without sessions, and no
// admin for its number.
func TestOtherMachines(t *testing.T) {
	s := service{m: &Market{uid: 0, settings: Settings{Daemon: &Daemon{Admin: func(uid uint32) bool { return uid == 7 }}}}}
	for uid, admin := range map[uint32]bool{0: false, 7: true, 1001: false} {
		a, err := s.actor(api.WithCaller(t.Context(), api.Caller{UID: uid, Remote: true}))
		if err != nil || a.admin != admin || a.uid != uid || a.self != nil {
			t.Errorf("uid %d: %+v, %v", uid, a, err)
		}
		if connect.CodeOf(a.here()) != connect.CodePermissionDenied {
			t.Errorf("uid %d may open sessions", uid)
		}
	}
	if err := (actor{}).here(); err != nil {
		t.Errorf("on this machine: %v", err)
	}
	if _, err := s.of(api.WithCaller(t.Context(), api.Caller{UID: 1001, Remote: true}), "token"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("with a token: %v", err)
	}
}

// TestOverTCP: a caller with a certificate looks and funds as its user, and opens no
// session.
func TestOverTCP(t *testing.T) {
	ca := hosttest.NewAuthority(t, "ca")
	own := ca.Sign(t, x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	h := hostMarket(t, func(d *Daemon) {
		d.Remote = &api.Remote{
			Listen: address, Cert: hosttest.WritePEM(t, "cert", "CERTIFICATE", own.Certificate[0]),
			Key: hosttest.WritePEM(t, "key", "PRIVATE KEY", key), ClientCA: hosttest.WritePEM(t, "ca", "CERTIFICATE", ca.Cert.Raw),
		}
	})
	far := func(uid string) maxwellv1connect.MarketServiceClient {
		roots := x509.NewCertPool()
		roots.AddCert(ca.Cert)
		tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
			RootCAs: roots, Certificates: []tls.Certificate{ca.Sign(t, x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour), "maxwell:uid="+uid)},
		}}
		t.Cleanup(tr.CloseIdleConnections)
		return maxwellv1connect.NewMarketServiceClient(&http.Client{Transport: tr}, "https://"+address)
	}
	near, ctx := h.as(1001), t.Context()
	token := h.session(near)
	h.admit(near, token, "job", 1e9)
	anna, ben, root := far("1001"), far("1002"), far("0")
	if r, err := anna.SetBid(ctx, &v1.SetBidRequest{Name: "job", BidMilli: 3000}); err != nil || r.GetWorkload().GetBidMilli() != 3000 {
		t.Errorf("the owner from afar: %v, %v", r, err)
	}
	for who, c := range map[string]maxwellv1connect.MarketServiceClient{"another user": ben, "root": root} {
		if _, err := c.SetBid(ctx, &v1.SetBidRequest{Name: "job", BidMilli: 3000}); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s from afar: %v", who, err)
		}
		r, err := c.Snapshot(ctx, &v1.SnapshotRequest{})
		if err != nil || len(r.GetSnapshot().GetWorkloads()) != 0 {
			t.Errorf("%s sees %v, %v", who, r, err)
		}
	}
	if s, err := anna.Join(ctx, &v1.JoinRequest{}); err == nil && (s.Receive() || connect.CodeOf(s.Err()) != connect.CodePermissionDenied) {
		t.Errorf("a session from afar: %v", s.Err())
	}
	if _, err := anna.Admit(ctx, &v1.AdmitRequest{Token: token, Name: "more"}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("with a token: %v", err)
	}
	if _, err := anna.Suspend(ctx, &v1.SuspendRequest{Token: token, Suspend: true}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("with a token: %v", err)
	}
}

// TestBlurredBooksAddUp: what is told of a wallet adds up, whatever was known of it by
// the time of an older look.
func TestBlurredBooksAddUp(t *testing.T) {
	for _, open := range []bool{false, true} {
		line := func(spent int64) *v1.Workload {
			w := &v1.Workload{Open: open, IncomeUcredits: 7, DepositUcredits: 11, BudgetUcredits: 1000, SpentUcredits: spent, EnergyUcredits: spent}
			if open {
				w.BudgetUcredits = spent + w.DepositUcredits
			}
			w.BalanceUcredits = w.BudgetUcredits + w.IncomeUcredits - w.SpentUcredits - w.DepositUcredits
			return w
		}
		for what, old := range map[string]*v1.Workload{"known before": line(30), "new": nil} {
			w := blur(line(50), old)
			if w.GetBudgetUcredits()+w.GetIncomeUcredits() != w.GetSpentUcredits()+w.GetBalanceUcredits()+w.GetDepositUcredits() || w.GetBalanceUcredits() < 0 || w.GetBudgetUcredits() < 0 {
				t.Errorf("open %v, %s: granted %d and earned %d, spent %d, has %d and %d locked", open, what,
					w.GetBudgetUcredits(), w.GetIncomeUcredits(), w.GetSpentUcredits(), w.GetBalanceUcredits(), w.GetDepositUcredits())
			}
		}
	}
}

// TestUsersMakeNoMoneyThatStays: what is minted for a user's workload, by a budget or by
// its own reports, comes into no wallet, and does not keep others from being paid.
func TestUsersMakeNoMoneyThatStays(t *testing.T) {
	h := hostMarket(t)
	c, root := h.as(1000), h.as(0)
	token, roots := h.session(c), h.session(root)
	admit := func(name, wallet string, budget, income int64) error {
		_, err := c.Admit(t.Context(), &v1.AdmitRequest{Token: token, Name: name, Wallet: wallet, BudgetUcredits: budget, IncomeUcredits: income, BidMilli: 2000})
		return err
	}
	refusal := func(what string, err error, code connect.Code) {
		t.Helper()
		if connect.CodeOf(err) != code {
			t.Errorf("%s: %v, want %v", what, err, code)
		}
	}
	uid := uint32(1000)
	if _, err := root.CreateWallet(t.Context(), &v1.CreateWalletRequest{Name: "mine", Owner: &uid}); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Fund(t.Context(), &v1.FundRequest{Name: "mine", AmountUcredits: 1000e6}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{admit("made", "", 1000e6, 0), admit("other", "", 1000e6, 0), admit("paid", "mine", 100e6, 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	move := func(from, to string) error {
		_, err := c.Transfer(t.Context(), &v1.TransferRequest{From: from, To: to, AmountUcredits: 10e6})
		return err
	}
	refusal("made -> wallet", move("made", "mine"), connect.CodePermissionDenied)
	refusal("made -> paid by it", move("made", "paid"), connect.CodePermissionDenied)
	for _, way := range [][2]string{{"made", "other"}, {"mine", "made"}, {"paid", "mine"}, {"mine", "paid"}} {
		if err := move(way[0], way[1]); err != nil {
			t.Errorf("%s -> %s: %v", way[0], way[1], err)
		}
	}
	refusal("income into a wallet", admit("earner", "mine", 100e6, 1), connect.CodePermissionDenied)
	if err := admit("earner", "", 100e6, 1<<60); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Report(t.Context(), &v1.ReportRequest{Token: token, Name: "earner", Units: 1}); err != nil {
			t.Fatal(err)
		}
	}
	refusal("a budget beyond all", admit("rich", "", 1<<61-1, 0), connect.CodeInvalidArgument)
	if err := admit("rich", "", int64(mostForUser)-1e10, 0); err != nil {
		t.Fatal(err)
	}
	refusal("and as much again", admit("richer", "", int64(mostForUser)-1e10, 0), connect.CodeInvalidArgument)
	r, err := c.Snapshot(t.Context(), &v1.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range r.GetSnapshot().GetWorkloads() {
		if w.GetName() == "earner" && (w.GetIncomeUcredits() != 0 || w.GetWork() != 3) {
			t.Errorf("earned %d for %d", w.GetIncomeUcredits(), w.GetWork())
		}
	}
	if _, err := root.Admit(t.Context(), &v1.AdmitRequest{Token: roots, Name: "roots", BudgetUcredits: int64(mostForAll) / 2, BidMilli: 2000}); err != nil {
		t.Errorf("root: %v", err)
	}
}
