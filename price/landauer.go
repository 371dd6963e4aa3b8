package price

import (
	"fmt"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

const (
	// boltzmannLn2 is k ln 2 in 1e-33 J/K: 1.380649e-23 J/K (exact since 2019)
	// times 0.693147..., 9.569930e-24 J/K.
	boltzmannLn2 = 9_569_929_617

	// room is 300 K, the temperature at which the default is calibrated.
	room unit.MilliCelsius = 26_850

	// defaultMultiplier makes a bit cost 10 pJ at 300 K, which is about what
	// real DRAM spends per bit moved. Physics alone asks 2.87e-21 J.
	defaultMultiplier = 3_483_132_548

	// hottest bounds temperatures; silicon is slag at 2000 C.
	hottest unit.MilliCelsius = 2_000_000
)

// Landauer is the tax on erased information: kT ln 2 per bit, times a policy
// multiplier that is printed wherever the tax is printed. The zero value is no
// tax.
type Landauer struct {
	Temperature unit.MilliCelsius // T; measured where there is a sensor
	Multiplier  int64             // times what physics asks; 0 = no tax
}

// DefaultLandauer is the tax of about 10 pJ per bit at 300 K.
func DefaultLandauer() Landauer {
	return Landauer{Temperature: room, Multiplier: defaultMultiplier}
}

// At is the tax at another temperature, with the same multiplier. A reading
// outside the possible is cut to it.
func (l Landauer) At(t unit.MilliCelsius) Landauer {
	l.Temperature = min(max(t, unit.AbsoluteZero), hottest)
	return l
}

// PerBit is the cost of erasing one bit, in attojoules (1e-18 J), to the nearest.
func (l Landauer) PerBit() int64 {
	kelvin := int64(l.Temperature - unit.AbsoluteZero) // in 1e-3 K
	if kelvin < 0 || l.Temperature > hottest || l.Multiplier < 0 {
		panic(fmt.Sprintf("price: Landauer tax at %d mC times %d", l.Temperature, l.Multiplier))
	}
	// 1e-33 J/K times 1e-3 K is 1e-36 J; an attojoule is 1e18 of them.
	q, rest := unit.MulDivRem(boltzmannLn2*kelvin, l.Multiplier, 1e18)
	if rest >= 5e17 {
		q++
	}
	return q
}

// Per is the energy that erasing b bits is taxed at, rounded down: for people.
// Debits go through Cost, which carries the rest.
func (l Landauer) Per(b unit.Bits) unit.Microjoules {
	return unit.Microjoules(unit.MulDivSat(int64(b), l.PerBit(), erasureParts))
}

// String says what a bit costs and why.
func (l Landauer) String() string {
	return fmt.Sprintf("%s pJ/bit = kT ln 2 at %v times %d", picojoules(l.PerBit()), l.Temperature, l.Multiplier)
}

// picojoules writes attojoules with two decimals.
func picojoules(atto int64) string {
	hundredths := atto / 10_000
	if atto%10_000 >= 5_000 {
		hundredths++
	}
	return fmt.Sprintf("%d.%02d", hundredths/100, hundredths%100)
}
