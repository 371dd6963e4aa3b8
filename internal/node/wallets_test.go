package node

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/api"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/config"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// lastingVerb makes the test binary a market that lasts: lasting DIR.
const lastingVerb = "lasting"

func lastingMarket(args []string) (code int, ran bool) {
	if len(args) != 2 || args[0] != lastingVerb {
		return 0, false
	}
	ctx, stop := ossignal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	dir := args[1]
	s := Settings{Daemon: &Daemon{Config: config.New(), Journal: filepath.Join(dir, "journal.sqlite"), Access: api.Access{Everybody: true}, Notify: func(string) {}}}
	err := Serve(ctx, dir, s, func(err error) { fmt.Printf("ready %v\n", err) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// lasting is a market that lasts, in a process of its own.
type lasting struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

func startLasting(t *testing.T) *lasting {
	t.Helper()
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "a daemon takes its workloads back by their groups")
	}
	dir, err := os.MkdirTemp("", "lasting")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &lasting{t: t, dir: dir}
	t.Cleanup(func() {
		d.end(syscall.SIGTERM)
		if t.Failed() {
			t.Log(logOf(dir))
		}
		_ = os.RemoveAll(dir)
	})
	d.start()
	return d
}

// start begins the market; the watchdog of one that was killed holds its lock for a
// moment.
func (d *lasting) start() {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		said := d.try()
		if said == "ready <nil>\n" {
			return
		}
		d.end(syscall.SIGKILL)
		if !strings.Contains(said, ErrTaken.Error()) || time.Now().After(deadline) {
			d.t.Fatalf("the market says %q%s", said, logOf(d.dir))
		}
	}
}

