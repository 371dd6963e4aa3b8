package client_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/client"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// connected is a stub and a client of it.
func connected(t *testing.T) (*stub, *client.Client) {
	t.Helper()
	s := newStub()
	c, err := client.OpenSocket(t.Context(), s.serve(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, c
}

// code is the class of an error; "" if it is not the client's.
func code(err error) client.Code {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Code
	}
	return ""
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestVerbs: every call carries what was asked and brings back what the market
// said.
func TestVerbs(t *testing.T) {
	s, c := connected(t)
	ctx := t.Context()
	self := must(c.Self(ctx))(t)
	wantPrice := client.Price{Base: 9_800_000, Spot: 2 * unit.Times, Peak: 2300, Grid: 500_000}
	if self.Name != "agent-7" || !self.Inside || self.UID != 1000 || self.Admin || !self.Durable || self.Version != "v9" ||
		self.Balance != 37*unit.DollarJoule || self.Spent != 463*unit.DollarJoule || self.Bid != 4*unit.Times ||
		self.Energy != 412*unit.Joule || self.Price != wantPrice {
		t.Errorf("self is %+v", self)
	}
	if p := must(c.Price(ctx))(t); p != wantPrice {
		t.Errorf("price is %+v", p)
	}
	list := must(c.List(ctx))(t)
	if len(list) != 2 || list[1].Name != "spare" || list[1].Refusal != "outbid" {
		t.Errorf("list is %+v", list)
	}
	if balance := must(c.Fund(ctx, "agent-7", 3*unit.DollarJoule))(t); balance != 40*unit.DollarJoule {
		t.Errorf("funded to %v", balance)
	}
	from, to, err := c.Transfer(ctx, "spare", "agent-7", unit.DollarJoule)
	if err != nil || from != 4*unit.DollarJoule || to != 41*unit.DollarJoule {
		t.Errorf("transferred to %v, %v, %v", from, to, err)
	}
	w := must(c.SetBid(ctx, "", client.Bid{Price: 1500}))(t)
	if w.Name != "agent-7" || w.Bid != 1500 || s.bids["agent-7"].GetBidMilli() != 1500 {
		t.Errorf("bid is %+v, %v", w, s.bids)
	}
	w = must(c.SetBid(ctx, "spare", client.Bid{Auto: true, Max: 6000}))(t)
	if !w.Auto || w.MaxBid != 6000 {
		t.Errorf("bid is %+v", w)
	}
	if err := c.Stop(ctx, "spare", true); err != nil || !s.stopped["spare"] {
		t.Errorf("stop: %v, %v", err, s.stopped)
	}
	if w = must(c.Wait(ctx, "spare"))(t); w.Reason != "insolvent" || w.ExitCode != 122 || !w.Retryable {
		t.Errorf("waited for %+v", w)
	}
	e := must(c.Explain(ctx, "spare"))(t)
	want := client.Explanation{
		Verdict: "outbid", Workload: client.Workload{Name: "spare"}, Price: wantPrice, Wanted: unit.Core, Got: 20, NeededBid: 4100,
		Rank: 3, Of: 9, Lasts: 4 * time.Second, Supply: 2 * unit.Core,
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("explain (-want +got):\n%s", diff)
	}
}

// changes are the calls that must happen once, and what shows that they did.
var changes = map[string]struct {
	call func(context.Context, *client.Client) error
	seen func(*stub) any
}{
	"fund": {
		func(ctx context.Context, c *client.Client) error { _, err := c.Fund(ctx, "spare", 7); return err },
		func(s *stub) any { return s.wallets["spare"]-5_000_000 == 7 },
	},
	"transfer": {
		func(ctx context.Context, c *client.Client) error {
			_, _, err := c.Transfer(ctx, "spare", "agent-7", 7)
			return err
		},
		func(s *stub) any { return s.wallets["spare"] == 4_999_993 && s.wallets["agent-7"] == 37_000_007 },
	},
	"bid": {
		func(ctx context.Context, c *client.Client) error {
			_, err := c.SetBid(ctx, "spare", client.Bid{Price: 3000})
			return err
		},
		func(s *stub) any { return s.bids["spare"] != nil },
	},
	"stop": {
		func(ctx context.Context, c *client.Client) error { return c.Stop(ctx, "spare", false) },
		func(s *stub) any { _, ok := s.stopped["spare"]; return ok },
	},
}

// TestChangeHappensOnce: the market applies a change and dies before it
// answers, three times; the client asks with the same id and gets the answer.
func TestChangeHappensOnce(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			s, c := connected(t)
			s.drop = 3
			if err := change.call(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if len(s.delivered) != 1 {
				t.Errorf("%d request ids for one change", len(s.delivered))
			}
			for _, n := range s.delivered {
				if n != 4 {
					t.Errorf("delivered %d times, want 4", n)
				}
			}
			if change.seen(s) != true {
				t.Errorf("not applied once: %v, %v, %v", s.wallets, s.bids, s.stopped)
			}
			if err := change.call(t.Context(), c); err != nil || len(s.delivered) != 2 {
				t.Errorf("the next change has %d ids in all, %v", len(s.delivered), err)
			}
		})
	}
}

