package unit

import (
	"strings"
	"time"
)

// The quantities of the market: money, prices, rates of spending.

// moneyScale is shared by money, spend and rate; letters come without spaces.
func moneyScale(letters string) (int64, int64, bool) {
	switch strings.TrimSuffix(letters, "$J") {
	case "":
		return 1e6, 1, true
	case "k", "K":
		return 1e9, 1, true
	case "M":
		return 1e12, 1, true
	default:
		return 0, 0, false
	}
}

var money = grammar{
	kind: "money", noun: "money",
	hint: `money is written 500 or "500 $J"`,
	most: "9223372 M$J", least: "0.000001 $J",
	scale: moneyScale,
}

var price = grammar{
	kind: "price", noun: "a price",
	hint: "a price is written 3x, in multiples of the base price",
	most: "9223372036854775x", least: "0.001x",
	scale: func(letters string) (int64, int64, bool) {
		return 1e3, 1, letters == "x" || letters == "\u00d7"
	},
}

var spend = grammar{
	kind: "spending rate", noun: "a spending rate",
	hint: "a spending rate is written 16/s, in $J per second of wall time",
	most: "9223372 M$J/s", least: "0.000001 $J/s",
	scale: func(letters string) (int64, int64, bool) {
		times, every, ok := perPeriod(letters)
		return times, int64(every / time.Second), ok
	},
}

// allowance is an amount of money; its period is kept beside it.
var allowance = grammar{
	kind: "allowance", noun: "an allowance",
	hint: "an allowance is written 50k/day, 2k/h, 40/min or 1/s",
	most: "9223372 M$J", least: "0.000001 $J",
	scale: func(letters string) (int64, int64, bool) {
		times, _, ok := perPeriod(letters)
		return times, 1, ok
	},
}

// periods are the spans of wall time that money is given or spent in; the first
// word of each is the one written.
var periods = [...]struct {
	word, short string
	every       time.Duration
}{
	{"s", "", time.Second},
	{"min", "", time.Minute},
	{"h", "", time.Hour},
	{"day", "d", 24 * time.Hour},
}

func perPeriod(letters string) (times int64, every time.Duration, ok bool) {
	amount, word, found := strings.Cut(letters, "/")
	times, _, ok = moneyScale(amount)
	if !found || !ok || word == "" {
		return 0, 0, false
	}
	for _, p := range periods {
		if word == p.word || word == p.short {
			return times, p.every, true
		}
	}
	return 0, 0, false
}

var rate = grammar{
	kind: "rate", noun: "a price per core-second",
	hint: `a price per core-second is written "9.8 $J/core-s"`,
	most: "9223372 M$J/core-s", least: "0.000001 $J/core-s",
	scale: func(letters string) (int64, int64, bool) {
		amount, found := strings.CutSuffix(letters, "/core-s")
		if !found {
			return 0, 0, false
		}
		return moneyScale(amount)
	},
}

// ParseCredits reads 500, 500 $J, 2k, 0.5M.
func ParseCredits(text string) (Credits, error) {
	v, err := money.parse(text)
	return Credits(v), err
}

// String is the exact amount: "500 $J", "0.25 $J".
func (c Credits) String() string {
	return decimal(int64(c), 6) + " $J"
}

// Short is the amount for people, to about three digits: "9.8 $J", "12.3k $J".
func (c Credits) Short() string {
	return short(int64(c), 6, "", " $J")
}

// ParsePrice reads 3x, 0.5x.
func ParsePrice(text string) (Price, error) {
	v, err := price.parse(text)
	return Price(v), err
}

// String is the exact price: "2.3x".
func (p Price) String() string {
	return decimal(int64(p), 3) + "x"
}

// Short is the price for people, to about three digits: "2.3x".
func (p Price) Short() string {
	return short(int64(p), 3, "", "x")
}

// ParseSpend reads 16/s, 16 $J/s, 960/min, 2k/h, 50k/day; always per wall time, rounded
// down to a whole micro-$J per second.
func ParseSpend(text string) (Spend, error) {
	v, err := spend.parse(text)
	return Spend(v), err
}

// String is the exact rate of spending: "16 $J/s".
func (s Spend) String() string {
	return decimal(int64(s), 6) + " $J/s"
}

// Short is the rate of spending for people: "16.3 $J/s".
func (s Spend) Short() string {
	return short(int64(s), 6, "", " $J/s")
}

// Allowance is money that comes again and again: Amount in every Every. It stays
// a pair because 50k a day is no whole number of micro-$J a second.
type Allowance struct {
	Amount Credits       `json:"amount_ucredits"`
	Every  time.Duration `json:"every_ns"` // a second, a minute, an hour or a day
}

// ParseAllowance reads 50k/day, 50k $J/d, 2k/h, 40/min, 1/s.
func ParseAllowance(text string) (Allowance, error) {
	v, err := allowance.parse(text)
	if err != nil {
		return Allowance{}, err
	}
	word := strings.TrimSpace(text[strings.LastIndexByte(text, '/')+1:])
	_, every, _ := perPeriod("/" + strings.ReplaceAll(word, " ", ""))
	return Allowance{Amount: Credits(v), Every: every}, nil
}

// String is the exact allowance: "50000 $J/day".
func (a Allowance) String() string {
	for _, p := range periods {
		if p.every == a.Every {
			return a.Amount.String() + "/" + p.word
		}
	}
	return a.Amount.String() + "/" + a.Every.String()
}

// Short is the allowance as a person writes it, and exact: "50k $J/day".
func (a Allowance) Short() string {
	exact := a.String()
	short := a.Amount.Short() + strings.TrimPrefix(exact, a.Amount.String())
	if same, err := ParseAllowance(short); err != nil || same != a {
		return exact
	}
	return short
}

// Over is what has come after a time since the first moment, rounded down; at
// most the greatest amount. Whoever pays in steps pays the difference of two of
// these, so that nothing is lost to rounding however small the steps are.
func (a Allowance) Over(since time.Duration) Credits {
	if since <= 0 || a.Every <= 0 {
		return 0
	}
	return Credits(MulDivSat(int64(a.Amount), int64(since), int64(a.Every)))
}

// ParseRate reads 9.8 $J/core-s.
func ParseRate(text string) (Rate, error) {
	v, err := rate.parse(text)
	return Rate(v), err
}

// String is the exact rate: "9.8 $J/core-s".
func (r Rate) String() string {
	return decimal(int64(r), 6) + " $J/core-s"
}

// Short is the rate for people: "9.8 $J/core-s".
func (r Rate) Short() string {
	return short(int64(r), 6, "", " $J/core-s")
}
