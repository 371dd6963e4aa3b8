package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/internal/sensor"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// experimentSpec is what `maxwell experiment scientist-leech` was asked.
type experimentSpec struct {
	leeches int
	rounds  int
	length  time.Duration
	json    bool
	enforce string
}

// Bounds of the experiment: enough leeches to see the limit of ten, short
// enough to finish.
const (
	maxLeeches = 100
	maxRounds  = 100
	minLength  = 2 * time.Second
	// incomePerUnit is far above what a unit costs on any machine, so that the
	// scientist never has to wait for money.
	incomePerUnit unit.Credits = 10_000_000
)

func (a *app) experimentVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "experiment",
		Short: "Measure the market against the stock scheduler",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("experiment: write maxwell experiment scientist-leech")
		},
	}
	cmd.AddCommand(a.scientistLeechVerb())
	return cmd
}

func (a *app) scientistLeechVerb() *cobra.Command {
	spec := experimentSpec{leeches: 1, rounds: 3, length: 10 * time.Second, enforce: "auto"}
	cmd := &cobra.Command{
		Use:   "scientist-leech",
		Short: "One who earns and some who do not, on one saturated core",
		Long: `Run a prime finder (the scientist) and hash miners (the leeches) on one core, four
ways in turn: the stock scheduler; an oracle, who knows the leeches and sets them
idle; equal CPU quotas; and Maxwell. All have the same endowment and the same bid;
the only difference is that the scientist earns per finished unit of work, which it
reports itself. Endowments last about two seconds of an equal share at the crowded
price, so the leeches go broke within the run on any machine.

Prints finished work, joules and work per joule of the whole run first, then after
the last leech died; says whether joules were measured or modelled.`,
		Example: "  maxwell experiment scientist-leech\n  maxwell experiment scientist-leech --leeches 9 --for 10s --json",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			switch {
			case spec.leeches < 1 || spec.leeches > maxLeeches:
				return usagef("experiment scientist-leech --leeches: %d is not 1 to %d", spec.leeches, maxLeeches)
			case spec.rounds < 1 || spec.rounds > maxRounds:
				return usagef("experiment scientist-leech --rounds: %d is not 1 to %d", spec.rounds, maxRounds)
			case spec.length < minLength:
				return usagef("experiment scientist-leech --for: %v is too short for leeches to go broke; write 2s or more", spec.length)
			}
			return a.scientistLeech(&spec)
		},
	}
	f := cmd.Flags()
	f.IntVar(&spec.leeches, "leeches", spec.leeches, "how many hash miners")
	f.Var(&value[time.Duration]{target: &spec.length, kind: "TIME", parse: fleet.ParseSpan, format: time.Duration.String}, "for", "how long each of the four runs in each round")
	f.IntVar(&spec.rounds, "rounds", spec.rounds, "how many rounds")
	f.BoolVar(&spec.json, "json", false, "print the result as one JSON object")
	f.Var(choice(&spec.enforce, "auto", "cgroup", "signal"), "enforcement", "how Maxwell enforces: auto, cgroup or signal")
	offer(cmd, "leeches", "1", "9")
	offer(cmd, "enforcement", "auto", "cgroup", "signal")
	return cmd
}

func (a *app) scientistLeech(spec *experimentSpec) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	c, err := a.newContest(spec.leeches)
	if err != nil {
		return err
	}
	defer c.close()
	plan := report.Plan{Leeches: spec.leeches, Rounds: spec.rounds, Length: spec.length, Bid: fleet.DefaultBid}
	a.progress(spec, "%d arms, %d rounds, %v each: about %v", 4, spec.rounds, spec.length, time.Duration(4*spec.rounds)*spec.length)
	var rounds []report.Round
	for i := range spec.rounds {
		r, err := a.round(ctx, c, spec, &plan, i)
		if ctx.Err() != nil {
			return &exitError{code: 128 + int(syscall.SIGINT), err: errors.New("interrupted; everything was stopped")}
		}
		if err != nil {
			return err
		}
		rounds = append(rounds, r)
	}
	e := report.Compare(plan, rounds)
	if spec.json {
		return e.WriteJSON(a.out)
	}
	return e.WriteText(a.out)
}

// round runs the four arms once, each round beginning with another one, so
// that a machine that warms up favours nobody.
func (a *app) round(ctx context.Context, c *contest, spec *experimentSpec, plan *report.Plan, i int) (report.Round, error) {
	var r report.Round
	quota := &plain{contest: c, quota: true}
	market := &priced{contest: c, join: a.join, enforce: spec.enforce, bid: plan.Bid, income: incomePerUnit, share: c.share}
	arms := []struct {
		name string
		arm  arm
		into *report.Tally
	}{
		{"stock", &plain{contest: c}, &r.Stock},
		{"oracle", &plain{contest: c, idle: true}, &r.Oracle},
		{"quota", quota, &r.Quota},
		{"maxwell", market, &r.Maxwell},
	}
	for k := range arms {
		arm := arms[(k+i)%len(arms)]
		a.progress(spec, "round %d: %s", i+1, arm.name)
		result, err := runArm(ctx, arm.arm, spec.length)
		if err != nil {
			return r, fmt.Errorf("round %d, %s: %w", i+1, arm.name, err)
		}
		*arm.into = result.Tally
		if arm.name == "stock" {
			c.share = left(result.CPU, spec.length)
		}
		if arm.arm == market {
			r.After, r.NoAfter, r.DiedAt = result.after, result.noAfter, result.diedAt
		}
	}
	plan.Quota, plan.Enforcement = quota.method(), market.enforcement
	plan.Endowment, plan.Modelled, plan.Sigma = market.endowment, market.modelled, market.sigma
	return r, nil
}

// left is the share of the core that other programs on this machine left to
// the fleet. On a loaded machine money lasts longer, so there is less of it.
func left(cpu unit.CoreTime, length time.Duration) unit.PPM {
	const least = unit.One / 10
	return max(least, min(unit.One, unit.PPM(unit.MulDiv(int64(max(cpu, 0)), int64(unit.One), int64(length)))))
}

func (a *app) progress(spec *experimentSpec, format string, args ...any) {
	if !spec.json {
		fmt.Fprintf(a.err, "maxwell: "+format+"\n", args...)
	}
}

func (a *app) newContest(leeches int) (*contest, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cpu, err := onlyProcessor()
	if err != nil {
		return nil, err
	}
	c := &contest{share: unit.One, program: program, leeches: leeches, cpu: cpu, began: time.Now(), environ: a.environ()}
	if c.roots, err = host.Open(); err != nil {
		return nil, err
	}
	if c.sensor, err = sensor.Open(sensor.Config{}, c.roots); err != nil {
		return nil, errors.Join(err, c.roots.Close())
	}
	return c, nil
}

func (c *contest) close() {
	_ = c.sensor.Close()
	_ = c.roots.Close()
}
