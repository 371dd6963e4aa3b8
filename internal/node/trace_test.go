package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
)

// settled is a loop whose last tick settled one epoch of two wallets, the
// second already without a member. Every number is another one.
func settled() *loop {
	return &loop{
		next: 1000, last: 1024,
		members: []*member{nil, {slot: 1, name: "leech"}, nil},
		out: demon.Decisions{
			Ended: demon.Ended{
				Epoch: 1, Length: 2 * time.Nanosecond, Supply: 3, Watts: 4, Unit: market.Watts, Grid: 5, Base: 6,
				Outcome: market.Outcome{Spot: 7, Misdelivered: 8},
				Books:   physics.Books{Node: 9, System: 10, Idle: 11, Unattributed: 12},
			},
			Settlements: []demon.Settlement{
				{
					Slot: 1, ID: 13, Bid: 14, Reserve: 15, Watts: 16, Score: 17, Demand: 18, Cap: 19, Used: 20, Floor: 21,
					Energy: 22, Bill: price.Bill{Energy: 23, Rent: 24, Erasure: 25},
				},
				{Slot: 2, ID: 26},
			},
		},
	}
}

// TestTraceLines: one line an epoch, each by itself the whole epoch, in the
// keys that an auditor's program reads.
func TestTraceLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trace")
	tr, err := openTrace(name)
	if err != nil {
		t.Fatal(err)
	}
	l := settled()
	tr.write(l)
	l.out.Ended, l.out.Settlements = demon.Ended{Epoch: 2}, nil
	tr.write(l)
	if err := tr.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	const wallet = `{"name":"leech","id":13,"bid_ucredits_per_core_s":14,"reserve_ucredits_per_core_s":15,"watts_uw":16,` +
		`"score_bucket":17,"demand_ns":18,"cap_ns":19,"used_ns":20,"floor_ns":21,"energy_uj":22,"energy_ucredits":23,` +
		`"rent_ucredits":24,"erasure_ucredits":25}`
	const want = `{"epoch":1,"length_ns":2,"supply_ns":3,"watts_uw":4,"unit":"watts","grid_ppm":5,"base_ucredits_per_core_s":6,` +
		`"spot_ucredits_per_core_s":7,"node_uj":9,"system_uj":10,"idle_uj":11,"unattributed_uj":12,"misdelivered_ns":8,` +
		`"late_ns":24,"wallets":[` + wallet + `,`
	if len(lines) != 3 || len(lines[2]) != 0 || !bytes.HasPrefix(lines[0], []byte(want)) {
		t.Fatalf("got %d lines:\n%s\nwant first\n%s", len(lines), text, want)
	}
	var second TraceEpoch
	d := json.NewDecoder(bytes.NewReader(lines[1]))
	d.DisallowUnknownFields()
	if err := d.Decode(&second); err != nil {
		t.Fatal(err)
	}
	empty := TraceEpoch{Epoch: 2, Unit: market.Unit(0).String(), LateNS: 24, Wallets: []TraceWallet{}}
	if diff := cmp.Diff(empty, second); diff != "" {
		t.Errorf("an epoch without wallets (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v: bids are private", info.Mode(), err)
	}
}

// TestTraceToAFullDisk: the market goes on, and the close tells why the trace
// is not whole.
func TestTraceToAFullDisk(t *testing.T) {
	tr, err := openTrace("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 { // beyond the buffer
		tr.write(settled())
	}
	if err := tr.close(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("close says %v", err)
	}
}

func TestNoTrace(t *testing.T) {
	tr, err := openTrace("")
	if err != nil {
		t.Fatal(err)
	}
	tr.write(settled())
	if err := tr.close(); err != nil {
		t.Error(err)
	}
	if _, err := openTrace(filepath.Join(t.TempDir(), "none", "trace")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a trace in no directory: %v", err)
	}
}
