package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/internal/sim"
)

// simVerb plays the real demon against an invented world.
func (a *app) simVerb() *cobra.Command {
	var (
		first     uint64
		seeds     uint64
		ticks     int
		workloads int
		asJSON    bool
	)
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Play the market against an invented world, checked after every tick",
		Long: `Play the real market rules against an invented world: workloads that fork,
sleep, burst, crash and ignore SIGTERM on a machine that comes late, suspends
and loses sensor readings. Every choice is drawn from the seed, and after every
tick the laws are checked: energy and money conserved, nobody overdrawn, the
broke frozen, the dead dead. A failing seed fails again.`,
		Example: `  maxwell sim --seed 42 --ticks 2000
  maxwell sim --seed 1 --seeds 1000        a thousand worlds`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ticks <= 0 || seeds == 0 || workloads < 0 {
				return usagef("sim: --ticks and --seeds are at least 1, --workloads at least 0")
			}
			for seed := first; seed < first+seeds; seed++ {
				if err := a.play(cmd, sim.Config{Seed: seed, Ticks: ticks, Workloads: workloads}, asJSON); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&first, "seed", 1, "first seed")
	f.Uint64Var(&seeds, "seeds", 1, "how many worlds, seed by seed")
	f.IntVar(&ticks, "ticks", 400, "epochs to play")
	f.IntVar(&workloads, "workloads", 0, "alive at once, about (0 = drawn from the seed)")
	f.BoolVar(&asJSON, "json", false, "one JSON object a world")
	return cmd
}

// play plays one world and prints what happened; the seed comes first.
func (a *app) play(cmd *cobra.Command, c sim.Config, asJSON bool) error {
	w := sim.New(c)
	if err := w.Run(); err != nil {
		return &exitError{1, fmt.Errorf("seed %d: %w", c.Seed, err)}
	}
	r := &w.Report
	if asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "seed %d: %d ticks, %d admitted, %d refused, %s node energy, written off %s; ended:",
		r.Seed, r.Ticks, r.Admitted, r.Refused, r.Energy.Short(), r.Loss.Short())
	for _, reason := range slices.Sorted(maps.Keys(r.Dead)) {
		if err == nil {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), " %s %d", reason, r.Dead[reason])
		}
	}
	if err == nil {
		_, err = fmt.Fprintln(cmd.OutOrStdout())
	}
	return err
}
