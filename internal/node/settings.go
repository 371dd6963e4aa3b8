package node

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/api"
	"github.com/maxwell-hypervisor/maxwell/internal/config"
	"github.com/maxwell-hypervisor/maxwell/internal/meter"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Settings are what the first client decides about the market. The zero value
// sells every core the client may use, priced by the best sensor there is.
type Settings struct {
	Cores        unit.MilliCores // for sale; 0 = the client's processors
	Watts        unit.Microwatts // most the market may burn above idle; 0 = not limited
	WattsPerCore unit.Microwatts // operator's figure for a busy core; 0 = the sensor's
	IdleWatts    unit.Microwatts
	Floor        unit.PPM // 0 = 2 %, negative = none
	Epoch        time.Duration
	Enforce      string     // auto, cgroup, signal
	Meter        meter.Kind // empty = the best that works
	Trace        string     // file for one JSON line an epoch; empty = none
	Journal      string     // file that keeps every transfer; empty = none
	Seed         uint64     // 0 = from the kernel's random source
	Log          slog.Level // least that is logged
	Version      string     // of this program, for those who ask
	PanicAtTick  uint64     // tests only: panic there
	PanicIn      string     // tests only: loop, worker or rpc

	// Daemon makes the market one that lasts; nil = it ends with its last client.
	Daemon *Daemon
}

// Daemon is what a market that lasts needs beside its settings: it outlives its
// clients, and its workloads outlive it.
type Daemon struct {
	Config  *config.Config        // rules and defaults; never nil
	Journal string                // file of the books and of what runs; never empty
	Socket  string                // where to listen; empty = in the runtime directory
	Access  api.Access            // who may connect
	Remote  *api.Remote           // the API for other machines; nil = not served
	Admin   func(uid uint32) bool // further users that may act for everybody; nil = none
	Pulse   time.Duration         // how often the service manager wants to hear that ticks go on; 0 = not
	Quantum time.Duration         // how old what others see of energy is; at least 100 ms
	Notify  func(state string)    // the service manager; nil = there is none

	KeepReceipts, KeepEvents time.Duration // 0 = 30 days, 7 days
	KeepJournal              time.Duration // its closed files; 0 = for ever
}

// Args is the command line of the hidden verb that serves these settings.
func (s Settings) Args() []string {
	args := []string{"node"}
	add := func(name string, v int64) {
		if v != 0 {
			args = append(args, "--"+name, strconv.FormatInt(v, 10))
		}
	}
	text := func(name, v string) {
		if v != "" {
			args = append(args, "--"+name, v)
		}
	}
	count := func(name string, v uint64) {
		if v != 0 {
			text(name, strconv.FormatUint(v, 10))
		}
	}
	add("cores-milli", int64(s.Cores))
	add("watts-uw", int64(s.Watts))
	add("core-uw", int64(s.WattsPerCore))
	add("idle-uw", int64(s.IdleWatts))
	add("floor-ppm", int64(s.Floor))
	add("epoch-ns", int64(s.Epoch))
	text("enforce", s.Enforce)
	text("meter", string(s.Meter))
	text("trace", s.Trace)
	text("journal", s.Journal)
	text("version", s.Version)
	add("log", int64(s.Log))
	count("seed", s.Seed)
	count("panic-at-tick", s.PanicAtTick)
	text("panic-in", s.PanicIn)
	return args
}

// Validate refuses settings that make no market.
func (s Settings) Validate() error {
	switch s.Meter {
	case meter.Auto, meter.BPF, meter.Files, meter.Processes:
	default:
		return fmt.Errorf("meter %q: use bpf, files or processes", s.Meter)
	}
	switch s.Enforce {
	case "", "auto", "cgroup", "signal":
	default:
		return fmt.Errorf("enforce %q: use auto, cgroup or signal", s.Enforce)
	}
	if s.Epoch != 0 && (s.Epoch < 10*time.Millisecond || s.Epoch > time.Second) {
		return fmt.Errorf("epoch %v: use 10ms to 1s", s.Epoch)
	}
	if s.Floor > unit.One/2 {
		return fmt.Errorf("floor %v: at most 50 %%", s.Floor)
	}
	if s.Daemon != nil && s.Daemon.Remote != nil {
		return s.Daemon.Remote.Check()
	}
	return nil
}
