package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/api"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// service answers the API's calls. Handlers run on goroutines of the HTTP
// server, which ends after the market does.
type service struct {
	maxwellv1connect.UnimplementedMarketServiceHandler

	m *Market
}

var errClosing = connect.NewError(connect.CodeUnavailable, errors.New("the market is closing; try again"))

// Join implements MarketService: it opens a session and streams its events.
func (s service) Join(ctx context.Context, req *v1.JoinRequest, stream *connect.ServerStream[v1.JoinResponse]) error {
	m := s.m
	a, err := s.actor(ctx)
	if err == nil {
		err = errors.Join(a.here(), a.outside("open wallets"))
	}
	if err != nil {
		return err
	}
	var client process
	if c, err := api.CallerOf(ctx); err == nil {
		client = processOf(c.PID)
	}
	own, number, first, err := m.enter(a, client, req)
	if err != nil {
		return err
	}
	defer m.part(own, number) // idempotent: Leave may have been first
	hello := &v1.Session{Token: own.token, First: first, Node: m.publicNode(a, m.view()), Durable: m.durable()}
	for _, mem := range own.living() {
		hello.Living = append(hello.Living, mem.name)
	}
	if err := stream.Send(&v1.JoinResponse{Of: &v1.JoinResponse_Session{Session: hello}}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.closed:
			return nil
		case <-own.ready:
		}
		for _, e := range own.take() {
			if err := stream.Send(&v1.JoinResponse{Of: &v1.JoinResponse_Event{Event: a.news(e)}}); err != nil {
				return err
			}
		}
	}
}

// enter opens a session, or finds the one that its client goes on with, and numbers
// the stream. It answers to the same user alone.
func (m *Market) enter(a actor, client process, req *v1.JoinRequest) (own *session, number int, first bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return nil, 0, false, errClosing
	}
	if token := req.GetResume(); token != "" {
		own = m.session[token]
		if own == nil || own.uid != a.uid && !a.admin {
			return nil, 0, false, errSession
		}
	} else {
		if err := m.roomLocked(a.uid); err != nil {
			return nil, 0, false, err
		}
		var token [16]byte
		_, _ = rand.Read(token[:]) // never fails (crypto/rand)
		own, first = newSession(hex.EncodeToString(token[:]), clip(req.GetClient(), maxClient), a.uid), len(m.session) == 0
		m.session[own.token] = own
	}
	own.mu.Lock()
	own.joined, own.process = true, client
	own.streams++
	number = own.streams
	own.mu.Unlock()
	return own, number, first, nil
}

// part notes that a client's stream has ended. That is the end of its session, but
// in a market that lasts: there it has a moment to come back. It may have done so
// before the end of the old stream was noticed.
func (m *Market) part(own *session, number int) {
	own.mu.Lock()
	last := own.streams == number
	if last {
		own.joined = false
	}
	own.mu.Unlock()
	switch {
	case !last:
	case m.durable():
		m.parted(own, resumeAfterBreak, process{})
	default:
		m.leave(own)
	}
}

var errSession = connect.NewError(connect.CodeUnauthenticated, errors.New("unknown session: join the market first"))

// of finds the session that a token names. It answers to the user who opened it
// alone: a token is no secret that replaces who the caller is.
func (s service) of(ctx context.Context, token string) (*session, error) {
	a, err := s.actor(ctx)
	if err == nil {
		err = errors.Join(a.here(), a.outside("speak for a client"))
	}
	if err != nil {
		return nil, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if own := s.m.session[token]; own != nil && (own.uid == a.uid || a.admin) {
		return own, nil
	}
	return nil, errSession
}

// member finds a workload of the caller's own session.
func (s service) member(ctx context.Context, token, name string) (*member, error) {
	own, err := s.of(ctx, token)
	if err != nil {
		return nil, err
	}
	mem := own.find(name)
	if mem == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no workload %q in this session", name))
	}
	return mem, nil
}

// meant is the living workload that a call is about: of a session, or of
// whoever calls without one.
func (s service) meant(ctx context.Context, token, name string) (*member, error) {
	if token != "" {
		return s.member(ctx, token, name)
	}
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	return s.visible(a, name)
}

