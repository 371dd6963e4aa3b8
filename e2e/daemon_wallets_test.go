package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bank is a place in which a daemon keeps standing wallets.
type bank struct {
	*place
	daemon *exec.Cmd
	ended  chan struct{} // closed when it has
}

// holding is a wallet as `wallet ls --json` says it.
type holding struct {
	Name, Kind, Parent, State string
	Balance                   int64 `json:"balance_ucredits"`
	Spent                     int64 `json:"spent_ucredits"`
	Budget                    int64 `json:"budget_ucredits"`
	Deposit                   int64 `json:"deposit_ucredits"`
	Loss                      int64 `json:"loss_ucredits"`
}

// newBank opens one. The caller shuts it: what a daemon governs outlives it.
func newBank(t *testing.T) *bank {
	t.Helper()
	needCgroups(t)
	b := &bank{place: newPlace(t)}
	b.open()
	return b
}

// shut ends what the daemon governs, then the daemon.
func (b *bank) shut() {
	for _, a := range b.accounts() {
		if a.Kind == "workload" {
			b.run("stop", "--now", a.Name)
		}
	}
	if b.t.Failed() {
		text, _ := os.ReadFile(filepath.Join(b.dir, "market.log"))
		b.t.Logf("log of the daemon:\n%s", text)
	}
	_ = b.daemon.Process.Signal(syscall.SIGTERM)
	<-b.ended
	_ = os.RemoveAll(filepath.Join(b.dir, "state"))
	_ = os.Remove(filepath.Join(b.dir, "market.lock"))
}

