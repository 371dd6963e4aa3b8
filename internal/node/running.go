package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/signal"
)

// Workload is what a client starts: its terms and its command.
type Workload struct {
	Terms *v1.AdmitRequest
	Spec  launch.Spec // Report is made by Start
	// OnChange is told when the main process stops or continues (^Z, fg). It
	// runs on the goroutine that waits for the process. May be nil.
	OnChange func(launch.Status)
}

// child is a started main process, whichever enforcement started it.
type child interface {
	Wait() (launch.Status, error)
	Signal(sig syscall.Signal) error
}

// Running is a workload of this session with its main process.
type Running struct {
	Name string
	s    *Session
	proc child
	done chan struct{}

	telling sync.Mutex // guards what follows: one report at a time, in order
	batch   uint64     // number of the last report
	told    []report   // the last of them: a daemon that dies may not have kept them
	breaks  uint64     // of the session's, when told was told

	over     chan struct{} // closed when the main process ended
	reported chan struct{} // closed when nothing more can be reported

	mu    sync.Mutex // orders Signal against the reaping of the process
	ended bool

	out  *v1.ExitedResponse
	code int
	err  error
}

// Start admits the workload and starts its command in the group the market
// made. A refusal, or a command that cannot be run (*launch.ExecError), leaves
// nothing behind.
func (s *Session) Start(ctx context.Context, w Workload) (*Running, error) {
	admitted, err := s.place(ctx, w.Terms)
	if err != nil {
		return nil, err
	}
	report, theirs, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make report pipe: %w", err), s.neverStarted(ctx, admitted.GetName(), 125))
	}
	w.Spec.Report = theirs
	if w.Spec.Env == nil {
		w.Spec.Env = os.Environ()
	}
	w.Spec.Env = s.environ(w.Spec.Env, admitted.GetName(), w.Terms.GetCoresMilli())
	r := &Running{Name: admitted.GetName(), s: s, done: make(chan struct{}), over: make(chan struct{}), reported: make(chan struct{})}
	var pid int
	r.proc, pid, err = begin(w.Spec, placed(admitted.GetPlacement()))
	_ = theirs.Close()
	if err != nil {
		_ = report.Close()
		code := 125
		if e, ok := errors.AsType[*launch.ExecError](err); ok {
			code = e.Code
		}
		return nil, errors.Join(err, s.neverStarted(ctx, r.Name, code))
	}
	_, err = again(ctx, s, func() (*v1.StartedResponse, error) {
		return s.rpc.Started(ctx, &v1.StartedRequest{Token: s.id(), Name: r.Name, Pid: int32(pid)})
	})
	if failed := pass(r.proc, err); failed != nil {
		_ = report.Close()
		return nil, errors.Join(failed, s.neverStarted(ctx, r.Name, 125))
	}
	if err != nil {
		r.err = err
	}
	if s.durable {
		s.mu.Lock()
		s.running = append(slices.DeleteFunc(s.running, (*Running).isOver), r)
		s.mu.Unlock()
	}
	s.crew.Go(func() { defer close(r.reported); s.reports(r, report) })
	life, over := context.WithCancel(context.Background())
	s.crew.Go(func() { defer over(); r.wait(w.OnChange) })
	s.crew.Go(func() { r.orphaned(life) })
	return r, nil
}

// environ is what a workload finds of its market: where to report work, where to
// ask, under which name, and how many cores it may use at most (no more than are for
// sale), in the two variables that runtimes look at. What its owner has set stands.
func (s *Session) environ(env []string, name string, cores int64) []string {
	env = append(slices.Clone(env), "MAXWELL_REPORT="+strconv.Itoa(launch.ReportFD), "MAXWELL_WALLET="+name, "MAXWELL_SOCKET="+s.socket)
	if cores <= 0 {
		return env
	}
	count := strconv.FormatInt((min(cores, s.node.GetCoresMilli())+999)/1000, 10)
	for _, variable := range []string{"GOMAXPROCS=", "OMP_NUM_THREADS="} {
		if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, variable) }) {
			env = append(env, variable+count)
		}
	}
	return env
}

// Admit takes a place in the market for a workload of a later Start with the
// same name, so that a fleet can be refused before any of it runs. Leave gives
// places back that were never used.
func (s *Session) Admit(ctx context.Context, terms *v1.AdmitRequest) error {
	admitted, err := s.place(ctx, terms)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places[terms.GetName()] = admitted
	return nil
}

// place is the admission that waits for a workload, or a new one.
func (s *Session) place(ctx context.Context, terms *v1.AdmitRequest) (*v1.AdmitResponse, error) {
	s.mu.Lock()
	admitted := s.places[terms.GetName()]
	delete(s.places, terms.GetName())
	s.mu.Unlock()
	if admitted != nil {
		return admitted, nil
	}
	terms.RequestId = drawID()
	return again(ctx, s, func() (*v1.AdmitResponse, error) {
		terms.Token = s.id()
		return s.rpc.Admit(ctx, terms)
	})
}

