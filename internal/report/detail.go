package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Detail is a workload with all that its market knows about it: an element of
// `ps --json`.
type Detail struct {
	Workload
	Mode

	ID           string           `json:"id"`
	UID          uint32           `json:"uid"`
	Client       string           `json:"client"` // the verb that started it
	Command      []string         `json:"command"`
	Log          string           `json:"log"` // file with the command's output; "" if none is kept
	Admitted     int64            `json:"admitted_wall_ns"`
	Ended        int64            `json:"ended_wall_ns"` // 0 while it lives
	Alive        time.Duration    `json:"alive_ns"`
	Retryable    bool             `json:"retryable"`
	Remedy       string           `json:"remedy"`
	Refusal      string           `json:"refusal"` // why it gets less than it asks for
	Bid          unit.Price       `json:"bid_x_milli"`
	Auto         bool             `json:"auto"`
	MaxBid       unit.Price       `json:"max_bid_x_milli"`
	Rate         unit.Spend       `json:"rate_ucredits_per_s"`
	Horizon      time.Duration    `json:"horizon_ns"`
	CoresNow     unit.MilliCores  `json:"cores_now_milli"`
	Power        unit.Microwatts  `json:"power_uw"`
	Cores        unit.MilliCores  `json:"cores_milli"` // caps from here on; 0 is none
	MaxCPU       unit.CoreTime    `json:"max_cpu_ns"`
	MaxEnergy    unit.Microjoules `json:"max_energy_uj"`
	Memory       unit.Bytes       `json:"memory_bytes"`
	Pids         int64            `json:"pids"`
	SpotPeak     unit.Price       `json:"spot_peak_x_milli"`
	ReadoptedCPU unit.CoreTime    `json:"readopted_cpu_ns"` // used while the market was away
	Readopted    unit.Credits     `json:"readopted_ucredits"`
}

// Dead says that the workload is gone and paid for.
func (d *Detail) Dead() bool { return d.State == "dead" }

// WriteJSON writes the workload as one line.
func (d *Detail) WriteJSON(w io.Writer) error {
	c := *d
	if c.Command == nil {
		c.Command = []string{}
	}
	return WriteLine(w, &c)
}

// WriteDetails writes workloads as one object: {"workloads":[...]}.
func WriteDetails(w io.Writer, list []Detail) error {
	out := make([]Detail, len(list))
	copy(out, list)
	for i := range out {
		if out[i].Command == nil {
			out[i].Command = []string{}
		}
	}
	return WriteLine(w, map[string]any{"workloads": out})
}

// WriteLine writes a document as JSON on one line.
func WriteLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// processColumns of `ps`. On 80 columns the joules, the watts and how long it
// lives give way to what it runs and what it can still pay.
var processColumns = []column{
	{head: "NAME", gives: true},
	{head: "STATE"},
	{head: "BID", right: true, rank: 5},
	{head: "PRICE", right: true, rank: 2},
	{head: "CORES", right: true, rank: 3},
	{head: "WATTS", right: true, rank: 8},
	{head: "JOULES", right: true, rank: 7},
	{head: "$J LEFT", right: true, rank: 1},
	{head: "UPTIME", right: true, rank: 6},
	{head: "COMMAND", rank: 4},
}

// Processes is the table of `ps`: the living, then the dead, each in the order
// given. No line is wider than width; 0 is no limit. now gives the zone, and the day
// that need not be said.
func Processes(list []Detail, width int, now time.Time) []string {
	rows := make([][]string, 0, len(list))
	columns := processColumns
	would := slices.ContainsFunc(list, func(d Detail) bool { _, is := d.would(now); return is && !d.Dead() })
	if would {
		columns = slices.Concat(processColumns[:2], []column{{head: "WOULD HAVE STOPPED", rank: 1}}, processColumns[2:])
	}
	for _, dead := range []bool{false, true} {
		for i := range list {
			if list[i].Dead() == dead {
				row := list[i].process()
				if would {
					row = slices.Insert(row, 2, list[i].wouldText(now))
				}
				rows = append(rows, row)
			}
		}
	}
	return fit(columns, rows, width)
}

// wouldText is when and why one that only is observed would have been stopped.
func (d *Detail) wouldText(now time.Time) string {
	if _, is := d.would(now); is && !d.Dead() {
		return clock(d.WouldAt, now) + " " + printable(d.WouldReason)
	}
	return "-"
}

func (d *Detail) process() []string {
	price, cores, power := d.LastPrice.Short(), strings.TrimSuffix(coresText(d.CoresNow), " cores"), strings.TrimSuffix(d.Power.Short(), " W")
	bid := d.bidText()
	if d.CoresNow == 0 {
		price = "-"
	}
	if d.Dead() {
		bid, cores, power, price = "-", "-", "-", "-"
	}
	return []string{
		printable(d.Name), d.stateText(), bid, price, cores, power,
		strings.TrimSuffix(d.Energy.Short(), " J"), d.leftText(), unit.ShortDuration(d.Alive.Round(time.Millisecond)),
		printable(ShellQuote(d.Command)),
	}
}

func (d *Detail) bidText() string {
	switch {
	case !d.Auto:
		return d.Bid.Short()
	case d.Bid == 0:
		return "auto"
	}
	return "auto " + d.Bid.Short()
}

// stateText is "running", "waiting, outbid" or "dead, insolvent (exit 122)".
func (d *Detail) stateText() string {
	text := d.State
	if d.free() && (text == "running" || text == "waiting") {
		return d.state() // it waits for nothing that the market says
	}
	switch {
	case d.Reason != "":
		text += ", " + d.Reason
	case d.Refusal != "" && d.State == "waiting":
		text += ", " + d.Refusal
	}
	if d.Dead() && d.ExitCode != nil {
		text += fmt.Sprintf(" (exit %d)", *d.ExitCode)
	}
	return printable(text)
}

// leftText is what is left in a wallet; an open one has no end.
func (d *Detail) leftText() string {
	switch {
	case d.Open:
		return "open"
	case d.Dead():
		return trimMoney(d.Budget + d.Income - d.Spent)
	}
	return trimMoney(d.Balance)
}
