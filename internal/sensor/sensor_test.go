package sensor

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const second = unit.Instant(time.Second)

func open(t *testing.T, r host.Roots, cfg Config) Sensor {
	t.Helper()
	s, err := Open(cfg, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// energy reads a sensor that must answer.
func energy(t *testing.T, s Sensor, now unit.Instant, busy unit.CoreTime) physics.Reading {
	t.Helper()
	r, err := s.Read(now, busy)
	if err != nil {
		t.Fatalf("read at %v: %v", now, err)
	}
	return r
}

func TestDescribeRecordedMachines(t *testing.T) {
	for _, c := range []struct {
		name, machine string
		cfg           Config
		user          bool // file permissions as for an ordinary user
		want          Description
	}{
		{name: "virtual machine", machine: "vm-hybrid", want: Description{
			Source: physics.SourceGeneric, Modelled: true, Sigma: 500_000, Reference: 9_800_000, Idle: 3_000_000,
			Basis: "typical of a busy core of any make", Why: "no RAPL in this VM", Hint: calibrateHint,
		}},
		{name: "virtual machine with two threads a core", machine: "systemd-v2", want: Description{
			Source: physics.SourceGeneric, Modelled: true, Sigma: 500_000, Reference: 5_880_000, Idle: 3_000_000,
			Basis: "typical of a busy core of any make", Why: "no RAPL in this VM", Hint: calibrateHint,
		}},
		{name: "virtual machine calibrated", machine: "vm-hybrid", cfg: Config{WattsPerCore: 14_000_000, Idle: 5_000_000}, want: Description{
			Source: physics.SourceCalibrated, Modelled: true, Sigma: 100_000, Reference: 14_000_000, Idle: 5_000_000,
			Basis: "watts per core given by the operator", Why: "no RAPL in this VM",
		}},
		{name: "two sockets", machine: "intel-two-socket", want: Description{
			Source: physics.SourcePowercap, Sigma: 30_000, Reference: 59_062_500, Idle: 67_500_000,
			Basis: "power limit 540 W over 8 logical cores",
		}},
		{name: "two sockets modelled on demand", machine: "intel-two-socket", cfg: Config{Model: true}, want: Description{
			Source: physics.SourceFamily, Modelled: true, Sigma: 200_000, Reference: 59_062_500, Idle: 67_500_000,
			Basis: "power limit 540 W over 8 logical cores", Why: "a model was asked for", Hint: calibrateHint,
		}},
		{name: "laptop with a second interface", machine: "intel-laptop", want: Description{
			Source: physics.SourcePowercap, Sigma: 30_000, Reference: 6_125_000, Idle: 3_500_000,
			Basis: "power limit 28 W over 4 logical cores",
		}},
		{name: "AMD laptop as root", machine: "amd-laptop", want: Description{
			Source: physics.SourcePowercap, Sigma: 30_000, Reference: 5_880_000, Idle: 12_000_000,
			Basis: "typical of a busy core of any make",
		}},
		{name: "AMD laptop as its user", machine: "amd-laptop", user: true, want: Description{
			Source: physics.SourceGeneric, Modelled: true, Sigma: 500_000, Reference: 5_880_000, Idle: 12_000_000,
			Basis: "typical of a busy core of any make", Why: "RAPL counters are readable by root only",
			Hint: "run as root; or " + calibrateHint,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := hosttest.Machine(t, c.machine)
			if c.user {
				hosttest.AsUser(t, r)
			}
			if d := cmp.Diff(c.want, open(t, r, c.cfg).Describe()); d != "" {
				t.Errorf("description (-want +got):\n%s", d)
			}
		})
	}
}

func TestServerByName(t *testing.T) {
	p := host.Processor{
		Vendor: "AuthenticAMD", Family: 25, ModelNo: 1, Model: "AMD EPYC 7763 64-Core Processor",
		Threads: 2, Cores: 64, Packages: 2, Online: make([]int, 256),
	}
	got := estimatePower(p, nil)
	want := estimate{
		source: physics.SourceFamily, sigma: 287_356, core: 1_486_816, idle: 54_375_000,
		basis: "rated about 435 W over 256 logical cores",
	}
	if got != want {
		t.Errorf("two 64-core servers = %+v; want %+v", got, want)
	}
	p.Hypervisor = true
	if got := estimatePower(p, nil); got.source != physics.SourceGeneric {
		t.Errorf("the same in a virtual machine = %v; want the generic model", got.source)
	}
	for _, r := range ratings() {
		if r.low <= 0 || r.top < r.low || r.sigma() > physics.SourceGeneric.Sigma() {
			t.Errorf("rating %+v has sigma %v", r, r.sigma())
		}
	}
}

func TestConfigRefusesAbsurdFigures(t *testing.T) {
	r := hosttest.Machine(t, "vm-hybrid")
	for _, cfg := range []Config{{WattsPerCore: -1}, {WattsPerCore: 1}, {WattsPerCore: 2_000_000_000}, {Idle: -1}, {Idle: 1 << 50}} {
		if _, err := Open(cfg, r); err == nil {
			t.Errorf("Open(%+v) took it", cfg)
		}
	}
}

func TestModelIsProportionalToCoreTime(t *testing.T) {
	s := open(t, hosttest.Machine(t, "vm-hybrid"), Config{WattsPerCore: 10_000_000, Idle: 2_000_000})
	const base = unit.CoreTime(12345678) // any origin
	if r := energy(t, s, 100*second, base); r.Energy != 0 {
		t.Fatalf("first reading = %v; want 0", r.Energy)
	}
	// 1.5 core-seconds in one second: 15 J dynamic and 2 J idle.
	r := energy(t, s, 101*second, base+1_500_000_000)
	want := physics.Reading{At: 101 * second, Energy: 17_000_000, Source: physics.SourceCalibrated, Sigma: 100_000}
	if d := cmp.Diff(want, r); d != "" {
		t.Errorf("reading (-want +got):\n%s", d)
	}
}

func TestModelMendsFaults(t *testing.T) {
	s := open(t, hosttest.Machine(t, "vm-hybrid"), Config{WattsPerCore: 10_000_000, Idle: 1})
	energy(t, s, 1*second, 0)
	energy(t, s, 2*second, 2_000_000_000) // both cores busy: 20 J
	for _, c := range []struct {
		name   string
		now    unit.Instant
		busy   unit.CoreTime
		want   unit.Microjoules
		faults uint64
	}{
		{"core time backwards", 3 * second, 1_000_000_000, 20_000_002, 1},
		{"and on from there", 4 * second, 2_000_000_000, 30_000_003, 1},
		// Three core-seconds of credit unused, one more second of two cores,
		// and the tick of both: 5.04 core-seconds at most.
		{"a jump", 5 * second, 900_000_000_000, 80_400_004, 2},
		{"the clock backwards", 4 * second, 900_000_000_000, 80_400_004, 3},
	} {
		r := energy(t, s, c.now, c.busy)
		if r.Energy != c.want || r.Faults != c.faults {
			t.Errorf("%s: %d uJ, %d faults; want %d, %d", c.name, r.Energy, r.Faults, c.want, c.faults)
		}
	}
}

// A meter that was silent for an epoch reports two at once: that is no fault.
func TestModelLetsAMeterCatchUp(t *testing.T) {
	s := open(t, hosttest.Machine(t, "vm-hybrid"), Config{WattsPerCore: 10_000_000, Idle: 1})
	energy(t, s, 0, 0)
	energy(t, s, 1*second, 0)
	if r := energy(t, s, 1*second+1000, 2_000_000_000); r.Faults != 0 || r.Energy != 20_000_001 {
		t.Errorf("late report = %d uJ with %d faults; want 20000001 with none", r.Energy, r.Faults)
	}
}

// Whatever a meter says, energy never falls, never exceeds what the cores can
// burn, and follows the formula exactly while the meter is sane.
func TestModelProperties(t *testing.T) {
	p := estimate{source: physics.SourceCalibrated, sigma: 1, core: 7_300_001, idle: 1_234_567}
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(p, 2, &host.Unavailable{})
		var now unit.Instant
		var busy, sane unit.CoreTime
		first, _ := m.Read(now, busy)
		last := first.Energy
		isSane := true
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			step := rapid.Int64Range(0, 3e9).Draw(t, "elapsed")
			now += unit.Instant(step)
			if rapid.IntRange(0, 4).Draw(t, "mad") == 0 {
				busy = unit.CoreTime(rapid.Int64().Draw(t, "busy"))
				isSane = false
			} else if busy < 1<<60 {
				d := unit.CoreTime(rapid.Int64Range(0, 2*step).Draw(t, "ran"))
				busy += d
				sane += d
			}
			r, err := m.Read(now, busy)
			if err != nil || r.Energy < last {
				t.Fatalf("energy fell from %d to %d, %v", last, r.Energy, err)
			}
			last = r.Energy
			limit := unit.MulDiv(2*int64(p.core), int64(now)+int64(tick), 1e9) + unit.MulDiv(int64(p.idle), int64(now), 1e9)
			if int64(r.Energy) > limit {
				t.Fatalf("energy %d is more than two cores can burn, %d", r.Energy, limit)
			}
			exact := unit.MulDiv(int64(p.core), int64(sane), 1e9) + unit.MulDiv(int64(p.idle), int64(now), 1e9)
			if isSane && (int64(r.Energy) != exact || r.Faults != 0) {
				t.Fatalf("energy %d with %d faults; want exactly %d", r.Energy, r.Faults, exact)
			}
		}
	})
}

