package unit

// The quantities of physics: energy, power, heat.

var energy = grammar{
	kind: "energy", noun: "energy",
	hint: "energy is written 500J, 2kJ or 0.5kWh",
	most: "2562047 kWh", least: "0.000001 J",
	scale: func(letters string) (int64, int64, bool) {
		switch letters {
		case "uJ", "\u00b5J", "\u03bcJ":
			return 1, 1, true
		case "mJ":
			return 1e3, 1, true
		case "J", "Ws":
			return 1e6, 1, true
		case "kJ":
			return 1e9, 1, true
		case "MJ":
			return 1e12, 1, true
		case "GJ":
			return 1e15, 1, true
		case "Wh":
			return 3600e6, 1, true
		case "kWh":
			return 3600e9, 1, true
		case "MWh":
			return 3600e12, 1, true
		default:
			return 0, 0, false
		}
	},
}

var power = grammar{
	kind: "power", noun: "power",
	hint: "power is written 25W or 0.5kW",
	most: "9223372 MW", least: "0.000001 W",
	scale: func(letters string) (int64, int64, bool) {
		switch letters {
		case "uW", "\u00b5W", "\u03bcW":
			return 1, 1, true
		case "mW":
			return 1e3, 1, true
		case "W":
			return 1e6, 1, true
		case "kW":
			return 1e9, 1, true
		case "MW":
			return 1e12, 1, true
		default:
			return 0, 0, false
		}
	},
}

var heat = grammar{
	kind: "temperature", noun: "a temperature",
	hint: "a temperature is written 71.5C",
	most: "9223372036854775 C", least: "0.001 C",
	scale: func(letters string) (int64, int64, bool) {
		switch letters {
		case "C", "\u00b0C":
			return 1e3, 1, true
		default:
			return 0, 0, false
		}
	},
}

// ParseEnergy reads 500J, 2kJ, 0.5kWh. A unit is required.
func ParseEnergy(text string) (Microjoules, error) {
	v, err := energy.parse(text)
	return Microjoules(v), err
}

// String is the exact amount: "571.25 J".
func (e Microjoules) String() string {
	return decimal(int64(e), 6) + " J"
}

// Short is the amount for people, to about three digits: "571 J", "12.3 kJ".
func (e Microjoules) Short() string {
	return short(int64(e), 6, " ", "J")
}

// ParsePower reads 25W, 0.5kW. A unit is required.
func ParsePower(text string) (Microwatts, error) {
	v, err := power.parse(text)
	return Microwatts(v), err
}

// String is the exact power: "25 W".
func (p Microwatts) String() string {
	return decimal(int64(p), 6) + " W"
}

// Short is the power for people, to about three digits: "12.4 W".
func (p Microwatts) Short() string {
	return short(int64(p), 6, " ", "W")
}

// AbsoluteZero is the lowest temperature there is.
const AbsoluteZero MilliCelsius = -273_150

// ParseTemperature reads 71.5C. It is the one quantity that may be negative,
// down to absolute zero.
func ParseTemperature(text string) (MilliCelsius, error) {
	if rest, negative := cutMinus(text); negative {
		v, err := heat.parse(rest)
		if err == nil && -v < int64(AbsoluteZero) {
			err = heat.fail(text, "is below absolute zero")
		}
		if err != nil {
			return 0, restore(err, text)
		}
		return MilliCelsius(-v), nil
	}
	v, err := heat.parse(text)
	return MilliCelsius(v), err
}

// String is the exact temperature: "71.5 C".
func (t MilliCelsius) String() string {
	return decimal(int64(t), 3) + " C"
}

// Short is the temperature for people: "71.5 C".
func (t MilliCelsius) Short() string {
	return short(int64(t), 3, "", " C")
}
