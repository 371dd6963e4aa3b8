package node

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// ReadyFD is the descriptor on which a starting market says that it is ready,
// or why it is not.
const ReadyFD = 3

// startMarket starts the market process in a session of its own and waits
// until it listens. Losing the race against another client's market is no
// error: the caller dials again.
func startMarket(o JoinOptions) error {
	program := o.Program
	if program == "" {
		program = "/proc/self/exe"
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the market: %w", err)
	}
	defer ready.Close()
	logFile, err := os.OpenFile(filepath.Join(o.Dir, LogName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Join(fmt.Errorf("open the market's log: %w", err), theirs.Close())
	}
	defer logFile.Close()
	for _, name := range []*string{&o.Settings.Trace, &o.Settings.Journal} { // the market works in /
		if *name == "" {
			continue
		}
		if *name, err = filepath.Abs(*name); err != nil {
			return errors.Join(fmt.Errorf("find the place of %s: %w", *name, err), theirs.Close())
		}
	}
	args := append(o.Settings.Args(), "--dir", o.Dir)
	cmd := exec.Command(program, args...)
	cmd.Args[0] = "maxwell"
	cmd.Dir = "/"
	cmd.Stderr = logFile
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start the market: %w", err), theirs.Close())
	}
	_ = theirs.Close()
	line, _ := bufio.NewReader(ready).ReadString('\n')
	line = strings.TrimSpace(line)
	// The market outlives this call; it is reaped if it ends before us.
	reap(cmd)
	switch {
	case line == "ready" || line == "taken":
		return nil
	case line == "":
		return fmt.Errorf("start the market: it died at once; see %s", logFile.Name())
	}
	return errors.New(strings.TrimPrefix(line, "error: "))
}

// reap waits for the market process, so that it does not stay a zombie of a
// client that outlives it. Owner: the process; end: the market's end.
func reap(cmd *exec.Cmd) {
	go func() { _ = cmd.Wait() }()
}
