package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

// asks are command lines that put one question to the market, and changes those
// that change something. Only their first request counts.
var (
	asks = []string{
		"ps", "ps -q", "ps --json", "wait crawler", "price", "events", "events --json", "receipt crawler", "ledger", "ledger agent-7",
		"ledger --balances", "wallet ls", "wallet show agent-7", "wallet show anna",
	}
	changes = []string{
		"stop agent-7", "fund agent-7 5", "transfer agent-7 indexer 5", "bid agent-7 4x", "wallet create team --allowance 50k/day", "wallet rm anna",
	}
)

// change is a request that changes something.
type change interface{ GetRequestId() []byte }

func (f *fakeMarket) changes() [][]byte {
	var ids [][]byte
	for _, m := range f.service.asked {
		if c, ok := m.(change); ok {
			ids = append(ids, c.GetRequestId())
		}
	}
	return ids
}

// TestLinesThatBreak: an answer lost with its line is asked for again, a change
// with the same id.
func TestLinesThatBreak(t *testing.T) {
	for _, line := range append(append([]string{}, asks...), changes...) {
		want := newFakeMarket().crowd().treasury().run(words(line)...)
		f := newFakeMarket().crowd().treasury()
		f.service.durable = true
		f.service.breaks, f.service.away = 2, 3
		if strings.HasPrefix(line, "stop") { // its first question is not worth repeating
			f.service.breaks = 3
		}
		if got := f.run(words(line)...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s over a line that breaks: %+v, want %+v", line, got, want)
		}
		if f.service.breaks != 0 || f.service.away != 0 {
			t.Errorf("%s: %d breaks and %d absences left", line, f.service.breaks, f.service.away)
		}
		if n := countType(f.service.asked, f.service.asked[len(f.service.asked)-1]); n < 1 {
			t.Errorf("%s was asked %d times", line, n)
		}
	}
}

func countType(list []proto.Message, like proto.Message) int {
	n := 0
	for _, m := range list {
		if reflect.TypeOf(m) == reflect.TypeOf(like) {
			n++
		}
	}
	return n
}

func TestAChangeHasOneID(t *testing.T) {
	seen := map[string]string{}
	for _, line := range changes {
		for range 2 {
			f := newFakeMarket().crowd().treasury()
			f.service.durable = true
			f.service.breaks = 2
			if strings.HasPrefix(line, "stop") {
				f.service.breaks = 3
			}
			if o := f.run(words(line)...); o.code != 0 {
				t.Fatalf("%s: %+v", line, o)
			}
			ids := f.changes()
			if len(ids) != 3 {
				t.Fatalf("%s: delivered %d times, want 3", line, len(ids))
			}
			for _, id := range ids {
				if len(id) != 16 || !bytes.Equal(id, ids[0]) || bytes.Equal(id, make([]byte, 16)) {
					t.Errorf("%s: ids %x, want one of 16 bytes", line, ids)
				}
			}
			if other := seen[string(ids[0])]; other != "" {
				t.Errorf("%s and %s have the same id", line, other)
			}
			seen[string(ids[0])] = line
		}
	}
	f := newFakeMarket().crowd()
	f.run("stop", "agent-7", "indexer")
	if ids := f.changes(); len(ids) != 2 || bytes.Equal(ids[0], ids[1]) {
		t.Errorf("two stops with ids %x", ids)
	}
}

// TestNoMarket: every verb says where it looked and how to start one.
func TestNoMarket(t *testing.T) {
	const want = "maxwell: no market runs here (looked at /run/maxwell/market.sock, /run/user/1000/maxwell/market.sock); start one with maxwell run or maxwell up\n"
	for _, line := range append(append([]string{"logs agent-7", "events --follow", "price --watch"}, asks...), changes...) {
		f := newFakeMarket().crowd()
		f.service.none = true
		if o := f.run(words(line)...); o.code != 125 || o.err != want || o.out != "" {
			t.Errorf("%s: %+v", line, o)
		}
	}
}

