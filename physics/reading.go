package physics

import "github.com/maxwell-hypervisor/maxwell/unit"

// Source says where a reading of energy came from, worst to best.
type Source uint8

// Sources of energy readings.
const (
	SourceNone       Source = iota
	SourceGeneric           // generic model: watts from the processor family
	SourceFamily            // family table model
	SourceCalibrated        // model with watts given or measured by the operator
	SourceHostFed           // joules handed down by a host's Maxwell
	SourceBattery
	SourcePlatform
	SourceMSR
	SourcePowercap
	SourcePerf
)

// String is the source's name in statements and JSON.
func (s Source) String() string {
	switch s {
	case SourceNone:
		return "none"
	case SourceGeneric:
		return "generic-model"
	case SourceFamily:
		return "family-model"
	case SourceCalibrated:
		return "calibrated-model"
	case SourceHostFed:
		return "host-fed"
	case SourceBattery:
		return "battery"
	case SourcePlatform:
		return "platform"
	case SourceMSR:
		return "msr"
	case SourcePowercap:
		return "powercap"
	case SourcePerf:
		return "perf"
	default:
		return "unknown"
	}
}

// Modelled says whether energy from s is computed rather than measured. What a
// host hands down to its guest is a share that the host computed, so it counts
// as modelled in the guest. Every number from a modelled source is shown as
// such.
func (s Source) Modelled() bool {
	return s <= SourceHostFed
}

// Sigma is the declared 1-sigma band of energy increments from s. A sensor that
// knows better (Intel's energy filtering can skew RAPL by half) widens it in
// its readings, never narrows it.
func (s Source) Sigma() unit.PPM {
	switch s {
	case SourceGeneric:
		return 500_000
	case SourceFamily:
		return 200_000
	case SourceCalibrated:
		return 100_000
	case SourceHostFed, SourceBattery:
		return 50_000
	case SourcePlatform, SourceMSR, SourcePowercap, SourcePerf:
		// On-chip counters follow the plug with a constant offset of a few
		// percent (Desrochers et al., MEMSYS 2016).
		return 30_000
	default:
		return unit.One
	}
}

// Reading is one observation of the node's energy and heat.
type Reading struct {
	At          unit.Instant
	Energy      unit.Microjoules // cumulative since the sensor was opened; never runs backwards
	Source      Source
	Sigma       unit.PPM // 1-sigma of Energy's increments
	Temperature unit.MilliCelsius
	HasHeat     bool   // Temperature is real
	Throttles   uint64 // cumulative thermal throttle events
	Faults      uint64 // cumulative counter faults that were clamped
}
