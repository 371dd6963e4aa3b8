package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Kinds of documents in a daemon's journal.
const (
	ofWorkload = "workload" // a living one, by its id
	ofReceipt  = "receipt"  // a dead one, by its id
	ofEvent    = "event"    // by time
	ofRequest  = "request"  // a change that was acknowledged, by user and request id
	ofNode     = "node"     // the boot during which it was written
	ofReleased = "released" // a group that no rule takes again, by its directory
	ofCeiling  = "ceiling"  // the most that is done to anybody; none = all
)

// How long a daemon remembers what is not money, and the least it keeps.
const (
	keepReceipts = 30 * 24 * time.Hour
	keepEvents   = 7 * 24 * time.Hour
	keepRequests = time.Hour
	keepLeast    = 1000
	pruneEvery   = 10 * time.Minute
)

// message is a proto message in a document.
type message struct{ proto.Message }

// MarshalJSON implements json.Marshaler.
func (m message) MarshalJSON() ([]byte, error) { return protojson.Marshal(m.Message) }

// UnmarshalJSON implements json.Unmarshaler; fields of a later Maxwell are passed
// over.
func (m message) UnmarshalJSON(b []byte) error {
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m.Message)
}

// kept is a living workload in the journal: what the demon needs to go on with it,
// and what the node knows beside that.
type kept struct {
	Saved     demon.Saved      `json:"saved"`
	Client    string           `json:"client"`
	Session   string           `json:"session"`
	Process   process          `json:"process"` // its client
	Admitted  time.Time        `json:"admitted"`
	Asked     message          `json:"asked"`               // *v1.AdmitRequest
	Directory string           `json:"directory,omitempty"` // of its group; empty: it has none yet
	Guest     string           `json:"guest,omitempty"`     // the directory of a group that others made
	GroupID   uint64           `json:"group_id,omitempty"`  // of that group; 0 = not known
	Base      unit.CoreTime    `json:"base_ns,omitempty"`   // of a guest: what it had used before
	Mode      demon.Enforce    `json:"mode"`                // but for the market's ceiling
	Ruled     *demon.Admission `json:"ruled,omitempty"`     // what its rule said last
	Exited    bool             `json:"exited"`
	Exit      int32            `json:"exit"`
	Batch     uint64           `json:"batch"`
}

func (k *kept) encode() ([]byte, error) { return json.Marshal(k) }

// grave is a dead workload in the journal.
type grave struct {
	Session  string  `json:"session"`
	Workload message `json:"workload"` // *v1.Workload
}

func (g *grave) encode() ([]byte, error) { return json.Marshal(g) }

// acknowledged is a change that a caller was told of.
type acknowledged struct {
	Asked  string  `json:"asked"` // fingerprint of the request
	Kind   string  `json:"kind"`  // name of the answer's message
	Answer message `json:"answer"`
}

func (a *acknowledged) encode() ([]byte, error) { return json.Marshal(a) }

// told is an event in the journal.
type told struct{ *v1.Event }

func (t told) encode() ([]byte, error) { return protojson.Marshal(t.Event) }

// era says when a daemon's documents were written.
type era struct {
	Boot string `json:"boot"`
	Root string `json:"root"` // name of the directories that its workloads are in
}

func (e *era) encode() ([]byte, error) { return json.Marshal(e) }

// directory is where an enforcement keeps a group, by name.
type directory interface{ Directory() string }