// TestAMarketThatStaysAway: the patience ends, and a change says that it may
// have been made.
func TestAMarketThatStaysAway(t *testing.T) {
	for line, tries := range map[string]int{"ps": questionTries, "fund agent-7 5": changeTries} {
		f := newFakeMarket().crowd()
		f.service.breaks = 1000
		o := f.run(words(line)...)
		want := "maxwell: the market ended, and none has answered since\n"
		if line != "ps" {
			want = "maxwell: the market ended, and none has answered since; see maxwell ps whether it was done\n"
		}
		if o.code != 125 || o.err != want || o.out != "" {
			t.Errorf("%s: %+v, want %q", line, o, want)
		}
		if got := len(f.service.asked); got != tries+1 {
			t.Errorf("%s was asked %d times, want %d", line, got, tries+1)
		}
	}
}

// TestRefusals: what the market says is told once, and not asked again.
func TestRefusals(t *testing.T) {
	for _, line := range append(append([]string{"logs agent-7", "events --follow", "price --watch"}, asks...), changes...) {
		f := newFakeMarket().crowd()
		f.service.refuse = connect.NewError(connect.CodePermissionDenied, fmt.Errorf("agent-7 is another user's"))
		o := f.run(words(line)...)
		verb := strings.Fields(line)[0]
		if o.code != 125 || !strings.HasSuffix(o.err, "agent-7 is another user's\n") || strings.Count(o.err, "\n") != 1 || o.out != "" {
			t.Errorf("%s: %+v", line, o)
		}
		want := 1
		if verb == "stop" {
			want = 2 // and Self
		}
		if len(f.service.asked) != want {
			t.Errorf("%s asked %d times", line, len(f.service.asked))
		}
		f = newFakeMarket().crowd()
		f.service.refuse = connect.NewError(connect.CodeUnimplemented, fmt.Errorf("maxwell.v1.MarketService.X is not implemented"))
		if o := f.run(words(line)...); o.code != 125 || !strings.Contains(o.err, "the market that runs here is older than this verb") {
			t.Errorf("%s at an old market: %+v", line, o)
		}
	}
}

// TestBadInputReachesNoMarket: what is refused changes and asks nothing.
func TestBadInputReachesNoMarket(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, line := range []string{
		"ps x", "ps -q --json", "ps --bogus", "stop", "stop ''", "stop a ''", "stop " + long, "wait", "wait ''", "logs", "logs a b", "logs a --tail x",
		"logs a --tail 1e9", "bid", "bid a", "bid a b c", "bid a 4", "bid a 0x", "bid a NaNx", "bid a 99999999999999999999x", "bid a 4x --max-bid 8x",
		"bid '' 4x", "fund", "fund a", "fund a b", "fund a 0", "fund '' 5", "fund a 5J", "fund a 99999999999999999999", "fund a\x7f 5",
		"transfer a b", "transfer a a 5", "transfer a b 0", "transfer '' b 5", "transfer a b five", "price x", "events a b", "events --since -1h",
		"events --since soon", "receipt", "receipt a b", "ledger a b", "ledger -n 0", "ledger -n -1", "ledger --balances x", "ledger --balances -n 5",
		"wallet", "wallet make", "wallet ls x", "wallet show", "wallet show a b", "wallet show ''",
		"wallet rm", "wallet rm ''", "wallet rm a b", "wallet rm a/b", "wallet create", "wallet create ''", "wallet create a b", "wallet create ../a", "wallet create a.b", "wallet create " + long,
		"wallet create a --allowance 50k", "wallet create a --allowance 0/day", "wallet create a --allowance -1/day", "wallet create a --allowance 50k/week",
		"wallet create a --most 5", "wallet create a --allowance 1/s --most 0", "wallet create a --allowance 1/s --most x", "wallet create a --parent a",
		"wallet create a --parent b/c", "wallet create a --owner no-such-user", "wallet create a --owner -1", "wallet create a --owner 99999999999",
	} {
		f := newFakeMarket().crowd()
		o := f.run(words(line)...)
		if o.code != 125 || strings.Count(o.err, "\n") != 1 || o.out != "" || !strings.HasPrefix(o.err, "maxwell: ") {
			t.Errorf("%s: %+v, want one line and 125", line, o)
		}
		if len(f.service.asked) != 0 {
			t.Errorf("%s asked %v", line, f.service.asked)
		}
	}
}

