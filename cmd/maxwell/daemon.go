package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/internal/api"
	"github.com/maxwell-hypervisor/maxwell/internal/config"
	"github.com/maxwell-hypervisor/maxwell/internal/grid"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/node"
)

// daemonSpec is what `maxwell daemon` was asked.
type daemonSpec struct {
	file  string
	set   []string
	check bool
	print bool
	tests openingTests
}

func (a *app) daemonVerb() *cobra.Command {
	spec := daemonSpec{}
	cmd := &cobra.Command{
		Use:   "daemon [flags]",
		Short: "Run the market of this machine as a service",
		Long: `Run the market of this machine as a service, in the foreground: a market that
outlives its clients, whose wallets and workloads outlive a restart or a crash of it.
run, up and the other verbs use it when it is there.

While it is away the workloads go on: after two seconds those that can pay run at
the kernel's own weights, those that are broke stay stopped until their grace ends.
When it is back it takes them over, and bills once what they used meanwhile, at the
base price. Stopped with SIGTERM, it hands over in the same way and at once.

Without root it serves its user alone: the socket and the books are in that user's
directories then, unless the settings say where.

Settings come from a file, then from the environment (MAXWELL_NODE_CORES), then from
--set; later ones win. --print shows what came from where, --check what is wrong.`,
		Example: `  maxwell daemon --check
  maxwell daemon --config /etc/maxwell/maxwell.yaml
  maxwell daemon --set node.cores=2 --set socket.access=everybody`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.daemon(&spec) },
	}
	f := cmd.Flags()
	f.StringVar(&spec.file, "config", "", "read this `FILE` (default "+config.DefaultFile+", if it is there)")
	f.StringArrayVar(&spec.set, "set", nil, "set one `KEY=VALUE`, as node.cores=2; may be repeated")
	f.BoolVar(&spec.check, "check", false, "say what is wrong with the settings, and do nothing")
	f.BoolVar(&spec.print, "print", false, "print the settings in force and where each came from, and do nothing")
	testFlags(f, &spec.tests)
	return cmd
}

