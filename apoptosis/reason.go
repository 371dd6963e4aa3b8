package apoptosis

// Reason is why a workload ended. It is in every receipt.
type Reason uint8

// The reasons of death.
const (
	None      Reason = iota // not dead, not dying
	Exited                  // its first process ended by itself
	Insolvent               // broke, and nobody funded it in time
	CapMemory               // reached its memory cap
	CapPids                 // reached its process cap
	CapCPU                  // used up its processor time
	CapEnergy               // used up its energy
	Timeout                 // ran longer than its timeout
	Evicted                 // the machine was too hot to run it
	Stopped                 // a person asked for it
	Failed                  // Maxwell's own failure
	Signaled                // its first process was ended by a foreign signal
	Lost                    // it was gone when Maxwell came back, and nobody saw how it ended
	reasons   = iota        // how many there are
)

// ChildsOwn is the ExitCode of a reason that leaves the exit code to the child.
const ChildsOwn = -1

// Exit codes of `maxwell run` for ends that are not the child's own.
const (
	exitCap       = 121
	exitInsolvent = 122
	exitEvicted   = 123
	exitTimeout   = 124
	exitFailed    = 125
)

// facts is what is known of each reason. Remedies are what a person or a
// program does next; %s stands for the workload.
var facts = [reasons]struct {
	word      string
	exit      int
	retryable bool
	verb, of  string // remedy is verb + name + of; no verb, no remedy
}{
	None:      {word: "none", exit: ChildsOwn},
	Exited:    {word: "exited", exit: ChildsOwn},
	Insolvent: {word: "insolvent", exit: exitInsolvent, retryable: true, verb: "fund "},
	CapMemory: {word: "cap:memory", exit: exitCap, verb: "raise --memory of "},
	CapPids:   {word: "cap:pids", exit: exitCap, verb: "raise --pids of "},
	CapCPU:    {word: "cap:cpu", exit: exitCap, verb: "raise --max-cpu of "},
	CapEnergy: {word: "cap:energy", exit: exitCap, verb: "raise --max-energy of "},
	Timeout:   {word: "timeout", exit: exitTimeout, verb: "raise --timeout of "},
	Evicted:   {word: "evicted", exit: exitEvicted, retryable: true, verb: "run ", of: " again when the machine is cooler"},
	Stopped:   {word: "stopped", exit: ChildsOwn, verb: "run ", of: " again"},
	Failed:    {word: "failed", exit: exitFailed, retryable: true, verb: "see maxwell doctor, then run ", of: " again"},
	Signaled:  {word: "signaled", exit: ChildsOwn},
	Lost:      {word: "lost", exit: exitFailed, retryable: true, verb: "run ", of: " again"},
}

// String is the reason's word in receipts: "insolvent", "cap:memory".
func (r Reason) String() string {
	if int(r) >= reasons {
		return "unknown"
	}
	return facts[r].word
}

// ParseReason reads what String prints.
func ParseReason(word string) (Reason, bool) {
	for r := range facts {
		if facts[r].word == word {
			return Reason(r), true
		}
	}
	return None, false
}

// ExitCode is what `maxwell run` returns for this end, whatever the child
// returned while dying. ChildsOwn (-1) means: the child's own code, 128+n for
// a signal.
func (r Reason) ExitCode() int {
	if int(r) >= reasons {
		return exitFailed
	}
	return facts[r].exit
}

// Retryable reports whether the same command may well succeed later, once the
// remedy is applied and without changing what was asked of the machine. A cap
// that somebody set would end it again.
func (r Reason) Retryable() bool { return int(r) < reasons && facts[r].retryable }

// Remedy says what to do about it, for the workload called name: "fund
// agent-7". It is empty where there is nothing to do.
func (r Reason) Remedy(name string) string {
	if int(r) >= reasons || facts[r].verb == "" {
		return ""
	}
	return facts[r].verb + name + facts[r].of
}

// ends reports whether r may be given as Input.Trip: an end that somebody
// outside this machine decides. Insolvent is not one of them, it has a grace.
func (r Reason) ends() bool {
	switch r {
	case CapMemory, CapPids, CapCPU, CapEnergy, Timeout, Evicted, Stopped, Failed, Lost:
		return true
	case None, Exited, Insolvent, Signaled:
		return false
	}
	return false
}

// explains reports whether r, seen in the same step as the end of the first
// process, is the likely cause of that end. A child that finished while its
// clock ran out has finished.
func (r Reason) explains() bool {
	return r == CapMemory || r == CapPids || r == Failed || r == Lost
}