// Admit implements MarketService.
func (s service) Admit(ctx context.Context, req *v1.AdmitRequest) (*v1.AdmitResponse, error) {
	own, err := s.of(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	if err := checkTerms(req); err != nil { // never right, and so not worth remembering
		return nil, refused(err)
	}
	out, err := once(ctx, &s.m.answers, own.uid, req, func() (*v1.AdmitResponse, error) { return s.admit(ctx, own, req) })
	if err != nil {
		return nil, err
	}
	return out, s.m.settled(ctx)
}

func (s service) admit(ctx context.Context, own *session, req *v1.AdmitRequest) (*v1.AdmitResponse, error) {
	m := s.m
	if m.keeper != nil {
		if err := m.keeper.trouble(); err != nil {
			return nil, notKept(err)
		}
	}
	if err := m.room(own.uid); err != nil {
		return nil, err
	}
	if err := m.pace(own.uid); err != nil {
		return nil, err
	}
	asked := proto.CloneOf(req) // req is what its fingerprint is of
	asked.Command = clipAll(asked.GetCommand(), maxCommand)
	var err error
	var slot int32
	var line demon.Line
	mem := &member{
		name: req.GetName(), session: own, uid: own.uid, client: own.client, admitted: time.Now(), asked: asked, buried: make(chan struct{}),
	}
	terms := admission(req)
	if m.durable() {
		if err := m.bound(own.uid, &terms); err != nil {
			return nil, refused(err)
		}
	}
	mem.limits = dispatch.Limits{Memory: terms.Memory, Pids: terms.Pids, Cores: terms.Cores}
	ok := m.loop.do(func() {
		var ask demon.Admission
		if ask, err = m.paid(own.uid, req); err == nil {
			ask.Cores, ask.Memory, ask.Pids, ask.MaxBid = terms.Cores, terms.Memory, terms.Pids, terms.MaxBid
			ask.Enforce = m.under(mem.mode)
			slot, err = m.loop.demon.Admit(m.loop.clock.Now(), ask)
		}
		if err == nil {
			m.loop.seat(slot)
			line, _ = m.loop.demon.LineOf(slot)
			mem.slot, mem.serial = slot, line.ID
			m.loop.serials[mem.serial] = mem
		}
	})
	if !ok {
		return nil, errClosing
	}
	if err != nil {
		return nil, refused(err)
	}
	if err := m.house(mem); err != nil {
		return nil, refused(err)
	}
	own.add(mem)
	if ctx.Err() != nil && !m.durable() {
		m.end(own)
		return nil, ctx.Err()
	}
	out := &v1.AdmitResponse{
		Name: mem.name, Placement: m.placementOf(mem),
		DepositUcredits: int64(line.Deposit),
	}
	if m.durable() {
		return out, m.promise(ctx, mem, req, out)
	}
	return out, nil
}

// notKept refuses new work while the journal cannot be written.
func notKept(err error) error {
	return connect.NewError(connect.CodeResourceExhausted,
		fmt.Errorf("%w: what runs goes on, new work waits until it can be written", err))
}

// promise makes an admission and its answer durable. One that cannot be kept is
// taken back: it was not made.
func (m *Market) promise(ctx context.Context, mem *member, req *v1.AdmitRequest, out *v1.AdmitResponse) error {
	notes := m.answerNotes(mem.uid, req, out)
	m.loop.do(func() { m.loop.recordOf(mem, notes...) })
	// Whoever asked may have gone: he asks again, or his session ends.
	err := m.keeper.settled(context.WithoutCancel(ctx), m.done)
	if err == nil || errors.Is(err, errClosing) {
		return err
	}
	m.loop.hasten(func() {
		if m.loop.has(mem) { // else it has ended meanwhile, and its slot may be another's
			mem.ending = true
			m.loop.demon.Gone(mem.slot, false)
		}
		for _, n := range notes {
			m.loop.record(note{ref: n.ref})
		}
	})
	select {
	case <-mem.buried:
	case <-m.done:
	}
	return notKept(err)
}

// What is kept of a request's texts. A name becomes a directory; a command line is
// for people, and cut where they stop reading.
const (
	maxName    = 128
	maxClient  = 64
	maxCommand = 4096 // bytes, of all words
	maxText    = 4096 // of a path, or a kind of work
)

// clip cuts a text.
func clip(text string, most int) string { return strings.ToValidUTF8(text[:min(len(text), most)], "") }

// clipAll cuts a list of texts to so many bytes in all.
func clipAll(words []string, most int) []string {
	for i, w := range words {
		if most -= len(w) + 1; most < 0 {
			return append(slices.Clone(words[:i]), "...")
		}
	}
	return words
}

// checkName reports whether a name is one that a workload may have: it becomes a
// directory, part of an account's name, and text on somebody's terminal.
func checkName(name string) bool {
	return name != "" && len(name) <= maxName && name[0] != '.' && !strings.ContainsFunc(name, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && r != '-' && r != '_' && r != '.'
	})
}

