package ledger

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt with what the ledger answers; read the diff")

// TestScripts runs the money stories of testdata. A block is commands, a line
// of four dashes, and what the ledger answered. `go test -update` rewrites the
// answers: then the diff is the review.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			have := runScript(string(want))
			if have == string(want) {
				return
			}
			if *update {
				if err := os.WriteFile(file, []byte(have), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("transcript differs (-want +have):\n%s", cmp.Diff(string(want), have))
		})
	}
}

// runScript returns the script with the answers of a new ledger.
func runScript(script string) string {
	s := &scriptRun{ledger: New(Config{Window: 64, Holds: 2, Accounts: 16}), names: map[string]ID{}}
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(script), "\n\n") {
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		commands, _, _ := strings.Cut(block+"\n", "----\n")
		out.WriteString(commands)
		if !onlyComments(commands) {
			out.WriteString("----\n" + s.block(commands))
		}
	}
	return out.String()
}

func onlyComments(text string) bool {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

type scriptRun struct {
	ledger *Ledger
	names  map[string]ID
	now    unit.Instant
}

// block runs the commands of one block. Lines joined by a trailing backslash
// are one chain.
func (s *scriptRun) block(commands string) string {
	var out strings.Builder
	var chain []Transfer
	for line := range strings.Lines(commands) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		linked := words[len(words)-1] == `\`
		if linked {
			words = words[:len(words)-1]
		}
		t, isTransfer := s.transfer(words)
		switch {
		case isTransfer && (linked || len(chain) > 0):
			if linked {
				t.Flags |= Linked
			}
			chain = append(chain, t)
			if !linked {
				out.WriteString(s.apply(chain))
				chain = nil
			}
		case isTransfer:
			fmt.Fprintln(&out, s.ledger.Apply(t))
		default:
			out.WriteString(s.other(words))
		}
	}
	if len(chain) > 0 {
		out.WriteString(s.apply(chain))
	}
	return out.String()
}

func (s *scriptRun) apply(chain []Transfer) string {
	answers := make([]Status, len(chain))
	s.ledger.ApplyAll(chain, answers)
	var out strings.Builder
	for _, a := range answers {
		fmt.Fprintln(&out, a)
	}
	return out.String()
}

// transfer reads `move ID FROM -> TO AMOUNT PURPOSE [hold [TIMEOUT]]`,
// `post ID HOLD AMOUNT` and `void ID HOLD`.
func (s *scriptRun) transfer(words []string) (Transfer, bool) {
	number := func(i int) uint64 {
		if i >= len(words) {
			return 0
		}
		n, err := strconv.ParseInt(words[i], 10, 64)
		if err != nil {
			panic(err)
		}
		return uint64(n)
	}
	switch words[0] {
	case "move":
		t := Transfer{
			ID: MakeID(0, number(1)), Debit: NameID(words[2]), Credit: NameID(words[4]),
			Amount: unit.Credits(number(5)), Code: purposeOf(words[6]), At: s.now,
		}
		if len(words) > 7 {
			t.Flags |= Pending
		}
		if len(words) > 8 {
			d, err := time.ParseDuration(words[8])
			if err != nil {
				panic(err)
			}
			t.Timeout = d
		}
		return t, true
	case "post", "void":
		t := Transfer{
			ID: MakeID(0, number(1)), PendingID: MakeID(0, number(2)), Amount: unit.Credits(number(3)),
			Flags: Post, At: s.now,
		}
		if words[0] == "void" {
			t.Flags = Void
		}
		return t, true
	}
	return Transfer{}, false
}

func purposeOf(word string) Purpose {
	for p := Purpose(1); p < purposes; p++ {
		if p.String() == word {
			return p
		}
	}
	return 0
}

func (s *scriptRun) other(words []string) string {
	switch words[0] {
	case "open":
		return s.ledger.Open(accountOf(words[1])).String() + "\n"
	case "forget":
		return s.ledger.Forget(NameID(words[1])).String() + "\n"
	case "at":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			panic(err)
		}
		s.now = unit.Instant(d)
		return ""
	case "expire":
		return fmt.Sprintf("%d released\n", s.ledger.Expire(s.now))
	case "books":
		return s.books()
	}
	return "unknown command " + words[0] + "\n"
}

func (s *scriptRun) books() string {
	var out strings.Builder
	for a := range s.ledger.Accounts() {
		fmt.Fprintf(&out, "%-16s %8d", a.Name, a.Balance())
		if held := s.ledger.Balance(a.ID) - s.ledger.Available(a.ID); held != 0 {
			fmt.Fprintf(&out, "  held %d", held)
		}
		out.WriteString("\n")
	}
	for k := Kind(1); k < kinds; k++ {
		if r := s.ledger.Retired(k); r.Accounts > 0 {
			fmt.Fprintf(&out, "%-16s %8s  turned over %v\n", fmt.Sprintf("%d x %v", r.Accounts, k), "gone", r.Debits)
		}
	}
	fmt.Fprintf(&out, "sum %d\n", s.ledger.Sum())
	return out.String()
}

func accountOf(name string) Account {
	kind, rest, _ := strings.Cut(name, ":")
	switch kind {
	case "mint":
		return Mint()
	case "wallet":
		return Wallet(rest)
	case "deposit":
		return Deposit(rest)
	case "heat":
		return Heat()
	case "entropy":
		return Entropy()
	case "treasury":
		return Treasury()
	case "system":
		return System()
	case "loss":
		return Loss()
	case "bond":
		return Bond(rest)
	case "lease":
		return Lease(rest)
	}
	return Account{}
}
