package fleet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/strict"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Error is a fault of a fleet file, with its place.
type Error = strict.Error

// Parse reads a fleet file. The name is only used in errors.
func Parse(file string, text []byte) (Fleet, error) {
	d := decoder{Document: strict.Document{File: file, Kind: "a fleet file", Levels: "five"}}
	body, err := d.Read(text)
	if err == nil && body == nil {
		err = &Error{File: file, Err: errors.New("the file is empty; it needs the key workloads")}
	}
	if err != nil {
		return Fleet{}, err
	}
	if err := d.fleet(body); err != nil {
		return Fleet{}, err
	}
	return d.out, nil
}

// decoder fills a fleet from the file's syntax tree.
type decoder struct {
	strict.Document
	out Fleet
}

func (d *decoder) fleet(body strict.Node) error {
	top, err := d.Mapping(body, "", "node: and workloads:")
	if err != nil {
		return err
	}
	known := []string{"node", "workloads"}
	for _, e := range top {
		switch e.Key {
		case "node":
			err = d.node(e)
		case "workloads":
			err = d.workloads(e)
		default:
			err = d.Unknown(e, "", known)
		}
		if err != nil {
			return err
		}
	}
	if len(d.out.Workloads) == 0 {
		return &Error{File: d.File, Err: errors.New("no workloads; write workloads: {NAME: {command: [...]}}")}
	}
	return nil
}

func (d *decoder) node(e strict.Entry) error {
	entries, err := d.Mapping(e.Value, "node", "{cores: 2, watts: 25}")
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := "node." + e.Key
		field := strict.Find(nodeFields, e.Key)
		if field == nil {
			return d.Unknown(e, "node", strict.Names(nodeFields))
		}
		text, err := d.Text(e, path, field.Example)
		if err != nil {
			return err
		}
		if err := field.Set(&d.out.Node, text); err != nil {
			return d.Wrap(e.Value, path, err)
		}
	}
	return nil
}

func (d *decoder) workloads(e strict.Entry) error {
	entries, err := d.Mapping(e.Value, "workloads", "{NAME: {command: [...]}}")
	if err != nil {
		return err
	}
	names := make(map[string]int, len(entries))
	for _, e := range entries {
		w, err := d.workload(e)
		if err != nil {
			return err
		}
		if err := d.claim(names, e, &w); err != nil {
			return err
		}
		d.out.Workloads = append(d.out.Workloads, w)
	}
	return nil
}

// claim enters the names of a template into names, refusing a second use.
func (d *decoder) claim(names map[string]int, e strict.Entry, w *Workload) error {
	if len(names)+max(1, w.Replicas) > MaxWorkloads {
		return d.Fault(e.At, "workloads", fmt.Sprintf("more than %d workloads; start fewer", MaxWorkloads))
	}
	for i := range max(1, w.Replicas) {
		name := w.Name
		if w.Replicas > 0 {
			name = replicaName(w.Name, i+1)
		}
		if p := CheckName(name); p != nil {
			return d.Wrap(e.At, "workloads."+w.Name, p)
		}
		if line, taken := names[name]; taken {
			return d.Fault(e.At, "workloads."+w.Name, fmt.Sprintf("the name %q is already used by line %d; rename one", name, line))
		}
		names[name] = w.Place.Line
	}
	return nil
}

func (d *decoder) workload(e strict.Entry) (Workload, error) {
	path := "workloads." + e.Key
	w := New(e.Key)
	if at := strict.Position(e.At); at != nil {
		w.Place = Place{at.Line, at.Column}
	}
	if p := CheckName(w.Name); p != nil {
		return w, d.Wrap(e.At, "workloads", p)
	}
	entries, err := d.Mapping(e.Value, path, "{command: [...], budget: 500}")
	if err != nil {
		return w, err
	}
	at := make(map[string]strict.Node, len(entries))
	for _, f := range entries {
		if err := d.key(&w, f, path); err != nil {
			return w, err
		}
		at[f.Key] = f.Value
	}
	w.Fill()
	if p := w.Validate(); p != nil {
		where, found := at[p.Field]
		if !found {
			where = e.At
		}
		full := path
		if p.Field != "" {
			full += "." + p.Field
		}
		return w, d.Wrap(where, full, p)
	}
	return w, nil
}

