// Package main is the maxwell command: one file a verb, and the wiring of the
// verbs to the machine. It computes nothing itself; it parses what a person
// asks, hands it to the market and renders what comes back.
package main

import (
	"os"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/node"
)

func main() {
	if code, ran := node.Hidden(os.Args[1:]); ran {
		os.Exit(code)
	}
	os.Exit(machine().execute(os.Args[1:]))
}

// machine is the app on this machine's files, processes and market.
func machine() *app {
	return &app{
		in:      os.Stdin,
		out:     os.Stdout,
		err:     os.Stderr,
		environ: os.Environ,
		join:    joinMarket,
		connect: connectMarket,
		doctor:  examine,
		now:     time.Now,
		pace:    usualPace,
	}
}
