package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/signal"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/meter"
	"github.com/maxwell-hypervisor/maxwell/internal/node"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/internal/sensor"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// examine tries what this machine can do by doing it, for the doctor.
func examine(repair bool) (report.Doctor, error) {
	var d report.Doctor
	roots, err := host.Open()
	if err != nil {
		return d, err
	}
	defer roots.Close()
	if repair {
		if d.Repair, err = repairAll(roots); err != nil {
			return d, err
		}
	}
	d.Ready = true
	counter := examineEnforcement(&d, roots)
	if err := examineEnergy(&d, roots); err != nil {
		return d, err
	}
	layout, err := host.Discover(roots)
	if err != nil {
		return d, err
	}
	for _, f := range (host.Survey{Roots: roots, Layout: layout}).Run() {
		d.Features = append(d.Features, feature(f))
	}
	d.Features = append(d.Features, counter)
	return d, nil
}

func feature(f host.Finding) report.Finding {
	out := report.Finding{Name: string(f.Feature), OK: f.Err == nil, Value: f.Note}
	if u, ok := errors.AsType[*host.Unavailable](f.Err); ok {
		out.Better, out.Hint = u.Reason, u.Hint
	} else if f.Err != nil {
		out.Better = f.Err.Error()
	}
	return out
}

// examineEnforcement opens the best enforcement, and the meter that counts in
// its groups, and closes both again.
func examineEnforcement(d *report.Doctor, roots host.Roots) report.Finding {
	e, err := cgroup.Open(cgroup.Config{Name: "maxwell-doctor"}, roots)
	if err == nil {
		describeEnforcement(d, e.Describe(), "")
		counter := examineMeter(roots, meter.Config{Parent: e.Parent()})
		if err := e.Close(); err != nil {
			d.Ready, d.Blocker = false, err.Error()
		}
		return counter
	}
	detail := dispatch.Description{Enforcement: signal.Name, Detail: "process groups and sweeps through /proc, best effort", Caps: []string{"cpu"}}
	if signal.Probe() == nil {
		detail.Detail, detail.Trees = "user and pid namespace, stopped and continued by signals", true
		detail.Caps = []string{"cpu", "memory", "pids"}
	}
	describeEnforcement(d, detail, "cgroup ("+reason(err)+")")
	if u, ok := errors.AsType[*host.Unavailable](err); ok {
		d.Enforcement.Hint = u.Hint
	}
	return examineMeter(roots, meter.Config{})
}

func reason(err error) string {
	if u, ok := errors.AsType[*host.Unavailable](err); ok {
		return u.Reason
	}
	return oneLine(err.Error())
}

func describeEnforcement(d *report.Doctor, e dispatch.Description, better string) {
	d.Enforcement = report.Finding{Name: "enforcement", OK: true, Value: strings.TrimSpace(e.Enforcement + " " + e.Detail), Better: better}
	d.Trees = report.Finding{Name: "stops_trees", OK: e.Trees, Value: "yes, all descendants"}
	if !e.Trees {
		d.Trees.Value = "no, best effort"
	}
	d.Caps = e.Caps
}

// examineEnergy opens the best sensor and asks what it is worth.
func examineEnergy(d *report.Doctor, roots host.Roots) error {
	s, err := sensor.Open(sensor.Config{}, roots)
	if err != nil {
		return err
	}
	about := s.Describe()
	d.Energy = report.Finding{Name: "energy", OK: !about.Modelled, Value: about.Source.String(), Better: about.Why, Hint: about.Hint}
	d.Modelled, d.Sigma = about.Modelled, report.Fraction(about.Sigma)
	d.Base = price.Base(about.Reference, unit.One)
	return s.Close()
}

func examineMeter(roots host.Roots, c meter.Config) report.Finding {
	out := report.Finding{Name: "meter"}
	m, err := meter.Open(c, roots)
	if err != nil {
		out.Better = err.Error()
		return out
	}
	about := m.Describe()
	out.OK, out.Value = true, string(about.Kind)+": "+about.Detail
	var refused []string
	for _, err := range about.Refused {
		refused = append(refused, oneLine(err.Error()))
	}
	out.Better = strings.Join(refused, "; ")
	if err := m.Close(); err != nil {
		out.OK, out.Better = false, err.Error()
	}
	return out
}

// repairAll removes what killed markets left: marked directories that no
// living market holds, and the files of a dead one in the runtime directory.
func repairAll(roots host.Roots) ([]report.Repaired, error) {
	dir, err := host.RuntimeDir(roots, os.Geteuid(), os.Getenv)
	if err == nil {
		err = node.Tidy(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	actions, err := cgroup.Repair(roots)
	if err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	out := []report.Repaired{}
	for _, a := range actions {
		switch a.Outcome {
		case cgroup.Alive, cgroup.Foreign:
			continue
		case cgroup.Removed, cgroup.Thawed, cgroup.Broken:
		}
		r := report.Repaired{What: a.Dir, Done: a.Outcome != cgroup.Broken}
		if a.Ended > 0 {
			r.What += fmt.Sprintf(" (%d processes ended)", a.Ended)
		}
		if a.Err != nil {
			r.Error = oneLine(a.Err.Error())
		}
		out = append(out, r)
	}
	return out, nil
}

// onlyProcessor is the first processor that this program may run on.
func onlyProcessor() (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, fmt.Errorf("read own processors: %w", err)
	}
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			return cpu, nil
		}
	}
	return 0, os.ErrInvalid
}
