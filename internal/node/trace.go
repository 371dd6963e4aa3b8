package node

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/maxwell-hypervisor/maxwell/demon"
)

// trace writes one JSON line for each epoch: what was offered, what it cost,
// and every wallet's metered line. It is what an auditor's own program needs
// to recompute every bill. Writing is buffered and off unless asked for.
type trace struct {
	file    *os.File
	out     *bufio.Writer
	encoder *json.Encoder
	err     error
}

// TraceEpoch is one line of a trace.
type TraceEpoch struct {
	Epoch      uint64        `json:"epoch"`
	LengthNS   int64         `json:"length_ns"`
	SupplyNS   int64         `json:"supply_ns"`
	WattsUW    int64         `json:"watts_uw"` // allowance; 0 = not limited
	Unit       string        `json:"unit"`     // the commodity: cores or watts
	GridPPM    int64         `json:"grid_ppm"`
	Base       int64         `json:"base_ucredits_per_core_s"`
	Spot       int64         `json:"spot_ucredits_per_core_s"`
	NodeUJ     int64         `json:"node_uj"`
	SystemUJ   int64         `json:"system_uj"`
	IdleUJ     int64         `json:"idle_uj"`
	LostUJ     int64         `json:"unattributed_uj"`
	MisorderNS int64         `json:"misdelivered_ns"`
	LateNS     int64         `json:"late_ns"`
	Wallets    []TraceWallet `json:"wallets"`
}

// TraceWallet is one wallet's part of an epoch.
type TraceWallet struct {
	Name      string `json:"name"`
	ID        uint64 `json:"id"`
	Bid       int64  `json:"bid_ucredits_per_core_s"`
	Reserve   int64  `json:"reserve_ucredits_per_core_s"`
	WattsUW   int64  `json:"watts_uw"` // its class
	Score     int32  `json:"score_bucket"`
	DemandNS  int64  `json:"demand_ns"`
	CapNS     int64  `json:"cap_ns"` // most demand that its money and its pacing backed
	UsedNS    int64  `json:"used_ns"`
	FloorNS   int64  `json:"floor_ns"`
	EnergyUJ  int64  `json:"energy_uj"`
	EnergyUC  int64  `json:"energy_ucredits"`
	RentUC    int64  `json:"rent_ucredits"`
	ErasureUC int64  `json:"erasure_ucredits"`
}

// openTrace creates the file; an empty name gives a trace that writes nothing.
func openTrace(name string) (*trace, error) {
	if name == "" {
		return &trace{}, nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	out := bufio.NewWriterSize(f, 1<<16)
	return &trace{file: f, out: out, encoder: json.NewEncoder(out)}, nil
}

// write appends the epoch that l's last tick settled. A full disk stops the
// trace, not the market; close reports it.
func (t *trace) write(l *loop) {
	if t.file == nil || t.err != nil {
		return
	}
	e := &l.out.Ended
	line := TraceEpoch{
		Epoch: e.Epoch, LengthNS: int64(e.Length), SupplyNS: int64(e.Supply),
		WattsUW: int64(e.Watts), Unit: e.Unit.String(), GridPPM: int64(e.Grid),
		Base: int64(e.Base), Spot: int64(e.Outcome.Spot),
		NodeUJ: int64(e.Books.Node), SystemUJ: int64(e.Books.System), IdleUJ: int64(e.Books.Idle),
		LostUJ: int64(e.Books.Unattributed), MisorderNS: int64(e.Outcome.Misdelivered),
		LateNS: int64(time.Duration(l.last - l.next)), Wallets: []TraceWallet{},
	}
	for i := range l.out.Settlements {
		line.Wallets = append(line.Wallets, l.traceWallet(&l.out.Settlements[i]))
	}
	t.err = t.encoder.Encode(&line)
}

func (l *loop) traceWallet(s *demon.Settlement) TraceWallet {
	name := ""
	if mem := l.members[s.Slot]; mem != nil {
		name = mem.name
	}
	return TraceWallet{
		Name: name, ID: s.ID, Bid: int64(s.Bid), Reserve: int64(s.Reserve), WattsUW: int64(s.Watts),
		Score: int32(s.Score), DemandNS: int64(s.Demand), CapNS: int64(s.Cap), UsedNS: int64(s.Used),
		FloorNS: int64(s.Floor), EnergyUJ: int64(s.Energy), EnergyUC: int64(s.Bill.Energy),
		RentUC: int64(s.Bill.Rent), ErasureUC: int64(s.Bill.Erasure),
	}
}

// close writes what is buffered and reports the first failure.
func (t *trace) close() error {
	if t.file == nil {
		return nil
	}
	err := errors.Join(t.err, t.out.Flush(), t.file.Close())
	if err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}