// TestRequests: what each verb sends.
func TestRequests(t *testing.T) {
	tests := []struct {
		line string
		want proto.Message
	}{
		{"ps", &v1.SnapshotRequest{}},
		{"ps -a", &v1.SnapshotRequest{Dead: true}},
		{"stop --now agent-7", &v1.StopRequest{Name: "agent-7", Now: true}},
		{"bid agent-7 2.5x", &v1.SetBidRequest{Name: "agent-7", BidMilli: 2500}},
		{"bid agent-7 auto --max-bid 16x", &v1.SetBidRequest{Name: "agent-7", Auto: true, MaxBidMilli: 16_000}},
		{"fund agent-7 2k", &v1.FundRequest{Name: "agent-7", AmountUcredits: 2_000_000_000}},
		{"transfer agent-7 indexer 0.5", &v1.TransferRequest{From: "agent-7", To: "indexer", AmountUcredits: 500_000}},
		{"wallet create pot", &v1.CreateWalletRequest{Name: "pot"}},
		{"wallet create anna --parent org --allowance 50k/day --most 100k --owner 1000 --change", &v1.CreateWalletRequest{
			Name: "anna", Parent: "org", AllowanceUcredits: 50_000_000_000, AllowanceEveryNs: int64(24 * time.Hour), MostUcredits: 100_000_000_000,
			Owner: new(uint32(1000)), Change: true,
		}},
		{"wallet create roots --owner root", &v1.CreateWalletRequest{Name: "roots", Owner: new(uint32(0))}},
		{"wallet rm anna", &v1.RemoveWalletRequest{Name: "anna"}},
		{"wallet ls", &v1.ListWalletsRequest{}},
		{"events", &v1.WatchRequest{SinceWallNs: 1}},
		{"events agent-7 --since 1h", &v1.WatchRequest{Name: "agent-7", SinceWallNs: ago(time.Hour)}},
		{"events --follow", &v1.WatchRequest{Follow: true}},
		{"receipt crawler.9", &v1.ReceiptsRequest{Name: "crawler.9", Limit: 1}},
		{"ledger heat -n 5", &v1.PostingsRequest{Account: "heat", Limit: 5}},
	}
	for _, tt := range tests {
		f := newFakeMarket().crowd()
		f.run(words(tt.line)...)
		found := false
		for _, got := range f.service.asked {
			if reflect.TypeOf(got) == reflect.TypeOf(tt.want) {
				found = true
				diff := cmp.Diff(tt.want, got, protocmp.Transform(), protocmp.IgnoreFields(&v1.StopRequest{}, "request_id"),
					protocmp.IgnoreFields(&v1.SetBidRequest{}, "request_id"), protocmp.IgnoreFields(&v1.FundRequest{}, "request_id"),
					protocmp.IgnoreFields(&v1.TransferRequest{}, "request_id"), protocmp.IgnoreFields(&v1.CreateWalletRequest{}, "request_id"),
					protocmp.IgnoreFields(&v1.RemoveWalletRequest{}, "request_id"))
				if diff != "" {
					t.Errorf("%s (-want +got):\n%s", tt.line, diff)
				}
				break
			}
		}
		if !found {
			t.Errorf("%s asked %v", tt.line, f.service.asked)
		}
	}
}

// TestOutputIsJSON: with --json each line of standard output is one object.
func TestOutputIsJSON(t *testing.T) {
	for _, line := range []string{
		"ps", "ps -a", "stop agent-7 indexer", "wait crawler agent-7", "bid agent-7 3x", "fund agent-7 5", "transfer agent-7 indexer 5", "price",
		"events", "receipt crawler", "ledger", "ledger --balances", "wallet ls", "wallet show agent-7", "wallet show anna",
		"wallet create a", "wallet rm anna",
	} {
		o := newFakeMarket().crowd().treasury().run(append(words(line), "--json")...)
		if o.code != 0 || o.err != "" || o.out == "" {
			t.Errorf("%s --json: %+v", line, o)
		}
		for text := range strings.Lines(o.out) {
			var object map[string]any
			if err := json.Unmarshal([]byte(text), &object); err != nil {
				t.Errorf("%s --json: %q: %v", line, text, err)
			}
		}
	}
}