// checkTerms refuses what no honest client sends; the words for people are the
// command line's.
func checkTerms(r *v1.AdmitRequest) error {
	name := r.GetName()
	if !checkName(name) {
		return &demon.Refusal{What: "name", Reason: fmt.Sprintf("%q: use 1 to %d letters, digits, - and _", clip(name, maxName), maxName)}
	}
	if len(r.GetLog()) > maxText || len(r.GetIncomeKind()) > maxText {
		return &demon.Refusal{What: "log", Reason: fmt.Sprintf("a path or kind of more than %d bytes; use a shorter one", maxText)}
	}
	for what, v := range map[string]int64{
		"budget": r.GetBudgetUcredits(), "bid": r.GetBidMilli(), "max bid": r.GetMaxBidMilli(),
		"rate": r.GetRateUcreditsPerS(), "horizon": r.GetHorizonNs(), "cores": r.GetCoresMilli(),
		"energy cap": r.GetMaxEnergyUj(), "cpu cap": r.GetMaxCpuNs(), "memory": r.GetMemoryBytes(),
		"pids": r.GetPids(), "timeout": r.GetTimeoutNs(), "grace": r.GetGraceNs(), "income": r.GetIncomeUcredits(),
	} {
		if v < 0 {
			return &demon.Refusal{What: what, Reason: "negative"}
		}
	}
	return nil
}

// house makes a member's group and meters it. What was made is taken back
// when a part fails.
func (m *Market) house(mem *member) error {
	group, err := m.enforcer.Open(int(mem.slot), mem.name, mem.limits)
	if err == nil {
		m.loop.do(func() { mem.group = group }) // a tick may be saving it
		m.hw.Lock()
		err = m.meter.Add(int(mem.slot), group.Ref())
		m.hw.Unlock()
		if err != nil {
			err = errors.Join(err, group.Remove())
		}
	}
	if err != nil {
		m.loop.do(func() {
			m.loop.demon.Abandon(mem.slot)
			delete(m.loop.serials, mem.serial)
			if m.durable() {
				m.loop.record(note{ref: journal.Ref{Kind: ofWorkload, Key: mem.id()}})
			}
		})
		return err
	}
	m.lodge(mem)
	m.mu.Lock()
	m.names[mem.name] = mem
	m.mu.Unlock()
	m.loop.post(func() {
		mem.metered = true
		m.loop.members[mem.slot] = mem
		m.changes.Add(1)
	})
	if m.inspects(mem) {
		m.inspectOneMore()
	}
	return nil
}

// Started implements MarketService.
func (s service) Started(ctx context.Context, req *v1.StartedRequest) (*v1.StartedResponse, error) {
	mem, err := s.member(ctx, req.GetToken(), req.GetName())
	if err != nil {
		return nil, err
	}
	if !s.m.owns(mem.uid, int(req.GetPid())) {
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("process %d is not yours", req.GetPid()))
	}
	if s.m.moves(mem) {
		if err := s.m.move(ctx, mem, int(req.GetPid())); err != nil {
			return nil, err
		}
	}
	s.m.track(mem, int(req.GetPid()))
	s.m.loop.post(func() {
		if s.m.loop.has(mem) {
			mem.started = true
			s.m.loop.demon.Started(mem.slot)
			s.m.loop.record() // with the number of the last report until now, not of one to come
		}
	})
	return &v1.StartedResponse{}, nil
}

