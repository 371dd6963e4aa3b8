// Package sensor turns what the machine can say about energy into
// physics.Reading: counters where there are any, a declared model where not.
//
// # The ladder
//
// Open takes the best source that answers, and Describe says which it is, how
// far to trust it (one sigma), and why no better one serves:
//
//	powercap     RAPL package counters, Intel and AMD             measured
//	calibrated   the operator's watts per core                    modelled, 10 %
//	family       rated power of a known processor on bare metal   modelled, 20 %
//	generic      any processor, every virtual machine             modelled, 50 %
//
// The perf PMU, MSRs, platform power and batteries have their place between
// them: each is one more type with the three methods of Sensor and one more
// line in Open.
//
// # The model
//
// All three modelled sources are one formula,
//
//	E = P_dynamic * busy + P_idle * elapsed
//
// with busy the core-seconds that the whole machine has run. Dynamic energy is
// strictly proportional to core time, so on a modelled source every
// workload's share of the energy equals its share of the core time, exactly,
// and its joules are core-seconds in another unit. That is also why every
// number from it must be shown as modelled: it can't tell a hot loop from a
// cool one. Concave curves (power rising less for the last core than for the
// first) fit SPECpower data better, and were rejected: under them what one
// workload pays would depend on how busy the others are, which a model can't
// know to be true of this machine.
//
// # Powercap
//
// Only package zones are summed. Their core and uncore subzones are inside
// them; psys contains them; the MMIO interface shows the same package a second
// time; dram is outside the package and left out, as the processor is what
// Maxwell sells. Each zone has its own physics.Counter, which mends wraps,
// jumps and resets; a zone that vanishes is sought again once a second and
// counts on from its return.
package sensor
