package signal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// The control channel is a SOCK_SEQPACKET unix socket: messages keep their
// bounds, order and the sender's death. Both ends are the same binary on the
// same machine, so the byte order is fixed and there is no negotiation, only a
// version to refuse a binary that was replaced in between.
const wireVersion = 1

// Flags of an order. Frozen and Lane are levels; Kill, Idle and Tell are
// done when the order arrives.
const (
	orderFrozen uint32 = 1 << iota // no process may run
	orderLane                      // the dying lane's window instead of Window
	orderKill                      // end the tree
	orderIdle                      // SCHED_IDLE for the tree, for good
	orderTell                      // answer with a report
	orderMask   = 1<<iota - 1
)

// order is what the node tells the shim.
type order struct {
	Version uint32
	Flags   uint32
	Seq     uint32 // echoed by the report that answers
	Signal  int32  // to send to every process of the tree; 0 is none
	Window  Window
	Memory  int64 // cap in bytes; 0 is none
	Pids    int64 // cap on processes and threads; 0 is none
}

// Flags of a report.
const (
	reportHello    uint32 = 1 << iota // the first one
	reportTerminal                    // standard input is a terminal: no windows
	reportSwept                       // no namespace: best effort
	reportStopped                     // the tree is stopped by an order
	reportMemory                      // the memory cap was passed; the tree was stopped
	reportIdle                        // SCHED_IDLE was given
	reportEnded                       // the tree is empty; the last report
	reportMask     = 1<<iota - 1
)

// report is what the shim tells the node. Sums are cumulative and never fall.
type report struct {
	Version    uint32
	Flags      uint32
	Seq        uint32
	Runnable   int32 // threads that used a processor since the last report
	Processes  int32
	Threads    int32
	Unheld     int32 // best effort only: processes that could not be stopped or killed
	Oom        int32 // times the memory cap was passed
	Refused    int64 // readings that found the tree at its process cap
	At         int64 // the shim's monotonic clock, ns
	CPU        int64 // ns of one core
	Wait       int64 // ns runnable and waiting
	Allowed    int64 // ns in which the tree was not stopped by us
	Memory     int64 // bytes resident, shared pages counted once where it matters
	PeakMemory int64
}

// errWire refuses a message that this version did not write.
var errWire = errors.New("malformed message of the shim protocol")

func (o order) encode() []byte  { return encode(o) }
func (r report) encode() []byte { return encode(r) }

func encode(v any) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // only fixed-size fields
	}
	return b
}

func decodeOrder(b []byte) (order, error) {
	var o order
	if err := decode(b, &o); err != nil {
		return order{}, err
	}
	if o.Version != wireVersion || o.Flags&^uint32(orderMask) != 0 ||
		o.Signal < 0 || o.Signal > maxSignal || o.Memory < 0 || o.Pids < 0 || !o.Window.valid() {
		return order{}, errWire
	}
	return o, nil
}

func decodeReport(b []byte) (report, error) {
	var r report
	if err := decode(b, &r); err != nil {
		return report{}, err
	}
	for _, v := range []int64{
		int64(r.Runnable), int64(r.Processes), int64(r.Threads), int64(r.Unheld), int64(r.Oom),
		r.Refused, r.At, r.CPU, r.Wait, r.Allowed, r.Memory, r.PeakMemory,
	} {
		if v < 0 {
			return report{}, errWire
		}
	}
	if r.Version != wireVersion || r.Flags&^uint32(reportMask) != 0 {
		return report{}, errWire
	}
	return r, nil
}

func decode(b []byte, v any) error {
	if len(b) != binary.Size(v) {
		return errWire
	}
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, v); err != nil {
		return errWire
	}
	return nil
}

// maxSignal is the last real-time signal of Linux.
const maxSignal = 64

// maxMessage is above the size of every message of both channels.
const maxMessage = 4096

// Window is when a tree may run: Run of every Period, beginning Offset after
// each multiple of Period on the monotonic clock, which all processes of the
// machine share. Run == Period is always, Run == 0 never.
type Window struct {
	Period, Offset, Run time.Duration
}

// always is the window of a group that is not rationed.
var always = Window{Period: time.Second, Run: time.Second}

// lane is the dying lane: 20 ms of each 100 ms let a SIGTERM handler that needs
// 10-16 ms of processor end in one period (measured).
var lane = Window{Period: 100 * time.Millisecond, Run: 20 * time.Millisecond}

func (w Window) valid() bool {
	return w.Period >= time.Millisecond && w.Period <= time.Minute &&
		w.Offset >= 0 && w.Offset < w.Period && w.Run >= 0 && w.Run <= w.Period
}

// at says whether the tree may run at a time, and when that changes; the zero
// time means never.
func (w Window) at(now unit.Instant) (run bool, next unit.Instant) {
	if w.Run == 0 || w.Run == w.Period {
		return w.Run != 0, 0
	}
	period := unit.Instant(w.Period)
	since := (now - unit.Instant(w.Offset)) % period
	if since < 0 { // before the first offset of the clock
		since += period
	}
	start := now - since
	if since < unit.Instant(w.Run) {
		return true, start + unit.Instant(w.Run)
	}
	return false, start + period
}