// note is what the journal is to keep of a saved workload. Called on the loop's
// thread.
func (l *loop) noteOf(s *demon.Saved) (note, bool) {
	mem := l.serials[s.ID]
	if mem == nil || mem.over || s.Dead() { // that is a receipt
		return note{}, false
	}
	if mem.guest != "" && !mem.metered { // being attached: the one that has the answer is the first
		return note{}, false
	}
	if s != mem.saved {
		mem.savedBatch = mem.batch
	}
	k := &kept{
		Saved: *s, Client: mem.client, Session: mem.session.token, Process: mem.session.made(), Admitted: mem.admitted,
		Asked: message{mem.asked}, Guest: mem.guest, Mode: mem.mode, Ruled: mem.ruled, Exited: mem.hasExit, Exit: mem.childExit, Batch: mem.savedBatch,
	}
	if mem.metered { // else its group is just being made, on another goroutine
		k.GroupID, k.Base = mem.guestID, mem.base
		if d, ok := mem.group.(directory); ok && mem.guest == "" {
			k.Directory = d.Directory()
		}
	}
	mem.saved = s
	return note{ref: journal.Ref{Kind: ofWorkload, Key: mem.id()}, uid: mem.uid, wall: mem.admitted, body: k}, true
}

// record hands what was done since the last call to the journal's keeper, with
// notes that belong to it.
func (l *loop) record(notes ...note) { l.recordOf(nil, notes...) }

// recordOf is record, and keeps what the node knows of mem (its group, how it
// ended) even where the demon has nothing new about it.
func (l *loop) recordOf(mem *member, notes ...note) {
	k := l.m.keeper
	if k == nil {
		return
	}
	entries := l.demon.Entries()
	for _, s := range l.demon.Saves() {
		if !l.m.durable() {
			continue
		}
		if n, ok := l.noteOf(&s); ok {
			notes = append(notes, n)
		}
	}
	if l.m.durable() && mem != nil && mem.saved != nil {
		if n, ok := l.noteOf(mem.saved); ok {
			notes = append(notes, n)
		}
	}
	notes = append(append(notes, l.walletNotes()...), l.gridNotes()...)
	k.hand(entries, notes...)
}

// receiptNotes take a buried workload from the living to the receipts.
func (m *Market) receiptNotes(mem *member) []note {
	if !m.durable() {
		return nil
	}
	w := m.lastStatement(mem)
	notes := []note{
		{ref: journal.Ref{Kind: ofWorkload, Key: mem.id()}},
		{
			ref: journal.Ref{Kind: ofReceipt, Key: mem.id()}, uid: mem.uid, wall: time.Unix(0, w.GetEndedWallNs()),
			body: &grave{Session: mem.session.token, Workload: message{w}},
		},
	}
	if d := mem.leaving; d != nil {
		notes = append(notes, m.answerNotes(d.uid, d.req, &v1.DetachResponse{Workload: w})...)
	}
	return notes
}

// eventNotes keep an event, without the state of its workload but its id.
func (m *Market) eventNotes(uid uint32, e *v1.Event) []note {
	if !m.durable() {
		return nil
	}
	m.told++
	w := e.GetWorkloadState()
	small := &v1.Event{
		Workload: e.GetWorkload(), Kind: e.GetKind(), AtNs: e.GetAtNs(), Percent: e.GetPercent(), What: e.GetWhat(), Reason: e.GetReason(),
		LeftNs: e.GetLeftNs(), WallNs: e.GetWallNs(),
		WorkloadState: &v1.Workload{
			Id: w.GetId(), Name: w.GetName(), Enforce: w.GetEnforce(), ExitCode: w.GetExitCode(), BudgetUcredits: w.GetBudgetUcredits(),
			IncomeUcredits: w.GetIncomeUcredits(), SpentUcredits: w.GetSpentUcredits(), CpuNs: w.GetCpuNs(),
		},
	}
	key := fmt.Sprintf("%019d-%06d", e.GetWallNs(), m.told%1_000_000)
	return []note{{ref: journal.Ref{Kind: ofEvent, Key: key}, uid: uid, wall: time.Unix(0, e.GetWallNs()), body: told{small}}}
}

// requestNote keeps the answer to a change, so that it is made once also by a
// process that comes later.
func requestNote(uid uint32, req change, out proto.Message) note {
	asked := fingerprint(req)
	return note{
		ref: journal.Ref{Kind: ofRequest, Key: strconv.FormatUint(uint64(uid), 10) + "/" + hex.EncodeToString(req.GetRequestId())},
		uid: uid, wall: time.Now(),
		body: &acknowledged{
			Asked: hex.EncodeToString(asked[:]), Kind: string(out.ProtoReflect().Descriptor().FullName()), Answer: message{out},
		},
	}
}