// begin starts the process by the enforcement that the placement names. The
// process id is that of the tree's root: the shim's, where there is one.
func begin(spec launch.Spec, p dispatch.Placement) (child, int, error) {
	if p.Enforcement == signal.Name {
		proc, err := signal.Start(spec, p)
		if err != nil {
			return nil, 0, err
		}
		return proc, proc.Pid, nil
	}
	if p.Moved {
		proc, err := launch.StartGated(spec, p)
		if err != nil {
			return nil, 0, err
		}
		return proc, proc.Pid, nil
	}
	proc, err := launch.Start(spec, p)
	if err != nil {
		return nil, 0, err
	}
	return proc, proc.Pid, nil
}

// pass lets a child through that waited for the market to move it. Where the market
// would not, it ends, and what the market said is the reason.
func pass(proc child, refused error) error {
	g, waits := proc.(*launch.Gated)
	switch {
	case !waits:
		return nil
	case refused != nil:
		return errors.Join(refused, g.Shut())
	}
	return g.Open()
}

// neverStarted takes an admission back.
func (s *Session) neverStarted(ctx context.Context, name string, code int) error {
	_, err := again(ctx, s, func() (*v1.ExitedResponse, error) {
		return s.rpc.Exited(ctx, &v1.ExitedRequest{
			Token: s.id(), Name: name, ChildExit: int32(code), NeverStarted: true,
		})
	})
	return err
}

// wait follows the main process to its end, then the market to the burial.
// Owner: Session; end: the process ends, which the market sees to.
func (r *Running) wait(onChange func(launch.Status)) {
	defer close(r.done)
	for {
		st, err := r.proc.Wait()
		if err != nil {
			r.code, r.err = 125, errors.Join(r.err, err)
			break
		}
		if st.Ended() {
			r.code = st.Code
			break
		}
		if onChange != nil {
			onChange(st)
		}
	}
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	close(r.over)
	select { // the market pays for work only while the workload lives
	case <-r.reported:
	case <-time.After(lastReports):
	}
	out, err := r.exited()
	if err != nil {
		r.err = errors.Join(r.err, err)
		return
	}
	r.out = out
	if c, ok := r.proc.(io.Closer); ok { // a shim outlives its command until the burial
		if err := c.Close(); err != nil {
			r.err = errors.Join(r.err, err)
		}
	}
}

// awayPatience is how long a client whose command has ended waits for a daemon
// that is away, before it ends without a bill: the daemon bills what it finds when
// it is back.
const awayPatience = 10 * time.Second

// exited tells the market that the main process ended, and returns when the
// workload is buried.
func (r *Running) exited() (*v1.ExitedResponse, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if r.s.durable {
		r.s.crew.Go(func() { r.giveUp(ctx, cancel) })
	}
	out, err := again(ctx, r.s, func() (*v1.ExitedResponse, error) {
		if err := r.s.retell(ctx, r); err != nil {
			return nil, err
		}
		return r.s.rpc.Exited(ctx, &v1.ExitedRequest{
			Token: r.s.id(), Name: r.Name, ChildExit: int32(r.code),
		})
	})
	if err != nil && ctx.Err() != nil {
		err = ErrAway
	}
	return out, err
}

// giveUp ends a wait for a daemon that stays away. Owner: exited; end: ctx, or the
// patience.
func (r *Running) giveUp(ctx context.Context, cancel context.CancelFunc) {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if !r.s.isAway() {
			since = time.Now()
		}
		if time.Since(since) > awayPatience {
			cancel()
			return
		}
	}
}

func (s *Session) isAway() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.away
}

// orphaned ends the main process when the market has died and nobody else did:
// its watchdog was killed too. Nothing runs that nobody meters; what the
// process leaves is for repair. Owner: Session; end: the process's.
func (r *Running) orphaned(life context.Context) {
	select {
	case <-life.Done():
		return
	case <-r.s.gone:
	}
	if r.s.durable {
		return // it goes on as on a machine without Maxwell
	}
	if err := waitUnlocked(life, r.s.dir, watchdogPatience); err == nil {
		_ = r.Signal(syscall.SIGKILL) // ESRCH: it has just ended
	}
}

// Done is closed when the workload's tree is gone and paid for.
func (r *Running) Done() <-chan struct{} { return r.done }

// Result returns the workload's closing statement after Done. It is nil with
// an error when the market died.
func (r *Running) Result() (*v1.ExitedResponse, error) {
	<-r.done
	if r.out != nil {
		return r.out, nil
	}
	return nil, r.err
}

func (r *Running) isOver() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Code is the main process's exit as a shell shows it, after Done.
func (r *Running) Code() int {
	<-r.done
	return r.code
}

// Signal sends sig to the main process, if it still lives.
func (r *Running) Signal(sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return nil
	}
	return r.proc.Signal(sig)
}

// reportEvery batches the lines of a chatty workload into one call.
const reportEvery = 20 * time.Millisecond

