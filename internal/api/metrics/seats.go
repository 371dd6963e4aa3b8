package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

// other is the label of all workloads without series of their own.
const other = "other"

// maxLabel bounds a label's value, in bytes.
const maxLabel = 128

// view is one snapshot, divided: who is shown, and who is summed.
type view struct {
	snapshot *v1.Snapshot
	shown    []shown
	rest     []*v1.Workload
	other    [][]int64 // as counters: what workloads used while they had no seat
}

type shown struct {
	label    string
	workload *v1.Workload
}

// seats remembers who has series, and what everybody was last seen at.
type seats struct {
	labels map[string]string    // of workloads with a seat, by identity
	last   map[string][][]int64 // counters, by identity
	other  [][]int64
}

func newSeats() *seats {
	s := &seats{labels: make(map[string]string), last: make(map[string][][]int64)}
	s.other = read(&v1.Workload{}) // zeros
	return s
}

// read is what the counters say of a workload.
func read(w *v1.Workload) [][]int64 {
	out := make([][]int64, len(counters))
	for i, c := range counters {
		out[i] = c.get(w)
	}
	return out
}

// identity is never another's, also after a restart, where the market gives
// ids; else the name.
func identity(w *v1.Workload) string {
	if id := w.GetId(); id != "" {
		return id
	}
	return w.GetName()
}

// look divides a snapshot and counts what those without a seat used since the
// last one. What a workload used before a move is counted where it was, so rates
// over all series add up to what was used.
func (s *seats) look(snapshot *v1.Snapshot) *view {
	ranked := slices.Clone(snapshot.GetWorkloads())
	slices.SortStableFunc(ranked, func(a, b *v1.Workload) int {
		return cmp.Or(cmp.Compare(dead(a), dead(b)), cmp.Compare(b.GetPowerUw(), a.GetPowerUw()), strings.Compare(a.GetName(), b.GetName()))
	})
	before := maps.Clone(s.labels)
	s.assign(ranked)
	v := &view{snapshot: snapshot}
	last := make(map[string][][]int64)
	for _, w := range ranked {
		id := identity(w)
		if last[id] != nil { // a second one of the name
			v.rest = append(v.rest, w)
			continue
		}
		now, was := read(w), s.last[id]
		last[id] = now
		label, ok := s.labels[id]
		switch {
		case !ok:
			v.rest = append(v.rest, w)
			s.count(was, now)
			continue
		case before[id] == "" && was != nil: // until now it was in other, and so is what it used until now
			s.count(was, now)
		}
		v.shown = append(v.shown, shown{label, w})
	}
	s.last = last
	v.other = make([][]int64, len(s.other))
	for i := range s.other {
		v.other[i] = slices.Clone(s.other[i])
	}
	return v
}

// count adds what a workload used since it was last seen to other. One that is
// seen for the first time used all of it; a counter that went back began anew.
func (s *seats) count(was, now [][]int64) {
	for i := range now {
		for j, v := range now[i] {
			if was != nil && was[i][j] <= v {
				v -= was[i][j]
			}
			s.other[i][j] += max(0, v)
		}
	}
}

// assign gives seats, to the first of ranked first.
func (s *seats) assign(ranked []*v1.Workload) {
	byID := make(map[string]*v1.Workload, len(ranked))
	for _, w := range ranked {
		if id := identity(w); byID[id] == nil {
			byID[id] = w
		}
	}
	taken := make(map[string]string, len(s.labels)) // labels, to identity
	for id, label := range s.labels {
		if byID[id] == nil {
			delete(s.labels, id) // gone, and so is what it used since
			continue
		}
		taken[label] = id
	}
	var holders []*v1.Workload // the first to give way first
	for id := range s.labels {
		holders = append(holders, byID[id])
	}
	slices.SortFunc(holders, func(a, b *v1.Workload) int {
		return cmp.Or(cmp.Compare(dead(b), dead(a)), cmp.Compare(a.GetPowerUw(), b.GetPowerUw()), strings.Compare(b.GetName(), a.GetName()))
	})
	for _, w := range ranked {
		id, label := identity(w), clean(w.GetName())
		if _, ok := s.labels[id]; ok || label == other || byID[id] != w {
			continue
		}
		var holder *v1.Workload // of the label, or of the seat that w gets
		if at, ok := taken[label]; ok {
			holder = byID[at]
		}
		switch {
		case holder != nil && (dead(holder) == 0 || dead(w) == 1): // its name is in use
			continue
		case holder != nil:
		case len(s.labels) < Workloads:
		default:
			for len(holders) > 0 && s.labels[identity(holders[0])] == "" { // gave way already
				holders = holders[1:]
			}
			if len(holders) == 0 || !yields(holders[0], w) {
				continue
			}
			holder, holders = holders[0], holders[1:]
		}
		if holder != nil {
			s.unseat(holder, taken)
		}
		s.labels[id], taken[label] = label, id
	}
}

// unseat takes a seat back.
func (s *seats) unseat(w *v1.Workload, taken map[string]string) {
	id := identity(w)
	delete(taken, s.labels[id])
	delete(s.labels, id)
}

// yields says whether a holder's seat goes to w.
func yields(holder, w *v1.Workload) bool {
	if dead(holder) != dead(w) {
		return dead(holder) == 1
	}
	return dead(w) == 0 && w.GetPowerUw()/2 > holder.GetPowerUw()
}

func dead(w *v1.Workload) int {
	if w.GetState() == "dead" {
		return 1
	}
	return 0
}

// clean makes a label's value of a text: readable, and not long.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, text)
	for len(text) > maxLabel {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	if text == "" {
		return "_"
	}
	return text
}
