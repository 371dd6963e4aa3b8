package sensor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// zone is one package zone of the powercap tree
// (Documentation/power/powercap/powercap.rst).
type zone struct {
	path    string // below /sys: "class/powercap/intel-rapl:0"
	name    string // "package-0"
	file    *host.File
	counter physics.Counter
}

const powercapDir = "class/powercap"

// findZones lists the package zones. Intel and AMD both appear under
// intel-rapl; the MMIO interface repeats a package and serves only where there
// is no other.
func findZones(r host.Roots) ([]*zone, error) {
	entries, err := r.Sys.ReadDir(powercapDir)
	if err != nil {
		return nil, err
	}
	var zones []*zone
	seen := map[string]bool{}
	for _, prefix := range []string{"intel-rapl:", "intel-rapl-mmio:"} {
		for _, e := range entries {
			number, ok := strings.CutPrefix(e.Name(), prefix)
			if !ok || strings.Contains(number, ":") {
				continue // another control type, or a subzone
			}
			path := powercapDir + "/" + e.Name()
			name, err := r.Sys.ReadText(path + "/name")
			// A zone may go between the listing and here.
			if err == nil && strings.HasPrefix(name, "package-") && !seen[name] {
				seen[name] = true
				zones = append(zones, &zone{path: path, name: name})
			}
		}
	}
	return zones, nil
}

// Bounds of a believable package power limit; firmware that means "no limit"
// writes values far above.
const (
	minLimit = 1_000_000     // 1 W
	maxLimit = 1_000_000_000 // 1 kW

	leastMaximum = 250_000_000 // 250 W
)

// zoneLimits gives the long-term power limit of each package: its rated power
// as the firmware sets it. All packages or none.
func zoneLimits(r host.Roots) []unit.Microwatts {
	zones, err := findZones(r)
	if err != nil {
		return nil
	}
	var limits []unit.Microwatts
	for _, z := range zones {
		w := z.constraint(r, "long_term")
		if w == 0 {
			return nil
		}
		limits = append(limits, w)
	}
	return limits
}

// constraint finds a power limit by name; 0 when there is none or it is absurd.
func (z *zone) constraint(r host.Roots, name string) unit.Microwatts {
	for i := range 4 {
		prefix := fmt.Sprintf("%s/constraint_%d_", z.path, i)
		if have, err := r.Sys.ReadText(prefix + "name"); err != nil || have != name {
			continue
		}
		b, err := r.Sys.ReadFile(prefix + "power_limit_uw")
		if err != nil {
			return 0
		}
		w, err := host.ParseInt(b)
		if err != nil || w < minLimit || w > maxLimit {
			return 0
		}
		return unit.Microwatts(w)
	}
	return 0
}

// maximum is the most that a package can draw: its highest limit, but at least
// leastMaximum as limits can be raised while we run; far above any made where
// no limit is known. The counter allows twice that before it calls a jump.
func (z *zone) maximum(r host.Roots) unit.Microwatts {
	best := max(z.constraint(r, "long_term"), z.constraint(r, "short_term"), z.constraint(r, "peak_power"))
	if best == 0 {
		return maxLimit
	}
	return max(best, leastMaximum)
}

// open opens the counter, makes sure that it answers, and learns its range.
func (z *zone) open(r host.Roots) error {
	f, err := r.Sys.Open(z.path + "/energy_uj")
	if err != nil {
		return err
	}
	text, err := r.Sys.ReadFile(z.path + "/max_energy_range_uj")
	if err != nil {
		return errors.Join(err, f.Close())
	}
	span, err := host.ParseInt(text)
	if err != nil || span < 0 {
		return errors.Join(fmt.Errorf("read range of zone %s: %w", z.name, host.ErrUnavailable), f.Close())
	}
	if _, err := f.ReadInt(); err != nil {
		return errors.Join(err, f.Close())
	}
	z.file = f
	// The counter takes the values 0..range, so it repeats after range+1.
	z.counter.Range, z.counter.Maximum = uint64(span)+1, z.maximum(r)
	return nil
}

// read advances the zone's counter; on an error the file is dropped and the
// counter told, so that what returns is a new baseline.
func (z *zone) read(now unit.Instant) error {
	if z.file == nil {
		return host.ErrUnavailable
	}
	raw, err := z.file.ReadInt()
	if err == nil && raw < 0 {
		err = host.ErrUnavailable
	}
	if err == nil {
		z.counter.Advance(now, uint64(raw))
		return nil
	}
	z.counter.Lost()
	err = errors.Join(fmt.Errorf("read zone %s: %w", z.name, err), z.file.Close())
	z.file = nil
	return err
}

