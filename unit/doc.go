// Package unit holds Maxwell's quantities: energy, power, money, price, heat,
// memory and core time, as integers with types that do not mix.
//
// Power is W, energy J, money $J, price x. Each quantity is an int64 in a
// fixed fraction of its unit. Products of two quantities go through 128 bits
// (MulDiv), splits are exact (Apportion), and text goes through one Parse and
// one String per type, which round-trip.
package unit