func (d *lasting) try() string {
	d.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	d.cmd = exec.Command(exe, lastingVerb, d.dir)
	log, err := os.OpenFile(filepath.Join(d.dir, LogName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd.Stderr = log
	out, err := d.cmd.StdoutPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	said, _ := bufio.NewReader(out).ReadString('\n')
	return said
}

func (d *lasting) end(how syscall.Signal) {
	if d.cmd == nil || d.cmd.ProcessState != nil {
		return
	}
	_ = d.cmd.Process.Signal(how)
	_ = d.cmd.Wait()
}

// crash ends the market with SIGKILL and starts it again.
func (d *lasting) crash() {
	d.t.Helper()
	d.end(syscall.SIGKILL)
	d.start()
}

func (d *lasting) line() *Connection {
	d.t.Helper()
	c, err := Connect(d.t.Context(), filepath.Join(d.dir, SocketName))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}

// as makes a call as another user; refused says that it was not let.
func (d *lasting) as(uid uint32, method, body string) (said string, refused bool) {
	d.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	copied := filepath.Join(d.dir, "caller") // where that user can reach it
	if _, err := os.Stat(copied); err != nil {
		text, err := os.ReadFile(exe)
		if err == nil {
			err = os.WriteFile(copied, text, 0o755)
		}
		if err != nil {
			d.t.Fatal(err)
		}
	}
	cmd := exec.Command(copied, callVerb, filepath.Join(d.dir, SocketName), method, body)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		d.t.Fatal(err)
	}
	return string(out), err != nil
}

func (d *lasting) wallets() map[string]*v1.Wallet {
	d.t.Helper()
	r, err := d.line().ListWallets(d.t.Context(), &v1.ListWalletsRequest{})
	if err != nil {
		d.t.Fatal(err)
	}
	out := make(map[string]*v1.Wallet)
	for _, w := range r.GetWallets() {
		out[w.GetName()] = w
	}
	return out
}

func (d *lasting) create(req *v1.CreateWalletRequest) {
	d.t.Helper()
	if _, err := d.line().CreateWallet(d.t.Context(), req); err != nil {
		d.t.Fatal(err)
	}
}

func (d *lasting) fund(name string, amount int64) {
	d.t.Helper()
	if _, err := d.line().Fund(d.t.Context(), &v1.FundRequest{Name: name, AmountUcredits: amount}); err != nil {
		d.t.Fatal(err)
	}
}

const nobody = 65534

// TestWhoMayDoWhatWithWallets: money is made by admins, moved by owners, and seen by
// both.
func TestWhoMayDoWhatWithWallets(t *testing.T) {
	d := startLasting(t)
	d.create(&v1.CreateWalletRequest{Name: "org", AllowanceUcredits: 1e6, AllowanceEveryNs: int64(time.Hour)})
	d.create(&v1.CreateWalletRequest{Name: "theirs", Parent: "org", Owner: new(uint32(nobody))})
	d.fund("org", 100e6)
	d.fund("theirs", 50e6)
	for _, c := range []struct{ method, body, want string }{
		{"CreateWallet", `{"name":"rich","allowanceUcredits":"5","allowanceEveryNs":"1000000000"}`, "only an admin makes money"},
		{"CreateWallet", `{"name":"rich","parent":"org","allowanceUcredits":"5","allowanceEveryNs":"1000000000"}`, `no wallet \"org\" of yours`},
		{"CreateWallet", `{"name":"theirs","allowanceUcredits":"5","allowanceEveryNs":"1000000000","change":true}`, "only an admin makes money"},
		{"CreateWallet", `{"name":"org","change":true}`, `no wallet \"org\" of yours`},
		{"CreateWallet", `{"name":"roots","owner":0}`, "only an admin opens wallets of others"},
		{"RemoveWallet", `{"name":"theirs"}`, "only an admin removes wallets; empty yours by maxwell transfer"},
		{"Fund", `{"name":"theirs","amountUcredits":"1000"}`, "maxwell transfer WALLET theirs AMOUNT"},
		{"Fund", `{"name":"org","amountUcredits":"1000"}`, "no workload or wallet"},
		{"Transfer", `{"from":"org","to":"theirs","amountUcredits":"1000"}`, `no workload or wallet \"org\"`},
		{"Transfer", `{"from":"theirs","to":"org","amountUcredits":"1000"}`, `no workload or wallet \"org\"`},
		{"Transfer", `{"from":"theirs","to":"theirs","amountUcredits":"1000"}`, "both wallets are the same"},
		{"CreateWallet", `{"name":"../x"}`, "name: "},
		{"CreateWallet", `{"name":"theirs"}`, "is a wallet's name"},
		{"CreateWallet", `{"name":"none","change":true}`, `no wallet \"none\" of yours`},
		{"CreateWallet", `{"name":"x","mostUcredits":"5"}`, "needs an allowance"},
		{"CreateWallet", `{"name":"x","parent":"theirs","allowanceUcredits":"5","allowanceEveryNs":"5"}`, "at most every second"},
		{"CreateWallet", `{"name":"x","allowanceUcredits":"-5"}`, "not negative"},
	} {
		if said, refused := d.as(nobody, c.method, c.body); !refused || !strings.Contains(said, c.want) {
			t.Errorf("%s %s: %s, want %q", c.method, c.body, said, c.want)
		}
	}
	for _, c := range [][2]string{
		{"CreateWallet", `{"name":"pot"}`},
		{"CreateWallet", `{"name":"child","parent":"theirs","allowanceUcredits":"5","allowanceEveryNs":"1000000000"}`},
		{"Transfer", `{"from":"theirs","to":"pot","amountUcredits":"20000000"}`},
	} {
		if said, refused := d.as(nobody, c[0], c[1]); refused {
			t.Errorf("%s %s: %s", c[0], c[1], said)
		}
	}
	said, _ := d.as(nobody, "ListWallets", "{}")
	var seen struct {
		Wallets []struct{ Name, BalanceUcredits string }
	}
	if err := json.Unmarshal([]byte(said), &seen); err != nil || len(seen.Wallets) != 3 || strings.Contains(said, `"name":"org"`) {
		t.Errorf("its owner sees %s", said)
	}
	said, _ = d.as(nobody, "Snapshot", "{}")
	if !strings.Contains(said, `"wallet:pot"`) || strings.Contains(said, `"wallet:org"`) {
		t.Errorf("its owner sees of the books %s", said)
	}
	for account, want := range map[string]bool{"pot": false, "wallet:pot": false, "org": true, "wallet:org": true, "mint": true} {
		if said, refused := d.as(nobody, "Postings", `{"account":"`+account+`"}`); refused != want {
			t.Errorf("postings of %s: %s", account, said)
		}
	}
	all := d.wallets()
	if all["pot"].GetBalanceUcredits() != 20e6 || all["pot"].GetUid() != nobody || all["theirs"].GetBalanceUcredits() > 30e6 || all["org"].GetUid() != 0 {
		t.Errorf("an admin sees %v", all)
	}
}

// TestAWorkloadHasNoWallets: from inside of one, no standing wallet is seen or used.
func TestAWorkloadHasNoWallets(t *testing.T) {
	s := join(t, Settings{})
	c := line(t, s)
	if _, err := c.CreateWallet(t.Context(), &v1.CreateWalletRequest{Name: "team"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fund(t.Context(), &v1.FundRequest{Name: "team", AmountUcredits: 1e9}); err != nil {
		t.Fatal(err)
	}
	said, let := inside(t, s, &v1.AdmitRequest{Name: "agent", BudgetUcredits: 100e6, Wallet: "team"},
		[2]string{"ListWallets", `{}`},
		[2]string{"CreateWallet", `{"name":"mine"}`},
		[2]string{"Transfer", `{"from":"team","to":"agent","amountUcredits":"1000"}`},
		[2]string{"Transfer", `{"from":"agent","to":"team","amountUcredits":"1000"}`},
		[2]string{"Fund", `{"name":"team","amountUcredits":"1000"}`},
		[2]string{"Postings", `{"account":"wallet:team"}`},
	)
	for i := range let {
		if let[i] && !(i == 0 && said[i] == "{}\n") {
			t.Errorf("call %d was let: %s", i, said[i])
		}
	}
}

// TestWalletChangesAreMadeOnce: delivered 0 to 3 times, in any order, across a crash.
func TestWalletChangesAreMadeOnce(t *testing.T) {
	d := startLasting(t)
	id := func(n int) []byte { return append(make([]byte, 14), byte(n), 1) }
	d.create(&v1.CreateWalletRequest{Name: "a"})
	d.create(&v1.CreateWalletRequest{Name: "b"})
	d.fund("a", 1000e6)
	deliver := func() {
		c := d.line()
		var all sync.WaitGroup
		for n := range 16 {
			for range n % 4 {
				all.Go(func() {
					if _, err := c.Fund(t.Context(), &v1.FundRequest{Name: "b", AmountUcredits: 1 << n, RequestId: id(n)}); err != nil {
						t.Errorf("fund %d: %v", n, err)
					}
					if _, err := c.Transfer(t.Context(), &v1.TransferRequest{From: "a", To: "b", AmountUcredits: 1e6 << (n / 4), RequestId: id(100 + n)}); err != nil {
						t.Errorf("transfer %d: %v", n, err)
					}
					if _, err := c.CreateWallet(t.Context(), &v1.CreateWalletRequest{Name: fmt.Sprintf("w%d", n), RequestId: id(200 + n)}); err != nil {
						t.Errorf("create %d: %v", n, err)
					}
				})
			}
		}
		all.Wait()
	}
	deliver()
	d.crash()
	deliver()
	a, b := int64(1000e6), int64(0)
	for n := range 16 {
		if n%4 > 0 {
			b += 1<<n + 1e6<<(n/4)
			a -= 1e6 << (n / 4)
		}
	}
	all := d.wallets()
	if all["a"].GetBalanceUcredits() != a || all["b"].GetBalanceUcredits() != b || len(all) != 14 {
		t.Errorf("a has %d, want %d; b %d, want %d; %d wallets", all["a"].GetBalanceUcredits(), a, all["b"].GetBalanceUcredits(), b, len(all))
	}
	_, err := d.line().Transfer(t.Context(), &v1.TransferRequest{From: "a", To: "b", AmountUcredits: 7, RequestId: id(101)})
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("one id for two changes: %v", err)
	}
}

// TestWalletsOutliveTheirMarket: killed again and again while its wallets fill, a
// market pays exactly what the time since their opening makes, the time between its
// processes too.
func TestWalletsOutliveTheirMarket(t *testing.T) {
	d := startLasting(t)
	const rate = 7_000_003 // micro-$J a second
	before := time.Now()
	d.create(&v1.CreateWalletRequest{Name: "z-org", AllowanceUcredits: 10 * rate, AllowanceEveryNs: int64(time.Second)}) // after its children by name
	d.create(&v1.CreateWalletRequest{Name: "anna", Parent: "z-org", AllowanceUcredits: rate, AllowanceEveryNs: int64(time.Second), Owner: new(uint32(1234))})
	after := time.Now()
	first := d.wallets()
	for range 2 {
		d.crash()
		d.wallets() // pays
	}
	list := d.wallets()
	anna := list["anna"]
	came := func(d time.Duration) unit.Credits { // it begins with a second's
		return rate + unit.Allowance{Amount: rate, Every: time.Second}.Over(d)
	}
	most := came(time.Since(before))
	if have := unit.Credits(anna.GetBalanceUcredits()); have > most || have < unit.Credits(first["anna"].GetBalanceUcredits()) {
		t.Errorf("anna has %v, at most %v came in", have, most)
	}
	d.crash()
	// What is left to pay is paid when somebody asks; the list pays at most once a second.
	deadline := time.Now().Add(20 * time.Second)
	for {
		asked := time.Now()
		list = d.wallets()
		least := came(asked.Sub(after) - 1100*time.Millisecond)
		have := unit.Credits(list["anna"].GetBalanceUcredits())
		if have > came(time.Since(before)) {
			t.Fatalf("anna has %v: paid twice", have)
		}
		if have >= least {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("anna has %v, want at least %v: something was lost", have, least)
		}
	}
	if w := list["anna"]; w.GetUid() != 1234 || w.GetParent() != "z-org" || w.GetCreatedWallNs() != first["anna"].GetCreatedWallNs() || w.GetAllowanceUcredits() != rate {
		t.Errorf("after three crashes %v, before %v", w, first["anna"])
	}
	snap, err := d.line().Snapshot(t.Context(), &v1.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	l := snap.GetSnapshot().GetLedger()
	if l.GetSumUcredits() != 0 || l.GetMintedUcredits() != l.GetAccounts()["wallet:anna"]+l.GetAccounts()["wallet:z-org"] {
		t.Errorf("books %v", l)
	}
	d.end(syscall.SIGKILL)
	store, err := journal.Open(filepath.Join(d.dir, "journal.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := journal.Verify(store); err != nil {
		t.Error(err)
	}
}

// TestAllowanceAcrossBoots: on the clock of another boot the calendar tells how long
// nobody was there; one that was set back pays nothing for that.
func TestAllowanceAcrossBoots(t *testing.T) {
	k := keptWallet{Saved: demon.SavedWallet{Since: 90e9}, At: 100e9} // 10 s were owed when it was saved
	for _, c := range []struct {
		now  unit.Instant
		away time.Duration
		want time.Duration // owed
	}{
		{5e9, time.Hour, time.Hour + 10*time.Second},
		{5e9, 0, 10 * time.Second},
		{5e9, -time.Hour, 10 * time.Second},
		{5000e9, time.Minute, 70 * time.Second},
		{5e9, 56 * 365 * 24 * time.Hour, longestAway + 10*time.Second}, // saved in 1970: nobody had set the clock
	} {
		if owed := time.Duration(c.now - since(&k, c.now, c.away)); owed != c.want {
			t.Errorf("%v after boot, away for %v: %v are owed, want %v", time.Duration(c.now), c.away, owed, c.want)
		}
	}
}

// TestABudgetComesFromItsWallet and what is left of it goes back; a user's own pays
// for nobody else.
func TestABudgetComesFromItsWallet(t *testing.T) {
	s := join(t, Settings{})
	c := line(t, s)
	if _, err := c.CreateWallet(t.Context(), &v1.CreateWalletRequest{Name: "team"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fund(t.Context(), &v1.FundRequest{Name: "team", AmountUcredits: 500e6}); err != nil {
		t.Fatal(err)
	}
	balance := func() int64 {
		t.Helper()
		r, err := c.ListWallets(t.Context(), &v1.ListWalletsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetWallets()[0].GetBalanceUcredits()
	}
	job := start(t, s, &v1.AdmitRequest{Name: "job", BudgetUcredits: 200e6, Wallet: "team"}, []string{"sleep", "1000"})
	if have := balance(); have != 300e6 {
		t.Errorf("the wallet has %d after it gave 200 of 500", have)
	}
	for want, req := range map[string]*v1.AdmitRequest{
		"of yours":              {Name: "x", Wallet: "nobodys"},
		"is a wallet's name":    {Name: "team"},
		"give less, or fund it": {Name: "x", BudgetUcredits: 400e6, Wallet: "team"},
		"taken by a workload":   {Name: "job", Wallet: "team"},
		"is a workload's":       nil,
		"draws from wallet":     {Name: "drawing", Wallet: "team"},
		"no workload or wallet": {},
	} {
		var err error
		switch want {
		case "is a workload's":
			_, err = c.CreateWallet(t.Context(), &v1.CreateWalletRequest{Name: "job"})
		case "draws from wallet":
			r := start(t, s, req, []string{"sleep", "1000"})
			if w := used(t, s)["drawing"]; w.GetWallet() != "team" || !w.GetDraws() || w.GetOpen() {
				t.Errorf("drawing is %v", w)
			}
			_, err = c.Fund(t.Context(), &v1.FundRequest{Name: "drawing", AmountUcredits: 1})
			if err := r.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-r.Done()
		case "no workload or wallet":
			_, err = c.Transfer(t.Context(), &v1.TransferRequest{From: "team", To: "nobody", AmountUcredits: 1})
		default:
			_, err = s.Start(t.Context(), Workload{Terms: req, Spec: launch.Spec{Args: []string{"true"}}})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", req, err, want)
		}
	}
	if _, err := c.Transfer(t.Context(), &v1.TransferRequest{From: "team", To: "job", AmountUcredits: 50e6}); err != nil {
		t.Fatal(err)
	}
	if err := job.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	out, err := job.Result()
	if err != nil {
		t.Fatal(err)
	}
	spent := int64(0)
	for _, w := range used(t, s) {
		spent += w.GetSpentUcredits()
	}
	if have := balance(); have != 500e6-spent {
		t.Errorf("the wallet has %d of 500 after %d were spent: %v", have, spent, out)
	}
}

// TestReopenedOnAnotherBoot: parents first, with what came in meanwhile.
func TestReopenedOnAnotherBoot(t *testing.T) {
	for _, sameBoot := range []bool{true, false} {
		k, _, err := takeKeeper(filepath.Join(t.TempDir(), "books.sqlite"))
		if err != nil {
			t.Fatal(err)
		}
		m := &Market{loop: &loop{clock: newClock()}}
		now := m.loop.clock.Now()
		m.loop.demon = demon.New(demon.Config{Cores: 1000, Reference: 10_000_000}, now)
		second := unit.Allowance{Amount: 1e6, Every: time.Second}
		const uptime = unit.Instant(1e18) // of the boot before: thirty years
		for _, s := range []demon.SavedWallet{
			{Name: "a", Parent: "z", Allowance: second, Since: uptime - 10e9}, {Name: "z", Allowance: second, Since: uptime - 10e9},
		} {
			k.hand(nil, note{ref: journal.Ref{Kind: ofWallet, Key: s.Name}, uid: 7, wall: time.Now().Add(-time.Minute), body: &keptWallet{Saved: s, At: uptime}})
		}
		if err := k.write(); err != nil {
			t.Fatal(err)
		}
		if err := m.reopenWallets(&past{keeper: k, boot: sameBoot}); err != nil {
			t.Fatal(err)
		}
		m.loop.demon.RefillWallets(now)
		least, most := 69*unit.Credits(1e6), 71*unit.Credits(1e6)
		if sameBoot { // its clock is not believed
			least, most = 0, 0
		}
		lines := m.loop.demon.Wallets()
		if len(lines) != 2 || lines[0].Name != "z" || lines[1].Balance < least || lines[1].Balance > most {
			t.Errorf("same boot %v: %+v, want %v", sameBoot, lines, least)
		}
		if w, known := m.walletNamed("a"); !known || w.owner != 7 {
			t.Errorf("it belongs to %v", w)
		}
		if err := k.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOneThatDoesNotFitStopsNobody: a workload whose books do not fit, or whose wallet's
// terms changed, does not keep a daemon from starting.
func TestOneThatDoesNotFitStopsNobody(t *testing.T) {
	nap := []string{"sleep", "30"} // also where nobody ends it
	d := startLasting(t)
	d.create(&v1.CreateWalletRequest{Name: "org"})
	d.fund("org", 1000e6)
	allowance := &v1.CreateWalletRequest{Name: "paid", Parent: "org", AllowanceUcredits: 500e6, AllowanceEveryNs: int64(time.Second)}
	d.create(allowance)
	s, err := Join(t.Context(), JoinOptions{Dir: d.dir, Daemon: filepath.Join(d.dir, SocketName), Client: "test"})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range s.Events() { //nolint:revive // a stream nobody reads would fill up
		}
	}()
	start(t, s, &v1.AdmitRequest{Name: "auto", Wallet: "paid", Auto: true, BidMilli: 2000}, nap)
	start(t, s, &v1.AdmitRequest{Name: "odd", Wallet: "org", BudgetUcredits: 100e6, BidMilli: 2000}, nap)
	d.create(&v1.CreateWalletRequest{Name: "paid", Change: true})
	d.end(syscall.SIGKILL)
	db, err := sql.Open("sqlite", filepath.Join(d.dir, "journal.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	done, err := db.Exec(`UPDATE document SET body = CAST(json_set(body, '$.saved.balance_ucredits', 1) AS BLOB) WHERE kind = 'workload' AND json_extract(body, '$.saved.terms.name') = 'odd'`)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := done.RowsAffected(); n != 1 {
		t.Fatalf("%d documents changed", n)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	d.start()
	r, err := d.line().Snapshot(t.Context(), &v1.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var living []string
	for _, w := range r.GetSnapshot().GetWorkloads() {
		living = append(living, w.GetName())
	}
	if !slices.Equal(living, []string{"auto"}) {
		t.Errorf("living: %v%s", living, logOf(d.dir))
	}
	if !strings.Contains(logOf(d.dir), "written off") {
		t.Errorf("nobody is told%s", logOf(d.dir))
	}
	receipts, err := d.line().Receipts(t.Context(), &v1.ReceiptsRequest{})
	if err != nil || !strings.Contains(receipts.String(), "odd") || !strings.Contains(receipts.String(), "lost") {
		t.Errorf("no receipt: %v %v", receipts, err)
	}
	if err := s.Stop(t.Context(), "", true); err != nil {
		t.Error(err)
	}
}

// TestAGuestsPastIsNobodysBill: what a group used before it was attached is not billed
// after a restart, whatever moment its daemon died at: its first document has what it is
// counted from, and one without is counted from now.
func TestAGuestsPastIsNobodysBill(t *testing.T) {
	roots, err := host.Open()
	if err != nil {
		t.Fatal(err)
	}
	layout, err := host.Discover(roots)
	if err != nil || layout.V2.Mount == "" {
		hosttest.Skip(t, "cgroup v2", "guests are groups of it")
	}
	d := startLasting(t)
	group := filepath.Join(layout.V2.Mount, filepath.Base(d.dir))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	busy := exec.Command("sh", "-c", `read go; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; exec sleep 60`)
	in, err := busy.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := busy.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = busy.Process.Kill()
		_ = busy.Wait()
		_ = os.Remove(group)
	})
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(busy.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(said, err)
	}
	_, err = d.line().Attach(t.Context(), &v1.AttachRequest{
		Group: &v1.AttachRequest_Cgroup{Cgroup: "/" + filepath.Base(group)}, Enforce: "observe", Terms: &v1.AdmitRequest{Name: "guest"},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.end(syscall.SIGKILL)
	db, err := sql.Open("sqlite", filepath.Join(d.dir, "journal.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	var base, id int64
	if err := db.QueryRow(`SELECT json_extract(body, '$.base_ns'), json_extract(body, '$.group_id') FROM document WHERE kind = 'workload'`).Scan(&base, &id); err != nil || base == 0 || id == 0 {
		t.Errorf("its document is from before it was metered: base %d, group %d, %v", base, id, err)
	}
	if _, err := db.Exec(`UPDATE document SET body = CAST(json_remove(body, '$.base_ns', '$.group_id') AS BLOB) WHERE kind = 'workload'`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	d.start()
	r, err := d.line().Snapshot(t.Context(), &v1.SnapshotRequest{})
	if err != nil || len(r.GetSnapshot().GetWorkloads()) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	if w := r.GetSnapshot().GetWorkloads()[0]; w.GetReadoptedCpuNs() >= base/2 || w.GetCpuNs() >= base/2 {
		t.Errorf("billed for %v of %v that it had used before", time.Duration(w.GetCpuNs()), time.Duration(base))
	}
}
