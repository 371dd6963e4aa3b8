package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
)

// longestName bounds what may be sent as a workload's name, id or account.
const longestName = 128

// checkTarget refuses what cannot be a workload's name or id. An empty name
// would mean all of them to some calls.
func checkTarget(verb, name string) error {
	switch {
	case name == "":
		return usagef("%s: the name is empty; maxwell ps -a lists names", verb)
	case len(name) > longestName, strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }):
		return usagef("%s: %.40q is no name of a workload; maxwell ps -a lists names", verb, name)
	}
	return nil
}

// targets wants at least one name.
func targets(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("%s: NAME is missing; write %s", verb(cmd), withoutFlags(cmd))
	}
	for _, name := range args {
		if err := checkTarget(verb(cmd), name); err != nil {
			return err
		}
	}
	return nil
}

// target wants exactly one name.
func target(cmd *cobra.Command, args []string) error {
	if err := targets(cmd, args); err != nil {
		return err
	}
	return oneArg("NAME")(cmd, args)
}

// perhapsTarget wants one name or none.
func perhapsTarget(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return target(cmd, args)
}

// withoutFlags is a verb's form: "maxwell fund NAME AMOUNT".
func withoutFlags(cmd *cobra.Command) string { return cmd.Parent().CommandPath() + " " + cmd.Use }

// snapshot asks for the market as it is; dead: with the dead that it remembers.
func (a *app) snapshot(ctx context.Context, dead bool) (*v1.Snapshot, error) {
	var s *v1.Snapshot
	err := a.question(ctx, func(ctx context.Context, market connection) error {
		r, err := market.Snapshot(ctx, &v1.SnapshotRequest{Dead: dead})
		s = r.GetSnapshot()
		return err
	})
	return s, err
}

// find returns the living workload of a name or id, else the last dead one.
func find(s *v1.Snapshot, name string) *v1.Workload {
	var found *v1.Workload
	for _, w := range s.GetWorkloads() {
		if w.GetName() != name && w.GetId() != name {
			continue
		}
		if w.GetState() != "dead" {
			return w
		}
		found = w
	}
	return found
}

// nobody says that the market knows no workload of a name, and perhaps which
// was meant.
func nobody(verb, name string, s *v1.Snapshot) error {
	var known []string
	for _, w := range s.GetWorkloads() {
		known = append(known, w.GetName())
	}
	if near := fleet.Nearest(name, known); near != "" {
		return fmt.Errorf("%s: no workload %q; did you mean %q?", verb, name, near)
	}
	return fmt.Errorf("%s: no workload %q; maxwell ps -a lists names", verb, name)
}

// completionPatience bounds how long a key press waits for the market.
const completionPatience = time.Second

// standingNames are the standing wallets for a completion, but those that are
// written already.
func (a *app) standingNames(written []string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	var names []string
	_ = a.attempt(ctx, func(ctx context.Context, market connection) error {
		r, err := market.ListWallets(ctx, &v1.ListWalletsRequest{})
		for _, w := range r.GetWallets() {
			if !slices.Contains(written, w.GetName()) {
				names = append(names, cobra.CompletionWithDesc(w.GetName(), "wallet"))
			}
		}
		return err
	})
	slices.Sort(names)
	return names
}

// completeNames offers the names of workloads for the first most arguments (0:
// all of them). It is silent if no market answers.
func (a *app) completeNames(most int, dead bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
		defer cancel()
		var names []string
		_ = a.attempt(ctx, func(ctx context.Context, market connection) error {
			r, err := market.Snapshot(ctx, &v1.SnapshotRequest{Dead: dead})
			for _, w := range r.GetSnapshot().GetWorkloads() {
				if (dead || w.GetState() != "dead") && !slices.Contains(args, w.GetName()) {
					names = append(names, cobra.CompletionWithDesc(w.GetName(), w.GetState()))
				}
			}
			return err
		})
		slices.Sort(names)
		return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
	}
}
