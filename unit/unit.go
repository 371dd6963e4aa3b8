package unit

// Microjoules is an amount of physical energy, in 1e-6 J.
type Microjoules int64

// Microwatts is power, in 1e-6 W. It is also energy per core-second
// (uJ per core-s), because one core-second lasts one second on one core.
type Microwatts int64

// Credits is money, in micro-$J (1e-6 $J). One $J buys one joule at the
// reference grid price on a machine with free capacity.
type Credits int64

// Rate is an absolute price of core time: micro-$J per core-second.
type Rate int64

// Spend is a speed of spending: micro-$J per second of wall time.
type Spend int64

// Price is a price as a multiple of the node's base price, in 1/1000 x:
// 1x is 1000.
type Price int64

// MilliCelsius is a temperature, in 1e-3 degrees Celsius.
type MilliCelsius int64

// Bytes is an amount of memory.
type Bytes int64

// CoreTime is time on a core (or waiting for one), in nanoseconds of one core.
type CoreTime int64

// Instant is a point on the monotonic clock, in nanoseconds since an
// arbitrary origin that does not change while a node lives.
type Instant int64

// Bits is an amount of information.
type Bits int64

// MilliCores is a number of cores, in 1/1000 core.
type MilliCores int64

// PPM is a dimensionless fraction, in parts per million.
type PPM int64

// One of each quantity, in its own integer.
const (
	Joule       Microjoules  = 1_000_000
	Watt        Microwatts   = 1_000_000
	DollarJoule Credits      = 1_000_000 // 1 $J
	Times       Price        = 1_000     // 1x
	Celsius     MilliCelsius = 1_000
	Core        MilliCores   = 1_000
	CoreSecond  CoreTime     = 1_000_000_000
	KiB         Bytes        = 1 << 10
	MiB         Bytes        = 1 << 20
	GiB         Bytes        = 1 << 30
	TiB         Bytes        = 1 << 40
	Byte        Bits         = 8

	// One is the fraction 1 in parts per million.
	One PPM = 1_000_000
)
