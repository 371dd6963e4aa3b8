package main

import (
	"github.com/spf13/cobra"
)

// firstScreen is what a newcomer sees.
const firstScreen = `Maxwell sells the processor: every command has a wallet, bids for cores, pays for the energy it burns, and stops when broke.

  maxwell run -- make -j8                     measure only: what does it burn and cost? nothing is limited
  maxwell run --budget 500 -- ./agent         hard cap for the whole process tree; exit code 122 when it is spent
  maxwell run --budget 500 --bid 4x -- ./job  outbid others when cores are scarce
  maxwell run --max-cpu 10m --memory 4G -- .. caps without money
  maxwell up fleet.yaml                       many workloads, one market
  maxwell doctor                              what this machine can measure and enforce, and how to get more

Units: power W, energy J, money $J, price x.  1x = nobody competes, 1 $J buys 1 J.  3x = crowded, 1 $J buys a third.
You pay what the others would have paid, never more than your bid plus your own energy.
`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "maxwell",
		Short:         "sells the processor: wallets, bids, joules",
		Long:          firstScreen,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return usagef("unknown verb %q; did you mean %q?", args[0], near[0])
			}
			return usagef("unknown verb %q; to run a command: maxwell run -- %s", args[0], args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write([]byte(firstScreen))
			return err
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(flagError)
	groups(root)
	grouped(root, groupRun, a.runVerb(), a.upVerb(), a.stopVerb(), a.waitVerb(), a.attachVerb(), a.detachVerb(), a.enforceVerb(), a.daemonVerb())
	grouped(root, groupWatch, a.psVerb(), a.logsVerb(), a.eventsVerb(), a.priceVerb(), a.receiptVerb(), a.explainVerb(), a.topVerb())
	grouped(root, groupMoney, a.fundVerb(), a.transferVerb(), a.bidVerb(), a.walletVerb(), a.ledgerVerb())
	grouped(root, groupCheck, a.doctorVerb(), a.auditVerb(), a.clearVerb(), a.experimentVerb(), a.simVerb(), a.versionVerb(), a.workVerb(), a.manualVerb())
	return root
}

// The groups of verbs in the first help.
const (
	groupRun   = "run"
	groupWatch = "watch"
	groupMoney = "money"
	groupCheck = "check"
)

func groups(root *cobra.Command) {
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run:"}, &cobra.Group{ID: groupWatch, Title: "Watch:"},
		&cobra.Group{ID: groupMoney, Title: "Money:"}, &cobra.Group{ID: groupCheck, Title: "Check:"},
	)
	root.SetHelpCommandGroupID(groupCheck)
	root.SetCompletionCommandGroupID(groupCheck)
}

func grouped(root *cobra.Command, group string, verbs ...*cobra.Command) {
	for _, verb := range verbs {
		verb.GroupID = group
	}
	root.AddCommand(verbs...)
}