// TestGivesUp: a market that does not come back ends the call, within the
// client's patience or the context's, and the error leaves open what happened.
func TestGivesUp(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			s, c := connected(t)
			s.drop = 900
			c.Patience = 30 * time.Millisecond
			err := change.call(t.Context(), c)
			e, ok := errors.AsType[*client.Error](err)
			if !ok || e.Code != client.Unavailable || !strings.Contains(e.Text, "may or may not have happened") || e.Remedy == "" {
				t.Errorf("got %#v", err)
			}
			s.set(func() {
				if change.seen(s) != true {
					t.Error("the change was not even applied once")
				}
			})
		})
	}
}

// TestDeadline: a market that is there and does not answer.
func TestDeadline(t *testing.T) {
	s, c := connected(t)
	s.hang[maxwellv1connect.MarketServiceFundProcedure] = make(chan bool)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := c.Fund(ctx, "spare", 7)
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Code != client.TimedOut || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(e.Text, "may or may not") {
		t.Errorf("got %#v", err)
	}
}

// TestCancelled: Wait has no limit of its own and ends with its context.
func TestCancelled(t *testing.T) {
	s, c := connected(t)
	came := make(chan bool)
	s.hang[maxwellv1connect.MarketServiceWaitProcedure] = came
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-came; cancel() }()
	_, err := c.Wait(ctx, "spare")
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.Canceled || !errors.Is(err, context.Canceled) {
		t.Errorf("got %#v", err)
	}
}

// TestRestart: a market that comes back on the same socket answers the call
// that its predecessor took with it, and does not apply it again.
func TestRestart(t *testing.T) {
	s, c := connected(t)
	must(c.Self(t.Context()))(t) // a connection to break
	if err := os.Remove(c.Socket()); err != nil {
		t.Fatal(err)
	}
	s.drop = 1
	done := make(chan error)
	go func() {
		_, err := c.Fund(t.Context(), "spare", 7)
		done <- err
	}()
	<-s.lost
	s.listen(t, c.Socket())
	if err := <-done; err != nil || s.wallets["spare"] != 5_000_007 || len(s.delivered) != 1 {
		t.Errorf("%v, %v, %d ids", err, s.wallets, len(s.delivered))
	}
}

// TestRefusals: code, text and remedy arrive; nothing is asked twice.
func TestRefusals(t *testing.T) {
	withRemedy := connect.NewError(connect.CodePermissionDenied, errors.New("a workload may not fund"))
	withRemedy.Meta().Set("Maxwell-Remedy", "ask its owner")
	for _, c := range []struct {
		name string
		err  *connect.Error
		want client.Error
		line string
	}{
		{
			"remedy of its own", withRemedy,
			client.Error{Code: client.Denied, Text: `fund "spare": a workload may not fund`, Remedy: "ask its owner"},
			`fund "spare": a workload may not fund; ask its owner`,
		},
		{
			"remedy in the text", connect.NewError(connect.CodeInvalidArgument, errors.New("too small; give 22 $J")),
			client.Error{Code: client.Invalid, Text: `fund "spare": too small; give 22 $J`, Remedy: "give 22 $J"},
			`fund "spare": too small; give 22 $J`,
		},
		{
			"none", connect.NewError(connect.CodeResourceExhausted, errors.New("no money\x1b[2J\nleft")),
			client.Error{Code: client.Exhausted, Text: `fund "spare": no money [2J left`},
			`fund "spare": no money [2J left`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, line := connected(t)
			s.refuse = c.err
			_, err := line.Fund(t.Context(), "spare", 7)
			got, ok := errors.AsType[*client.Error](err)
			if !ok {
				t.Fatalf("got %#v", err)
			}
			if got.Code != c.want.Code || got.Text != c.want.Text || got.Remedy != c.want.Remedy || got.Error() != c.line {
				t.Errorf("got %+v: %s", got, got)
			}
		})
	}
}