// TestEmptyMarket: nothing to list is no failure.
func TestEmptyMarket(t *testing.T) {
	for line, want := range map[string]string{
		"ps":        "maxwell: no workloads; start one: maxwell run -- COMMAND; the dead: maxwell ps -a\n",
		"ps -a":     "maxwell: no workloads; start one: maxwell run -- COMMAND\n",
		"ps -q":     "",
		"ledger":    "maxwell: no transfers yet\n",
		"wallet ls": "maxwell: no wallets; start a workload: maxwell run --budget 500 -- COMMAND\n",
		"events":    "",
	} {
		if o := newFakeMarket().run(words(line)...); o.code != 0 || o.out != "" || o.err != want {
			t.Errorf("%s: %+v, want %q", line, o, want)
		}
	}
	for line, want := range map[string]string{"ps --json": "{\"workloads\":[]}\n", "ledger --json": "{\"postings\":[]}\n", "wallet ls --json": "{\"wallets\":[]}\n"} {
		if o := newFakeMarket().run(words(line)...); o.code != 0 || o.out != want || o.err != "" {
			t.Errorf("%s: %+v, want %q", line, o, want)
		}
	}
}

// TestStopOutlivesItsMarket: a market of run and up ends with what it governed;
// one that lasts has to answer.
func TestStopOutlivesItsMarket(t *testing.T) {
	for _, durable := range []bool{false, true} {
		f := newFakeMarket().crowd()
		f.service.durable = durable
		f.service.endAfterStop = true
		o := f.run("stop", "agent-7")
		if !durable && (o.code != 0 || o.out != "agent-7\n" || o.err != "") {
			t.Errorf("a market that ended: %+v", o)
		}
		if durable && (o.code != 125 || o.out != "") {
			t.Errorf("a market that should not have ended: %+v", o)
		}
	}
}

func TestFund(t *testing.T) {
	f := newFakeMarket().crowd()
	if o := f.run("fund", "agent-7", "200"); o.code != 0 || o.err != "maxwell: agent-7 has 200 $J more\n" || o.out != "" || len(f.opened) != 0 {
		t.Errorf("got %+v, joined %d times", o, len(f.opened))
	}
	if o := f.run("fund", "nobody", "1"); o.code != 125 || o.err != "maxwell: no workload \"nobody\"\n" {
		t.Errorf("got %+v", o)
	}
}

// TestColumns: COLUMNS cuts a table that no terminal does.
func TestColumns(t *testing.T) {
	for _, width := range []int{80, 100, 200} {
		f := newFakeMarket().crowd()
		f.columns = fmt.Sprint(width)
		for _, w := range f.service.workloads {
			w.Command = append(w.Command, strings.Repeat("世界", 40), "\x1b[2J\n\u202e")
		}
		f.treasury()
		for _, line := range []string{"ps -a", "wallet ls", "ledger", "ledger --balances"} {
			o := f.run(words(line)...)
			if o.code != 0 || strings.ContainsAny(o.out, "\x1b\u202e") {
				t.Errorf("%s: %+v", line, o)
			}
			for text := range strings.Lines(o.out) {
				cells := len([]rune(text)) - 1 + strings.Count(text, "世") + strings.Count(text, "界")
				if cells > width {
					t.Errorf("%s at %d columns has a line of %d: %s", line, width, cells, text)
				}
			}
		}
	}
}

func TestCompletionOfNames(t *testing.T) {
	tests := []struct{ line, want, not string }{
		{"stop ", "agent-7\trunning", "crawler"},
		{"stop agent-7 ", "indexer\twaiting", "agent-7"},
		{"fund ", "indexer", "crawler"},
		{"fund agent-7 ", ":4", "indexer"},
		{"transfer agent-7 ", "indexer", "agent-7"},
		{"bid ", "agent-7", "auto"},
		{"bid agent-7 ", "auto", "indexer"},
		{"receipt ", "crawler", ""},
		{"wait ", "crawler", ""},
		{"logs ", "crawler", ""},
		{"events ", "agent-7", ""},
		{"ledger ", "agent-7", ""},
		{"wallet show ", "agent-7", ""},
		{"wallet ", "show", ""},
		{"wallet create x --parent ", "anna", "agent-7"},
		{"wallet rm ", "anna", "agent-7"},
		{"wallet rm anna ", ":4", "org"},
		{"run --wallet ", "anna", "agent-7"},
		{"fund ", "anna", "crawler"},
		{"transfer anna ", "agent-7", "anna"},
	}
	for _, tt := range tests {
		args := append([]string{"__complete"}, strings.Split(tt.line, " ")...)
		o := newFakeMarket().crowd().treasury().run(args...)
		if !strings.Contains(o.out, tt.want) || tt.not != "" && strings.Contains(o.out, tt.not) {
			t.Errorf("%q: %q, want %q and no %q", tt.line, o.out, tt.want, tt.not)
		}
		f := newFakeMarket()
		f.service.none = true
		if o := f.run(args...); o.code != 0 || strings.Contains(o.err, "no market") {
			t.Errorf("%q without a market: %+v", tt.line, o)
		}
	}
}

