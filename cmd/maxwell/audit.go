package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/demon"
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
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "verify FILE|DIRECTORY",
		Short: "Recompute a journal from its first record",
		Long: `Read a journal (--journal of run and up, or the daemon's) from its first record to
its last: the numbers have no gap, each hash follows from the record and the hash
before it, each entry is accepted by the books that the ones before it gave, and the
balances sum to zero. The first record that fails is named, and the exit code is 1.

A daemon's journal goes on in a new file now and then, which begins with the books
that the one before it gave. FILE alone is verified from there. With --all, or given
the daemon's state DIRECTORY, verify reads the closed files beside it as well: that
they are one chain, and that each brings forward what the one before it gives.

The head is the last hash: noted elsewhere, it tells later that the history up to it
is still the same one. A journal may be verified while it is written.`,
		Example: "  maxwell up --journal books.sqlite fleet.yaml\n  maxwell audit verify books.sqlite\n  maxwell audit verify /var/lib/maxwell",
		Args:    oneArg("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.verify(args[0], all, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as one JSON object")
	cmd.Flags().BoolVar(&all, "all", false, "verify the closed files beside it too")
	return cmd
}

// exitBroken is the exit code of a journal that does not hold.
const exitBroken = 1

// verified is the result of `maxwell audit verify --json`.
type verified struct {
	Holds     bool                    `json:"holds"`
	Files     int                     `json:"files"`
	After     uint64                  `json:"after_record"` // where the first file begins; 0 = at the beginning
	Records   uint64                  `json:"records"`      // up to the last one
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

func (a *app) verify(name string, all, asJSON bool) error {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		name, all = filepath.Join(name, journalName), true
	}
	sum, err := verifyFiles(name, all)
	broken, isBroken := errors.AsType[*journal.BrokenError](err)
	if err != nil && !isBroken {
		return usagef("audit: %v", err)
	}
	if inFile, ok := errors.AsType[*journal.FileError](err); ok {
		name = inFile.Path
	}
	r := &sum.Report
	if asJSON {
		v := verified{
			Holds: !isBroken, Files: sum.Files, After: r.Origin.Seq, Records: r.Head.Seq, Transfers: r.Transfers, Accounts: r.Accounts,
			First: r.First, Last: r.Last, Head: r.Head.Hash.String(), Minted: r.Minted, Sum: r.Sum, Balances: r.Books,
		}
		if isBroken {
			v.Broken, v.Why = broken.Seq, broken.Why
		}
		e := json.NewEncoder(a.out)
		e.SetEscapeHTML(false)
		err = e.Encode(v)
	} else if !isBroken {
		err = writeVerified(a.out, name, &sum)
	}
	if isBroken {
		return &exitError{exitBroken, fmt.Errorf("audit: %s: %w; the %d records before it hold", name, broken, r.Head.Seq-r.Origin.Seq)}
	}
	return err
}

// verifyFiles verifies a journal, with all its files or its newest alone.
func verifyFiles(name string, all bool) (journal.Series, error) {
	if all {
		return journal.VerifySeries(name, func() journal.Bearer { return demon.NewTally() })
	}
	s, err := journal.Open(name)
	if err != nil {
		return journal.Series{}, err
	}
	r, err := journal.Verify(s)
	return journal.Series{Report: r, Files: 1, Missing: r.Origin.Seq}, errors.Join(err, s.Close())
}

// writeVerified tells a person what holds.
func writeVerified(w io.Writer, name string, sum *journal.Series) error {
	r := &sum.Report
	if r.Head.Seq == 0 {
		_, err := fmt.Fprintf(w, "%s is empty\n", name)
		return err
	}
	files := ""
	if sum.Files > 1 {
		files = fmt.Sprintf(" in %d files", sum.Files)
	}
	fmt.Fprintf(w, "%s holds: %d records%s, %d transfers, from %s to %s\n", name, r.Head.Seq-r.Origin.Seq, files, r.Transfers,
		r.First.Local().Format(time.DateTime), r.Last.Local().Format(time.DateTime))
	var lines [][2]string
	if r.Origin.Seq > 0 {
		lines = append(lines, [2]string{"after", fmt.Sprintf("record %d, %s: believed, not verified here", r.Origin.Seq, r.Origin.Hash)})
	}
	lines = append(lines, [2]string{"minted", r.Minted.Short()})
	for _, account := range slices.Sorted(maps.Keys(r.Books)) {
		if b := r.Books[account]; b > 0 {
			lines = append(lines, [2]string{account, b.Short()})
		}
	}
	lines = append(lines, [2]string{"sum", r.Sum.Short()}, [2]string{"head", r.Head.Hash.String()})
	wide := 0
	for _, l := range lines {
		wide = max(wide, len(l[0]))
	}
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&text, "  %-*s  %s\n", wide, l[0], l[1])
	}
	_, err := io.WriteString(w, text.String())
	return err
}