const (
	pack0 = "/sys/devices/virtual/powercap/intel-rapl/intel-rapl:0"
	pack1 = "/sys/devices/virtual/powercap/intel-rapl/intel-rapl:1"
)

func TestPowercapSumsPackagesOnly(t *testing.T) {
	r := hosttest.Machine(t, "intel-two-socket")
	s := open(t, r, Config{})
	if first := energy(t, s, second, 0); first.Energy != 0 {
		t.Fatalf("first reading = %v; want 0", first.Energy)
	}
	hosttest.Write(t, r, pack0+"/energy_uj", "1050000000\n")                                 // 50 J
	hosttest.Write(t, r, pack1+"/energy_uj", "2020000000\n")                                 // 20 J
	hosttest.Write(t, r, pack0+"/intel-rapl:0:0/energy_uj", "150000000\n")                   // dram: outside
	hosttest.Write(t, r, strings.Replace(pack1, ":1", ":2", 1)+"/energy_uj", "9200000000\n") // psys: contains the packages
	want := physics.Reading{At: 2 * second, Energy: 70_000_000, Source: physics.SourcePowercap, Sigma: 30_000}
	if d := cmp.Diff(want, energy(t, s, 2*second, 0)); d != "" {
		t.Errorf("reading (-want +got):\n%s", d)
	}
}

