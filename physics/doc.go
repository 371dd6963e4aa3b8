// Package physics turns sensor readings into energy that belongs to somebody.
//
// # Problem
//
// A sensor says how many joules the machine has burnt, now and then, through
// counters that wrap every few minutes, jitter by a millisecond, disappear over
// suspend, or are made up by a model. A bill needs the joules of one workload
// in one interval, and bills need to sum to what the machine burnt.
//
// # Model
//
// Counter makes one hardware counter monotone: it undoes wraps and clamps what
// is physically impossible. Readings of all domains, summed, are a Reading with
// its Source and 1-sigma band.
//
// Baseline finds what the machine burns for being switched on, as the rolling
// lower envelope of its power. Attributor splits the rest by use:
//
//	E_idle = min(E_node, P_idle * dt)
//	E_i    = w_i / (w_system + sum(w)) * (E_node - E_idle)
//	E_node = sum(E_i) + E_system + E_idle + E_unattributed
//
// with w_i the core time of workload i in the interval. If nobody at all was
// seen to run, what exceeds the idle energy is unattributed: it is shown, and
// no wallet pays for it.
//
// # Guarantees
//
//   - Conservation: the four parts of Books sum to the node's energy in every
//     interval, in whole microjoules.
//   - Fairness in time: what rounding owes a slot is carried, so over any number
//     of intervals a slot's energy is within a few microjoules of its exact
//     share, however small its use is per interval.
//   - Counters never create energy beyond twice the physical maximum, and every
//     repair is counted as a fault.
//   - Split and Observe do not allocate once there is room for the slots.
//
// # What the caller must do
//
// Call Split with energy and usages of the same interval. Call Forget when a
// slot's workload is dead, and show what is unattributed. Say "modelled"
// wherever Source.Modelled does.
//
// # Rejected
//
//   - Active power as total power times utilisation: idle power then shrinks
//     under load and the workloads pay for it twice.
//   - Billing idle power by use: it makes the price of a core-second depend on
//     how many others sleep. It is the node's own cost; reservations will carry
//     it as rent.
//   - Repaying intervals below idle power out of later ones: that would let a
//     sensor's jitter at rest lower the bill of whoever runs next.
package physics