// TestBadArguments are refused before anything is sent.
func TestBadArguments(t *testing.T) {
	s, c := connected(t)
	s.raw = func(http.ResponseWriter) { t.Error("something was sent") }
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"fund nobody":     func() error { _, err := c.Fund(ctx, "", 1); return err },
		"fund nothing":    func() error { _, err := c.Fund(ctx, "a", 0); return err },
		"take":            func() error { _, err := c.Fund(ctx, "a", -1); return err },
		"from nobody":     func() error { _, _, err := c.Transfer(ctx, "", "b", 1); return err },
		"to nobody":       func() error { _, _, err := c.Transfer(ctx, "a", "", 1); return err },
		"no bid":          func() error { _, err := c.SetBid(ctx, "a", client.Bid{}); return err },
		"negative bid":    func() error { _, err := c.SetBid(ctx, "a", client.Bid{Price: -1}); return err },
		"stop all":        func() error { return c.Stop(ctx, "", false) },
		"wait for nobody": func() error { _, err := c.Wait(ctx, ""); return err },
		"negative step":   func() error { _, err := c.Afford(ctx, -1); return err },
		"no units":        func() error { return c.Report(0, "step") },
		"too many units":  func() error { return c.Report(1<<40+1, "step") },
		"two words":       func() error { return c.Report(1, "two words") },
		"a line":          func() error { return c.Report(1, "x\nwork 9") },
		"a long kind":     func() error { return c.Report(1, strings.Repeat("x", 65)) },
		"no text":         func() error { return c.Report(1, "\xff") },
	} {
		if e, ok := errors.AsType[*client.Error](call()); !ok || e.Code != client.Invalid {
			t.Errorf("%s: got %v", name, e)
		}
	}
}

