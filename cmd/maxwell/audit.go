package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func (a *app) auditVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check what Maxwell has written down",
		Long:  "Check what Maxwell has written down.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("audit: unknown word %q; write maxwell audit verify FILE", args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error { return usagef("audit: write maxwell audit verify FILE") },
	}
	cmd.AddCommand(a.auditVerifyVerb())
	return cmd
}

func (a *app) auditVerifyVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Recompute a journal from its first record",
		Long: `Read a journal (--journal of run and up) from its first record to its last: the
numbers have no gap, each hash follows from the record and the hash before it, each
entry is accepted by the books that the ones before it gave, and the balances sum
to zero. The first record that fails is named, and the exit code is 1.

The head is the last hash: noted elsewhere, it tells later that the history up to it
is still the same one. A journal may be verified while it is written.`,
		Example: "  maxwell up --journal books.sqlite fleet.yaml\n  maxwell audit verify books.sqlite",
		Args:    oneArg("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.verify(args[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as one JSON object")
	return cmd
}

// exitBroken is the exit code of a journal that does not hold.
const exitBroken = 1

// verified is the result of `maxwell audit verify --json`.
type verified struct {
	Holds     bool                    `json:"holds"`
	Records   uint64                  `json:"records"`
	Transfers int                     `json:"transfers"`
	Accounts  int                     `json:"accounts_opened"`
	First     time.Time               `json:"first"`
	Last      time.Time               `json:"last"`
	Head      string                  `json:"head"`
	Minted    unit.Credits            `json:"minted_ucredits"`
	Sum       unit.Credits            `json:"sum_ucredits"`
	Balances  map[string]unit.Credits `json:"balances_ucredits"`
	Broken    uint64                  `json:"broken_record,omitempty"` // the first that fails
	Why       string                  `json:"why,omitempty"`
}

func (a *app) verify(name string, asJSON bool) error {
	s, err := journal.Open(name)
	if err != nil {
		return usagef("audit: %v", err)
	}
	r, err := journal.Verify(s)
	if closed := s.Close(); err == nil {
		err = closed
	}
	broken, isBroken := errors.AsType[*journal.BrokenError](err)
	if err != nil && !isBroken {
		return usagef("audit: %v", err)
	}
	if asJSON {
		v := verified{
			Holds: !isBroken, Records: r.Head.Seq, Transfers: r.Transfers, Accounts: r.Accounts, First: r.First,
			Last: r.Last, Head: r.Head.Hash.String(), Minted: r.Minted, Sum: r.Sum, Balances: r.Books,
		}
		if isBroken {
			v.Broken, v.Why = broken.Seq, broken.Why
		}
		e := json.NewEncoder(a.out)
		e.SetEscapeHTML(false)
		err = e.Encode(v)
	} else if !isBroken {
		err = writeVerified(a.out, name, &r)
	}
	if isBroken {
		return &exitError{exitBroken, fmt.Errorf("audit: %s: %w; the %d records before it hold", name, broken, r.Head.Seq)}
	}
	return err
}

// writeVerified tells a person what holds.
func writeVerified(w io.Writer, name string, r *journal.Report) error {
	if r.Head.Seq == 0 {
		_, err := fmt.Fprintf(w, "%s is empty\n", name)
		return err
	}
	fmt.Fprintf(w, "%s holds: %d records, %d transfers, from %s to %s\n", name, r.Head.Seq, r.Transfers,
		r.First.Local().Format(time.DateTime), r.Last.Local().Format(time.DateTime))
	fmt.Fprintf(w, "  minted  %s\n", r.Minted.Short())
	for _, account := range slices.Sorted(maps.Keys(r.Books)) {
		if b := r.Books[account]; b > 0 {
			fmt.Fprintf(w, "  %-7s %s\n", account, b.Short())
		}
	}
	_, err := fmt.Fprintf(w, "  sum     %s\n  head    %s\n", r.Sum.Short(), r.Head.Hash)
	return err
}
