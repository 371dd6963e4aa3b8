package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// document is what a reader of `up --json` relies on. It is declared here
// again, from the manual, and not taken from the program that writes it.
type document struct {
	Node struct {
		Enforcement  string  `json:"enforcement"`
		Source       string  `json:"energy_source"`
		Modelled     bool    `json:"modelled"`
		Sigma        float64 `json:"sigma"`
		Epochs       int64   `json:"epochs"`
		Energy       int64   `json:"energy_uj"`
		Attributed   int64   `json:"attributed_uj"`
		System       int64   `json:"system_uj"`
		Idle         int64   `json:"idle_uj"`
		Unattributed int64   `json:"unattributed_uj"`
	} `json:"node"`
	Price struct {
		Base int64 `json:"base_ucredits_per_core_s"`
	} `json:"price"`
	Workloads []wallet `json:"workloads"`
	Ledger    struct {
		Minted   int64            `json:"minted_ucredits"`
		Accounts map[string]int64 `json:"accounts"`
		Sum      int64            `json:"sum_ucredits"`
	} `json:"ledger"`
}

// wallet is one workload of a document.
type wallet struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	Reason   string `json:"reason"`
	ExitCode *int   `json:"exit_code"`
	Budget   int64  `json:"budget_ucredits"`
	Income   int64  `json:"income_ucredits"`
	Spent    int64  `json:"spent_ucredits"`
	Energy   int64  `json:"energy_ucredits"`
	Rent     int64  `json:"rent_ucredits"`
	Erasure  int64  `json:"erasure_ucredits"`
	Other    int64  `json:"other_ucredits"`
	Deposit  int64  `json:"deposit_ucredits"`
	Balance  int64  `json:"balance_ucredits"`
	Loss     int64  `json:"loss_ucredits"`
	Joules   int64  `json:"energy_uj"`
	CPU      int64  `json:"cpu_ns"`
	Work     int64  `json:"work"`
}

func parse(t testing.TB, text string) document {
	t.Helper()
	var d document
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("the document is not JSON: %v\n%s", err, text)
	}
	return d
}

// of is the wallet of one name.
func (d *document) of(t testing.TB, name string) wallet {
	t.Helper()
	for _, w := range d.Workloads {
		if w.Name == name {
			return w
		}
	}
	t.Fatalf("no workload %q in the document", name)
	return wallet{}
}

// kinds of JSON values that a key may hold.
const (
	text     = "text"
	whole    = "whole number"
	fraction = "number"
	flag     = "true or false"
	exit     = "whole number or null"
	table    = "object of whole numbers"
)

// promised is every key of the manual, by its place, and what it holds.
var promised = map[string]map[string]string{
	"node": {
		"enforcement": text, "energy_source": text, "modelled": flag, "sigma": fraction, "epochs": whole,
		"epoch_us": whole, "misdelivery_ppm": whole, "energy_uj": whole, "attributed_uj": whole,
		"system_uj": whole, "idle_uj": whole, "unattributed_uj": whole,
	},
	"price": {"base_ucredits_per_core_s": whole, "spot_x_milli": whole},
	"workloads": {
		"name": text, "state": text, "reason": text, "exit_code": exit, "child_exit": exit,
		"budget_ucredits": whole, "income_ucredits": whole, "spent_ucredits": whole, "energy_ucredits": whole,
		"rent_ucredits": whole, "erasure_ucredits": whole, "other_ucredits": whole, "deposit_ucredits": whole,
		"balance_ucredits": whole, "energy_uj": whole, "cpu_ns": whole, "wait_ns": whole, "erased_bytes": exit,
		"peak_memory_bytes": whole, "work": whole,
	},
	"ledger": {"minted_ucredits": whole, "accounts": table, "sum_ucredits": whole},
}

// missing lists the promised keys that an object lacks or holds otherwise.
func missing(place string, object map[string]any) []string {
	var faults []string
	for key, kind := range promised[place] {
		v, there := object[key]
		if !there || !isKind(v, kind) {
			faults = append(faults, fmt.Sprintf("%s.%s is %v (%T), want a %s", place, key, v, v, kind))
		}
	}
	return faults
}

func isKind(v any, kind string) bool {
	n, isNumber := v.(json.Number)
	isWhole := isNumber && !strings.ContainsAny(n.String(), ".eE")
	switch kind {
	case text:
		_, ok := v.(string)
		return ok
	case flag:
		_, ok := v.(bool)
		return ok
	case whole:
		return isWhole
	case fraction:
		return isNumber
	case exit:
		return v == nil || isWhole
	case table:
		object, ok := v.(map[string]any)
		for _, v := range object {
			ok = ok && isKind(v, whole)
		}
		return ok
	}
	return false
}

// checkKeys holds a document to the manual, key by key.
func checkKeys(t *testing.T, out string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(out))
	d.UseNumber()
	var root map[string]any
	must(t, d.Decode(&root))
	if d.More() {
		t.Error("standard output holds more than one object")
	}
	for _, place := range []string{"node", "price", "ledger"} {
		object, _ := root[place].(map[string]any)
		for _, fault := range missing(place, object) {
			t.Error(fault)
		}
	}
	list, _ := root["workloads"].([]any)
	if len(list) == 0 {
		t.Error("no workloads in the document")
	}
	for _, w := range list {
		object, _ := w.(map[string]any)
		for _, fault := range missing("workloads", object) {
			t.Errorf("%v: %s", object["name"], fault)
		}
	}
}