func TestPowercapCountsAPackageOnce(t *testing.T) {
	r := hosttest.Machine(t, "intel-laptop")
	s := open(t, r, Config{})
	energy(t, s, second, 0)
	hosttest.Write(t, r, pack0+"/energy_uj", "9000000\n")
	hosttest.Write(t, r, "/sys/devices/virtual/powercap/intel-rapl-mmio/intel-rapl-mmio:0/energy_uj", "9000000\n")
	if got := energy(t, s, 2*second, 0).Energy; got != 4_000_000 {
		t.Errorf("energy = %d uJ; want 4000000, the package once", got)
	}
}

func TestPowercapWrapsAndResets(t *testing.T) {
	r := hosttest.Machine(t, "intel-laptop")
	hosttest.Write(t, r, pack0+"/energy_uj", "262143000000\n")
	s := open(t, r, Config{})
	energy(t, s, second, 0)
	hosttest.Write(t, r, pack0+"/energy_uj", "671149\n") // 328 851 to the wrap, 671 149 after
	if got := energy(t, s, 2*second, 0); got.Energy != 1_000_000 || got.Faults != 0 {
		t.Errorf("over the wrap: %d uJ, %d faults; want 1000000, 0", got.Energy, got.Faults)
	}
	// A spike of 100 kJ in a second is no energy: at most twice 250 W.
	hosttest.Write(t, r, pack0+"/energy_uj", "100000000000\n")
	got := energy(t, s, 3*second, 0)
	if got.Energy > 1_000_000+2*251_000_000 || got.Faults != 1 {
		t.Errorf("spike: %d uJ, %d faults", got.Energy, got.Faults)
	}
	// A reset to zero from the middle of the range is not a wrap.
	hosttest.Write(t, r, pack0+"/energy_uj", "0\n")
	if again := energy(t, s, 4*second, 0); again.Energy != got.Energy || again.Faults != 2 {
		t.Errorf("reset: %d uJ, %d faults; want %d, 2", again.Energy, again.Faults, got.Energy)
	}
}

