package apoptosis

import (
	"fmt"
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// State is where a workload is in its life.
type State uint8

// The states. They only go forward, but for running, waiting, broke and paused,
// which money moves both ways.
const (
	Pending State  = iota // admitted, no process yet
	Running               // its bid wins
	Waiting               // it is outbid
	Broke                 // frozen; ends at the deadline unless funded
	Paused                // frozen until funded
	Dying                 // in the lane between SIGTERM and SIGKILL, or killed and not yet empty
	Dead                  // for good
	states  = iota        // how many there are
)

var stateNames = [states]string{
	Pending: "pending", Running: "running", Waiting: "waiting", Broke: "broke",
	Paused: "paused", Dying: "dying", Dead: "dead",
}

// String is the state's word in tables and JSON.
func (s State) String() string {
	if int(s) >= states {
		return "unknown"
	}
	return stateNames[s]
}

// Choice is what happens to a workload that is broke.
type Choice uint8

// The choices of --when-broke.
const (
	Stop  Choice = iota // end it after the grace
	Pause               // keep it frozen until funded
)

// String is the choice's word on the command line.
func (c Choice) String() string {
	if c == Pause {
		return "pause"
	}
	return "stop"
}

// ParseChoice reads what String prints.
func ParseChoice(word string) (Choice, bool) {
	switch word {
	case "stop":
		return Stop, true
	case "pause":
		return Pause, true
	}
	return Stop, false
}

// Defaults of a policy.
const (
	// DefaultGrace is how long a broke workload may wait for money. The zero
	// Policy does not use it: a grace of 0 is a wish, not an absence.
	DefaultGrace = 10 * time.Second
	// DefaultTerm bounds the dying lane in wall time. Longer, and SIGTERM
	// handlers save more; shorter, and a deposit pays for more deaths.
	DefaultTerm = 250 * time.Millisecond
	// DefaultLaneTime bounds the dying lane in processor time, three times what
	// clean handlers were seen to need.
	DefaultLaneTime = unit.CoreTime(50 * time.Millisecond)
)

// Policy is what was agreed at admission. The zero value stops at once.
type Policy struct {
	WhenBroke Choice        `json:"when_broke"`
	Grace     time.Duration `json:"grace_ns"`     // from broke to dying; 0 = none, and no dying lane
	Term      time.Duration `json:"term_ns"`      // the dying lane lasts min(Grace, Term); 0 = DefaultTerm
	LaneTime  unit.CoreTime `json:"lane_time_ns"` // ... or this much processor time; 0 = DefaultLaneTime
}

// Input is what is known of a workload at one step.
type Input struct {
	Now       unit.Instant
	Solvent   bool // it can pay for its own energy, whatever others bid
	Winning   bool // it has or will have core time in this epoch, or wants none
	Populated bool // its group has a living process
	Started   bool // its first process was put into the group, now or before

	Spent, Budget unit.Credits // Budget 0 = open: no warnings

	LaneUsed unit.CoreTime // processor time since Term
	Trip     Reason        // an end decided outside (cap, timeout, heat, stop); else None

	ChildGone     bool // its first process has ended
	ChildSignaled bool // ... by a signal that Maxwell did not send
}

// Actions are things to do now: a set of bits.
type Actions uint16

// The actions, in the order in which they are carried out.
const (
	Warn80       Actions = 1 << iota // 80 % of the budget is spent
	Warn95                           // 95 % of the budget is spent
	Freeze                           // stop the tree
	NoticeBroke                      // tell: broke, ends at the deadline unless funded
	NoticePaused                     // tell: broke, frozen until funded
	Thaw                             // let the tree run again
	NoticeFunded                     // tell: funded in time
	Term                             // dying lane: SIGTERM, lane quota, thaw
	Kill                             // SIGKILL the whole tree
	Bury                             // the tree is empty: post the final bill
	actions      = iota              // how many there are
)

var actionNames = [actions]string{
	"warn80", "warn95", "freeze", "notice-broke", "notice-paused", "thaw", "notice-funded", "term", "kill", "bury",
}

// Has reports whether every action of b is in a.
func (a Actions) Has(b Actions) bool { return a&b == b }

// String lists the actions in order, joined by "+".
func (a Actions) String() string {
	var text string
	for i, name := range actionNames {
		if a&(1<<i) == 0 {
			continue
		}
		if text != "" {
			text += "+"
		}
		text += name
	}
	return text
}

// Machine is the life of one workload. It is a value; its zero value is the
// machine of the zero Policy.
type Machine struct {
	policy   Policy
	state    State
	reason   Reason
	warned   Actions      // of Warn80 and Warn95: given, and not yet armed again
	deadline unit.Instant // of Broke: end of grace; of Dying: end of the lane
	killed   bool
}

// New returns a pending workload. It panics on a negative duration.
func New(p Policy) Machine {
	if p.Grace < 0 || p.Term < 0 || p.LaneTime < 0 {
		panic(fmt.Sprintf("apoptosis: negative policy: grace %v, term %v, lane %d ns", p.Grace, p.Term, p.LaneTime))
	}
	return Machine{policy: p}
}

// State is where the workload is.
func (m Machine) State() State { return m.state }

// Reason is why it is dying or dead; else None.
func (m Machine) Reason() Reason { return m.reason }

// Deadline is when the next stage begins by itself: the end of the grace of a
// broke workload, the end of the lane of a dying one that is not killed yet.
func (m Machine) Deadline() (unit.Instant, bool) {
	return m.deadline, m.state == Broke || m.state == Dying && !m.killed
}

// Step moves the life on to in.Now and returns what has to be done. It panics
// if in.Trip is not an end that can be decided outside.
func (m *Machine) Step(in Input) Actions {
	if in.Trip != None && !in.Trip.ends() {
		panic(fmt.Sprintf("apoptosis: trip with reason %v", in.Trip))
	}
	switch m.state {
	case Dead:
		return 0
	case Dying:
		return m.die(in)
	case Pending:
		if !in.Started {
			return m.stillborn(in)
		}
	case Running, Waiting, Broke, Paused:
	}
	if actions, ended := m.end(in); ended {
		return actions
	}
	return m.live(in)
}

// stillborn ends a workload that has no process yet, if it must end.
func (m *Machine) stillborn(in Input) Actions {
	switch {
	case in.Trip != None:
		return m.bury(in.Trip)
	case in.ChildGone:
		return m.bury(childsEnd(in))
	}
	return 0
}

// end finds out whether a living workload ends in this step, and why.
func (m *Machine) end(in Input) (Actions, bool) {
	gone := in.ChildGone || !in.Populated
	switch {
	case !in.Populated && in.Trip.explains():
		return m.bury(in.Trip), true
	case !in.Populated:
		return m.bury(childsEnd(in)), true
	case in.Trip != None && (!gone || in.Trip.explains()):
		return m.enterLane(in, in.Trip), true
	case gone: // what the first process left behind ends with it
		return m.enterLane(in, childsEnd(in)), true
	}
	return 0, false
}

// live moves a workload that goes on living with its money and its price.
func (m *Machine) live(in Input) Actions {
	frozen := m.state == Broke || m.state == Paused
	switch {
	case in.Solvent:
		m.state = Waiting
		if in.Winning {
			m.state = Running
		}
		actions := m.warn(in)
		if frozen {
			actions |= Thaw | NoticeFunded
		}
		return actions
	case m.state == Broke && in.Now >= m.deadline:
		return m.enterLane(in, Insolvent)
	case frozen:
		return 0
	case m.policy.WhenBroke == Pause:
		m.state = Paused
		return Freeze | NoticePaused
	}
	m.state = Broke
	m.deadline = later(in.Now, m.policy.Grace)
	return Freeze | NoticeBroke
}

// enterLane begins the dying of a workload. Without a lane it is killed where
// it stands: a frozen tree is not thawed for nothing.
func (m *Machine) enterLane(in Input, why Reason) Actions {
	m.state, m.reason = Dying, why
	lane := min(m.policy.Grace, orDefault(m.policy.Term, DefaultTerm))
	m.deadline = later(in.Now, lane)
	if lane == 0 {
		m.killed = true
		return Kill
	}
	return Term
}

// die ends the lane, kills until the tree is empty, and buries it.
func (m *Machine) die(in Input) Actions {
	switch {
	case !in.Populated:
		return m.bury(m.reason)
	case m.killed, in.Now >= m.deadline, in.LaneUsed >= orDefault(m.policy.LaneTime, DefaultLaneTime):
		m.killed = true
		return Kill
	}
	return 0
}

func (m *Machine) bury(why Reason) Actions {
	m.state, m.reason = Dead, why
	return Bury
}

// warnings are the shares of the budget that are told, highest first, and the
// share below which they are told again.
var warnings = [...]struct {
	action       Actions
	above, below int64 // percent
}{{Warn95, 95, 85}, {Warn80, 80, 70}}

// warn gives the highest warning that is newly due.
func (m *Machine) warn(in Input) Actions {
	if in.Budget <= 0 {
		return 0
	}
	var due Actions
	for _, w := range warnings {
		switch {
		case in.Spent >= share(in.Budget, w.above):
			if m.warned&w.action == 0 && due == 0 {
				due = w.action
			}
			m.warned |= w.action
		case in.Spent < share(in.Budget, w.below):
			m.warned &^= w.action
		}
	}
	return due
}

// share is percent of budget, rounded up.
func share(budget unit.Credits, percent int64) unit.Credits {
	return unit.Credits(unit.MulDivCeil(int64(budget), percent, 100))
}

func childsEnd(in Input) Reason {
	if in.ChildSignaled {
		return Signaled
	}
	return Exited
}

// later is now + d, at most the end of time.
func later(now unit.Instant, d time.Duration) unit.Instant {
	if now > math.MaxInt64-unit.Instant(d) {
		return math.MaxInt64
	}
	return now + unit.Instant(d)
}

func orDefault[T time.Duration | unit.CoreTime](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}