// key sets one key of a workload.
func (d *decoder) key(w *Workload, e strict.Entry, parent string) error {
	path := parent + "." + e.Key
	switch e.Key {
	case "command":
		return d.command(w, e, path)
	case "income":
		return d.income(w, e, path)
	case "env":
		return d.env(w, e, path)
	}
	field := strict.Find(workloadFields, e.Key)
	if field == nil {
		known := append([]string{"command", "income", "env"}, strict.Names(workloadFields)...)
		return d.Unknown(e, parent, known)
	}
	text, err := d.Text(e, path, field.Example)
	if err != nil {
		return err
	}
	if err := field.Set(w, text); err != nil {
		return d.Wrap(e.Value, path, err)
	}
	return nil
}

func (d *decoder) command(w *Workload, e strict.Entry, path string) error {
	const fix = `write a list: [sleep, "5"]`
	list, ok := strict.List(e.Value)
	if !ok {
		return d.Fault(e.Place(), path, strict.KindOf(e.Value)+" where a list belongs; "+fix)
	}
	for _, v := range list {
		word, ok := strict.Scalar(v)
		if !ok {
			return d.Fault(v, path, strict.KindOf(v)+" where a word belongs; "+fix)
		}
		w.Command = append(w.Command, word)
	}
	if p := checkCommand(w.Command); p != nil {
		return d.Wrap(e.Value, path, p)
	}
	return nil
}

func (d *decoder) income(w *Workload, e strict.Entry, path string) error {
	entries, err := d.Mapping(e.Value, path, "{per: prime-batch, amount: 10}")
	if err != nil {
		return err
	}
	for _, f := range entries {
		text, err := d.Text(f, path+"."+f.Key, "a word or an amount")
		if err != nil {
			return err
		}
		switch f.Key {
		case "per":
			if p := CheckName(text); p != nil {
				p.Reason = strings.Replace(p.Reason, "the name", "the kind of work", 1)
				return d.Wrap(f.Value, path+".per", p)
			}
			w.Income.Per = text
		case "amount":
			w.Income.Amount, err = above(unit.ParseCredits(text))
			if err != nil {
				return d.Wrap(f.Value, path+".amount", err)
			}
		default:
			return d.Unknown(f, path, []string{"per", "amount"})
		}
	}
	return nil
}

func (d *decoder) env(w *Workload, e strict.Entry, path string) error {
	entries, err := d.Mapping(e.Value, path, "{NAME: value}")
	if err != nil {
		return err
	}
	w.Env = make(map[string]string, len(entries))
	for _, f := range entries {
		text, err := d.Text(f, path+"."+f.Key, `"value"`)
		if err != nil {
			return err
		}
		if f.Key == "" || strings.ContainsAny(f.Key, "=\x00") || strings.Contains(text, "\x00") {
			return d.Fault(f.At, path, fmt.Sprintf("%q cannot be a variable; write {NAME: value}", f.Key))
		}
		if strings.HasPrefix(f.Key, "MAXWELL_") {
			return d.Fault(f.At, path, fmt.Sprintf("%q is set by Maxwell; choose another name", f.Key))
		}
		w.Env[f.Key] = text
	}
	return nil
}

// count reads a whole number above zero.
func count(text string, limit int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > limit {
		return 0, &Problem{Text: text, Reason: fmt.Sprintf("not a whole number from 1 to %d", limit)}
	}
	return n, nil
}

// above refuses zero: an amount of nothing is a slip, absence is no limit.
func above[T ~int64](v T, err error) (T, error) {
	if err == nil && v <= 0 {
		return 0, &Problem{Reason: "the amount is zero", Fix: "leave it out for no limit"}
	}
	return v, err
}

// ParseSpan reads a time above zero and below a century.
func ParseSpan(text string) (time.Duration, error) { return duration("", text) }

func duration(field, text string) (time.Duration, error) {
	v, err := above(unit.ParseDuration(text))
	if err != nil {
		return 0, err
	}
	if p := checkDuration(field, text, v); p != nil {
		return 0, p
	}
	return v, nil
}
