package sensor

import (
	"errors"
	"fmt"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Sensor reads the node's energy. It is not safe for concurrent use.
type Sensor interface {
	// Read takes the time and the core time that the whole node has run until
	// then (cumulative from any origin; models use it). Energy is cumulative
	// since the first Read. With an error the reading is still the last known
	// one. Read does not allocate while the source answers, but for a search
	// for new counters once a minute.
	Read(now unit.Instant, busy unit.CoreTime) (physics.Reading, error)
	Describe() Description
	Close() error
}

// Description says what a sensor is, for statements and for doctor.
type Description struct {
	Source    physics.Source
	Modelled  bool
	Sigma     unit.PPM
	Reference unit.Microwatts // dynamic power of one busy logical core: 1x before the grid factor
	Idle      unit.Microwatts // the node's idle power: constant in a model, a first guess for a counter
	Basis     string          // where Reference comes from: "rated 65 W over 12 cores"

	// Why is why no better source serves; empty when none is better. Hint is
	// what the operator can do about it; empty when nothing.
	Why, Hint string
}

// Config is what the operator knows. The zero value is a machine that
// describes itself.
type Config struct {
	WattsPerCore unit.Microwatts // what one busy logical core adds; 0 = from the processor
	Idle         unit.Microwatts // what the idle machine draws; 0 = from the processor
	Model        bool            // use a model even where counters are readable
}

// Bounds of the operator's figures: from a microcontroller's core to far above
// the largest processors.
const (
	minCore = 1_000          // 1 mW
	maxCore = 1_000_000_000  // 1 kW
	maxIdle = 10_000_000_000 // 10 kW
)

// Validate refuses figures that no machine has.
func (c Config) Validate() error {
	if c.WattsPerCore != 0 && (c.WattsPerCore < minCore || c.WattsPerCore > maxCore) {
		return fmt.Errorf("watts per core %v is outside 1 mW to 1 kW", c.WattsPerCore)
	}
	if c.Idle < 0 || c.Idle > maxIdle {
		return fmt.Errorf("idle watts %v is outside 0 to 10 kW", c.Idle)
	}
	return nil
}

// Open opens the best sensor that this machine has.
func Open(cfg Config, roots host.Roots) (Sensor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open sensor: %w", err)
	}
	p, err := host.ReadProcessor(roots)
	if err != nil {
		return nil, fmt.Errorf("open sensor: %w", err)
	}
	estimate := estimatePower(p, zoneLimits(roots))
	if cfg.WattsPerCore != 0 {
		estimate.source, estimate.sigma = physics.SourceCalibrated, physics.SourceCalibrated.Sigma()
		estimate.core, estimate.basis = cfg.WattsPerCore, "watts per core given by the operator"
	}
	if cfg.Idle != 0 {
		estimate.idle = cfg.Idle
	}
	why := &host.Unavailable{Feature: host.FeaturePowercap, Reason: "a model was asked for"}
	if !cfg.Model {
		counters, refusal := openPowercap(roots, p, estimate)
		if refusal == nil {
			return counters, nil
		}
		var ok bool
		if why, ok = errors.AsType[*host.Unavailable](refusal); !ok {
			return nil, fmt.Errorf("open sensor: %w", refusal)
		}
	}
	return newModel(estimate, len(p.Online), why), nil
}
