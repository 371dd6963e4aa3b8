package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Market is what the screen asks. Errors are for people; each call has its own
// deadline.
type Market interface {
	Look(ctx context.Context) (report.Snapshot, error)
	Fund(ctx context.Context, name string, amount unit.Credits) (balance unit.Credits, err error)
	Bid(ctx context.Context, name string, bid unit.Price) error // 0 = let the market bid
	Stop(ctx context.Context, name string) error
	Explain(ctx context.Context, name string) (text string, err error)
}

// Options of a screen.
type Options struct {
	In       io.Reader
	Out      io.Writer
	Environ  []string
	Interval time.Duration // between two looks
	Plain    bool          // no colour, no reverse video
	ASCII    bool          // no block characters
}

// patience bounds one call: a market that hangs must not hang the screen.
const patience = 10 * time.Second

// Run shows the market until the person leaves or ctx ends.
func Run(ctx context.Context, market Market, o Options) error {
	s := &screen{ctx: ctx, market: market, interval: o.Interval, model: NewModel(!o.Plain, o.ASCII)}
	program := tea.NewProgram(s, tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(o.Out), tea.WithEnvironment(o.Environ))
	_, err := program.Run()
	switch {
	case errors.Is(err, tea.ErrInterrupted), ctx.Err() != nil:
		return nil // it was asked to leave
	case err != nil:
		return fmt.Errorf("show the market: %w", err)
	}
	return nil
}

// Once returns one frame as text, of all that there is to show.
func Once(ctx context.Context, market Market, width int) (string, error) {
	looked, err := market.Look(ctx)
	if err != nil {
		return "", err
	}
	m := NewModel(false, true)
	m.Sized(width, 0)
	m.Took(looked, nil)
	m.quiet = true
	return m.Frame() + "\n", nil
}

// screen is a Model as bubbletea's. The library runs a command in a goroutine
// of its own, waits for it, and gives what it returns to Update.
type screen struct {
	ctx      context.Context //nolint:containedctx // of Run, for the commands that the library runs
	market   Market
	interval time.Duration
	model    *Model
}

type (
	lookMsg struct {
		snapshot report.Snapshot
		err      error
		repeat   bool // the next look comes after the interval
	}
	answerMsg struct {
		ask  Ask
		text string
		err  error
	}
	againMsg struct{}
)

// Init looks for the first time.
func (s *screen) Init() tea.Cmd { return s.look(true) }

// Update handles one event.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.model.Sized(msg.Width, msg.Height)
	case tea.KeyPressMsg:
		if msg.String() == "ctrl+z" {
			return s, tea.Suspend
		}
		return s, s.do(s.model.Key(msg.String(), msg.Text))
	case tea.PasteMsg:
		s.model.Pasted(msg.Content)
	case lookMsg:
		s.model.Took(msg.snapshot, msg.err)
		if msg.repeat {
			return s, tea.Tick(s.interval, func(time.Time) tea.Msg { return againMsg{} })
		}
	case againMsg:
		return s, s.look(true)
	case answerMsg:
		s.model.Answered(msg.ask, msg.text, msg.err)
		if msg.ask.Kind != Explain {
			return s, s.look(false)
		}
	}
	return s, nil
}

// View is the frame on the whole screen.
func (s *screen) View() tea.View {
	v := tea.NewView(s.model.Frame())
	v.AltScreen = true
	v.WindowTitle = "maxwell top"
	return v
}

func (s *screen) look(repeat bool) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		defer cancel()
		snapshot, err := s.market.Look(ctx)
		return lookMsg{snapshot, err, repeat}
	}
}

// do carries out what the model wants.
func (s *screen) do(a Ask) tea.Cmd {
	switch a.Kind {
	case Nothing:
		return nil
	case Quit:
		return tea.Quit
	case Fund, Bid, Stop, Explain:
	}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		defer cancel()
		text, err := ask(ctx, s.market, a)
		return answerMsg{a, text, err}
	}
}

// ask puts a to the market and says what came of it.
func ask(ctx context.Context, market Market, a Ask) (string, error) {
	switch a.Kind {
	case Fund:
		balance, err := market.Fund(ctx, a.Name, a.Amount)
		return fmt.Sprintf("%s has %s more, %s now", a.Name, a.Amount.Short(), balance.Short()), err
	case Bid:
		text := a.Name + " bids " + a.Bid.Short()
		if a.Bid == 0 {
			text = "the market bids for " + a.Name
		}
		return text, market.Bid(ctx, a.Name, a.Bid)
	case Stop:
		return a.Name + " is being stopped", market.Stop(ctx, a.Name)
	case Explain:
		return market.Explain(ctx, a.Name)
	case Nothing, Quit:
	}
	return "", nil
}