// powercap sums the package zones.
type powercap struct {
	roots   host.Roots
	about   Description
	zones   []*zone
	sought  unit.Instant // when zones were last looked for
	reading physics.Reading
}

// A machine that lost a zone is searched every second, any other once a minute
// for zones that appeared. A search costs about a millisecond.
const (
	seekLost = time.Second
	seekNew  = time.Minute
)

// openPowercap opens every package zone, or says as *host.Unavailable why
// there is none.
func openPowercap(r host.Roots, p host.Processor, e estimate) (*powercap, error) {
	zones, err := findZones(r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, refusePowercap(p, err)
	}
	if len(zones) == 0 {
		return nil, missingPowercap(p)
	}
	c := &powercap{roots: r, zones: zones, about: Description{
		Source: physics.SourcePowercap, Sigma: physics.SourcePowercap.Sigma(),
		Reference: e.core, Idle: e.idle, Basis: e.basis,
	}}
	for _, z := range zones {
		if err := z.open(r); err != nil {
			return nil, errors.Join(refusePowercap(p, err), c.Close())
		}
	}
	c.reading = physics.Reading{Source: c.about.Source, Sigma: c.about.Sigma}
	return c, nil
}

func missingPowercap(p host.Processor) *host.Unavailable {
	if p.Hypervisor {
		return &host.Unavailable{Feature: host.FeaturePowercap, Reason: "no RAPL in this VM"}
	}
	u := &host.Unavailable{Feature: host.FeaturePowercap, Reason: "no RAPL counters on this machine"}
	if p.Vendor == "GenuineIntel" || p.Vendor == "AuthenticAMD" {
		u.Hint = "modprobe intel_rapl_msr (it serves AMD too)"
	}
	return u
}

func refusePowercap(p host.Processor, err error) *host.Unavailable {
	if errors.Is(err, fs.ErrPermission) {
		return &host.Unavailable{
			Feature: host.FeaturePowercap, Class: host.ErrDenied, Cause: err,
			Reason: "RAPL counters are readable by root only", Hint: "run as root",
		}
	}
	u := missingPowercap(p)
	u.Reason, u.Cause = fmt.Sprintf("RAPL counters do not answer: %v", err), err
	return u
}

// Read sums what the zones have counted. A zone that does not answer is a
// fault and is sought again; only when none answers is that an error.
func (c *powercap) Read(now unit.Instant, _ unit.CoreTime) (physics.Reading, error) {
	var lost error
	alive := 0
	for _, z := range c.zones {
		if err := z.read(now); err != nil {
			lost = err
			continue
		}
		alive++
	}
	if c.sought == 0 {
		c.sought = now // opened just before
	}
	wait := seekNew
	if lost != nil {
		wait = seekLost
	}
	if now.Sub(c.sought) >= wait {
		c.sought = now
		alive += c.rediscover(now)
	}
	c.reading.At, c.reading.Energy, c.reading.Faults = now, 0, 0
	for _, z := range c.zones {
		c.reading.Energy += z.counter.Total()
		c.reading.Faults += z.counter.Faults()
	}
	if alive == 0 {
		return c.reading, fmt.Errorf("read powercap: no zone answers: %w", lost)
	}
	return c.reading, nil
}

// rediscover opens the zones that came back, also under another number, and
// those that are new, and returns how many now answer.
func (c *powercap) rediscover(now unit.Instant) int {
	found, err := findZones(c.roots)
	if err != nil {
		return 0
	}
	back := 0
	for _, f := range found {
		z := c.zone(f.name)
		if z == nil {
			z = f
		}
		if z.file != nil {
			continue
		}
		z.path = f.path
		if z.open(c.roots) != nil || z.read(now) != nil {
			continue
		}
		back++
		if z == f {
			c.zones = append(c.zones, f)
		}
	}
	return back
}

func (c *powercap) zone(name string) *zone {
	for _, z := range c.zones {
		if z.name == name {
			return z
		}
	}
	return nil
}

// Describe says that the energy is measured.
func (c *powercap) Describe() Description { return c.about }

// Close closes the counters.
func (c *powercap) Close() error {
	var errs []error
	for _, z := range c.zones {
		if z.file != nil {
			errs = append(errs, z.file.Close())
			z.file = nil
		}
	}
	return errors.Join(errs...)
}
