package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

// attachSpec is what `maxwell attach` was asked.
type attachSpec struct {
	pid               int32
	cgroup, container string
	enforce           string
	asJSON            bool
	workload          fleet.Workload
}

func (a *app) attachVerb() *cobra.Command {
	spec := attachSpec{workload: fleet.New("")}
	cmd := &cobra.Command{
		Use:   "attach [flags] (--pid N | --cgroup PATH | --container ID)",
		Short: "Govern, or only observe, what somebody else started",
		Long: `Give a group that somebody else started a wallet in the daemon's market: the group
of a process, a cgroup, or a container. Nobody is moved: it is metered where it is.

With --enforce observe (the daemon's own setting unless given) it is metered and
billed, and events say when it would have been stopped; nothing is done to it. With
warn it is also told of as if it could be. With on it is stopped when it is broke, as
any workload is.

It ends with its group, or with maxwell detach NAME, which leaves it as it was found.
Admins may attach every group, others those that were handed to them.`,
		Example: `  maxwell attach --container 4f1c --enforce observe
  maxwell attach --cgroup system.slice/postgresql.service --name postgres
  maxwell attach --pid 4711 --budget 500 --enforce on`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range []string{"memory", "pids"} {
				if cmd.Flags().Changed(name) {
					return usagef("attach --%s: a group that others made keeps its own caps; set them where it was made (systemctl set-property, docker update), or start the command by maxwell run --%s", name, name)
				}
			}
			req, err := spec.request(cmd.Flags().Changed("pid"))
			if err != nil {
				return err
			}
			return a.attach(req, spec.asJSON)
		},
	}
	f := cmd.Flags()
	workloadFlags(f, &spec.workload)
	// It did not begin with us, and its caps are its maker's.
	for _, name := range []string{"timeout", "memory", "pids"} {
		f.Lookup(name).Hidden = true
	}
	f.Var(&value[int32]{target: &spec.pid, kind: "N", parse: parsePID, format: func(n int32) string { return strconv.Itoa(int(n)) }}, "pid",
		"the group of the process with this number")
	f.StringVar(&spec.cgroup, "cgroup", "", "this `PATH` below the root of cgroup v2")
	f.StringVar(&spec.container, "container", "", "the container with this `ID`, or the only one whose id begins so")
	f.StringVar(&spec.workload.Name, "name", "", "name of the wallet (default: the group's)")
	f.Var(choice(&spec.enforce, "observe", "warn", "on"), "enforce", "observe, warn or on (default: as the daemon's)")
	f.BoolVar(&spec.asJSON, "json", false, "print the result as one JSON object")
	completeWorkload(cmd)
	offer(cmd, "name")
	offer(cmd, "enforce", enforceModes...)
	return cmd
}

// parsePID reads the number of a process.
func parsePID(text string) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is no process; write the number that ps shows", text)
	}
	return int32(n), nil
}

// request refuses what names no group, or two.
func (s *attachSpec) request(pid bool) (*v1.AttachRequest, error) {
	req := &v1.AttachRequest{Enforce: s.enforce}
	named := 0
	if pid {
		named++
		req.Group = &v1.AttachRequest_Pid{Pid: s.pid}
	}
	if s.cgroup != "" {
		named++
		req.Group = &v1.AttachRequest_Cgroup{Cgroup: s.cgroup}
	}
	if s.container != "" {
		named++
		req.Group = &v1.AttachRequest_Container{Container: s.container}
	}
	if named != 1 {
		return nil, usagef("attach: name one of --pid, --cgroup and --container")
	}
	w := &s.workload
	name := w.Name
	if name == "" {
		w.Name = "group" // the market picks one
	}
	w.Command = []string{"attached"}
	w.Fill()
	if p := w.Validate(); p != nil {
		if flag := p.Flag(); flag != "" {
			return nil, usagef("attach %s: %s", flag, p)
		}
		return nil, usagef("attach: %s", p)
	}
	req.Terms = terms(w)
	req.Terms.Name, req.Terms.Command = name, nil
	return req, nil
}

func (a *app) attach(req *v1.AttachRequest, asJSON bool) error {
	var out *v1.AttachResponse
	err := a.change(context.Background(), func(ctx context.Context, c connection, id []byte) error {
		req.RequestId = id
		var err error
		out, err = c.Attach(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	if asJSON {
		return report.WriteLine(a.out, struct {
			Name    string `json:"name"`
			Cgroup  string `json:"cgroup"`
			Enforce string `json:"enforce"`
		}{out.GetName(), out.GetCgroup(), out.GetEnforce()})
	}
	fmt.Fprintf(a.err, "maxwell: %s %s: %s\n", out.GetName(), standing(out.GetEnforce()), out.GetCgroup())
	return nil
}

func (a *app) detachVerb() *cobra.Command {
	return &cobra.Command{
		Use:     "detach NAME",
		Short:   "Let an attached group go as it was found",
		Long:    "Let go what attach or a rule of the daemon's took: it runs on as it was found, and\nits books are closed. No rule takes it again while it is there.",
		Example: "  maxwell detach postgres",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := oneArg("NAME")(cmd, args); err != nil {
				return err
			}
			return checkTarget("detach", args[0])
		},
		ValidArgsFunction: a.completeNames(1, false),
		RunE: func(_ *cobra.Command, args []string) error {
			err := a.change(context.Background(), func(ctx context.Context, c connection, id []byte) error {
				_, err := c.Detach(ctx, &v1.DetachRequest{Name: args[0], RequestId: id})
				return err
			})
			if err == nil {
				fmt.Fprintf(a.err, "maxwell: %s is let go\n", args[0])
			}
			return err
		},
	}
}
