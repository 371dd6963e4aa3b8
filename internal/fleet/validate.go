package fleet

import (
	"fmt"
	"io/fs"
	"strings"
	"time"
	"unicode"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Problem is one thing wrong with one field of a workload. Flags and files
// print it differently (--max-bid, max_bid), so the field is kept apart.
type Problem struct {
	Field  string // key as in a fleet file; empty for the whole workload
	Text   string // what was written; empty if the fault is an absence
	Reason string
	Fix    string
}

// Error is the problem on one line, without its place.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Text != "" {
		fmt.Fprintf(&b, "%q: ", p.Text)
	}
	b.WriteString(p.Reason)
	if p.Fix != "" {
		b.WriteString("; ")
		b.WriteString(p.Fix)
	}
	return b.String()
}

// Flag is the problem's field as a flag name, "" when it has none.
func (p *Problem) Flag() string {
	if p.Field == "" || p.Field == "command" {
		return ""
	}
	return "--" + strings.ReplaceAll(p.Field, "_", "-")
}

// Fill sets what follows from other fields: an automatic bid with a budget
// and no horizon is spread over the default one.
func (w *Workload) Fill() {
	if w.Bid.Auto && w.Budget > 0 && w.Rate == 0 && w.Horizon == 0 {
		w.Horizon = DefaultHorizon
	}
}

// Validate reports the first thing that cannot work whatever the machine is.
func (w *Workload) Validate() *Problem {
	if p := CheckName(w.Name); p != nil {
		return p
	}
	if p := checkCommand(w.Command); p != nil {
		return p
	}
	if p := w.checkMoney(); p != nil {
		return p
	}
	return w.checkCaps()
}

func (w *Workload) checkMoney() *Problem {
	if w.Wallet != "" {
		if _, err := ParseWallet(w.Wallet); err != nil {
			return &Problem{Field: "wallet", Text: w.Wallet, Reason: "not a wallet's name", Fix: walletFix}
		}
	}
	switch {
	case w.Budget < 0:
		return &Problem{Field: "budget", Text: w.Budget.String(), Reason: "a budget is above zero", Fix: "leave it out for an open wallet"}
	case w.Bid.Auto && w.Open() && w.Rate == 0:
		return &Problem{Field: "bid", Text: "auto", Reason: "an automatic bid paces a sum of money and there is none", Fix: "add a budget, a wallet or a rate"}
	case !w.Bid.Auto && w.Bid.Price <= 0:
		return &Problem{Field: "bid", Text: w.Bid.Price.String(), Reason: "a bid is above zero", Fix: "1x is the base price, the default is " + DefaultBid.String()}
	case w.MaxBid <= 0:
		return &Problem{Field: "max_bid", Text: w.MaxBid.String(), Reason: "a bid is above zero", Fix: "the default is " + DefaultMaxBid.String()}
	case w.Rate < 0:
		return &Problem{Field: "rate", Text: w.Rate.String(), Reason: "a rate is above zero", Fix: "write 16/s"}
	case w.Horizon != 0 && w.Horizon < MinHorizon:
		return &Problem{Field: "horizon", Text: w.Horizon.String(), Reason: "pacing needs at least 5 s to settle", Fix: "write 5s or more"}
	case w.Horizon != 0 && w.Open():
		return &Problem{Field: "horizon", Text: w.Horizon.String(), Reason: "a horizon spreads a budget and there is none", Fix: "add a budget, or use rate"}
	case w.Horizon != 0 && w.Rate != 0:
		return &Problem{Field: "rate", Text: w.Rate.String(), Reason: "rate and horizon both pace the budget", Fix: "keep one of them"}
	case (w.Income.Per == "") != (w.Income.Amount == 0):
		return &Problem{Field: "income", Reason: "income needs both per and amount", Fix: "write {per: prime-batch, amount: 10}"}
	}
	return nil
}

func (w *Workload) checkCaps() *Problem {
	caps := []struct {
		field    string
		negative bool
	}{
		{"timeout", w.Timeout < 0},
		{"cores", w.Cores < 0},
		{"memory", w.Memory < 0},
		{"pids", w.Pids < 0},
		{"max_energy", w.MaxEnergy < 0},
		{"max_cpu", w.MaxCPU < 0},
		{"grace", w.Grace < 0},
	}
	for _, c := range caps {
		if c.negative {
			return &Problem{Field: c.field, Reason: "a cap is above zero", Fix: "leave it out for no limit"}
		}
	}
	if w.Replicas < 0 || w.Replicas > MaxReplicas {
		return &Problem{Field: "replicas", Text: fmt.Sprint(w.Replicas), Reason: "replicas are 1 to 100000"}
	}
	return nil
}