// identities holds a document to what must be true of every run, and to what
// cannot be true by construction.
func identities(t *testing.T, d *document) {
	t.Helper()
	n := &d.Node
	if got := n.Attributed + n.System + n.Idle + n.Unattributed; got != n.Energy {
		t.Errorf("attributed %d + system %d + idle %d + unattributed %d uJ = %d, the node burnt %d",
			n.Attributed, n.System, n.Idle, n.Unattributed, got, n.Energy)
	}
	limit := 0.01
	if n.Modelled {
		limit = max(limit, n.Sigma)
	}
	if got := float64(max(n.Unattributed, -n.Unattributed)); got > limit*float64(n.Energy) {
		t.Errorf("%d of %d uJ belong to nobody, more than %v", n.Unattributed, n.Energy, limit)
	}
	if n.Energy <= 0 || n.Attributed <= 0 || n.Epochs <= 0 {
		t.Errorf("nothing was measured: %d uJ, %d attributed, %d epochs", n.Energy, n.Attributed, n.Epochs)
	}
	var joules int64
	for i := range d.Workloads {
		solvent(t, &d.Workloads[i])
		joules += d.Workloads[i].Joules
	}
	if joules != n.Attributed {
		t.Errorf("the workloads burnt %d uJ, %d are attributed", joules, n.Attributed)
	}
	var sum int64
	for _, balance := range d.Ledger.Accounts {
		sum += balance
	}
	if sum != 0 || d.Ledger.Sum != 0 {
		t.Errorf("the accounts sum to %d, the ledger says %d", sum, d.Ledger.Sum)
	}
}

// solvent holds one wallet to its own arithmetic.
func solvent(t *testing.T, w *wallet) {
	t.Helper()
	if got := w.Energy + w.Rent + w.Erasure + w.Other; got != w.Spent {
		t.Errorf("%s: energy %d + rent %d + erasure %d + other %d = %d, spent %d",
			w.Name, w.Energy, w.Rent, w.Erasure, w.Other, got, w.Spent)
	}
	if w.Spent > w.Budget+w.Income {
		t.Errorf("%s: spent %d of budget %d and income %d", w.Name, w.Spent, w.Budget, w.Income)
	}
	if got := w.Spent + w.Balance + w.Deposit; got != w.Budget+w.Income {
		t.Errorf("%s: spent %d + balance %d + deposit %d = %d, had %d", w.Name, w.Spent, w.Balance, w.Deposit, got, w.Budget+w.Income)
	}
	if w.Balance < 0 || w.Deposit < 0 || w.CPU <= 0 || w.Joules <= 0 {
		t.Errorf("%s: balance %d, deposit %d, %d ns, %d uJ", w.Name, w.Balance, w.Deposit, w.CPU, w.Joules)
	}
}

// TestDocument runs a fleet in which one earns, some go broke and one sleeps,
// by each enforcement.
func TestDocument(t *testing.T) {
	t.Parallel()
	for _, enforce := range []string{"cgroup", "signal"} {
		t.Run(enforce, func(t *testing.T) {
			t.Parallel()
			needCgroups(t)
			file := writeFleet(t, `
node: {cores: 1, watts: 12}
workloads:
  scientist: {command: [maxwell, work, primes], budget: 30, bid: 2x, income: {per: prime-batch, amount: 10}}
  leech:     {command: [maxwell, work, hash], budget: 15, bid: 2x, replicas: 2, grace: 200ms}
  sleeper:   {command: [sh, -c, "while :; do sleep 0.2; done"]}
`)
			r := newPlace(t).run("up", file, "--for", "3s", "--json", "--enforcement", enforce)
			if r.code != 0 {
				t.Fatal(r)
			}
			checkKeys(t, r.stdout)
			d := parse(t, r.stdout)
			identities(t, &d)
			if d.Node.Enforcement != enforce {
				t.Errorf("enforcement %q, want %q", d.Node.Enforcement, enforce)
			}
			if len(d.Workloads) != 4 {
				t.Errorf("%d workloads, want 4", len(d.Workloads))
			}
			if s := d.of(t, "scientist"); s.Work == 0 || s.Income != s.Work*10_000_000 {
				t.Errorf("the scientist did %d units and earned %d micro-$J, at 10 $J a unit", s.Work, s.Income)
			}
		})
	}
}

// TestDocumentCheck breaks a document in each way that it is held to: a check
// that finds nothing proves nothing.
func TestDocumentCheck(t *testing.T) {
	t.Parallel()
	object := map[string]any{"base_ucredits_per_core_s": json.Number("1"), "spot_x_milli": json.Number("1000")}
	if faults := missing("price", object); len(faults) != 0 {
		t.Errorf("a right object is refused: %v", faults)
	}
	for name, v := range map[string]any{"text": "1000", "fraction": json.Number("1.5"), "null": nil} {
		object["spot_x_milli"] = v
		if len(missing("price", object)) != 1 {
			t.Errorf("%s passes for a whole number", name)
		}
	}
	delete(object, "spot_x_milli")
	if len(missing("price", object)) != 1 {
		t.Error("a missing key is not found")
	}
}
