package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/maxwell-hypervisor/maxwell/internal/api"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// terminal is a tmux of its own with one window.
type terminal struct {
	t   *testing.T
	dir string
}

// needTmux skips where there is none.
func needTmux(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		hosttest.Skip(t, "tmux", err.Error())
	}
}

// openTerminal runs a shell command in a new terminal of that size.
func openTerminal(t *testing.T, width, height int, environ []string, command string) *terminal {
	t.Helper()
	dir, err := os.MkdirTemp("", "maxwell-tmux-") // short: sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t, dir}
	t.Cleanup(func() {
		_, _ = term.tmux("kill-server")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	// cat keeps the window after the command, so that its last words can be read.
	args := []string{"new-session", "-d", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height)}
	for _, e := range environ {
		args = append(args, "-e", e)
	}
	if out, err := term.tmux(append(args, command+`; echo "left with $?"; cat`)...); err != nil {
		t.Fatalf("tmux: %v: %s", err, out)
	}
	return term
}

func (x *terminal) tmux(args ...string) (string, error) {
	cmd := exec.Command("tmux", append([]string{"-f", "/dev/null", "-u", "-S", filepath.Join(x.dir, "s")}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TMUX=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// see waits until the pane shows all of the texts, and returns it.
func (x *terminal) see(texts ...string) string {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 20*time.Second)
	defer cancel()
	for {
		pane, err := x.tmux("capture-pane", "-p")
		if err != nil {
			x.t.Fatalf("capture the pane: %v: %s", err, pane)
		}
		missing := ""
		for _, text := range texts {
			if !strings.Contains(pane, text) {
				missing = text
			}
		}
		if missing == "" {
			return pane
		}
		select {
		case <-ctx.Done():
			x.t.Fatalf("no %q on the terminal:\n%s", missing, pane)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// press sends keys by tmux's names.
func (x *terminal) press(keys ...string) {
	x.t.Helper()
	if out, err := x.tmux(append([]string{"send-keys"}, keys...)...); err != nil {
		x.t.Fatalf("press %v: %v: %s", keys, err, out)
	}
}

// serveStub lets a stub answer on a socket as a market does.
func serveStub(t *testing.T, s *stubMarket) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "maxwell-stub-")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "market.sock")
	listener, err := api.Listen(socket, api.Access{})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(maxwellv1connect.NewMarketServiceHandler(s))
	server := &httptest.Server{Listener: listener, Config: api.NewPlainService(mux, slog.New(slog.DiscardHandler))}
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return socket
}

// buildMaxwell builds the command that a terminal is to run.
func buildMaxwell(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "maxwell")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return program
}

// TestTopInATerminal plays top in real terminals of two sizes against a market
// on a socket: it draws, funds, bids, explains, resizes, refuses, and leaves.
func TestTopInATerminal(t *testing.T) {
	needTmux(t)
	program := buildMaxwell(t)
	t.Run("interrupt", func(t *testing.T) { leaveOnInterrupt(t, program) })
	for _, size := range [][2]int{{80, 24}, {200, 50}} {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) {
			market := &stubMarket{}
			environ := []string{"MAXWELL_SOCKET=" + serveStub(t, market), "LC_ALL=C.UTF-8", "NO_COLOR=1"}
			term := openTerminal(t, size[0], size[1], environ, program+" top --interval 100ms")
			pane := term.see("> scientist", "crawler?[31m", "MODELLED, +-50 %", "12 W of 30 W", "$J LEFT", "478", "? help", "▁▁▁")
			checkPane(t, pane, size)

			term.press("j")
			term.see("> crawler")
			term.press("f")
			term.see("fund crawler?[31m with how many $J? _")
			term.press("-l", "20")
			term.press("Enter")
			term.see("has 20 $J more, 498 $J now")
			term.press("b")
			term.press("-l", "3.5x")
			term.press("Enter")
			term.see("bids 3.5x")
			term.press("x")
			term.see("? y or n")
			term.press("y")
			term.see("is being stopped")
			name := "crawler\x1b[31m"
			want := []string{"fund " + name + " 20000000", "bid " + name + " 3500", "stop " + name}
			if have := market.questions(); fmt.Sprint(have) != fmt.Sprint(want) {
				t.Errorf("the market was asked %q, want %q", have, want)
			}
			term.press("e")
			term.see("is outbid: it bids 2x", "maxwell bid", "any key: back")
			term.press("Space")
			term.see("> crawler")

			other := [2]int{size[1] * 2, size[0] / 3}
			if out, err := term.tmux("resize-window", "-x", strconv.Itoa(other[0]), "-y", strconv.Itoa(other[1])); err != nil {
				t.Fatalf("resize: %v: %s", err, out)
			}
			term.press("?")
			term.see("maxwell top", "any key: back")
			term.press("q")
			checkPane(t, term.see("> crawler", "NAME"), other)

			term.press("q")
			term.see("left with 0")
		})
	}
}

// checkPane: the frame fills the terminal, and the keys are on its last line.
func checkPane(t *testing.T, pane string, size [2]int) {
	t.Helper()
	lines := strings.Split(strings.TrimRight(pane, "\n"), "\n")
	if len(lines) != size[1] || !strings.HasPrefix(lines[0], "maxwell  cgroup") || !strings.HasPrefix(lines[len(lines)-1], "? help") {
		t.Errorf("%d lines, want %d, the first the market's, the last the keys:\n%s", len(lines), size[1], pane)
	}
	for _, line := range lines {
		if utf8.RuneCountInString(line) > size[0] {
			t.Errorf("wider than %d: %q", size[0], line)
		}
	}
}

// leaveOnInterrupt: ^C leaves the screen, the terminal is as before, and
// a market that is in trouble shows as a line of text meanwhile.
func leaveOnInterrupt(t *testing.T, program string) {
	t.Helper()
	market := &stubMarket{broken: true}
	environ := []string{"MAXWELL_SOCKET=" + serveStub(t, market), "LC_ALL=C"}
	term := openTerminal(t, 80, 24, environ, "echo before; TERM=dumb "+program+" top --interval 100ms")
	term.see("the market is on fire")
	market.mu.Lock()
	market.broken = false
	market.mu.Unlock()
	pane := term.see("> scientist", "___")
	if strings.Contains(pane, "on fire") || strings.ContainsAny(pane, "▁█") {
		t.Errorf("after it recovered, on a plain terminal:\n%s", pane)
	}
	term.press("C-c")
	term.see("before", "left with 0")
	if pane := term.see("left with 0"); strings.Contains(pane, "scientist") {
		t.Errorf("the screen is still there:\n%s", pane)
	}
}