func checkCommand(command []string) *Problem {
	if len(command) == 0 || command[0] == "" {
		return &Problem{Field: "command", Reason: "the command is empty", Fix: `write it as a list: [sleep, "5"]`}
	}
	for _, word := range command {
		if strings.ContainsRune(word, 0) {
			return &Problem{Field: "command", Text: word, Reason: "a word of a command cannot hold a NUL byte"}
		}
	}
	return nil
}

// CheckName says why a name cannot be a wallet's name. Names become
// directory entries and words of the shell, so they are kept plain.
func CheckName(name string) *Problem {
	bad := func(reason string) *Problem {
		return &Problem{Field: "name", Text: name, Reason: reason, Fix: "use letters, digits, '-' and '_', at most 63, starting with a letter or digit"}
	}
	if name == "" {
		return &Problem{Field: "name", Reason: "the name is empty", Fix: "use letters, digits, '-' and '_'"}
	}
	if len(name) > maxName {
		return bad("the name is too long")
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if letter || i > 0 && (c == '-' || c == '_') {
			continue
		}
		return bad("the name holds a character that a name cannot hold")
	}
	return nil
}

const walletFix = "maxwell wallet ls lists yours"

// ParseWallet reads the name of a standing wallet.
func ParseWallet(text string) (string, error) {
	if CheckName(text) != nil {
		return "", &Problem{Text: text, Reason: "not a wallet's name", Fix: walletFix}
	}
	return text, nil
}

// NameFor makes a valid name of a command's first word: its last path
// element, with everything a name cannot hold turned into '-'.
func NameFor(command string) string {
	base := command[strings.LastIndexByte(command, '/')+1:]
	name := strings.Map(func(r rune) rune {
		switch {
		case r > unicode.MaxASCII:
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return r
		}
		return '-'
	}, base)
	name = strings.Trim(name, "-_")
	if len(name) > maxName {
		name = name[:maxName]
	}
	if name == "" {
		return "run"
	}
	return name
}

// Caller is who asks for a fleet file to be run. Behind sudo the invoking
// user's ids are trusted too: the file is theirs and so is the password.
type Caller struct {
	UID              int
	SudoUID, SudoGID int // -1 when not behind sudo
}

// Trusted says why a fleet file may not be run. A fleet file names commands
// that run as the caller, so root refuses one that somebody else can write.
func Trusted(file string, mode fs.FileMode, owner, group int, caller Caller) error {
	return caller.Trusts(file, mode, owner, group, "its commands would run as root")
}

// Trusts says why root may not believe a file: somebody else can write it. The
// stake is what that somebody would decide.
func (c Caller) Trusts(file string, mode fs.FileMode, owner, group int, stake string) error {
	if c.UID != 0 {
		return nil
	}
	writers := ""
	switch {
	case owner != 0 && owner != c.SudoUID:
		return fmt.Errorf("%s: it belongs to uid %d and %s; chown root %s", file, owner, stake, file)
	case mode.Perm()&0o002 != 0:
		writers = "everybody"
	case mode.Perm()&0o020 != 0 && group != 0 && group != c.SudoGID:
		writers = fmt.Sprintf("group %d", group)
	}
	if writers != "" {
		return fmt.Errorf("%s: %s may write it (mode %04o) and %s; chmod go-w %s", file, writers, mode.Perm(), stake, file)
	}
	return nil
}

// maxDuration holds for every duration a person writes: more than a century
// is a slip of the unit.
const maxDuration = 100 * 365 * 24 * time.Hour

func checkDuration(field, text string, d time.Duration) *Problem {
	if d > maxDuration {
		return &Problem{Field: field, Text: text, Reason: "more than a century", Fix: "write 10m, 2h or 500ms"}
	}
	return nil
}

// maxCores is far above any machine: a larger number is a slip.
const maxCores unit.MilliCores = 1_000_000_000
