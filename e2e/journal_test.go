package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// verified is what a reader of `audit verify --json` relies on.
type verified struct {
	Holds     bool             `json:"holds"`
	Records   int64            `json:"records"`
	Transfers int64            `json:"transfers"`
	Head      string           `json:"head"`
	Minted    int64            `json:"minted_ucredits"`
	Sum       int64            `json:"sum_ucredits"`
	Balances  map[string]int64 `json:"balances_ucredits"`
}

func (p *place) verify(file string) verified {
	p.t.Helper()
	r := p.run("audit", "verify", file, "--json")
	if r.code != 0 {
		p.t.Fatal(r)
	}
	var v verified
	must(p.t, json.Unmarshal([]byte(r.stdout), &v))
	if !v.Holds || v.Sum != 0 || len(v.Head) != 64 || v.Records == 0 {
		p.t.Errorf("the journal does not hold: %+v", v)
	}
	return v
}

// briefly is a fleet in which one goes broke, one earns and one comes to its end.
const briefly = `node: {cores: 1}
workloads:
  poor:   {command: [sh, -c, "while :; do :; done"], budget: 20, grace: 500ms}
  earner: {command: [maxwell, work, primes], budget: 40, bid: 2x, income: {per: prime-batch, amount: 1}}
  short:  {command: [sh, -c, "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"]}
`

// TestJournal: the books that a journal gives are the books that the market showed
// at its end, to the unit; it is its owner's alone, and belongs to one market.
func TestJournal(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	p := newPlace(t)
	file, fleet := filepath.Join(t.TempDir(), "books.sqlite"), writeFleet(t, briefly)
	r := p.run("up", fleet, "--for", "6s", "--json", "--journal", file)
	if r.code != 0 {
		t.Fatal(r)
	}
	d, v := parse(t, r.stdout), p.verify(file)
	if v.Minted != d.Ledger.Minted || v.Minted == 0 {
		t.Errorf("minted %d in the journal, %d in the statement", v.Minted, d.Ledger.Minted)
	}
	for account, balance := range d.Ledger.Accounts {
		if v.Balances[account] != balance {
			t.Errorf("%s has %d in the journal, %d in the statement", account, v.Balances[account], balance)
		}
	}
	if len(v.Balances) != len(d.Ledger.Accounts) {
		t.Errorf("%d accounts in the journal, %d in the statement", len(v.Balances), len(d.Ledger.Accounts))
	}
	info, err := os.Stat(file)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want rw-------", info.Mode().Perm())
	}
	left, err := filepath.Glob(file + "?*")
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left beside it: %v", left)
	}
	r = p.run("audit", "verify", file)
	if r.code != 0 || !strings.HasPrefix(r.stdout, file+" holds: ") || !regexp.MustCompile(`\n  head +`+v.Head+`\n`).MatchString(r.stdout) {
		t.Errorf("to a person:\n%v", r)
	}
	r = p.run("run", "--journal", file, "--", "true")
	if r.code != 125 || !strings.Contains(r.stderr, "books of an earlier market") || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("a second market in one journal:\n%v", r)
	}
}

// TestJournalOfAKilledMarket: what was written when the market was killed is a
// whole journal, at most an epoch and a write behind.
func TestJournalOfAKilledMarket(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	l := newLab(t)
	file := filepath.Join(t.TempDir(), "books.sqlite")
	w := l.watch("up", writeFleet(t, briefly), "--journal", file)
	await(t, "the fleet", func() bool { return len(l.workers("maxwell work primes")) > 0 })
	await(t, "some records", func() bool {
		r := l.run("audit", "verify", file, "--json")
		return r.code == 0 && strings.Contains(r.stdout, `"wallet:poor":`)
	})
	l.remember()
	if r := l.run("run", "--journal", filepath.Join(t.TempDir(), "other.sqlite"), "--", "true"); r.code != 125 ||
		!strings.Contains(r.stderr, "a market runs here already") {
		t.Errorf("a journal for a market that has another:\n%v", r)
	}
	must(t, syscall.Kill(l.verb("node"), syscall.SIGKILL))
	w.end()
	l.verify(file)
}

// TestJournalWithoutRoom: when the journal cannot be written new work is refused
// in one line, what runs goes on, and what was written holds.
func TestJournalWithoutRoom(t *testing.T) {
	t.Parallel()
	needCgroups(t)
	l := newLab(t)
	file := filepath.Join(t.TempDir(), "books.sqlite")
	cmd := l.command("up", writeFleet(t, briefly), "--journal", file, "--for", "20s")
	cmd.Args = append([]string{"bash", "-c", `ulimit -f 192; exec "$@"`, "bash"}, cmd.Args...) // KiB
	cmd.Path = "/bin/bash"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	w := l.observe(cmd)
	await(t, "the fleet", func() bool { return len(l.workers("maxwell work primes")) > 0 })
	var refused result
	await(t, "a refusal", func() bool {
		refused = l.run("run", "--name", fmt.Sprint("late", time.Now().UnixNano()), "--", "true")
		return refused.code == 125
	})
	if !strings.Contains(refused.stderr, "what runs goes on, new work waits until it can be written") || strings.Count(refused.stderr, "\n") != 1 {
		t.Errorf("refused otherwise:\n%v", refused)
	}
	if len(l.workers("maxwell work primes")) == 0 {
		t.Errorf("what ran does not run on")
	}
	_ = w.cmd.Process.Signal(syscall.SIGINT)
	w.end()
	l.verify(file)
}
