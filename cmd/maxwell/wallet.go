package main

import (
	"context"
	"fmt"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// walletVerb holds the verbs about wallets: those of workloads, which are born and
// die with them, and standing ones.
func (a *app) walletVerb() *cobra.Command {
	const forms = "maxwell wallet ls, maxwell wallet show NAME, maxwell wallet create NAME or maxwell wallet rm NAME"
	cmd := &cobra.Command{
		Use:   "wallet",
		Short: "Open and remove wallets and look into them",
		Long: `Open and remove wallets and look into them. A workload has a wallet of its own, which dies with
it. A standing wallet is a person's or a team's: it has an allowance or is funded, its
owner's workloads get their budgets from it or spend from it, and what they leave goes
back. Workloads and standing wallets share one name space.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("wallet: unknown verb %q; write %s", args[0], forms)
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usagef("wallet: write %s", forms)
		},
	}
	cmd.AddCommand(a.walletCreateVerb(), a.walletListVerb(), a.walletShowVerb(), a.walletRemoveVerb())
	return cmd
}

// walletSpec is what `maxwell wallet create` was asked.
type walletSpec struct {
	name, parent, owner string
	allowance           unit.Allowance
	most                unit.Credits
	change, asJSON      bool
}

func (a *app) walletCreateVerb() *cobra.Command {
	spec := walletSpec{}
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Open a standing wallet",
		Long: `Open a standing wallet. Its allowance comes in steadily, at most until the wallet has
what --most says: from its parent, whose balance bounds all its children, or without
one from the mint. It begins with what comes in one period (50k/day: 50k), at most
--most. The time that no daemon runs counts too. What a parent does not
have when it is due is not owed later, and what it cannot pay in full it pays to all
its children in the same part.

In a daemon's market only an admin opens wallets of others, and with an allowance from
the mint. Everybody may open some of their own below one that they own.`,
		Example: `  maxwell wallet create org --allowance 200k/day --most 500k
  maxwell wallet create anna --parent org --allowance 50k/day --owner anna
  maxwell wallet create anna --change --parent org --allowance 80k/day`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := oneArg("NAME")(cmd, args); err != nil {
				return err
			}
			return spec.finish(args[0])
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.walletCreate(&spec) },
	}
	f := cmd.Flags()
	f.StringVar(&spec.parent, "parent", "", "the `WALLET` that its allowance comes from (default: the mint)")
	f.Var(&value[unit.Allowance]{target: &spec.allowance, kind: "MONEY/TIME", parse: allowance, format: unit.Allowance.String}, "allowance",
		"money that comes in, as 50k/day, 2k/h or 1/s")
	f.Var(&value[unit.Credits]{target: &spec.most, kind: "MONEY", parse: unit.ParseCredits, format: unit.Credits.String}, "most",
		"the most that its allowance fills it to (default: no end)")
	f.StringVar(&spec.owner, "owner", "", "the `USER` whose it is, by name or number (default: you)")
	f.BoolVar(&spec.change, "change", false, "give these terms to a wallet that exists")
	f.BoolVar(&spec.asJSON, "json", false, "print one JSON object")
	a.completeFlag(cmd, "parent")
	for _, name := range []string{"allowance", "most", "owner"} {
		offer(cmd, name)
	}
	return cmd
}

// allowance reads money that comes in; nothing in any time is nothing.
func allowance(text string) (unit.Allowance, error) {
	a, err := unit.ParseAllowance(text)
	if a.Amount == 0 {
		a = unit.Allowance{}
	}
	return a, err
}

func (s *walletSpec) finish(name string) error {
	s.name = name
	if p := fleet.CheckName(name); p != nil {
		return usagef("wallet create: %s", p)
	}
	switch {
	case s.parent != "" && fleet.CheckName(s.parent) != nil:
		return usagef("wallet create --parent: %.40q is no name of a wallet; maxwell wallet ls lists yours", s.parent)
	case s.parent == name:
		return usagef("wallet create --parent: %q would be its own parent; name another", name)
	case s.most > 0 && s.allowance.Amount == 0:
		return usagef("wallet create --most: a cap on saving needs an allowance to save; add --allowance 50k/day")
	}
	return nil
}

func (a *app) walletCreate(spec *walletSpec) error {
	req := &v1.CreateWalletRequest{
		Name: spec.name, Parent: spec.parent, AllowanceUcredits: int64(spec.allowance.Amount), AllowanceEveryNs: int64(spec.allowance.Every),
		MostUcredits: int64(spec.most), Change: spec.change,
	}
	if spec.owner != "" {
		uid, err := userID(spec.owner)
		if err != nil {
			return usagef("wallet create --owner: %v", err)
		}
		req.Owner = new(uid)
	}
	var made *v1.Wallet
	err := a.change(context.Background(), func(ctx context.Context, market connection, id []byte) error {
		req.RequestId = id
		r, err := market.CreateWallet(ctx, req)
		made = r.GetWallet()
		return err
	})
	if err != nil {
		return err
	}
	w := standingOf(made)
	if spec.asJSON {
		return w.WriteJSON(a.out)
	}
	_, err = fmt.Fprintf(a.err, "maxwell: wallet %s has %s; income: %s\n", w.Name, w.Balance.Short(), w.Terms())
	return err
}

func (a *app) walletRemoveVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a standing wallet",
		Long: `Remove a standing wallet that fills no other and pays no workload that lives. What it
has goes back to its parent, or without one to the mint: it is gone then. Who wants it
elsewhere moves it first: maxwell transfer. Its postings stay in the ledger.

In a daemon's market this is for admins. A wallet that a rule of the daemon's
configuration gives is made again when its user starts something. One that is made
again begins with what its allowance would have brought since, and no period in advance.`,
		Example: "  maxwell wallet rm anna",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := oneArg("NAME")(cmd, args); err != nil {
				return err
			}
			if p := fleet.CheckName(args[0]); p != nil {
				return usagef("wallet rm: %s", p)
			}
			return nil
		},
		ValidArgsFunction: a.completeStanding,
		RunE:              func(_ *cobra.Command, args []string) error { return a.walletRemove(args[0], asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (a *app) walletRemove(name string, asJSON bool) error {
	var gone *v1.RemoveWalletResponse
	err := a.change(context.Background(), func(ctx context.Context, market connection, id []byte) error {
		var err error
		gone, err = market.RemoveWallet(ctx, &v1.RemoveWalletRequest{Name: name, RequestId: id})
		return err
	})
	if err != nil {
		return err
	}
	back, to := unit.Credits(gone.GetReturnedUcredits()), gone.GetTo()
	if asJSON {
		return report.WriteLine(a.out, struct {
			Name     string       `json:"name"`
			Returned unit.Credits `json:"returned_ucredits"`
			To       string       `json:"to"` // "" for the mint
		}{name, back, to})
	}
	if to == "" {
		to = "the mint"
	}
	_, err = fmt.Fprintf(a.err, "maxwell: wallet %s is removed; its %s went back to %s\n", name, back.Short(), to)
	return err
}

// completeStanding offers the standing wallets for the only argument.
func (a *app) completeStanding(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.standingNames(nil), cobra.ShellCompDirectiveNoFileComp
}

// userID is a user's number, by name or number.
func userID(name string) (uint32, error) {
	id := name
	if u, err := user.Lookup(name); err == nil {
		id = u.Uid
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("no user %q on this machine; write a name or a number", name)
	}
	return uint32(n), nil
}

func (a *app) walletListVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List your wallets and what is left in them",
		Long:    "List your wallets and what is left in them: under each standing wallet those that\nit fills, and the workloads that it pays.",
		Example: "  maxwell wallet ls",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			list, err := a.wallets(context.Background())
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return report.WriteWallets(a.out, list)
			case len(list) == 0:
				_, err := fmt.Fprintln(a.err, "maxwell: no wallets; start a workload: maxwell run --budget 500 -- COMMAND")
				return err
			}
			return a.lines(report.Wallets(list, a.columns()))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// wallets are the standing wallets and those of the living.
func (a *app) wallets(ctx context.Context) ([]report.Wallet, error) {
	var list []report.Wallet
	err := a.question(ctx, func(ctx context.Context, market connection) error {
		list = nil
		standing, err := market.ListWallets(ctx, &v1.ListWalletsRequest{})
		if err != nil {
			return err
		}
		for _, w := range standing.GetWallets() {
			list = append(list, standingOf(w))
		}
		s, err := market.Snapshot(ctx, &v1.SnapshotRequest{})
		list = append(list, walletsOf(living(s.GetSnapshot().GetWorkloads()))...)
		return err
	})
	return list, err
}

func (a *app) walletShowVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Say what a wallet had, spent and has left",
		Example:           "  maxwell wallet show agent-7",
		Args:              target,
		ValidArgsFunction: a.completeMoney(1, true),
		RunE: func(_ *cobra.Command, args []string) error {
			wallet, err := a.walletNamed(context.Background(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return wallet.WriteJSON(a.out)
			}
			return wallet.WriteText(a.out)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// walletNamed is the standing wallet of a name, else that of a workload.
func (a *app) walletNamed(ctx context.Context, name string) (*report.Wallet, error) {
	var standing []*v1.Wallet
	err := a.question(ctx, func(ctx context.Context, market connection) error {
		r, err := market.ListWallets(ctx, &v1.ListWalletsRequest{})
		standing = r.GetWallets()
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, w := range standing {
		if w.GetName() == name {
			found := standingOf(w)
			return &found, nil
		}
	}
	w, err := a.one(ctx, "wallet show", name)
	if err != nil {
		return nil, err
	}
	return &walletsOf([]*v1.Workload{w})[0], nil
}

func walletsOf(list []*v1.Workload) []report.Wallet {
	out := make([]report.Wallet, len(list))
	for i, w := range list {
		d := detailOf(w)
		out[i] = d.Wallet()
	}
	return out
}

// standingOf is a standing wallet for a report.
func standingOf(w *v1.Wallet) report.Wallet {
	out := report.Wallet{
		Name: w.GetName(), Kind: report.Standing, Parent: w.GetParent(), UID: w.GetUid(), Balance: unit.Credits(w.GetBalanceUcredits()),
		Allowance: unit.Credits(w.GetAllowanceUcredits()), Every: time.Duration(w.GetAllowanceEveryNs()), Most: unit.Credits(w.GetMostUcredits()),
		Created: w.GetCreatedWallNs(),
	}
	if u, err := user.LookupId(strconv.FormatUint(uint64(w.GetUid()), 10)); err == nil {
		out.Owner = u.Username
	}
	return out
}

// completeMoney is completeNames, with the standing wallets.
func (a *app) completeMoney(most int, dead bool) cobra.CompletionFunc {
	names := a.completeNames(most, dead)
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		list, how := names(cmd, args, word)
		if len(args) < most {
			list = append(list, a.standingNames(args)...)
		}
		return list, how
	}
}

// completeFlag offers the standing wallets for a flag.
func (a *app) completeFlag(cmd *cobra.Command, name string) {
	err := cmd.RegisterFlagCompletionFunc(name, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return a.standingNames(nil), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil { // a flag that does not exist: a fault of this program
		panic(fmt.Sprintf("completion of --%s: %v", name, err))
	}
}
