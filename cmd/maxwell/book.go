package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
)

// book is the input of `maxwell clear`: one epoch.
type book struct {
	Rule     string
	SupplyUS int64
	Seed     uint64
	FloorPPM int64
	Base     *int64
	Bids     []bid
}

// bid is one wallet of a book.
type bid struct {
	ID       string
	DemandUS int64
	UsedUS   *int64 // nil: the allocation is taken as used
	Bid      int64
	Reserve  int64
	Deposit  int64
}

// Bounds of a book, so that no sum or product in it can overflow: eight core
// days, a million $J per core-second, and a thousand million $J.
const (
	maxBook    = 256 << 20
	maxBookUS  = 1 << 39
	maxRate    = 1_000_000_000_000
	maxDeposit = 1_000_000_000_000_000
)

// parseBook reads a book strictly: keys exactly as documented, each once,
// whole numbers only. Every error names its place.
func parseBook(file string, text []byte) (book, error) {
	p := bookParser{file: file, text: text, dec: json.NewDecoder(bytes.NewReader(text))}
	p.dec.UseNumber()
	b := book{FloorPPM: 20_000}
	seen, err := p.object("", func(key, path string) error { return p.bookKey(&b, key, path) })
	if err != nil {
		return b, err
	}
	for _, key := range []string{"rule", "supply_core_us", "bids"} {
		if !seen[key] {
			return b, p.fault("", "the key %q is missing", key)
		}
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return b, p.fault("", "something follows the book; a file holds one object")
	}
	return b, nil
}

var (
	bookKeys = []string{"rule", "supply_core_us", "seed", "floor_ppm", "base_ucredits_per_core_s", "bids"}
	bidKeys  = []string{"id", "demand_core_us", "used_core_us", "bid_ucredits_per_core_s", "reserve_ucredits_per_core_s", "deposit_ucredits"}
)

type bookParser struct {
	file string
	text []byte
	dec  *json.Decoder
}

// fault is an error at the decoder's place: BOOK.json:3:14: bids[2].id: reason.
func (p *bookParser) fault(path, format string, args ...any) error {
	at := p.text[:min(int64(len(p.text)), p.dec.InputOffset())]
	line := 1 + bytes.Count(at, []byte("\n"))
	column := len(at) - bytes.LastIndexByte(at, '\n')
	reason := fmt.Sprintf(format, args...)
	if path != "" {
		reason = path + ": " + reason
	}
	return usagef("clear: %s:%d:%d: %s", p.file, line, column, reason)
}

// token returns the next token, or an error with its place.
func (p *bookParser) token(path string) (json.Token, error) {
	t, err := p.dec.Token()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, p.fault(path, "the file ends too early")
	case err != nil:
		return nil, p.fault(path, "not JSON: %v", err)
	}
	return t, nil
}

// object reads {...} and hands each key, once, to read.
func (p *bookParser) object(path string, read func(key, path string) error) (map[string]bool, error) {
	open, err := p.token(path)
	if err != nil {
		return nil, err
	}
	if open != json.Delim('{') {
		return nil, p.fault(path, "not an object")
	}
	seen := make(map[string]bool)
	for p.dec.More() {
		t, err := p.token(path)
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok {
			return nil, p.fault(path, "not a key")
		}
		if seen[key] {
			return nil, p.fault(path, "the key %q is given twice", key)
		}
		seen[key] = true
		inner := key
		if path != "" {
			inner = path + "." + key
		}
		if err := read(key, inner); err != nil {
			return nil, err
		}
	}
	_, err = p.token(path)
	return seen, err
}

func (p *bookParser) bookKey(b *book, key, path string) (err error) {
	switch key {
	case "rule":
		if b.Rule, err = p.word(path); err == nil && b.Rule != "vickrey" {
			err = p.fault(path, "%q is unknown; the rule is \"vickrey\"", b.Rule)
		}
	case "supply_core_us":
		b.SupplyUS, err = p.number(path, maxBookUS)
	case "seed":
		b.Seed, err = p.seed(path)
	case "floor_ppm":
		b.FloorPPM, err = p.number(path, 1_000_000)
	case "base_ucredits_per_core_s":
		var v int64
		v, err = p.number(path, maxRate)
		b.Base = &v
	case "bids":
		b.Bids, err = p.bids(path)
	default:
		err = p.unknown(key, bookKeys)
	}
	return err
}

func (p *bookParser) bids(path string) ([]bid, error) {
	open, err := p.token(path)
	if err != nil {
		return nil, err
	}
	if open != json.Delim('[') {
		return nil, p.fault(path, "not a list")
	}
	var out []bid
	ids := make(map[string]bool)
	for p.dec.More() {
		at := fmt.Sprintf("%s[%d]", path, len(out))
		var b bid
		seen, err := p.object(at, func(key, path string) error { return p.bidKey(&b, key, path) })
		if err != nil {
			return nil, err
		}
		for _, key := range []string{"id", "demand_core_us", "bid_ucredits_per_core_s", "reserve_ucredits_per_core_s"} {
			if !seen[key] {
				return nil, p.fault(at, "the key %q is missing", key)
			}
		}
		if ids[b.ID] {
			return nil, p.fault(at, "the id %q is used twice", b.ID)
		}
		if b.UsedUS != nil && *b.UsedUS > b.DemandUS {
			return nil, p.fault(at, "used_core_us %d is more than demand_core_us %d", *b.UsedUS, b.DemandUS)
		}
		ids[b.ID] = true
		out = append(out, b)
	}
	_, err = p.token(path)
	return out, err
}

func (p *bookParser) bidKey(b *bid, key, path string) (err error) {
	switch key {
	case "id":
		if b.ID, err = p.word(path); err == nil && b.ID == "" {
			err = p.fault(path, "the id is empty")
		}
	case "demand_core_us":
		b.DemandUS, err = p.number(path, maxBookUS)
	case "used_core_us":
		var v int64
		v, err = p.number(path, maxBookUS)
		b.UsedUS = &v
	case "bid_ucredits_per_core_s":
		b.Bid, err = p.number(path, maxRate)
	case "reserve_ucredits_per_core_s":
		b.Reserve, err = p.number(path, maxRate)
	case "deposit_ucredits":
		b.Deposit, err = p.number(path, maxDeposit)
	default:
		err = p.unknown(key, bidKeys)
	}
	return err
}

func (p *bookParser) unknown(key string, known []string) error {
	if near := fleet.Nearest(key, known); near != "" {
		return p.fault("", "unknown key %q; did you mean %q?", key, near)
	}
	return p.fault("", "unknown key %q", key)
}

func (p *bookParser) word(path string) (string, error) {
	t, err := p.token(path)
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", p.fault(path, "not a text")
	}
	return s, nil
}

// number reads a whole number from 0 to most.
func (p *bookParser) number(path string, most int64) (int64, error) {
	t, err := p.token(path)
	if err != nil {
		return 0, err
	}
	n, ok := t.(json.Number)
	if !ok {
		return 0, p.fault(path, "not a number")
	}
	v, err := strconv.ParseInt(n.String(), 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) && n.String()[0] != '-', err == nil && v > most:
		return 0, p.fault(path, "%s is more than %d", n, most)
	case errors.Is(err, strconv.ErrRange), err == nil && v < 0:
		return 0, p.fault(path, "%s is negative", n)
	case err != nil:
		return 0, p.fault(path, "%s is not a whole number", n)
	}
	return v, nil
}

func (p *bookParser) seed(path string) (uint64, error) {
	v, err := p.number(path, math.MaxInt64)
	return uint64(v), err
}
