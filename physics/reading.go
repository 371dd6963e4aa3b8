// Package physics turns sensor readings into energy that belongs to somebody.
package physics

import "github.com/maxwell-hypervisor/maxwell/unit"

// Source says where a reading of energy came from, worst to best.
type Source uint8

// Sources of energy readings. The declared sigma of the modelled ones is in
// Source.Sigma.
const (
	SourceNone       Source = iota
	SourceGeneric           // generic model: watts from the processor family, +-50 %
	SourceFamily            // family table model, +-20 %
	SourceCalibrated        // model with watts given or measured by the operator, +-10 %
	SourceHostFed           // joules handed down by a host's Maxwell, +-5 %
	SourceBattery
	SourcePlatform
	SourceMSR
	SourcePowercap
	SourcePerf
)

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