func (a *app) daemon(spec *daemonSpec) error {
	c, err := config.Load(spec.file, a.environ(), spec.set)
	if problems, ok := errors.AsType[config.Problems](err); ok && spec.check {
		for _, p := range problems {
			fmt.Fprintf(a.err, "maxwell: daemon: %s\n", oneLine(p.Error()))
		}
		return &exitError{code: exitUsage}
	}
	if err == nil && os.Geteuid() != 0 {
		err = a.ownPlaces(c)
	}
	if err != nil {
		return usagef("daemon: %v", err)
	}
	if spec.print {
		return c.WriteYAML(a.out)
	}
	s, err := daemonSettings(c)
	if err == nil {
		err = s.Validate()
	}
	if err != nil {
		return usagef("daemon: %v", err)
	}
	if spec.check && c.Grid.File != "" {
		// Only said here: a daemon starts without it, at the price that it knows.
		if _, err := grid.ReadFile(c.Grid.File); err != nil {
			return usagef("daemon: grid.file: %v", err)
		}
	}
	if spec.check {
		fmt.Fprintln(a.err, "maxwell: daemon: the settings are good")
		return nil
	}
	s.PanicAtTick, s.PanicIn, s.Trace = spec.tests.panicAtTick, spec.tests.panicIn, spec.tests.trace
	dir := filepath.Dir(c.Socket.Path)
	if err := host.ServiceDir(dir, os.Geteuid()); err != nil {
		return usagef("daemon: %v", err)
	}
	if err := host.StateDir(c.State, os.Geteuid()); err != nil {
		return usagef("daemon: %v", err)
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err = node.Serve(ctx, dir, s, func(err error) {
		if err == nil {
			fmt.Fprintf(a.err, "maxwell: daemon: ready on %s\n", s.Daemon.Socket)
			s.Daemon.Notify(daemon.SdNotifyReady)
		}
	})
	if errors.Is(err, node.ErrTaken) {
		return usagef("daemon: another market governs this machine (its lock is in %s); end it first", dir)
	}
	if err != nil {
		return usagef("daemon: %v", err)
	}
	return nil
}

// ownPlaces puts the socket and the books of a user's daemon where the user may
// write and the other verbs look, unless the settings name a place.
func (a *app) ownPlaces(c *config.Config) error {
	if c.Origin("socket.path").Layer == config.Default {
		dir, err := runtimeDir()
		if err != nil {
			return err
		}
		c.Socket.Path = filepath.Join(dir, node.SocketName)
	}
	if c.Origin("state").Layer == config.Default {
		dir, err := a.stateDir()
		if err != nil {
			return fmt.Errorf("no place for the books: %w; name a directory: --set state=DIR", err)
		}
		c.State = dir
	}
	return nil
}

// journalName is the newest file of the journal in a daemon's state directory.
const journalName = "journal.sqlite"

// daemonSettings are a configuration as the market takes it.
func daemonSettings(c *config.Config) (node.Settings, error) {
	s := settings(opening{machine: c.Node.Node, enforce: c.Node.Enforcement})
	s.Log = c.Log.Level
	access := api.Access{Everybody: c.Socket.Access.Group == "" && !c.Socket.Access.Owner}
	if name := c.Socket.Access.Group; name != "" {
		gid, err := groupID(name)
		if err != nil {
			return s, fmt.Errorf("socket.access: %w", err)
		}
		access.Group = gid
	}
	who, err := newAdmins(c.Admins)
	if err != nil {
		return s, err
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return s, fmt.Errorf("WATCHDOG_USEC: %w", err)
	}
	s.Daemon = &node.Daemon{
		Config:  c,
		Journal: filepath.Join(c.State, journalName), Socket: c.Socket.Path, Access: access, Admin: who.has,
		Quantum: c.EnergyQuantum, Notify: tellSystemd, Pulse: interval / 2,
		KeepReceipts: c.Keep.Receipts, KeepEvents: c.Keep.Events, KeepJournal: c.Keep.Journal,
	}
	if t := c.TCP; t.Listen.Network != "" {
		s.Daemon.Remote = &api.Remote{Listen: t.Listen.Text, Cert: t.Cert, Key: t.Key, ClientCA: t.ClientCA}
	}
	return s, nil
}

// tellSystemd tells systemd, where there is one; it needs to know nothing else.
func tellSystemd(state string) { _, _ = daemon.SdNotify(false, state) }

// admins are the users that may act for everybody, by name, number or group. The
// groups of a user are looked up once.
type admins struct {
	users  map[uint32]bool
	groups []string // ids

	mu    sync.Mutex
	known map[uint32]bool
}

func newAdmins(c config.Admins) (*admins, error) {
	a := &admins{users: make(map[uint32]bool), known: make(map[uint32]bool)}
	for _, name := range c.Users {
		id := name
		if u, err := user.Lookup(name); err == nil {
			id = u.Uid
		}
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("admins.users: no user %q on this machine", name)
		}
		a.users[uint32(n)] = true
	}
	for _, name := range c.Groups {
		gid, err := groupID(name)
		if err != nil {
			return nil, fmt.Errorf("admins.groups: %w", err)
		}
		a.groups = append(a.groups, strconv.Itoa(gid))
	}
	return a, nil
}

func groupID(name string) (int, error) {
	id := name
	if g, err := user.LookupGroup(name); err == nil {
		id = g.Gid
	}
	n, err := strconv.ParseUint(id, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("no group %q on this machine; make it: groupadd %s", name, strings.TrimSpace(name))
	}
	return int(n), nil
}

// has reports whether a user is an admin.
func (a *admins) has(uid uint32) bool {
	if a.users[uid] || len(a.groups) == 0 {
		return a.users[uid]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	is, looked := a.known[uid]
	if looked {
		return is
	}
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		ids, err := u.GroupIds()
		is = err == nil && slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(a.groups, id) })
	}
	a.known[uid] = is
	return is
}
