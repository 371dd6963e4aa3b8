package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/node"
)

// joinMarket enters this machine's market, and opens it if there is none.
func joinMarket(ctx context.Context, o opening) (session, error) {
	dir, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	s, err := node.Join(ctx, node.JoinOptions{
		Dir: dir, Daemon: daemonSocket(dir), Client: o.client, Version: thisBuild().Version, Settings: settings(o),
	})
	if err != nil {
		return nil, err
	}
	if o.journal != "" && !s.First() {
		_, err := s.Leave(ctx)
		return nil, errors.Join(usagef("journal: a market runs here already, with another journal or none; end it first, or leave out --journal"), err)
	}
	return realSession{s}, nil
}

// daemonSocket is where the daemon that governs this caller may listen; "" if that
// is the place of the caller's own market.
func daemonSocket(own string) string {
	if name := os.Getenv("MAXWELL_SOCKET"); name != "" {
		return name
	}
	if os.Getenv("MAXWELL_RUNTIME_DIR") != "" || own == host.SystemDir {
		return ""
	}
	return filepath.Join(host.SystemDir, node.SocketName)
}

// connectMarket opens a line to the market that governs this caller.
func connectMarket(ctx context.Context) (connection, error) {
	sockets, err := sockets()
	if err != nil {
		return nil, err
	}
	c, err := node.Connect(ctx, sockets...)
	if errors.Is(err, node.ErrNoMarket) {
		return nil, &noMarket{sockets}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// sockets are the places where a market may listen: the one that the
// environment names, or the machine's and then this user's own.
func sockets() ([]string, error) {
	if name := os.Getenv("MAXWELL_SOCKET"); name != "" {
		return []string{name}, nil
	}
	dir, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	own := filepath.Join(dir, node.SocketName)
	if os.Getenv("MAXWELL_RUNTIME_DIR") != "" || dir == host.SystemDir {
		return []string{own}, nil
	}
	return []string{filepath.Join(host.SystemDir, node.SocketName), own}, nil
}

func runtimeDir() (string, error) {
	roots, err := host.Open()
	if err != nil {
		return "", err
	}
	defer roots.Close()
	return host.RuntimeDir(roots, os.Geteuid(), os.Getenv)
}

// settings are an opening as the market takes them.
func settings(o opening) node.Settings {
	s := node.Settings{
		Cores: o.machine.Cores, Watts: o.machine.Watts, WattsPerCore: o.machine.WattsPerCore, IdleWatts: o.machine.IdleWatts,
		Epoch: o.machine.Epoch, Enforce: o.enforce, Version: thisBuild().Version,
		Journal: o.journal, Trace: o.tests.trace, PanicAtTick: o.tests.panicAtTick, PanicIn: o.tests.panicIn,
	}
	if f := o.machine.Floor; f != nil {
		s.Floor = *f
		if *f == 0 {
			s.Floor = -1 // none; zero is the market's default
		}
	}
	return s
}

// realSession is a node's session as the verbs use it.
type realSession struct{ *node.Session }

func (s realSession) Start(ctx context.Context, j job) (running, error) {
	r, err := s.Session.Start(ctx, node.Workload{Terms: j.terms, Spec: j.spec, OnChange: j.onChange})
	if err != nil {
		return nil, err
	}
	return realRunning{r}, nil
}

type realRunning struct{ *node.Running }

// Wallet is the name that the market gave.
func (r realRunning) Wallet() string { return r.Name }