func event(kind string, seconds int) *v1.Event {
	return &v1.Event{Workload: "agent-7", Kind: kind, WallNs: fakeNow.Add(time.Duration(seconds) * time.Second).UnixNano()}
}

// TestEventsAreFollowedOverRestarts: nothing is told twice, nothing is left
// out, and the end of the market is said.
func TestEventsAreFollowedOverRestarts(t *testing.T) {
	f := newFakeMarket().crowd()
	a, s, p, d := event("admitted", 1), event("started", 1), event("paused", 2), event("dead", 3)
	d.WorkloadState = &v1.Workload{ExitCode: 143}
	d.Reason = "stopped"
	f.service.future = [][]*v1.Event{{a}, {a, s}, {}, {s, p, d}}
	o := f.run("events", "--follow")
	want := "12:00:01  agent-7 was admitted\n12:00:01  agent-7 runs\n12:00:02  agent-7 is broke and paused until funded: maxwell fund agent-7 AMOUNT\n" +
		"12:00:03  agent-7 stopped: stopped (exit 143)\n"
	if o.code != 0 || o.out != want || o.err != "maxwell: the market ended\n" {
		t.Errorf("got %+v, want %s", o, want)
	}
	for i, m := range f.service.asked[1:] {
		since := m.(*v1.WatchRequest).GetSinceWallNs()
		if since == 0 || since > a.GetWallNs() {
			t.Errorf("reading %d begins at %d, after what was told", i+1, since)
		}
	}
}

func TestPriceIsWatched(t *testing.T) {
	for _, args := range [][]string{{"price", "--watch"}, {"price", "--watch", "--json"}} {
		f := newFakeMarket().crowd()
		f.service.onSnapshot = func(n int) { f.service.none = n == 3 }
		o := f.run(args...)
		if o.code != 0 || strings.Count(o.out, "\n") != 3 || o.err != "maxwell: the market ended\n" {
			t.Errorf("%v: %+v", args, o)
		}
		if len(args) == 2 && !strings.HasPrefix(o.out, "12:00:00  spot 2.3x  peak 4.1x  1x = 9.8 $J/core-s  grid 1.5x  sold 31 W of 65 W\n") {
			t.Errorf("got %s", o.out)
		}
	}
}

// logFile is a log of the running agent.
func (f *fakeMarket) logFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent.log")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f.service.workloads[0].Log = file
	return file
}

func TestLogs(t *testing.T) {
	tests := []struct{ text, args, want string }{
		{"a\nb\nc\n", "", "a\nb\nc\n"},
		{"a\nb\nc\n", "--tail 2", "b\nc\n"},
		{"a\nb\nc", "--tail 2", "b\nc"},
		{"a\nb\nc", "--tail 0", ""},
		{"a\nb\nc", "--tail 9", "a\nb\nc"},
		{"", "--tail 2", ""},
		{"\n\n\n", "--tail 2", "\n\n"},
		{"a\nb \"\xff\"", "--json", "{\"name\":\"agent-7\",\"line\":\"a\"}\n{\"name\":\"agent-7\",\"line\":\"b \\\"\\ufffd\\\"\"}\n"},
	}
	for _, tt := range tests {
		f := newFakeMarket().crowd()
		f.logFile(t, tt.text)
		if o := f.run(append([]string{"logs", "agent-7"}, strings.Fields(tt.args)...)...); o.code != 0 || o.out != tt.want || o.err != "" {
			t.Errorf("logs %s of %q: %+v, want %q", tt.args, tt.text, o, tt.want)
		}
	}
	f := newFakeMarket().crowd()
	file := f.logFile(t, "")
	for _, bad := range []string{file + "x", filepath.Dir(file), "/dev/null"} {
		f.service.workloads[0].Log = bad
		if o := f.run("logs", "agent-7"); o.code != 125 || strings.Count(o.err, "\n") != 1 || o.out != "" {
			t.Errorf("log %s: %+v", bad, o)
		}
	}
}