// swap makes a counter fail or return behind the open file: the file stays,
// its content is garbage, as a removed zone answers with an error.
func swap(t *testing.T, r host.Roots, zone, content string) {
	t.Helper()
	hosttest.Write(t, r, zone+"/energy_uj", content)
}

func TestPowercapZoneVanishesAndReturns(t *testing.T) {
	r := hosttest.Machine(t, "intel-two-socket")
	s := open(t, r, Config{})
	energy(t, s, second, 0)
	swap(t, r, pack1, "")
	link := r.Path("/sys/class/powercap/intel-rapl:1")
	must(t, os.Remove(link))
	swap(t, r, pack0, "1010000000\n")
	got := energy(t, s, 2*second, 0)
	if got.Energy != 10_000_000 || got.Faults != 1 {
		t.Errorf("one package gone: %d uJ, %d faults; want 10000000, 1", got.Energy, got.Faults)
	}
	// It returns under another number; what it burnt meanwhile is not known.
	must(t, os.Symlink("../../devices/virtual/powercap/intel-rapl/intel-rapl:1", r.Path("/sys/class/powercap/intel-rapl:7")))
	swap(t, r, pack1, "5000000000\n")
	energy(t, s, 3*second, 0)
	swap(t, r, pack1, "5030000000\n")
	got = energy(t, s, 4*second, 0)
	if got.Energy != 40_000_000 || got.Faults != 1 {
		t.Errorf("after its return: %d uJ, %d faults; want 40000000, 1", got.Energy, got.Faults)
	}
}

func TestPowercapFindsNewZones(t *testing.T) {
	r := hosttest.Machine(t, "intel-two-socket")
	link := r.Path("/sys/class/powercap/intel-rapl:1")
	must(t, os.Remove(link))
	s := open(t, r, Config{})
	energy(t, s, second, 0)
	must(t, os.Symlink("../../devices/virtual/powercap/intel-rapl/intel-rapl:1", link))
	energy(t, s, 62*second, 0) // found: its baseline
	swap(t, r, pack1, "2007000000\n")
	if got := energy(t, s, 63*second, 0).Energy; got != 7_000_000 {
		t.Errorf("energy = %d uJ; want 7000000 of the new package", got)
	}
}

func TestPowercapAllGone(t *testing.T) {
	r := hosttest.Machine(t, "intel-laptop")
	s := open(t, r, Config{})
	energy(t, s, second, 0)
	swap(t, r, pack0, "8000000\n")
	energy(t, s, 2*second, 0)
	swap(t, r, pack0, "garbage\n")
	got, err := s.Read(3*second, 0)
	if err == nil || got.Energy != 3_000_000 || got.Faults != 1 {
		t.Errorf("reading = %+v, %v; want the last energy, a fault and an error", got, err)
	}
	if _, err := s.Read(3*second+1, 0); !errors.Is(err, host.ErrUnavailable) {
		t.Errorf("next reading: %v; want ErrUnavailable", err)
	}
	swap(t, r, pack0, "9000000\n")
	if got := energy(t, s, 5*second, 0); got.Energy != 3_000_000 {
		t.Errorf("after its return: %d uJ; want 3000000, then counting on", got.Energy)
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	for _, machine := range []string{"intel-two-socket", "vm-hybrid"} {
		s := open(t, hosttest.Machine(t, machine), Config{})
		now := second
		allocs := testing.AllocsPerRun(100, func() {
			now += unit.Instant(50 * time.Millisecond)
			energy(t, s, now, unit.CoreTime(now))
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations a reading; want none", machine, allocs)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkReadPowercap(b *testing.B) {
	s, err := Open(Config{}, hosttest.Machine(b, "intel-two-socket"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	now := second
	for b.Loop() {
		now += unit.Instant(50 * time.Millisecond)
		if _, err := s.Read(now, 0); err != nil {
			b.Fatal(err)
		}
	}
}
