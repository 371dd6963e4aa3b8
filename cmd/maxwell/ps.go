package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

func (a *app) psVerb() *cobra.Command {
	var all, quiet, asJSON bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the workloads of the market",
		Long: `List your workloads: what each bids and pays for a core-second, the cores and
watts that it gets, what it burned and what it can still spend. Root sees those of
everybody.

A terminal that is too narrow shows fewer columns; a pipe gets all of them.`,
		Example: "  maxwell ps\n  maxwell ps -a\n  maxwell ps -q | xargs maxwell stop",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if quiet && asJSON {
				return usagef("ps: --quiet and --json exclude each other; leave one out")
			}
			s, err := a.snapshot(context.Background(), all)
			if err != nil {
				return err
			}
			list := s.GetWorkloads()
			if !all {
				list = living(list)
			}
			return a.list(list, all, quiet, asJSON)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list the dead too, with why and how they ended")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only, one a line")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (a *app) list(list []*v1.Workload, all, quiet, asJSON bool) error {
	switch {
	case asJSON:
		return report.WriteDetails(a.out, detailsOf(list))
	case quiet:
		var text strings.Builder
		for _, w := range list {
			text.WriteString(w.GetName() + "\n")
		}
		_, err := io.WriteString(a.out, text.String())
		return err
	case len(list) == 0:
		hint := "start one: maxwell run -- COMMAND"
		if !all {
			hint += "; the dead: maxwell ps -a"
		}
		_, err := fmt.Fprintf(a.err, "maxwell: no workloads; %s\n", hint)
		return err
	}
	return a.lines(report.Processes(detailsOf(list), a.columns(), a.now()))
}

// living are the workloads that are not dead.
func living(list []*v1.Workload) []*v1.Workload {
	var out []*v1.Workload
	for _, w := range list {
		if w.GetState() != "dead" {
			out = append(out, w)
		}
	}
	return out
}

// lines prints a table.
func (a *app) lines(lines []string) error {
	_, err := io.WriteString(a.out, strings.Join(lines, "\n")+"\n")
	return err
}

// columns is the width that tables are cut to; 0 is no limit. As with ps(1),
// COLUMNS says it where no terminal does.
func (a *app) columns() int {
	if width, _, ok := screenSize(a.out, a.environ()); ok {
		return width
	}
	if n, err := strconv.Atoi(getenv(a.environ())("COLUMNS")); err == nil && n > 0 {
		return n
	}
	return 0
}
