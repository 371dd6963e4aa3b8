package main

import (
	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
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
	var version bool
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
			return unknownVerb(cmd, args[0], "to run a command: maxwell run -- "+args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return a.version(false)
			}
			_, err := cmd.OutOrStdout().Write([]byte(firstScreen))
			return err
		},
	}
	root.Flags().BoolVar(&version, "version", false, "print the version")
	root.SetFlagErrorFunc(flagError)
	groups(root)
	grouped(root, groupRun, a.runVerb(), a.upVerb(), a.stopVerb(), a.waitVerb(), a.attachVerb(), a.detachVerb(), a.enforceVerb(), a.daemonVerb())
	grouped(root, groupWatch, a.psVerb(), a.logsVerb(), a.eventsVerb(), a.priceVerb(), a.receiptVerb(), a.explainVerb(), a.topVerb())
	grouped(root, groupMoney, a.fundVerb(), a.transferVerb(), a.bidVerb(), a.walletVerb(), a.ledgerVerb())
	grouped(root, groupCheck, a.doctorVerb(), a.auditVerb(), a.clearVerb(), a.experimentVerb(), a.simVerb(), a.versionVerb(), a.workVerb(), a.manualVerb())
	return root
}

func unknownVerb(parent *cobra.Command, word, remedy string) error {
	var known []string
	for _, verb := range parent.Commands() {
		if !verb.Hidden {
			known = append(known, verb.Name())
		}
	}
	if near := fleet.Nearest(word, known); near != "" {
		return usagef("unknown verb %q; did you mean %q?", word, near)
	}
	return usagef("unknown verb %q; %s", word, remedy)
}

// strangers makes the two verbs that are cobra's refuse what they do not know;
// by themselves they print a help and succeed. They write where root does by now.
func (a *app) strangers(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Run, cmd.RunE = nil, func(_ *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				switch {
				case err != nil:
					return usagef("help: %v", err)
				case len(rest) > 0:
					return unknownVerb(about, rest[0], "see "+about.CommandPath()+" --help")
				}
				about.InitDefaultHelpFlag()
				return about.Help()
			}
		case "completion":
			const forms = "write maxwell completion bash, zsh or fish"
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return usagef("completion: unknown shell %q; %s", args[0], forms)
				}
				return nil
			}
			cmd.RunE = func(*cobra.Command, []string) error { return usagef("completion: %s", forms) }
		}
	}
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