// Exited implements MarketService.
func (s service) Exited(ctx context.Context, req *v1.ExitedRequest) (*v1.ExitedResponse, error) {
	mem, err := s.member(ctx, req.GetToken(), req.GetName())
	if err != nil {
		return nil, err
	}
	m := s.m
	if mem.limits.Memory > 0 || mem.limits.Pids > 0 {
		m.inspect(mem) // a cap may be what ended it
	}
	m.loop.hasten(func() {
		if mem.hasExit {
			return
		}
		mem.ending, mem.hasExit, mem.childExit = true, true, req.GetChildExit()
		if !m.loop.has(mem) { // buried before its client told
			m.loop.record(m.receiptNotes(mem)...)
			return
		}
		signaled := req.GetChildExit() > 128 && !req.GetNeverStarted()
		m.loop.demon.Gone(mem.slot, signaled)
		m.loop.recordOf(mem)
	})
	select {
	case <-mem.buried:
	case <-m.done:
		select {
		case <-mem.buried:
		default:
			return nil, errClosing
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := m.settled(ctx); err != nil {
		return nil, err
	}
	// It is buried: what the loop knew of it changes no more.
	w := m.lastStatement(mem)
	return &v1.ExitedResponse{Workload: w, SpotPeakMilli: w.GetSpotPeakMilli()}, nil
}

// Report implements MarketService.
func (s service) Report(ctx context.Context, req *v1.ReportRequest) (*v1.ReportResponse, error) {
	mem, err := s.member(ctx, req.GetToken(), req.GetName())
	if err != nil {
		return nil, err
	}
	// Numbered reports come in order. Those that the daemon before has taken and not kept
	// come first, and the client knows that it has to tell them once its stream has broken.
	if req.GetBatch() != 0 && s.m.durable() && !mem.session.here() {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("the session's client is not back; join first"))
	}
	s.m.loop.post(func() {
		if batch := req.GetBatch(); batch != 0 && batch <= mem.batch {
			return // a second delivery
		}
		if s.m.loop.has(mem) {
			mem.batch = max(mem.batch, req.GetBatch())
			if s.m.earns(mem, req.GetUnits()) {
				s.m.loop.demon.Report(mem.slot, req.GetKind(), req.GetUnits())
			} else {
				s.m.loop.demon.Work(mem.slot, req.GetUnits())
			}
		}
	})
	return &v1.ReportResponse{}, nil
}

// Stop implements MarketService.
func (s service) Stop(ctx context.Context, req *v1.StopRequest) (*v1.StopResponse, error) {
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	if out, known := answered[*v1.StopResponse](&s.m.answers, a.uid, req); known {
		return out, s.m.settled(ctx)
	}
	list, err := s.toStop(ctx, req)
	if err != nil {
		return nil, err
	}
	var kill []*member // by the delivery that made the change: a name may be another's by the next
	out, err := mutate(ctx, s.m, a.uid, req, func(l *loop) (*v1.StopResponse, error) {
		if req.GetNow() {
			kill = list
		}
		for _, mem := range list {
			if l.has(mem) {
				l.demon.Stop(mem.slot, apoptosis.Stopped)
			}
		}
		l.hurry = true
		return &v1.StopResponse{}, nil
	})
	for _, mem := range kill {
		s.m.kill(mem)
	}
	return out, err
}

// toStop are the workloads that a call is to stop.
func (s service) toStop(ctx context.Context, req *v1.StopRequest) (list []*member, err error) {
	if req.GetToken() == "" {
		mem, err := s.meant(ctx, "", req.GetName())
		if err != nil {
			return nil, err
		}
		if mem.observed.Load() {
			return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is only observed; maxwell detach %s lets it go", mem.name, mem.name))
		}
		return []*member{mem}, nil
	}
	own, err := s.of(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	for _, mem := range own.living() {
		if req.GetName() == "" || req.GetName() == mem.name {
			list = append(list, mem)
		}
	}
	if len(list) == 0 && req.GetName() != "" {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no workload %q in this session", req.GetName()))
	}
	return list, nil
}

// Suspend implements MarketService.
func (s service) Suspend(ctx context.Context, req *v1.SuspendRequest) (*v1.SuspendResponse, error) {
	own, err := s.of(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	list := own.living()
	out, err := once(ctx, &s.m.answers, own.uid, req, func() (*v1.SuspendResponse, error) {
		out := &v1.SuspendResponse{}
		if !s.m.loop.do(func() {
			for _, mem := range list {
				if s.m.loop.has(mem) {
					s.m.loop.demon.Suspend(mem.slot, req.GetSuspend())
				}
			}
			s.m.loop.record(s.m.answerNotes(own.uid, req, out)...)
		}) {
			return nil, errClosing
		}
		return out, nil
	})
	if err != nil {
		return nil, err
	}
	// Whoever pressed ^Z waits until it is carried out, and not for the disk.
	s.m.loop.through(func() {})
	return out, nil
}

// SetBid implements MarketService. A workload may set its own bid, below the cap
// that it was started with.
func (s service) SetBid(ctx context.Context, req *v1.SetBidRequest) (*v1.SetBidResponse, error) {
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	if out, known := answered[*v1.SetBidResponse](&s.m.answers, a.uid, req); known {
		return out, s.m.settled(ctx)
	}
	mem, err := s.meant(ctx, req.GetToken(), req.GetName())
	if err != nil {
		return nil, err
	}
	ceiling := unit.Price(req.GetMaxBidMilli())
	if most := mem.highest(); a.self != nil {
		if max(unit.Price(req.GetBidMilli()), ceiling) > most {
			return nil, connect.NewError(connect.CodePermissionDenied,
				fmt.Errorf("a workload bids at most the %v that it was started with; ask whoever started it", most))
		}
		ceiling = cmp.Or(ceiling, most) // or auto would bid up to the usual one
	}
	asked := unit.Price(req.GetBidMilli())
	if req.GetAuto() {
		asked = ceiling // else it says nothing: clients send the usual one
	}
	if err := s.m.boundBid(a, mem, asked); err != nil {
		return nil, refused(err)
	}
	old := s.m.lineOf(mem.id())
	return mutate(ctx, s.m, a.uid, req, func(l *loop) (*v1.SetBidResponse, error) {
		if err := l.still(mem); err != nil {
			return nil, err
		}
		if err := l.setBid(mem, req, ceiling); err != nil {
			return nil, err
		}
		s.m.changes.Add(1)
		line, _ := l.demon.LineOf(mem.slot)
		out := s.m.workload(&line, mem)
		if !a.fresh() {
			out = blur(out, old)
		}
		if !req.GetAuto() {
			out.BidMilli = req.GetBidMilli() // the line has the one of the running epoch
		}
		out.Auto, out.MaxBidMilli = req.GetAuto(), int64(ceiling)
		return &v1.SetBidResponse{Workload: out}, nil
	})
}

// setBid changes what a workload bids, or lets the market bid for it. Called on the
// loop's thread.
func (l *loop) setBid(mem *member, req *v1.SetBidRequest, ceiling unit.Price) error {
	if req.GetAuto() {
		return l.demon.SetAuto(mem.slot, ceiling)
	}
	return l.demon.SetBid(mem.slot, unit.Price(req.GetBidMilli()))
}

// still refuses what is asked of a workload that is gone meanwhile. Called on the
// loop's thread.
func (l *loop) still(mem *member) error {
	if l.has(mem) {
		return nil
	}
	return &demon.Refusal{What: "name", Reason: fmt.Sprintf("workload %q has ended", mem.name)}
}

// Snapshot implements MarketService.
func (s service) Snapshot(ctx context.Context, req *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetToken() != "" && req.GetOwn() {
		own, err := s.of(ctx, req.GetToken())
		if err != nil {
			return nil, err
		}
		return &v1.SnapshotResponse{Snapshot: s.sessionSeen(a, own)}, nil
	}
	return &v1.SnapshotResponse{Snapshot: s.m.seenBy(a, req.GetDead())}, nil
}

// Leave implements MarketService.
func (s service) Leave(ctx context.Context, req *v1.LeaveRequest) (*v1.LeaveResponse, error) {
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	own, err := s.of(ctx, req.GetToken())
	if err != nil {
		return nil, err
	}
	s.m.endMembers(own)
	final := s.sessionSeen(a, own)
	s.m.leave(own)
	return &v1.LeaveResponse{Snapshot: final}, nil
}

// refused turns an error into one line with a code that says whose fault.
func refused(err error) error {
	if _, ok := errors.AsType[*connect.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*demon.Refusal](err); ok {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	if _, ok := errors.AsType[*dispatch.LimitError](err); ok {
		return connect.NewError(connect.CodeResourceExhausted, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}