// open starts the daemon. The watchdog of one that was killed holds its lock for a
// moment.
func (b *bank) open() {
	b.t.Helper()
	log, err := os.OpenFile(filepath.Join(b.dir, "market.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(b.t, err)
	defer log.Close()
	for deadline := time.Now().Add(20 * time.Second); ; {
		b.daemon = b.command("daemon", "--set", "socket.path="+filepath.Join(b.dir, "market.sock"), "--set", "state="+filepath.Join(b.dir, "state"), "--set", "node.cores=1", "--set", "node.enforcement=cgroup")
		b.daemon.Stderr = log
		must(b.t, b.daemon.Start())
		cmd, ended := b.daemon, make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		b.ended = ended
		for {
			if b.run("price").code == 0 {
				return
			}
			select {
			case <-ended:
			case <-time.After(20 * time.Millisecond):
				continue
			}
			break
		}
		if time.Now().After(deadline) {
			b.t.Fatal("the daemon does not start")
		}
		<-time.After(50 * time.Millisecond) // nobody tells when it is free
	}
}

// rob kills the daemon and starts it again.
func (b *bank) rob() {
	b.t.Helper()
	must(b.t, b.daemon.Process.Kill())
	<-b.ended
	b.open()
}

// must runs a command that has to work.
func (b *bank) must(args ...string) result {
	b.t.Helper()
	r := b.run(args...)
	if r.code != 0 {
		b.t.Fatalf("maxwell %s: %v", strings.Join(args, " "), r)
	}
	return r
}

func (b *bank) accounts() map[string]holding {
	b.t.Helper()
	r := b.run("wallet", "ls", "--json")
	var list struct{ Wallets []holding }
	if r.code != 0 || json.Unmarshal([]byte(r.stdout), &list) != nil {
		b.t.Errorf("wallet ls: %v", r)
	}
	out := make(map[string]holding)
	for _, a := range list.Wallets {
		out[a.Name] = a
	}
	return out
}

// burn starts a workload that wants a core for ever.
func (b *bank) burn(args ...string) *started {
	b.t.Helper()
	s := b.start(b.command(append(append([]string{"run", "-q"}, args...), "--", "sh", "-c", "while :; do :; done")...))
	s.late.Stop() // it lives as long as its money
	return s
}

// happened counts the events of a kind.
func (b *bank) happened(name, kind string) int {
	b.t.Helper()
	r := b.must("events", "--json", "--since", "1h", name)
	n := 0
	for line := range strings.Lines(r.stdout) {
		var e struct{ Kind string }
		must(b.t, json.Unmarshal([]byte(line), &e))
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// until waits for what the daemon does by itself.
func (b *bank) until(what string, ok func() bool) {
	b.t.Helper()
	if !eventually(90*time.Second, ok) {
		b.t.Fatalf("never %s; wallets %+v", what, b.accounts())
	}
}

// balanced fails the test where the books do not sum to zero.
func (b *bank) balanced() map[string]int64 {
	b.t.Helper()
	var books struct {
		Sum      int64            `json:"sum_ucredits"`
		Accounts map[string]int64 `json:"accounts"`
	}
	r := b.must("ledger", "--balances", "--json")
	must(b.t, json.Unmarshal([]byte(r.stdout), &books))
	sum := int64(0)
	for _, have := range books.Accounts {
		sum += have
	}
	if books.Sum != 0 || sum != 0 {
		b.t.Errorf("the books sum to %d and %d: %v", books.Sum, sum, books.Accounts)
	}
	return books.Accounts
}

// settled is balanced once these workloads hold nothing: the books are shown as they
// were 100 ms ago at most.
func (b *bank) settled(workloads ...string) map[string]int64 {
	b.t.Helper()
	var books map[string]int64
	b.until("settled", func() bool {
		books = b.balanced()
		return !slices.ContainsFunc(workloads, func(name string) bool {
			return books["deposit:"+name] != 0 || books["wallet:"+name] != 0
		})
	})
	return books
}

const dollars = 1_000_000 // micro-$J

// TestDaemonAllowanceIsLivedOn: a workload that spends a wallet is paused when that is
// empty and runs on when the allowance has come in, also when the daemon was killed
// meanwhile; in the end it has spent what came in, and nothing else.
func TestDaemonAllowanceIsLivedOn(t *testing.T) {
	b := newBank(t)
	defer b.shut()
	opened := time.Now()
	b.must("wallet", "create", "team", "--allowance", "60/min")
	b.must("fund", "team", "20")
	job := b.burn("--wallet", "team", "--name", "job")
	b.until("paused", func() bool { return b.accounts()["job"].State == "paused" })
	before := b.accounts()["job"].Spent
	if before < 70*dollars { // a minute's to begin with, and 20
		t.Errorf("paused after %d of 80 $J and what came in", before)
	}
	b.until("running again", func() bool { return b.happened("job", "funded") > 0 })
	b.until("spending again", func() bool { return b.accounts()["job"].Spent > before+dollars })
	b.until("paused again", func() bool { return b.accounts()["job"].State == "paused" })
	b.rob()
	if a := b.accounts()["job"]; a.State != "paused" && a.State != "running" || a.Spent < before {
		t.Fatalf("after a restart %+v", a)
	}
	at := b.accounts()["job"].Spent
	b.until("running after a restart", func() bool { return b.accounts()["job"].Spent > at+dollars })
	b.must("stop", "job")
	r := b.finish(job)
	if r.code != 143 && r.code != 137 {
		t.Errorf("the workload's client: %v", r)
	}
	all := b.settled("job")
	came := 80*dollars + int64(time.Since(opened).Seconds()*dollars)
	spent := all["heat"] + all["treasury"]
	minted := -all["mint"]
	if minted > came || minted < came-4*dollars || all["wallet:team"] != minted-spent || all["loss"] != 0 {
		t.Errorf("minted %d, at most %d came in, %d were spent: %v", minted, came, spent, all)
	}
	if n := b.happened("job", "paused"); n > 1+int(time.Since(opened)/(2*time.Second)) {
		t.Errorf("paused %d times in %v", n, time.Since(opened))
	}
}

// TestDaemonParentBoundsItsChildren: two wallets that might take more than their
// parent has get the same, and their workloads spend no more than that; money is moved
// and budgets come back; all of it is there after a crash.
func TestDaemonParentBoundsItsChildren(t *testing.T) {
	b := newBank(t)
	defer b.shut()
	b.must("wallet", "create", "org")
	for _, name := range []string{"anna", "ben"} {
		b.must("wallet", "create", name, "--parent", "org", "--allowance", "1k/s", "--owner", "1234")
	}
	b.must("fund", "org", "100")
	b.until("shared", func() bool { return b.accounts()["org"].Balance < dollars })
	all := b.accounts()
	if x, y := all["anna"].Balance, all["ben"].Balance; x+y+all["org"].Balance != 100*dollars || max(x-y, y-x) > dollars {
		t.Errorf("of 100 $J anna has %d and ben %d", x, y)
	}
	b.must("transfer", "anna", "ben", "5")
	drawing := b.burn("--wallet", "anna", "--name", "drawing")
	granted := b.burn("--wallet", "ben", "--budget", "25", "--name", "granted", "--when-broke", "pause")
	b.until("started", func() bool { all := b.accounts(); return all["granted"].Spent > 0 && all["drawing"].Spent > 0 })
	if a := b.accounts()["granted"]; a.Budget != 25*dollars || a.Parent != "ben" {
		t.Errorf("granted %+v", a)
	}
	b.rob()
	b.until("both paused", func() bool {
		all := b.accounts()
		return all["granted"].State == "paused" && all["drawing"].State == "paused"
	})
	all = b.accounts()
	if d := all["drawing"]; d.Spent+d.Deposit+d.Balance+all["anna"].Balance > 46*dollars {
		t.Errorf("anna gave more than she had: %+v", all)
	}
	b.must("transfer", "ben", "anna", "15")
	b.until("running on", func() bool { return b.happened("drawing", "funded") > 0 })
	for _, name := range []string{"drawing", "granted"} {
		b.must("stop", name)
	}
	b.finish(drawing)
	b.finish(granted)
	books := b.settled("drawing", "granted")
	if have := books["wallet:org"] + books["wallet:anna"] + books["wallet:ben"] + books["heat"] + books["treasury"]; have != 100*dollars || -books["mint"] != 100*dollars {
		t.Errorf("100 $J are %d: %v", have, books)
	}
}

// TestDaemonWalletRefusals are one line each, and change nothing.
func TestDaemonWalletRefusals(t *testing.T) {
	b := newBank(t)
	defer b.shut()
	b.must("wallet", "create", "full")
	b.must("wallet", "create", "pot", "--parent", "full")
	b.must("wallet", "create", "empty")
	b.must("fund", "pot", "100")
	before := fmt.Sprint(b.accounts())
	for line, want := range map[string]string{
		"wallet create pot":                     "is a wallet's name",
		"wallet create x --parent nobody":       `no wallet "nobody" of yours`,
		"wallet create pot --change --parent x": `no wallet "x" of yours`,
		"wallet create none --change":           `no wallet "none" of yours`,
		"transfer pot nobody 5":                 `no workload or wallet "nobody"`,
		"transfer pot pot 5":                    "name two wallets",
		"fund nobody 5":                         `no workload or wallet "nobody"`,
		"run --wallet nobody -- true":           `no wallet "nobody" of yours`,
		"run --wallet pot --budget 500 -- true": `wallet "pot" has 100 $J; give less, or fund it`,
		"run --wallet pot --name pot -- true":   "is a wallet's name",
		"run --wallet pot --bid auto -- true":   "give a rate or a horizon",
		"run --budget 100 --name pot -- true":   "is a wallet's name",
		"run --wallet pot --budget 1 -- true":   "below twice the deposit",
		"run --wallet empty -- true":            "fund it, or wait for its allowance",
		"wallet rm nobody":                      `no wallet "nobody" of yours`,
		"wallet rm full":                        `"full" fills pot`,
	} {
		r := b.run(strings.Fields(line)...)
		if r.code != 125 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, want) || r.stdout != "" {
			t.Errorf("%s: %v, want %q", line, r, want)
		}
	}
	if after := fmt.Sprint(b.accounts()); after != before {
		t.Errorf("a refusal changed %s to %s", before, after)
	}
}

// TestDaemonWalletRemoved: what a removed wallet has goes back to its parent, or to the
// mint, whatever kills come between; one that pays a workload stays until that has
// ended; and whoever makes it again gains nothing. The chain has all of it.
func TestDaemonWalletRemoved(t *testing.T) {
	b := newBank(t)
	defer b.shut()
	b.must("wallet", "create", "org")
	b.must("fund", "org", "1000")
	b.must("wallet", "create", "anna", "--parent", "org", "--allowance", "300/day")
	if all := b.accounts(); all["anna"].Balance < 300*dollars || all["anna"].Balance > 301*dollars {
		t.Errorf("a new wallet begins with %d", all["anna"].Balance)
	}
	job := b.start(b.command("run", "-q", "--wallet", "anna", "--name", "job", "--", "sleep", "1000"))
	// One that sleeps wants nothing, and waits.
	b.until("started", func() bool { s := b.accounts()["job"].State; return s == "running" || s == "waiting" })
	if r := b.run("wallet", "rm", "anna"); r.code != 125 || !strings.Contains(r.stderr, "maxwell stop job") {
		t.Errorf("removed while it pays: %v", r)
	}
	b.must("stop", "job")
	b.finish(job)
	for round := range 3 {
		had := b.accounts()
		var said struct {
			Name, To string
			Returned int64 `json:"returned_ucredits"`
		}
		must(t, json.Unmarshal([]byte(b.must("wallet", "rm", "anna", "--json").stdout), &said))
		if said.Name != "anna" || said.To != "org" || said.Returned < had["anna"].Balance || said.Returned > had["anna"].Balance+dollars {
			t.Errorf("round %d: it said %+v, and had %d", round, said, had["anna"].Balance)
		}
		if round > 0 {
			b.rob()
		}
		if r := b.run("wallet", "rm", "anna"); r.code != 125 || !strings.Contains(r.stderr, "no wallet") {
			t.Errorf("round %d: removed twice: %v", round, r)
		}
		b.must("wallet", "create", "anna", "--parent", "org", "--allowance", "300/day")
		all := b.accounts()
		if _, here := all["anna"]; !here || all["anna"].Balance > dollars || all["org"].Balance < had["org"].Balance+said.Returned-dollars {
			t.Errorf("round %d: made again it has %d, and its parent %d", round, all["anna"].Balance, all["org"].Balance)
		}
	}
	b.must("wallet", "rm", "anna")
	b.must("wallet", "rm", "org")
	books := b.balanced()
	if books["mint"] != -books["heat"]-books["treasury"] || books["wallet:org"] != 0 || books["wallet:anna"] != 0 {
		t.Errorf("what was not spent has not gone back: %v", books)
	}
	if r := b.run("audit", "verify", filepath.Join(b.dir, "state", "journal.sqlite")); r.code != 0 {
		t.Errorf("the chain: %v", r)
	}
}
