package report

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Explanation is why one workload gets what it gets, as the market says it.
type Explanation struct {
	Mode

	Now      time.Time // when it is told
	Verdict  string    // a word of the API: outbid, wallet, pacing...
	Live     Live
	MaxBid   unit.Price // of a bid that the market makes
	Rate     unit.Spend // that it was told to spend at most
	Horizon  time.Duration
	CoresCap unit.MilliCores // its --cores; 0 = none
	Remedy   string          // of a dead one
	Price    Price

	Wanted  unit.MilliCores
	Got     unit.MilliCores
	Needed  unit.Price // 0 = no bid would help
	Rank    int
	Ranked  int
	Reserve unit.Price
	Lasts   time.Duration // 0 = not limited
	Paced   unit.Spend
	Supply  unit.MilliCores
	Others  unit.MilliCores
}

// explainWidth is where the lines break: every terminal has as many columns.
const explainWidth = 80

// WriteText writes the verdict, what would help, and the figures.
func (x *Explanation) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, line := range wrap(x.verdict(), "  ") {
		b.WriteString(line + "\n")
	}
	for _, h := range x.help() {
		h.write(&b)
	}
	if x.living() {
		for _, row := range x.figures() {
			for _, line := range wrap(row, "         ") {
				b.WriteString(line + "\n")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Commands are what would help, for programs; what only a person can do is not
// among them.
func (x *Explanation) Commands() []string {
	commands := []string{}
	for _, h := range x.help() {
		if h.command != "" {
			commands = append(commands, h.command)
		}
	}
	return commands
}

// explanationJSON is the document of `explain --json`.
type explanationJSON struct {
	Name     string          `json:"name"`
	Verdict  string          `json:"verdict"`
	Summary  string          `json:"summary"`
	Help     []string        `json:"help"` // commands that would help
	Wanted   unit.MilliCores `json:"wanted_milli"`
	Got      unit.MilliCores `json:"got_milli"`
	Bid      unit.Price      `json:"bid_x_milli"`
	Needed   unit.Price      `json:"needed_bid_x_milli"` // 0: no bid would help
	Rank     int             `json:"rank"`
	Ranked   int             `json:"ranked"`
	Reserve  unit.Price      `json:"reserve_x_milli"`
	Lasts    time.Duration   `json:"lasts_ns"` // 0: not limited
	Paced    unit.Spend      `json:"paced_ucredits_per_s"`
	Supply   unit.MilliCores `json:"supply_milli"`
	Others   unit.MilliCores `json:"others_milli"`
	Price    Price           `json:"price"`
	Workload Workload        `json:"workload"`

	Mode
}

// WriteJSON writes the explanation as one object and a newline.
func (x *Explanation) WriteJSON(w io.Writer) error {
	return writeJSON(w, &explanationJSON{
		Mode: x.Mode, Name: x.Live.Name, Verdict: x.Verdict, Summary: x.verdict(), Help: x.Commands(),
		Wanted: x.Wanted, Got: x.Got, Bid: x.Live.Bid, Needed: x.Needed, Rank: x.Rank, Ranked: x.Ranked,
		Reserve: x.Reserve, Lasts: x.Lasts, Paced: x.Paced, Supply: x.Supply, Others: x.Others,
		Price: x.Price, Workload: x.Live.Workload,
	})
}

// living says that the figures of the market still concern it.
func (x *Explanation) living() bool { return x.Verdict != "dead" && x.Verdict != "dying" }

// verdict is the first line: what is so, in plain words, with the figures that
// make it so.
func (x *Explanation) verdict() string {
	name, got := printable(x.Live.Name), x.got()
	switch x.Verdict {
	case "outbid":
		if x.Price.Spot > x.Live.Bid {
			return fmt.Sprintf("%s is outbid: it bids %s, the last core-second went for %s; %s", name, x.Live.Bid.Short(), x.Price.Spot.Short(), got)
		}
		return fmt.Sprintf("%s is outbid: it bids %s, and others bid more; %s", name, x.Live.Bid.Short(), got)
	case "rationed":
		return fmt.Sprintf("%s shares what is left with equal bids: it bids %s; %s", name, x.Live.Bid.Short(), got)
	case "below-reserve":
		return fmt.Sprintf("%s is held: it bids %s, less than the %s that its own energy costs", name, x.Live.Bid.Short(), x.Reserve.Short())
	case "wallet":
		return fmt.Sprintf("%s is short of money: its %s do not cover what it wants; %s", name, x.Live.Balance.Short(), got)
	case "pacing":
		return fmt.Sprintf("%s saves its money: to last for its horizon%s it may spend %s; %s", name, x.horizon(), x.Paced.Short(), got)
	case "rate":
		return fmt.Sprintf("%s is held back by its own rate of %s; %s", name, x.Paced.Short(), got)
	case "machine":
		return fmt.Sprintf("%s waits for the machine: programs outside of the market take %s; %s", name, coresShort(x.Others), got)
	case "watts":
		return fmt.Sprintf("%s is limited by the watt budget of the market; %s", name, got)
	}
	return x.verdictAtRest(name, got)
}

// verdictAtRest are the first lines in which no price decides.
func (x *Explanation) verdictAtRest(name, got string) string {
	switch x.Verdict {
	case "served":
		if x.late() {
			return fmt.Sprintf("%s is served: the market grants it all it wants, %s; it got %s just now", name, coresShort(x.Wanted), coresFigure(x.Got))
		}
		return name + " is served: " + got
	case "cores":
		if x.CoresCap > 0 && x.Wanted >= x.CoresCap-x.CoresCap/10 {
			return fmt.Sprintf("%s gets all it asks for: %s, the most that its --cores allows", name, coresShort(x.Got))
		}
		return fmt.Sprintf("%s gets all it asks for: %s, one for each busy thread", name, coresShort(x.Got))
	case "idle":
		return name + " does not want to run: it sleeps, or waits for input or a disk"
	case "suspended":
		return name + " is suspended by its owner (^Z)"
	case "starting":
		return name + " has not begun to run"
	case "broke":
		return fmt.Sprintf("%s is broke: it spent %s and is stopped; it ends soon unless it is funded", name, x.Live.Spent.Short())
	case "paused":
		return fmt.Sprintf("%s is broke and paused: it spent %s, and waits until it is funded", name, x.Live.Spent.Short())
	case "dying":
		return name + " is being stopped" + x.reason()
	case "dead":
		return name + " is dead" + x.reason()
	case "observed":
		text := name + " is only observed: the market counts what it uses and limits nothing"
		if x.Enforce == warnedOnly {
			text = name + " is only warned: the market counts what it uses, says what it would do, and limits nothing"
		}
		if when, is := x.would(x.Now); is {
			text += "; it would have been stopped at " + when
		}
		return text
	}
	return name + " is " + printable(x.Verdict)
}

func (x *Explanation) reason() string {
	if x.Live.Reason == "" {
		return ""
	}
	return ": " + printable(x.Live.Reason)
}

// late says that enforcement has not delivered what was granted, by more than
// one round may miss.
func (x *Explanation) late() bool { return x.Got < x.Wanted*9/10 }

func (x *Explanation) horizon() string {
	if x.Horizon <= 0 {
		return ""
	}
	return " of " + unit.ShortDuration(x.Horizon)
}

func (x *Explanation) got() string {
	return fmt.Sprintf("it got %s of the %s cores it wants", coresFigure(x.Got), coresFigure(max(x.Wanted, x.Got)))
}

// coresFigure is a number of cores with one decimal, or two below a tenth.
func coresFigure(c unit.MilliCores) string {
	if c > 0 && c < 95 {
		return fmt.Sprintf("0.%02d", (c+5)/10)
	}
	c = (c + 50) / 100
	return fmt.Sprintf("%d.%d", c/10, c%10)
}

func coresShort(c unit.MilliCores) string {
	if figure := coresFigure(c); figure != "1.0" {
		return figure + " cores"
	}
	return "1.0 core"
}

// advice is one thing that would help: a command with what it does, or a
// sentence alone.
type advice struct{ command, text string }

func (h advice) write(b *strings.Builder) {
	if h.command == "" {
		for _, line := range wrap("  "+h.text, "  ") {
			b.WriteString(line + "\n")
		}
		return
	}
	line := "  " + h.command
	if utf8.RuneCountInString(line)+4+utf8.RuneCountInString(h.text) <= explainWidth {
		b.WriteString(line + "    " + h.text + "\n")
		return
	}
	b.WriteString(line + "\n")
	for _, line := range wrap("      "+h.text, "      ") {
		b.WriteString(line + "\n")
	}
}

// help is what would make it faster, the most useful first.
func (x *Explanation) help() []advice {
	name := quoteWord(printable(x.Live.Name))
	fund := advice{command: fmt.Sprintf("maxwell fund %s %s", name, typed(FundFor(x.Live.Budget+x.Live.Income)))}
	switch x.Verdict {
	case "outbid", "rationed", "below-reserve":
		return x.helpBid(name)
	case "wallet":
		fund.text = "so that its money covers it"
		return []advice{fund, {text: "a higher bid would make it worse: it pays more for each core-second"}}
	case "pacing":
		fund.text = "more to spend until the same end"
		return []advice{fund, {text: "or nothing, if its money has to last that long"}}
	case "rate":
		return []advice{{text: "start it again with a higher --rate; money or a higher bid would not change it"}}
	case "broke", "paused":
		fund.text = "it runs on at once"
		return []advice{fund}
	case "machine":
		return []advice{{text: "end those programs, or start them in the market: maxwell run -- COMMAND"}}
	case "watts":
		return []advice{{text: "a higher watt budget (node: {watts: N} in the fleet file); no bid helps"}}
	case "served", "cores", "idle":
		return x.helpContent()
	case "observed":
		if x.WouldStill && x.WouldReason == "insolvent" {
			fund.text = "and it would run again"
			return []advice{fund}
		}
	case "suspended":
		return []advice{{text: "fg, in the terminal that started it"}}
	case "dead":
		if x.Remedy != "" {
			return []advice{{text: "next time: " + printable(x.Remedy)}}
		}
	}
	return nil
}

// helpBid proposes a bid a tenth above the one that would have been enough:
// others move too.
func (x *Explanation) helpBid(name string) []advice {
	if x.Needed == 0 {
		return []advice{{text: fmt.Sprintf("no bid would buy all of it: %s for sale", areForSale(x.Supply))}}
	}
	bid := (x.Needed + x.Needed/10 + 99) / 100 * 100
	enough := fmt.Sprintf("%s would have been enough just now", roundedUp(x.Needed).String())
	if x.Live.Auto {
		return []advice{{fmt.Sprintf("maxwell bid %s auto --max-bid %s", name, bid.String()), enough}}
	}
	return []advice{{fmt.Sprintf("maxwell bid %s %s", name, bid.String()), enough}}
}

// roundedUp keeps a bid that is enough enough when it is shown with two
// decimals.
func roundedUp(p unit.Price) unit.Price { return (p + 9) / 10 * 10 }

func (x *Explanation) helpContent() []advice {
	switch {
	case x.Verdict == "served" && x.late():
		return []advice{{text: "ask again: enforcement follows within a second or two"}}
	case x.Verdict == "cores" && x.CoresCap > 0 && x.Wanted >= x.CoresCap-x.CoresCap/10:
		return []advice{{text: "start it again with a higher --cores; no bid and no money would make it faster"}}
	case x.Verdict == "cores":
		return []advice{{text: "more threads, if it can use them; no bid and no money would make it faster"}}
	}
	return []advice{{text: "nothing to do here: if it is slow, Maxwell is not the reason"}}
}

// figures are the lines under the advice: price, cores, money.
func (x *Explanation) figures() []string {
	bid := x.Live.Bid.Short()
	if x.Live.Auto {
		bid = "auto, now " + bid
		if x.MaxBid > 0 {
			bid += " of at most " + x.MaxBid.Short()
		}
	}
	price := fmt.Sprintf("  price  bid %s, spot %s, its own energy %s", bid, x.Price.Spot.Short(), x.Reserve.Short())
	if x.Rank > 0 {
		price += fmt.Sprintf("; rank %d of %d that want to run", x.Rank, x.Ranked)
	}
	cores := fmt.Sprintf("  cores  got %s of %s wanted; %s for sale", coresFigure(x.Got), coresFigure(max(x.Wanted, x.Got)), coresFigure(x.Supply))
	if x.Others > 0 {
		cores += fmt.Sprintf(", %s taken by other programs", coresFigure(x.Others))
	}
	return []string{price, cores, "  money  " + x.money()}
}

// areForSale is an amount of cores with its verb.
func areForSale(c unit.MilliCores) string {
	if text := coresShort(c); strings.HasSuffix(text, "core") {
		return text + " is"
	}
	return coresShort(c) + " are"
}

func (x *Explanation) money() string {
	if x.Live.Open && x.Paced == 0 {
		return "no budget: never broke"
	}
	var text string
	if x.Live.Open {
		text = "no budget"
	} else {
		text = x.Live.Balance.Short() + " left"
		if x.Lasts > 0 {
			text += ", enough for " + about(x.Lasts) + " at this rate"
		}
	}
	if x.Paced > 0 {
		text += "; paced to " + x.Paced.Short()
	}
	return text
}

// about is a time that need not be exact: whole seconds, minutes, hours, days.
func about(d time.Duration) string {
	switch day := 24 * time.Hour; {
	case d >= 3*day:
		return fmt.Sprintf("%s days", grouped(int64(d/day)))
	case d >= 10*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return seconds(d)
}

// wrap breaks a line at blanks so that it fits; later lines begin with indent.
// A word that is too long stays whole: it may be a name to copy.
func wrap(line, indent string) []string {
	var lines []string
	for utf8.RuneCountInString(line) > explainWidth {
		at := -1
		for i, columns := len(indent), utf8.RuneCountInString(line[:len(indent)]); i < len(line); {
			_, size := utf8.DecodeRuneInString(line[i:])
			if line[i] == ' ' && strings.TrimSpace(line[:i]) != "" {
				if columns > explainWidth && at >= 0 {
					break
				}
				at = i
				if columns > explainWidth {
					break
				}
			}
			i += size
			columns++
		}
		if at < 0 {
			break
		}
		lines = append(lines, line[:at])
		line = indent + strings.TrimLeft(line[at:], " ")
	}
	return append(lines, line)
}
