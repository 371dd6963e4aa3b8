package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

func (a *app) logsVerb() *cobra.Command {
	var follow, asJSON bool
	tail := int64(-1)
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print what a workload has printed",
		Long: `Print what the command of a workload has printed, of one that runs without a
terminal (run -d) and keeps a log. -f goes on until the workload is gone.`,
		Example:           "  maxwell logs agent-7\n  maxwell logs -f --tail 20 agent-7",
		Args:              target,
		ValidArgsFunction: a.completeNames(1, true),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.logs(context.Background(), args[0], follow, tail, asJSON)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on until the workload is gone")
	f.Var(&value[int64]{target: &tail, kind: "N", parse: parseLines, format: formatTail, zero: true}, "tail", "begin with the last N lines (default: all)")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line of the log")
	offer(cmd, "tail")
	return cmd
}

func formatTail(n int64) string {
	if n < 0 {
		return ""
	}
	return formatCount(n)
}

// logs prints the file that a workload's output goes to.
func (a *app) logs(ctx context.Context, name string, follow bool, tail int64, asJSON bool) error {
	w, err := a.one(ctx, "logs", name)
	if err != nil {
		return err
	}
	if w.GetLog() == "" {
		return fmt.Errorf("logs: %s keeps no log: its output went to the terminal that started it; maxwell run -d keeps one", name)
	}
	// A pipe would make opening wait for a writer.
	file, err := os.OpenFile(w.GetLog(), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("logs: read the log of %s: %w", name, err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("logs: the log of %s, %s, is no file that can be read again", name, w.GetLog())
	}
	out := io.Writer(a.out)
	var split *lineSplitter
	if asJSON {
		split = &lineSplitter{w: a.out, name: w.GetName()}
		out = split
	}
	l := logReader{file: file, out: out}
	if tail >= 0 {
		if err := l.skipTo(tail); err != nil {
			return fmt.Errorf("logs: %w", err)
		}
	}
	if err := a.copyLog(ctx, &l, w, follow); err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	if split != nil {
		return split.flush()
	}
	return nil
}

// copyLog copies what is there, and with follow what comes until the workload
// is dead: what it printed last is read after the market says so.
func (a *app) copyLog(ctx context.Context, l *logReader, w *v1.Workload, follow bool) error {
	const lookEvery = 5 // paces between two questions whether it is dead
	for round := 1; ; round++ {
		over := !follow || w.GetState() == "dead"
		if err := l.copy(); err != nil || over {
			return err
		}
		if err := pause(ctx, a.pace); err != nil {
			return err
		}
		if round%lookEvery != 0 {
			continue
		}
		now, err := a.one(ctx, "logs", cmp.Or(w.GetId(), w.GetName()))
		if err != nil { // with its market it is gone: what it printed is here
			return l.copy()
		}
		w = now
	}
}

// one asks for a workload by name or id: a living one, else the last dead.
func (a *app) one(ctx context.Context, verb, name string) (*v1.Workload, error) {
	s, err := a.snapshot(ctx, true)
	if err != nil {
		return nil, err
	}
	if w := find(s, name); w != nil {
		return w, nil
	}
	return nil, nobody(verb, name, s)
}

// logReader reads a file that grows, and that another may truncate.
type logReader struct {
	file *os.File
	out  io.Writer
	at   int64
}

// copy copies everything from where it is to the end. A file shorter than that
// was truncated: it begins again.
func (l *logReader) copy() error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < l.at {
		l.at = 0
	}
	n, err := io.Copy(l.out, io.NewSectionReader(l.file, l.at, info.Size()-l.at))
	l.at += n
	return err
}

// skipTo moves to the beginning of the last n lines. It reads backwards: logs
// may be large.
func (l *logReader) skipTo(n int64) error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	const block = 64 << 10
	buffer := make([]byte, block)
	end := info.Size()
	l.at = end
	lines := int64(0)
	for end > 0 {
		begin := max(0, end-block)
		chunk := buffer[:end-begin]
		if _, err := l.file.ReadAt(chunk, begin); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for len(chunk) > 0 {
			i := bytes.LastIndexByte(chunk, '\n')
			if i < 0 {
				break
			}
			// The newline that ends the last line begins no other.
			if begin+int64(i)+1 < info.Size() {
				if lines++; lines == n {
					l.at = begin + int64(i) + 1
					return nil
				}
			}
			chunk = chunk[:i]
		}
		end = begin
	}
	if n > 0 {
		l.at = 0
	}
	return nil
}

// longestLine bounds what is held of a line without an end.
const longestLine = 1 << 20

// lineSplitter writes each line as a JSON object.
type lineSplitter struct {
	w    io.Writer
	name string
	rest []byte
}

func (s *lineSplitter) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for {
		i := bytes.IndexByte(s.rest, '\n')
		if i < 0 && len(s.rest) < longestLine {
			return len(p), nil
		}
		line, rest := s.rest, []byte(nil)
		if i >= 0 {
			line, rest = s.rest[:i], s.rest[i+1:]
		}
		if err := s.line(line); err != nil {
			return 0, err
		}
		s.rest = rest
	}
}

func (s *lineSplitter) line(text []byte) error {
	return report.WriteLine(s.w, struct {
		Name string `json:"name"`
		Line string `json:"line"`
	}{s.name, string(text)})
}

// flush writes a last line without an end.
func (s *lineSplitter) flush() error {
	if len(s.rest) == 0 {
		return nil
	}
	defer func() { s.rest = nil }()
	return s.line(s.rest)
}