// reports reads `work N [kind]` lines until the workload's last process has
// closed the pipe. Owner: Session; end: the pipe's end, or the session's.
func (s *Session) reports(r *Running, pipe *os.File) {
	s.crew.Go(func() { // ends a pipe that outlives the market: owner Session, end gone
		<-s.gone
		_ = pipe.SetReadDeadline(time.Now())
	})
	defer pipe.Close()
	sums := make(map[string]int64)
	var rest []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := pipe.Read(buf)
		rest = sumReports(append(rest, buf[:n]...), sums)
		if len(rest) > maxReportLine {
			rest = rest[:0] // not a report: nobody writes numbers this long
		}
		if !s.deliver(r, sums) {
			return
		}
		if err != nil {
			return
		}
		select {
		case <-s.gone:
		case <-r.over: // what is left is the last word: read it at once
		case <-time.After(reportEvery):
		}
	}
}

// deliver hands over what was reported, each batch once: a daemon that was away
// may have had it already.
func (s *Session) deliver(r *Running, sums map[string]int64) bool {
	r.telling.Lock()
	defer r.telling.Unlock()
	for kind, units := range sums {
		r.batch++
		r.told = append(r.told, report{r.batch, kind, units, time.Now()})
		_, err := again(context.Background(), s, func() (*v1.ReportResponse, error) {
			return &v1.ReportResponse{}, s.tell(context.Background(), r, 1)
		})
		if err != nil {
			return false
		}
		delete(sums, kind)
		r.told = slices.DeleteFunc(r.told, func(t report) bool { return !s.durable || time.Since(t.at) > keepReports })
	}
	return true
}

// tell delivers the last n reports of r, and before them those that a daemon which
// came back may not know: the one before it had them, and may not have kept them.
// Called with telling held.
func (s *Session) tell(ctx context.Context, r *Running, n int) error {
	breaks := s.breaks.Load()
	list := r.told[len(r.told)-n:]
	if breaks != r.breaks {
		list = r.told
	}
	for i := range list {
		t := &list[i]
		_, err := s.rpc.Report(ctx, &v1.ReportRequest{Token: s.id(), Name: r.Name, Kind: t.kind, Units: t.units, Batch: t.batch})
		if err != nil {
			return err
		}
		t.at = time.Now() // this daemon, too, may end before it has written it down
	}
	r.breaks = breaks
	return nil
}

// retell is tell without news. It does not wait for who tells already.
func (s *Session) retell(ctx context.Context, r *Running) error {
	if !r.telling.TryLock() {
		return nil
	}
	defer r.telling.Unlock()
	return s.tell(ctx, r, 0)
}

// retellAll brings a daemon that came back up to date. Owner: Session; end: it is, or
// another one will be.
func (s *Session) retellAll(life context.Context) {
	s.mu.Lock()
	list := slices.Clone(s.running)
	s.mu.Unlock()
	for _, r := range list {
		_ = s.retell(life, r) // told again before the next report, and before its end
	}
}

// report is one batch of a kind of work.
type report struct {
	batch uint64
	kind  string
	units int64
	at    time.Time // when it was last delivered
}

// keepReports is how long a report is kept for the next daemon: longer than it takes
// one to write it down.
const keepReports = 5 * time.Second

// lastReports bounds the wait for what the main process reported before it
// ended. Its descendants may keep the pipe open; what it wrote itself was in
// the pipe at its end.
const lastReports = 100 * time.Millisecond

// maxReportLine and maxKinds bound what a workload can make its client keep.
const (
	maxReportLine = 4096
	maxKinds      = 64
	maxKind       = 64 // bytes
)

// sumReports adds up the complete lines of text by kind and returns the rest.
// Lines that are not reports are ignored: the descriptor is the workload's to
// misuse, and a wrong line earns nothing.
func sumReports(text []byte, sums map[string]int64) []byte {
	for {
		line, rest, found := bytes.Cut(text, []byte("\n"))
		if !found {
			return text
		}
		text = rest
		kind, units, ok := ParseReport(string(line))
		if !ok {
			continue
		}
		if _, known := sums[kind]; !known && len(sums) >= maxKinds {
			continue
		}
		sums[kind] += min(units, maxUnits-min(sums[kind], maxUnits))
	}
}

// maxUnits is the most work that one batch can claim.
const maxUnits = 1 << 40

// ParseReport reads one line `work N [kind]`: N finished units, 1 to 2^40. A
// kind is one word of at most 64 bytes that can be shown: a message to the
// market holds no other text.
func ParseReport(line string) (kind string, units int64, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 2 || len(fields) > 3 || fields[0] != "work" {
		return "", 0, false
	}
	units, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || units <= 0 || units > maxUnits {
		return "", 0, false
	}
	if len(fields) == 3 {
		kind = fields[2]
	}
	hidden := func(r rune) bool { return !unicode.IsPrint(r) }
	if len(kind) > maxKind || !utf8.ValidString(kind) || strings.ContainsFunc(kind, hidden) {
		return "", 0, false
	}
	return kind, units, true
}