// TestMalformed: what is no market's answer is said to be none, at once.
func TestMalformed(t *testing.T) {
	for name, raw := range map[string]func(http.ResponseWriter){
		"a web page": func(w http.ResponseWriter) { _, _ = fmt.Fprint(w, "<html>") },
		"no message": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/proto")
			_, _ = w.Write([]byte{0xff, 0xff, 0xff})
		},
		"no protocol": func(w http.ResponseWriter) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
			_ = conn.Close()
		},
		"another version": func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) },
	} {
		t.Run(name, func(t *testing.T) {
			s, c := connected(t)
			s.raw = raw
			began := time.Now()
			_, err := c.Self(t.Context())
			e, ok := errors.AsType[*client.Error](err)
			if !ok || strings.ContainsAny(e.Error(), "\n\x1b") || time.Since(began) > 5*time.Second {
				t.Fatalf("got %#v", err)
			}
			if name != "another version" && e.Code != client.Malformed {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// TestUnknownMethod: a market of another version refuses what it does not know.
func TestUnknownMethod(t *testing.T) {
	s, c := connected(t)
	s.refuse = connect.NewError(connect.CodeUnimplemented, errors.New("not implemented"))
	if _, err := c.Fund(t.Context(), "a", 1); code(err) != "unimplemented" {
		t.Errorf("got %v", err)
	}
}

// TestNoMarket: nothing there, a dead market's socket, a file.
func TestNoMarket(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir) // short names for sockets
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "dead", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(l.Close(), os.WriteFile("file", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"missing", "dead", "file", "file/below"} {
		_, err := client.OpenSocket(t.Context(), name)
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.Code != client.NoMarket || !strings.Contains(e.Text, name) {
			t.Errorf("%s: got %#v", name, err)
		}
	}
	t.Setenv("MAXWELL_SOCKET", "missing")
	_, err = client.Open(t.Context())
	if e, ok := errors.AsType[*client.Error](err); !ok || !strings.HasSuffix(e.Error(), "start one with maxwell run or maxwell up") {
		t.Errorf("got %#v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Open(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("got %#v", err)
	}
}

// TestOpen finds the socket that the environment names.
func TestOpen(t *testing.T) {
	socket := newStub().serve(t)
	for name, value := range map[string]string{"MAXWELL_SOCKET": socket, "MAXWELL_RUNTIME_DIR": filepath.Dir(socket)} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("MAXWELL_SOCKET", "")
			t.Setenv(name, value)
			c := must(client.Open(t.Context()))(t)
			if c.Socket() != socket {
				t.Errorf("opened %s", c.Socket())
			}
			must(c.Self(t.Context()))(t)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAfford: money, the energy cap, and states in which nothing begins.
func TestAfford(t *testing.T) {
	for _, c := range []struct {
		name   string
		step   unit.Microjoules
		change func(*v1.SelfResponse)
		cost   unit.Credits // at half the grid price and 2x, a joule costs 1 $J
		reason string
	}{
		{"fits", 37 * unit.Joule, nil, 37 * unit.DollarJoule, ""},
		{"nothing", 0, nil, 0, ""},
		{"a hair too much", 37*unit.Joule + 1, nil, 37*unit.DollarJoule + 2, "balance"}, // each factor rounds up
		{"beyond the cap", 39 * unit.Joule, nil, 39 * unit.DollarJoule, "energy"},
		{"beyond everything", math.MaxInt64, nil, math.MaxInt64, "energy"},
		{"open", 38 * unit.Joule, func(s *v1.SelfResponse) { s.Workload.Open = true }, 38 * unit.DollarJoule, ""},
		{"draws from a wallet", 38 * unit.Joule, func(s *v1.SelfResponse) { s.Workload.Draws = true }, 38 * unit.DollarJoule, ""},
		{"spot above the bid", 30 * unit.Joule, func(s *v1.SelfResponse) { s.Price.SpotXMilli = 9000 }, 60 * unit.DollarJoule, "balance"},
		{"spot above auto's bid", 15 * unit.Joule, func(s *v1.SelfResponse) {
			s.Price.SpotXMilli, s.Workload.Auto, s.Workload.MaxBidMilli = 9000, true, 8000
		}, 60 * unit.DollarJoule, "balance"},
		{"spot below 1x", 30 * unit.Joule, func(s *v1.SelfResponse) { s.Price.SpotXMilli = 10 }, 15 * unit.DollarJoule, ""},
		{"broke", 1, func(s *v1.SelfResponse) { s.Workload.State = "broke" }, 2, "broke"},
		{"dying", 1, func(s *v1.SelfResponse) { s.Workload.State, s.Workload.Remedy = "dying", "raise it" }, 2, "dying"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, line := connected(t)
			if c.change != nil {
				c.change(s.self)
			}
			e, err := line.Afford(t.Context(), c.step)
			if e.Cost != c.cost && c.cost > 10 {
				t.Errorf("costs %d, want %d", e.Cost, c.cost)
			}
			u, refused := errors.AsType[*client.Unaffordable](err)
			switch {
			case c.reason == "" && err != nil, c.reason != "" && (!refused || u.Reason != c.reason):
				t.Fatalf("got %v", err)
			case refused && (u.Left != 37*unit.DollarJoule || u.Remedy == "" || !strings.HasSuffix(u.Error(), u.Remedy)):
				t.Errorf("got %+v", u)
			}
		})
	}
}

// TestAffordOutside: a program that nobody limits is told so.
func TestAffordOutside(t *testing.T) {
	s, c := connected(t)
	s.self.Workload = nil
	if _, err := c.Afford(t.Context(), 1); code(err) != client.Outside {
		t.Errorf("got %v", err)
	}
	if self := must(c.Self(t.Context()))(t); self.Inside || self.Name != "" {
		t.Errorf("self is %+v", self)
	}
}

// TestAffordNeverUnderstates: the estimate is not below the exact product, and
// a larger step never costs less.
func TestAffordNeverUnderstates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := client.Self{Price: client.Price{
			Spot: unit.Price(rapid.Int64Range(0, 1e6).Draw(t, "spot")), Grid: unit.PPM(rapid.Int64Range(0, 1e7).Draw(t, "grid")),
		}}
		s.Open = true
		step := unit.Microjoules(rapid.Int64Range(0, 1e12).Draw(t, "step"))
		small, _ := s.Afford(step)
		large, _ := s.Afford(step + 1)
		if exact := float64(step) * float64(s.Price.Grid) / 1e6 * float64(small.At) / 1e3; float64(small.Cost) < exact*(1-1e-12) {
			t.Errorf("%d costs %d, exactly %f", step, small.Cost, exact)
		}
		if large.Cost < small.Cost {
			t.Errorf("%d costs %d and one more %d", step, small.Cost, large.Cost)
		}
	})
}

// TestEvents: in order, each once, over breaks of the connection.
func TestEvents(t *testing.T) {
	for _, perStream := range []int{0, 2, 3} {
		s, c := connected(t)
		s.perStream = perStream
		now := time.Now()
		for i, kind := range []string{"started", "warned", "warned", "broke", "dead"} {
			s.events = append(s.events, &v1.Event{
				Workload: "a", Kind: kind, Percent: int32(80 + i), What: "budget", LeftNs: 5e9, WallNs: now.Add(time.Duration(i/2+1) * time.Second).UnixNano(),
				WorkloadState: &v1.Workload{Name: "a", State: "running"},
			})
		}
		if perStream == 2 { // two of one moment would never get past it
			for i, e := range s.events {
				e.WallNs = now.Add(time.Duration(i+1) * time.Second).UnixNano()
			}
		}
		var got []string
		for e, err := range c.Events(t.Context(), client.Query{Since: now}) {
			if err != nil {
				t.Fatalf("%d a stream: %v", perStream, err)
			}
			got = append(got, fmt.Sprint(e.Kind, e.Percent))
			if e.Left != 5*time.Second || e.State.State != "running" || e.At.Before(now) {
				t.Errorf("got %+v", e)
			}
		}
		if want := []string{"started80", "warned81", "warned82", "broke83", "dead84"}; !slices.Equal(got, want) {
			t.Errorf("%d a stream: got %v", perStream, got)
		}
		if first := s.watched[0]; first.GetSinceWallNs() != now.UnixNano() || !first.GetFollow() {
			t.Errorf("asked for %v", first)
		}
	}
}

// TestEventsStop: the caller may leave the loop, and an error comes last.
func TestEventsStop(t *testing.T) {
	s, c := connected(t)
	s.events = []*v1.Event{{Workload: "a", Kind: "started", WallNs: 1}, {Workload: "a", Kind: "dead", WallNs: 2}}
	n := 0
	for range c.Events(t.Context(), client.Query{Name: "a", Once: true}) {
		n++
		break
	}
	if r := s.watched[0]; n != 1 || r.GetName() != "a" || r.GetFollow() || r.GetSinceWallNs() != 0 {
		t.Errorf("%d events, asked for %v", n, r)
	}
	s.raw = cut
	c.Patience = 20 * time.Millisecond
	var last error
	for _, err := range c.Events(t.Context(), client.Query{}) {
		last = err
	}
	if e, ok := errors.AsType[*client.Error](last); !ok || e.Code != client.Unavailable {
		t.Errorf("got %v", last)
	}
}

// TestReport writes the market's lines to the descriptor that the environment
// names, and leaves it open.
func TestReport(t *testing.T) {
	_, c := connected(t)
	if err := c.Report(1, ""); code(err) != client.Outside {
		t.Errorf("without a descriptor: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"x", "1", "-1", "9999"} {
		t.Setenv("MAXWELL_REPORT", bad)
		if err := c.Report(1, ""); code(err) != client.Outside {
			t.Errorf("%s: %v", bad, err)
		}
	}
	t.Setenv("MAXWELL_REPORT", fmt.Sprint(w.Fd()))
	if err := errors.Join(c.Report(3, "page"), c.Report(1<<40, ""), c.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("end\n"); err != nil {
		t.Errorf("the descriptor was closed: %v", err)
	}
	_ = w.Close()
	text := make([]byte, 100)
	n, err := r.Read(text)
	_ = r.Close()
	if want := "work 3 page\nwork 1099511627776\nend\n"; string(text[:n]) != want {
		t.Errorf("%q, %v, want %q", text[:n], err, want)
	}
}