// answerNotes are what is kept of the answer to a change: nothing where nothing lasts,
// or without an id.
func (m *Market) answerNotes(uid uint32, req change, out proto.Message) []note {
	if !m.durable() || len(req.GetRequestId()) == 0 {
		return nil
	}
	return []note{requestNote(uid, req, out)}
}

// mutate makes a change on the loop's thread, once for each request id. Where a
// journal is kept that goes on, the change and its answer are durable together
// before it is acknowledged. One that is made and not yet kept is made: who asks
// again waits for the journal alone.
func mutate[T proto.Message](ctx context.Context, m *Market, uid uint32, req change, effect func(l *loop) (T, error)) (T, error) {
	out, err := once(ctx, &m.answers, uid, req, func() (T, error) {
		var out T
		if err := m.mayChange(uid, req); err != nil {
			return out, err
		}
		err := error(errClosing)
		m.loop.do(func() {
			if out, err = effect(m.loop); err != nil || !m.durable() {
				return
			}
			m.loop.demon.PostTouched()
			m.loop.record(m.answerNotes(uid, req, out)...)
		})
		if err != nil {
			return out, refused(err)
		}
		return out, nil
	})
	if err != nil {
		return out, err
	}
	return out, m.settled(ctx)
}

// settled waits until what was done is durable, in a market that promises it.
func (m *Market) settled(ctx context.Context) error {
	if !m.durable() {
		return nil
	}
	if err := m.keeper.settled(ctx, m.done); err != nil {
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("not yet kept: %w; ask again with the same request_id", err))
	}
	return nil
}

