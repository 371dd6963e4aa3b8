// Package work holds the two built-in workloads of the experiment: a prime
// finder, whose work somebody pays for, and a hash miner, whose work nobody
// wants. Both burn one core, finish units of constant size and report them.
//
// A unit is the same amount of computation on every machine, in every arm of
// an experiment and at every moment of a run, so that units per joule compare:
//
//   - prime-batch counts the primes of one interval of 2^20 numbers above
//     10^12. The sieve's base primes grow by 0.05 % over a thousand million
//     numbers, so the ten-thousandth batch costs what the first did. The sieve
//     works in 32 KiB pieces, which fit the first-level cache: a neighbour on
//     the same core then costs it time, not speed.
//   - hash-batch is 16,384 links of a SHA-256 chain. Each hash begins with the
//     one before, so nothing can be skipped or done twice at once.
//
// Both take 1-5 ms on current processors. Reports are sums: "work N kind" with
// the units finished since the last line, at most one line in 50 ms, which
// costs one system call of about a microsecond.
package work