// TestLogsAreFollowed until the workload is dead, over a truncation, with what
// it printed last.
func TestLogsAreFollowed(t *testing.T) {
	f := newFakeMarket().crowd()
	file := f.logFile(t, "one\ntwo\n")
	write := func(flags int, text string) {
		h, err := os.OpenFile(file, os.O_WRONLY|flags, 0)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := h.WriteString(text); err != nil {
			t.Error(err)
		}
		_ = h.Close()
	}
	f.service.onSnapshot = func(n int) {
		switch n {
		case 2:
			write(os.O_APPEND, "three\n")
		case 4:
			write(os.O_TRUNC, "again\n")
		case 6:
			write(os.O_APPEND, "last")
			f.service.workloads[0].State = "dead"
		}
	}
	if o := f.run("logs", "-f", "--tail", "1", "agent-7"); o.code != 0 || o.out != "two\nthree\nagain\nlast" || o.err != "" {
		t.Errorf("got %+v", o)
	}
	f = newFakeMarket().crowd()
	f.logFile(t, "one\n")
	f.service.onSnapshot = func(n int) { f.service.none = n == 2 }
	if o := f.run("logs", "-f", "agent-7"); o.code != 0 || o.out != "one\n" {
		t.Errorf("a market that ended: %+v", o)
	}
}

// TestTail: the last lines are what a reader of the whole would keep.
func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.OneOf(rapid.StringMatching(`[a-z]{0,3}`), rapid.Just(strings.Repeat("x", 70_000)))
		text := strings.Join(rapid.SliceOfN(line, 0, 8).Draw(t, "lines"), "\n")
		n := rapid.IntRange(0, 9).Draw(t, "n")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		var got strings.Builder
		l := logReader{file: h, out: &got}
		if err := l.skipTo(int64(n)); err != nil {
			t.Fatal(err)
		}
		if err := l.copy(); err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(text, "\n")
		if lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		if want := strings.Join(lines[max(0, len(lines)-n):], ""); got.String() != want {
			t.Fatalf("last %d lines of %.60q: %.60q, want %.60q", n, text, got.String(), want)
		}
	})
}

// TestRunOnAWallet: who pays, and what happens when that is empty, is the market's to
// know.
func TestRunOnAWallet(t *testing.T) {
	for line, want := range map[string]*v1.AdmitRequest{
		"--wallet anna":                              {Wallet: "anna", BrokeByWallet: true},
		"--wallet anna --budget 5":                   {Wallet: "anna", BudgetUcredits: 5_000_000, BrokeByWallet: true},
		"--wallet anna --when-broke stop":            {Wallet: "anna"},
		"--wallet anna --when-broke pause":           {Wallet: "anna", PauseWhenBroke: true},
		"--wallet anna --bid auto":                   {Wallet: "anna", BrokeByWallet: true, Auto: true},
		"--when-broke stop":                          {},
		"--wallet anna --budget 5 --when-broke stop": {Wallet: "anna", BudgetUcredits: 5_000_000},
	} {
		f := newFakeMarket()
		if o := f.run(append(append([]string{"run"}, strings.Fields(line)...), "--", "true")...); o.code != 0 || len(f.admitted) != 1 {
			t.Fatalf("run %s: %+v", line, o)
		}
		got := f.admitted[0]
		if got.GetWallet() != want.GetWallet() || got.GetBudgetUcredits() != want.GetBudgetUcredits() || got.GetBrokeByWallet() != want.GetBrokeByWallet() ||
			got.GetPauseWhenBroke() != want.GetPauseWhenBroke() || got.GetAuto() != want.GetAuto() {
			t.Errorf("run %s asks for %v", line, got)
		}
	}
	for _, line := range []string{"run --wallet ../x -- true", "run --wallet '' -- true", "run --horizon 10s -- true"} {
		if o := newFakeMarket().run(words(line)...); o.code != 125 || strings.Count(o.err, "\n") != 1 {
			t.Errorf("%s: %+v", line, o)
		}
	}
}

func TestFundAStandingWallet(t *testing.T) {
	f := newFakeMarket().crowd().treasury()
	if o := f.run("fund", "anna", "200"); o.code != 0 || o.err != "maxwell: anna has 200 $J more\n" {
		t.Errorf("got %+v", o)
	}
}
