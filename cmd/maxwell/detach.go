package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// `run -d` is `run` in a session of its own, without a terminal: this program
// starts itself again with the same words and the mark below in its environment,
// and waits until the command runs. What then waits for the command is a client
// like any other, with the same user and the same duties.

// detachedMark is set for the client in the background; the command never sees it.
const detachedMark = "MAXWELL_DETACHED"

// detachedFD is where the client in the background says how the start went.
const detachedFD = 3

// detached reports whether this is the client in the background.
func (a *app) detached() bool { return getenv(a.environ())(detachedMark) != "" }

// withoutMark is an environment as the command gets it.
func withoutMark(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool { return strings.HasPrefix(e, detachedMark+"=") })
}

// openLog makes the file of a detached command's output: the one that was named, or
// a new one in the user's own place.
func (a *app) openLog(name, wallet string) (*os.File, error) {
	if name != "" {
		path, err := filepath.Abs(name)
		if err != nil {
			return nil, usagef("run --log: %v", err)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, usagef("run --log: %q: cannot be written: %v; name a file in a directory of yours", name, errors.Unwrap(err))
		}
		return f, nil
	}
	dir, err := a.logDir()
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, usagef("run -d: no place for the output: %v; name a file: --log FILE", err)
	}
	stamp := time.Now().Format("20060102-150405")
	for n := 1; ; n++ {
		base := wallet + "-" + stamp
		if n > 1 {
			base += "-" + strconv.Itoa(n)
		}
		f, err := os.OpenFile(filepath.Join(dir, base+".log"), os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
		if errors.Is(err, os.ErrExist) && n < 1000 {
			continue
		}
		if err != nil {
			return nil, usagef("run -d: no place for the output: %v; name a file: --log FILE", err)
		}
		return f, nil
	}
}

// logDir is where detached commands' outputs go: the machine's place for root, else
// the user's (XDG base directory specification).
func (a *app) logDir() (string, error) {
	get := getenv(a.environ())
	if dir := get("MAXWELL_OUTPUT_DIR"); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 {
		return "/var/log/maxwell", nil
	}
	return a.stateDir()
}

// stateDir is where what a user's market writes is kept.
func (a *app) stateDir() (string, error) {
	get := getenv(a.environ())
	if dir := get("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "maxwell"), nil
	}
	if home := get("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "maxwell"), nil
	}
	return "", errors.New("neither XDG_STATE_HOME nor HOME is set")
}

// detach starts the client in the background and prints the name of its workload.
func (a *app) detach(spec *runSpec) error {
	log, err := a.openLog(spec.log, spec.workload.Name)
	if err != nil {
		return err
	}
	defer log.Close()
	answer, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("run -d: %w", err)
	}
	defer answer.Close()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(withoutMark(a.environ()), detachedMark+"="+log.Name())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return fmt.Errorf("run -d: %w", err)
	}
	line, _ := bufio.NewReader(answer).ReadString('\n')
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	if word == "started" {
		_, err := fmt.Fprintln(a.out, rest)
		return errors.Join(err, cmd.Process.Release())
	}
	_ = cmd.Wait()
	if word == "" {
		return usagef("run -d: it ended before its command ran; see %s", log.Name())
	}
	if spec.log == "" {
		_ = os.Remove(log.Name()) // nothing ran: nothing was printed
	}
	code, err := strconv.Atoi(word)
	if err != nil {
		code = exitUsage
	}
	return &exitError{code, errors.New(rest)}
}

// supervise is the client in the background: `run` that tells its parent how the
// start went, and says nothing more.
func (a *app) supervise(spec *runSpec) error {
	answer := os.NewFile(detachedFD, "answer")
	syscall.CloseOnExec(detachedFD)
	spec.quiet, spec.log = true, getenv(a.environ())(detachedMark)
	told := false
	spec.started = func(name string) {
		told = true
		fmt.Fprintf(answer, "started %s\n", name)
		_ = answer.Close()
	}
	err := a.run(spec)
	if told || err == nil {
		return err
	}
	code := exitUsage
	if e, ok := errors.AsType[*exitError](err); ok {
		code = e.code
	}
	fmt.Fprintf(answer, "%d %s\n", code, oneLine(err.Error()))
	_ = answer.Close()
	return &exitError{code: code}
}