// prune forgets what is old and not money.
func (m *Market) prune() {
	if !m.durable() {
		return
	}
	d := m.settings.Daemon
	for _, of := range []struct {
		kind string
		long time.Duration
	}{
		{ofReceipt, orElse(d.KeepReceipts, keepReceipts)}, {ofEvent, orElse(d.KeepEvents, keepEvents)}, {ofRequest, keepRequests},
	} {
		if _, err := m.keeper.store.Prune(of.kind, time.Now().Add(-of.long), keepLeast); err != nil {
			m.fault("prune the journal", err)
		}
	}
	if d.KeepJournal > 0 {
		if _, err := m.keeper.store.DropClosed(time.Now().Add(-d.KeepJournal)); err != nil {
			m.fault("drop old files of the journal", err)
		}
	}
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// past is what a daemon's journal says of the processes before this one.
type past struct {
	keeper *keeper
	alive  []alive
	gone   map[string]uint64 // groups that were let go, by directory
	stale  []string          // such groups of before this machine was started
	most   demon.Enforce     // the ceiling
	boot   bool              // it was written since this machine was started
	dirs   string            // name of its directories; empty = none since then
	grid   keptGrid
}

// root is the name of the directories to go on in; empty = none.
func (p *past) root() string {
	if p == nil {
		return ""
	}
	return p.dirs
}

// alive is a workload that was alive when the journal ended.
type alive struct {
	kept

	uid     uint32
	key     string
	run     unit.CoreTime // what it used, if counted
	counted bool
}

// recall opens a daemon's journal and reads what it goes on from.
func recall(name, boot string) (*past, error) {
	k, _, err := takeKeeper(name)
	if err != nil {
		return nil, err
	}
	p := &past{keeper: k}
	err = p.read(boot)
	if err != nil {
		return nil, errors.Join(err, k.store.Close())
	}
	return p, nil
}

func (p *past) read(boot string) error {
	for d, err := range p.keeper.store.Documents(journal.Query{Kind: ofNode, Key: ofNode}) {
		var e era
		if err == nil {
			err = json.Unmarshal(d.Body, &e)
		}
		if err != nil {
			return fmt.Errorf("read the journal's era: %w", err)
		}
		if p.boot = e.Boot == boot; p.boot {
			p.dirs = e.Root
		}
	}
	for d, err := range p.keeper.store.Documents(journal.Query{Kind: ofWorkload}) {
		a := alive{uid: d.UID, key: d.Key, kept: kept{Asked: message{&v1.AdmitRequest{}}}}
		if err == nil {
			err = json.Unmarshal(d.Body, &a.kept)
		}
		if err != nil {
			return fmt.Errorf("read workload %s: %w", d.Key, err)
		}
		if v := a.Saved.Version; v != demon.SavedVersion { // before anything of it is ended
			return fmt.Errorf("workload %s was saved in version %d, this Maxwell knows %d; start the one that saved it", d.Key, v, demon.SavedVersion)
		}
		p.alive = append(p.alive, a)
	}
	if err := p.readGrid(); err != nil {
		return err
	}
	return p.readModes()
}

// entries are the books, from the first record of the file. What cannot be read ends
// them, and is said by err. The keeper follows them, to carry them forward later.
func (p *past) entries(err *error) iter.Seq[ledger.Entry] {
	return func(yield func(ledger.Entry) bool) {
		p.keeper.carry = newCarry()
		for rec, bad := range p.keeper.store.Records() {
			if bad != nil {
				*err = bad
				return
			}
			p.keeper.carry.follow([]ledger.Entry{rec.Entry})
			if !yield(rec.Entry) {
				return
			}
		}
	}
}

// resume makes the demon of the books that the journal holds, and takes back what
// ran when it ended. The loop has not begun.
func (m *Market) resume(p *past, boot string) error {
	now := m.loop.clock.Now()
	var bad error
	terms := m.terms()
	terms.Grid = p.grid.Factor
	d, err := demon.Resume(terms, now, p.entries(&bad))
	if err = errors.Join(bad, err); err != nil {
		return fmt.Errorf("resume from %s: %w; maxwell audit verify tells more", m.settings.Daemon.Journal, err)
	}
	m.loop.demon = d
	m.loop.resumeGrid(&p.grid)
	if err := m.reopenWallets(p); err != nil {
		return err
	}
	m.released, m.ceiling = p.gone, p.most
	var lost []alive
	for _, a := range p.alive {
		if a.Saved.Dead() {
			continue // buried but for its receipt
		}
		mem := m.memberOf(&a)
		if err := m.readopt(mem, &a, p.boot); err != nil {
			m.log.Info("not taken back", "workload", mem.name, "why", err)
			if err := m.abandon(mem); err != nil {
				m.fault("let go of "+mem.name, err)
			}
			lost = append(lost, a)
		}
	}
	for _, a := range lost {
		m.buryLost(m.memberOf(&a), &a, a.run, a.counted)
	}
	m.discard()
	if err := m.reread(p); err != nil {
		return err
	}
	for _, dir := range p.stale {
		m.keeper.hand(nil, note{ref: journal.Ref{Kind: ofReleased, Key: dir}})
	}
	m.keeper.hand(nil, note{ref: journal.Ref{Kind: ofNode, Key: ofNode}, wall: time.Now(), body: &era{Boot: boot, Root: m.rootName()}})
	m.loop.record()
	return nil
}

// errNoGroup is why a workload cannot be taken back.
var errNoGroup = errors.New("its group is gone")

// rootName is what a daemon's directories are called.
func (m *Market) rootName() string {
	if root := m.enforcer.Describe().Root; root != "" {
		return filepath.Base(root)
	}
	return ""
}

// decided reports whether it is known how an empty tree ended: its client told, it
// has none, or its grace was over. Else its client comes and tells.
func (m *Market) decided(mem *member, a *alive) bool {
	life := &a.Saved.Life
	over := life.State == apoptosis.Broke && m.loop.clock.Now() >= life.Deadline
	return over || a.Saved.Started && (a.Exited || mem.guest != "")
}

// buryEnded bills what the counter of an empty group says and takes it away, once that
// is durable: killed in between, the next daemon would not know what it had used. On a
// full disk this daemon is all that knows.
func (m *Market) buryEnded(mem *member, a *alive, run unit.CoreTime) error {
	last, err := m.meter.Remove(int(mem.slot))
	if err != nil {
		return err
	}
	run += last.Run // of a process on its way out
	m.lastLook(mem)
	m.buryLost(mem, a, run, true)
	m.loop.record()
	if err := m.keeper.write(); err != nil {
		m.log.Error("journal", "err", err, "what", "the end of "+mem.name+" is not kept yet")
	}
	m.unmake(mem)
	return nil
}

// takeOver begins the watch over what was taken back. Until here a watchdog of the
// daemon before had it.
func (m *Market) takeOver() error {
	if m.watch == nil {
		return nil
	}
	if err := m.watch(); err != nil {
		return err
	}
	for _, mem := range m.loop.members {
		if mem == nil || mem.saved == nil || mem.guest != "" {
			continue
		}
		if err := m.entrustAgain(mem, mem.saved); err != nil {
			m.fault("tell the watchdog of "+mem.name, err)
		}
	}
	if e, ok := m.enforcer.(*cgroup.Enforcer); ok {
		for _, a := range e.RestoreGuests() {
			m.log.Info("guest given back", "what", a.String())
		}
	}
	return nil
}

// entrustAgain tells the new watchdog of one that was broke before.
func (m *Market) entrustAgain(mem *member, s *demon.Saved) error {
	d, ok := mem.group.(directory)
	if m.dog == nil || !ok {
		return nil
	}
	switch s.Life.State {
	case apoptosis.Broke, apoptosis.Dying:
		return m.dog.Hold(d.Directory(), s.Life.Deadline)
	case apoptosis.Paused:
		return m.dog.Hold(d.Directory(), 0)
	default:
		return nil
	}
}

// abandon ends a group that was reopened and could not be taken back. A guest's goes
// on as it was found.
func (m *Market) abandon(mem *member) error {
	if mem.group == nil {
		return nil
	}
	_, _ = m.meter.Remove(int(mem.slot)) // it may not have been added
	if mem.guest != "" {
		return mem.group.Remove()
	}
	m.try("kill", mem, mem.group.Kill)
	m.unmake(mem)
	return nil
}

// memberOf is a workload of an earlier process, in the session that it had. Its
// slot is the one that the demon gives next: nobody else has come in.
func (m *Market) memberOf(a *alive) *member {
	asked := a.Asked.Message.(*v1.AdmitRequest)
	own := m.sessionOf(a.Session, a.Client, a.uid)
	own.process = a.Process // nobody else knows it yet
	return &member{
		guest: a.Guest, guestID: a.GroupID, base: a.Base, mode: a.Mode, ruled: a.Ruled, started: a.Saved.Started,
		slot: int32(len(m.loop.members)), name: a.Saved.Terms.Name, serial: a.Saved.ID, uid: a.uid, client: a.Client, admitted: a.Admitted,
		asked: asked, session: own, buried: make(chan struct{}),
		hasExit: a.Exited, childExit: a.Exit, batch: a.Batch, savedBatch: a.Batch,
		limits: dispatch.Limits{Memory: a.Saved.Terms.Memory, Pids: a.Saved.Terms.Pids, Cores: a.Saved.Terms.Cores},
	}
}

// sessionOf is the session of an earlier process that a token names; its client is
// yet to come back.
func (m *Market) sessionOf(token, client string, uid uint32) *session {
	if token == "" {
		return m.guests
	}
	if s := m.session[token]; s != nil {
		return s
	}
	s := newSession(token, client, uid)
	m.session[token] = s
	return s
}

// buryLost closes the books of a workload that ended while no daemon was there, and
// makes its receipt. hasRun: what it used is known.
func (m *Market) buryLost(mem *member, a *alive, run unit.CoreTime, hasRun bool) {
	line, err := m.loop.demon.BuryLost(m.loop.clock.Now(), a.Saved, run, hasRun)
	if err != nil { // one is no reason for all the others not to come back
		m.log.Error("written off", "workload", mem.name, "why", err)
		line = m.loop.demon.WriteOff(m.loop.clock.Now(), &a.Saved)
	}
	if a.Directory == "" && a.Guest == "" { // nobody was told that it was admitted, or is told that it is lost
		m.keeper.hand(nil, note{ref: journal.Ref{Kind: ofWorkload, Key: mem.id()}})
		return
	}
	mem.final = line
	mem.final.Peak = max(mem.final.Peak, unit.Bytes(mem.peak.Load()))
	mem.hasExit = mem.hasExit || mem.guest != "" && hasRun // nobody could tell more of it
	close(mem.buried)
	mem.session.lost(mem)
	m.chronicle.buried(mem)
	m.keeper.hand(nil, m.receiptNotes(mem)...)
	m.log.Info("ended meanwhile", "workload", mem.name, "reason", line.Reason.String())
}

// discard ends the groups that no journal knows: their admission was never
// acknowledged.
func (m *Market) discard() {
	e, ok := m.enforcer.(dispatch.Keeper)
	if !ok {
		return
	}
	for _, name := range e.Found() {
		if err := e.Discard(name); err != nil {
			m.fault("discard "+name, err)
		}
	}
}

// How long a session whose client is not there is kept.
const (
	resumeAfterBreak   = 2 * time.Second
	resumeAfterRestart = 10 * time.Second
)

// parted ends a session whose stream broke, unless its client comes back in time. A
// client that is known to live has more of it: it may have been stopped (^Z) before
// the restart. Owner: Market; end: the time, the client's end, or quit.
func (m *Market) parted(own *session, patience time.Duration, client process) {
	own.mu.Lock()
	number := own.streams
	own.mu.Unlock()
	m.spawn("parted", func() {
		for waits := true; waits; waits = client.lives() && m.away(own, number) {
			select {
			case <-m.quit:
				return
			case <-time.After(patience):
			}
		}
		if m.away(own, number) {
			m.log.Info("client gone", "client", own.client, "uid", own.uid)
			m.leave(own)
		}
	})
}

// away reports whether a session is still there, and its client not back since it
// had so many streams.
func (m *Market) away(own *session, streams int) bool {
	own.mu.Lock()
	back := own.joined || own.streams != streams
	own.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	return !back && m.session[own.token] == own
}

// pulse tells the service manager that the market lives, while its ticks go on: a
// loop that hangs is restarted. Owner: Market; end: quit.
func (m *Market) pulse() {
	beat := time.NewTicker(m.settings.Daemon.Pulse)
	defer beat.Stop()
	last := uint64(0)
	for {
		select {
		case <-m.quit:
			return
		case <-beat.C:
		}
		if now := m.loop.ticks.Load(); now != last {
			last = now
			m.settings.Daemon.Notify("WATCHDOG=1")
		}
	}
}

// handOver ends a daemon whose workloads live on: the books are written to the end,
// the groups stay as they are, and the watchdog looks after them.
func (m *Market) handOver() {
	m.mu.Lock()
	m.closing = true
	select {
	case <-m.quit:
		m.mu.Unlock()
		<-m.closed
		return
	default:
	}
	close(m.quit)
	m.mu.Unlock()
	m.loop.do(func() {
		m.loop.demon.Post()
		m.loop.record()
		m.loop.ending = true
	})
	<-m.done
	m.rest()
	m.endJournal()
	leave := m.enforcer.Close
	if e, ok := m.enforcer.(*cgroup.Enforcer); ok {
		leave = e.Leave
	}
	if err := errors.Join(leave(), m.meter.Close(), m.sensor.Close(), m.trace.close()); err != nil {
		m.log.Warn("close", "err", err)
	}
	m.bye()
	close(m.closed)
}

// lastStatement is the last statement of a buried workload.
func (m *Market) lastStatement(mem *member) *v1.Workload {
	if mem.closed != nil {
		return mem.closed
	}
	return m.workload(&mem.final, mem)
}
