package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/config"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Guests are workloads in groups that others made. Nobody is moved: the group is
// metered where it is, and stopped and weighed there if its rule says so. They have
// no client; they end with their group, or when they are let go.

const (
	// surveyEvery is how often the tree is looked through for groups that a rule
	// gives a wallet. A shorter life than this goes unseen, and is the system's.
	surveyEvery = 2 * time.Second
	// surveyDeep and surveyMost bound a look: deeper and more than any machine has.
	surveyDeep = 10
	surveyMost = 20_000
	// guestEvery is how often a guest is asked whether somebody is still in it.
	guestEvery = unit.Instant(500 * time.Millisecond)
	// byRule is the client of what no person attached.
	byRule = "rule"
)

// openGuests is the session of workloads that have no client.
func openGuests() *session {
	s := newSession("", byRule, 0)
	s.joined = true
	return s
}

// surveyor attaches the groups that the rules name. Owner: Market; end: quit.
func (m *Market) surveyor() {
	beat := time.NewTicker(surveyEvery)
	defer beat.Stop()
	for {
		m.survey()
		select {
		case <-m.quit:
			return
		case <-beat.C:
		}
	}
}

// survey looks through the tree once.
func (m *Market) survey() {
	if m.unified.Mount == "" {
		return
	}
	m.forgetReleased()
	left := surveyMost
	m.surveyBelow(m.unified.Mount, "", surveyDeep, &left)
}

// surveyBelow looks at the groups in a directory. Whatever is below one that is
// attached belongs to it.
func (m *Market) surveyBelow(dir, path string, deep int, left *int) {
	list, err := os.ReadDir(dir)
	if err != nil || deep == 0 {
		return // it has just gone
	}
	for _, entry := range list {
		if !entry.IsDir() {
			continue
		}
		if *left--; *left < 0 {
			m.fault("survey", fmt.Errorf("more than %d groups: the others have no rule looked up", surveyMost))
			return
		}
		name, own := filepath.Join(dir, entry.Name()), path+"/"+entry.Name()
		if _, err := host.ReadMark(name); err == nil || m.attached(name) {
			continue // a market's, or ours already
		}
		if m.wasReleased(name) {
			continue
		}
		subject, known := m.subjectOf(name, own)
		if !known {
			continue
		}
		rule, matched := m.settings.Daemon.Config.Match(subject)
		if !matched {
			m.surveyBelow(name, own, deep-1, left)
			continue
		}
		if populated(name) {
			if err := m.attachByRule(name, rule, subject); err != nil {
				m.fault("attach "+own, err)
			}
		}
	}
}

// populated reports whether a process is in a group or below it.
func populated(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	n, ok := host.Key(b, "populated")
	return err == nil && ok && n == 1
}

// wasReleased reports whether somebody has let a group go: no rule takes it again
// while it is there.
func (m *Market) wasReleased(dir string) bool {
	m.mu.Lock()
	released, is := m.released[dir]
	m.mu.Unlock()
	if !is {
		return false
	}
	id, err := host.CgroupID(dir)
	return err == nil && id == released
}

// forgetReleased forgets the groups that were let go and are gone.
func (m *Market) forgetReleased() {
	m.mu.Lock()
	list := slices.Collect(maps.Keys(m.released))
	m.mu.Unlock()
	for _, dir := range list {
		if m.wasReleased(dir) {
			continue
		}
		m.loop.do(func() {
			m.mu.Lock()
			delete(m.released, dir)
			m.mu.Unlock()
			m.loop.record(note{ref: journal.Ref{Kind: ofReleased, Key: dir}})
		})
	}
}

// ruleOf is the rule that gives a group its wallet now, as a survey finds it: the
// first on the way down from the root. A group above it that has one has it all. Not
// known: a container engine did not say what rules ask.
func (m *Market) ruleOf(dir string) (rule *config.Rule, subject config.Subject, known bool) {
	path := strings.TrimPrefix(dir, m.unified.Mount)
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		at := m.unified.Mount + path[:i]
		if m.wasReleased(at) {
			return nil, config.Subject{}, true
		}
		subject, known := m.subjectOf(at, path[:i])
		if !known {
			return nil, config.Subject{}, false
		}
		if rule, ok := m.settings.Daemon.Config.Match(subject); ok {
			if i < len(path) {
				rule = nil
			}
			return rule, subject, true
		}
	}
	return nil, config.Subject{}, true
}

// overlaps names the workload whose group is above or below a directory: what runs
// in both would be billed twice.
func (m *Market) overlaps(dir string) (name string, is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for have, mem := range m.rooms {
		if have == dir || strings.HasPrefix(have, dir+"/") || strings.HasPrefix(dir, have+"/") {
			return mem.name, true
		}
	}
	return "", false
}

// attached reports whether a group is somebody's already.
func (m *Market) attached(dir string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rooms[dir] != nil
}

// attachByRule gives a group the wallet that its rule has for it.
func (m *Market) attachByRule(dir string, rule *config.Rule, subject config.Subject) error {
	uid := subject.UID
	if uid == unknownUser {
		uid = m.uid
	}
	terms, err := m.termsOf(rule, subject)
	if err != nil {
		return err
	}
	m.loop.do(func() { terms.Wallet, err = m.payer(rule, subject, uid) })
	if err != nil {
		return err
	}
	if terms.Wallet != "" && rule.Wallet.WhenBroke != fleet.Stop {
		terms.Policy.WhenBroke = apoptosis.Pause
	}
	name := fleet.NameFor(strings.TrimSuffix(filepath.Base(dir), ".slice"))
	ask := &v1.AdmitRequest{Name: m.freeName(name), Command: []string{subject.Cgroup}}
	if _, overlaps := m.overlaps(dir); overlaps {
		return nil // somebody attached a part of it
	}
	mem, err := m.attach(dir, ask, terms, uid, byRule, nil)
	if err == nil && (rule.Wallet.Memory > 0 || rule.Wallet.Pids > 0) {
		m.log.Warn("memory and pids of a rule do not hold for a group that others made: it keeps its own caps", "workload", mem.name, "group", dir)
	}
	return err
}

// freeName is a name that nobody alive has: it may be taken by the time it is used,
// and then the next look finds another one.
func (m *Market) freeName(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	free := name
	for n := 2; m.names[free] != nil; n++ {
		free = name + "-" + strconv.Itoa(n)
	}
	return free
}

// payer opens the standing wallet that a rule has for a subject, and names it; ""
// where the rule gives no money: then nothing is limited. One that is named after its
// user is his. One that several may share is root's, or whose it was: who runs
// something may spend it, and not take it. Called on the loop's thread.
func (m *Market) payer(rule *config.Rule, subject config.Subject, user uint32) (string, error) {
	if rule.Wallet.Open() {
		return "", nil
	}
	name, parent := rule.Names(subject)
	owner := user
	if !rule.Wallet.Personal() {
		known, _ := m.walletNamed(name)
		owner = known.owner // root, where there is none
	}
	if err := m.ensureParent(parent); err != nil {
		return name, err
	}
	return name, m.ensureWallet(name, parent, rule.Wallet.Allowance, rule.Wallet.Saves(), owner)
}

// termsOf are the terms of a rule's wallet for work that nobody named terms for.
func (m *Market) termsOf(rule *config.Rule, _ config.Subject) (demon.Admission, error) {
	w := &rule.Wallet
	usual := fleet.New("")
	usual.Fill()
	a := demon.Admission{Bid: min(w.Bid.Price, demon.MostBid), Auto: w.Bid.Auto, MaxBid: min(w.MaxBid, demon.MostBid), Cores: w.Cores} // caps: see uncapped
	a.Policy.Grace = usual.Grace
	if w.WhenBroke == fleet.Pause {
		a.Policy.WhenBroke = apoptosis.Pause
	}
	a.Enforce = daemonEnforce(rule.Enforce)
	return a, nil
}

// attach makes a guest of a group. What answer gives, if it is not nil, is kept with it.
func (m *Market) attach(dir string, req *v1.AdmitRequest, terms demon.Admission, uid uint32, client string, answer func(*member) []note) (*member, error) {
	m.attaching.Lock()
	defer m.attaching.Unlock()
	e, ok := m.enforcer.(dispatch.Keeper)
	if !ok {
		return nil, &demon.Refusal{What: "attach", Reason: "this market enforces by signals, which do not reach into groups; it needs cgroup v2 and root"}
	}
	if dir == m.unified.Mount {
		return nil, &cgroup.GuestError{Dir: dir, Why: cgroup.WholeTree}
	}
	if other, is := m.overlaps(dir); is {
		return nil, &demon.Refusal{What: "group", Reason: fmt.Sprintf("it overlaps with that of %s; maxwell detach %s first", other, other)}
	}
	terms.Name = req.GetName()
	if !checkName(terms.Name) {
		return nil, &demon.Refusal{What: "name", Reason: fmt.Sprintf("%q: use 1 to %d letters, digits, - and _", terms.Name, maxName)}
	}
	mem := &member{
		name: terms.Name, session: m.guests, uid: uid, client: client, admitted: time.Now(), asked: req, guest: dir,
		started: true, mode: terms.Enforce, buried: make(chan struct{}),
		limits: dispatch.Limits{Cores: terms.Cores},
	}
	if client == byRule {
		mem.ruled = new(terms)
	}
	terms.Enforce = m.under(mem.mode)
	mem.observed.Store(terms.Enforce != demon.EnforceOn)
	if err := m.admitGuest(mem, terms); err != nil {
		return nil, err
	}
	group, err := e.Attach(int(mem.slot), dir, terms.Enforce != demon.EnforceOn)
	var before unit.CoreTime
	if err == nil {
		before, err = m.meterGuest(mem, group)
	}
	m.loop.do(func() { // enforce --all may be looking at it
		if err == nil {
			mem.group, mem.guestID, mem.base = group, group.Ref().ID, before
		}
	})
	if err != nil {
		m.loop.do(func() {
			m.loop.demon.Abandon(mem.slot)
			delete(m.loop.serials, mem.serial)
		})
		return nil, err
	}
	var notes []note
	if answer != nil {
		notes = answer(mem)
	}
	m.settle(mem, terms.Enforce, notes)
	m.log.Info("attached", "workload", mem.name, "group", dir, "enforce", terms.Enforce.String())
	return mem, nil
}

// admitGuest gives a guest its place in the books.
func (m *Market) admitGuest(mem *member, terms demon.Admission) error {
	err := error(errClosing)
	m.loop.do(func() {
		if err = nil; terms.Wallet == "" { // others may have come since it was asked
			err = m.makes(mem.uid, terms.Budget)
		}
		if err != nil {
			return
		}
		if mem.slot, err = m.loop.demon.Admit(m.loop.clock.Now(), terms); err == nil {
			m.loop.seat(mem.slot)
			line, _ := m.loop.demon.LineOf(mem.slot)
			mem.serial = line.ID
			m.loop.serials[mem.serial] = mem
		}
	})
	return err
}

// settle gives a new guest its place among the living.
func (m *Market) settle(mem *member, now demon.Enforce, notes []note) {
	m.lodge(mem)
	m.mu.Lock()
	m.names[mem.name] = mem
	m.mu.Unlock()
	m.guests.add(mem)
	if m.inspects(mem) {
		m.inspectOneMore()
	}
	m.loop.do(func() {
		mem.metered = true
		m.loop.members[mem.slot] = mem
		m.loop.demon.Started(mem.slot)
		if m.under(mem.mode) != now { // the ceiling moved meanwhile
			if err := m.loop.govern(mem); err != nil {
				m.fault("enforcement of "+mem.name, err)
			}
		}
		m.loop.demon.Post()
		m.loop.recordOf(mem, notes...)
	})
}

// meterGuest begins to count a guest, and returns what it had used before: that is
// nobody's bill.
func (m *Market) meterGuest(mem *member, group dispatch.Group) (before unit.CoreTime, err error) {
	m.hw.Lock()
	err = m.meter.Add(int(mem.slot), group.Ref())
	m.hw.Unlock()
	if err == nil {
		var c dispatch.Counters
		if c, err = group.Counters(); err == nil {
			return c.CPU, nil
		}
	}
	return 0, errors.Join(err, group.Remove())
}

// reattach makes a guest of an earlier process one again.
func (m *Market) reattach(mem *member, a *alive) error {
	e, ok := m.enforcer.(dispatch.Keeper)
	if !ok {
		return errNoGroup
	}
	if id, err := host.CgroupID(a.Guest); err != nil || a.GroupID != 0 && id != a.GroupID {
		return errNoGroup // a container that was started again is another
	}
	ruled := m.reruled(mem, a)
	m.recast(mem, a)
	group, err := e.Attach(int(mem.slot), a.Guest, !ruled || mem.observed.Load())
	if err != nil {
		return err
	}
	mem.group, mem.guestID = group, group.Ref().ID
	if ruled {
		return nil
	}
	if c, err := group.Counters(); err == nil {
		a.run, a.counted = c.CPU-a.Base, true
	}
	return errNoRule
}

// errNoRule is why a guest of a rule is let go.
var errNoRule = errors.New("no rule names its group any more")

// Attach implements MarketService.
func (s service) Attach(ctx context.Context, req *v1.AttachRequest) (*v1.AttachResponse, error) {
	a, err := s.actor(ctx)
	if err == nil {
		err = a.outside("attach groups")
	}
	if err != nil {
		return nil, err
	}
	if !s.m.durable() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("groups that others made are attached by a daemon alone: start one with maxwell daemon"))
	}
	out, err := once(ctx, &s.m.answers, a.uid, req, func() (*v1.AttachResponse, error) {
		if err := s.m.mayChange(a.uid, req); err != nil {
			return nil, err
		}
		dir, err := s.m.groupOf(req)
		if err == nil {
			if err = a.governs(dir); err != nil && req.GetCgroup() != "" {
				err = s.m.noGroup(req.GetCgroup()) // nor that it is there
			}
		}
		if err != nil {
			return nil, refused(err)
		}
		return s.m.attachAsked(a, dir, req)
	})
	if err != nil {
		return nil, err
	}
	return out, s.m.settled(ctx)
}

// governs refuses a group that is not a's to govern: an admin's are all, a user's
// those that were handed to him.
func (a actor) governs(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return &demon.Refusal{What: "group", Reason: "it is not there any more"}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); a.admin || ok && st.Uid == a.uid {
		return nil
	}
	return connect.NewError(connect.CodePermissionDenied, errors.New("this group is not yours; an admin may attach it"))
}

// uncapped refuses caps that the market would not hold: of a group that others made it
// writes none, and a count of what was killed there says nothing of a cap of ours.
func uncapped(ask *v1.AdmitRequest) error {
	const remedy = "a group that others made keeps its own caps; set them where it was made (systemctl set-property, docker update), or start the command by maxwell run"
	switch {
	case ask.GetMemoryBytes() > 0:
		return &demon.Refusal{What: "memory", Reason: remedy}
	case ask.GetPids() > 0:
		return &demon.Refusal{What: "pids", Reason: remedy}
	}
	return nil
}

func (m *Market) attachAsked(a actor, dir string, req *v1.AttachRequest) (*v1.AttachResponse, error) {
	path := strings.TrimPrefix(dir, m.unified.Mount)
	ask := &v1.AdmitRequest{}
	proto.Merge(ask, req.GetTerms()) // req is what its fingerprint is of
	if ask.GetName() == "" {
		ask.Name = m.freeName(fleet.NameFor(strings.TrimSuffix(strings.TrimSuffix(filepath.Base(dir), ".slice"), ".scope")))
	}
	if err := cmp.Or(checkTerms(ask), uncapped(ask)); err != nil {
		return nil, refused(err)
	}
	ask.Command = []string{path}
	terms := admission(ask)
	err := error(errClosing)
	m.loop.do(func() {
		var pays demon.Admission
		if pays, err = m.paid(a.uid, ask); err == nil {
			terms.Wallet, terms.Policy = pays.Wallet, pays.Policy
		}
	})
	if err = cmp.Or(err, m.bound(a.uid, &terms)); err != nil {
		return nil, refused(err)
	}
	terms.Memory, terms.Pids = 0, 0 // of the rule for its user, which are for what he starts
	terms.Enforce = daemonEnforce(m.settings.Daemon.Config.Enforce)
	if word := req.GetEnforce(); word != "" {
		var ok bool
		if terms.Enforce, ok = demon.ParseEnforce(word); !ok {
			return nil, refused(&demon.Refusal{What: "enforce", Reason: fmt.Sprintf("%q: write observe, warn or on", word)})
		}
	}
	out := &v1.AttachResponse{Cgroup: path}
	_, err = m.attach(dir, ask, terms, a.uid, "attach", func(mem *member) []note {
		out.Name, out.Enforce = mem.name, m.under(mem.mode).String()
		return m.answerNotes(a.uid, req, out)
	})
	if err != nil {
		if _, ok := errors.AsType[*cgroup.GuestError](err); ok {
			err = connect.NewError(connect.CodeFailedPrecondition, err)
		}
		return nil, refused(err)
	}
	return out, nil
}

// daemonEnforce is a configured mode as the demon names it.
func daemonEnforce(e config.Enforce) demon.Enforce {
	switch e {
	case config.On:
		return demon.EnforceOn
	case config.Warn:
		return demon.EnforceWarn
	default:
		return demon.EnforceObserve
	}
}

// groupOf finds the directory that a request means.
func (m *Market) groupOf(req *v1.AttachRequest) (string, error) {
	if m.unified.Mount == "" {
		return "", &demon.Refusal{What: "group", Reason: "this machine has no cgroup v2"}
	}
	switch g := req.GetGroup().(type) {
	case *v1.AttachRequest_Pid:
		text, err := os.ReadFile("/proc/" + strconv.Itoa(int(g.Pid)) + "/cgroup")
		if err != nil {
			return "", &demon.Refusal{What: "pid", Reason: fmt.Sprintf("no process %d", g.Pid)}
		}
		of, err := host.ParseMembership(text)
		if err != nil {
			return "", err
		}
		dir, ok := m.unified.Dir(of.V2)
		if !ok {
			return "", &demon.Refusal{What: "pid", Reason: fmt.Sprintf("the group of process %d is outside of this machine's view", g.Pid)}
		}
		return dir, nil
	case *v1.AttachRequest_Cgroup:
		path := strings.TrimPrefix(g.Cgroup, m.unified.Mount)
		dir := filepath.Join(m.unified.Mount, filepath.Join("/", path)) // never above the mount
		if info, err := os.Stat(dir); err != nil || !info.IsDir() || strings.ContainsAny(path, "\x00\n") {
			return "", m.noGroup(g.Cgroup)
		}
		return dir, nil
	case *v1.AttachRequest_Container:
		return m.containerDir(g.Container)
	}
	return "", &demon.Refusal{What: "group", Reason: "name a process, a cgroup or a container"}
}

// noGroup refuses a path below which the caller may govern nothing.
func (m *Market) noGroup(path string) error {
	return &demon.Refusal{What: "cgroup", Reason: fmt.Sprintf("%q: no such group of yours below %s; an admin may attach every group", path, m.unified.Mount)}
}

// containerDir finds the group of the only container whose id begins so.
func (m *Market) containerDir(id string) (string, error) {
	if len(id) < 4 || strings.Trim(id, "0123456789abcdef") != "" {
		return "", &demon.Refusal{What: "container", Reason: fmt.Sprintf("%q: write at least 4 hexadecimal digits of its id", id)}
	}
	var found []string
	_ = filepath.WalkDir(m.unified.Mount, func(dir string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil //nolint:nilerr // it has just gone
		}
		path := strings.TrimPrefix(dir, m.unified.Mount)
		if strings.Count(path, "/") > surveyDeep {
			return fs.SkipDir
		}
		if have, ok := config.ContainerOf(path); ok {
			if strings.HasPrefix(have, id) {
				found = append(found, dir)
			}
			return fs.SkipDir
		}
		return nil
	})
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", &demon.Refusal{What: "container", Reason: fmt.Sprintf("no container %q has a group here", id)}
	}
	return "", &demon.Refusal{What: "container", Reason: fmt.Sprintf("%d containers begin with %q; write more of the id", len(found), id)}
}

// detaching is who asked for a guest to be let go: the answer is kept with its receipt,
// because until its books are closed there is none.
type detaching struct {
	uid uint32
	req *v1.DetachRequest
}

// Detach implements MarketService.
func (s service) Detach(ctx context.Context, req *v1.DetachRequest) (*v1.DetachResponse, error) {
	a, err := s.actor(ctx)
	if err == nil {
		err = a.outside("detach groups")
	}
	if err != nil {
		return nil, err
	}
	if out, known := answered[*v1.DetachResponse](&s.m.answers, a.uid, req); known {
		return out, s.m.settled(ctx)
	}
	mem, err := s.visible(a, req.GetName())
	if err != nil {
		return nil, err
	}
	if mem.guest == "" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s was started by Maxwell; maxwell stop %s ends it", mem.name, mem.name))
	}
	if mem.client == byRule && !a.admin {
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("%s was attached by a rule; an admin may detach it", mem.name))
	}
	out, err := once(ctx, &s.m.answers, a.uid, req, func() (*v1.DetachResponse, error) {
		if err := s.m.release(mem, &detaching{uid: a.uid, req: req}); err != nil {
			return nil, err
		}
		return &v1.DetachResponse{Workload: s.m.lastStatement(mem)}, nil
	})
	if err != nil {
		return nil, err
	}
	return out, s.m.settled(ctx)
}

// release lets a guest go, as if it had ended, and returns when it is buried.
func (m *Market) release(mem *member, asked *detaching) error {
	m.mu.Lock()
	m.released[mem.guest] = mem.guestID
	m.mu.Unlock()
	m.loop.do(func() {
		mem.released, mem.leaving = true, asked
		m.loop.record(note{ref: journal.Ref{Kind: ofReleased, Key: mem.guest}, wall: time.Now(), body: &letGo{mem.guestID}})
		if m.loop.has(mem) {
			m.loop.demon.Gone(mem.slot, false)
		}
		m.loop.hurry = true
	})
	select { // not for who asked: he may have gone, and asks again
	case <-mem.buried:
		return nil
	case <-m.done:
		return errClosing
	}
}

// bound puts the terms of a client's workload within those of the rule for its user,
// and says which one it is that they exceed. Admins bound themselves.
func (m *Market) bound(uid uint32, a *demon.Admission) error {
	if m.admin(uid) {
		return nil
	}
	rule, _ := m.ruleForUser(uid)
	w := &rule.Wallet
	over := func(what, most string) error {
		return &demon.Refusal{What: what, Reason: fmt.Sprintf("the rule for you allows at most %s; ask an admin of this machine for more", most)}
	}
	switch {
	case w.Cores > 0 && a.Cores > w.Cores:
		return over("cores", w.Cores.String())
	case w.Memory > 0 && a.Memory > w.Memory:
		return over("memory", w.Memory.String())
	case w.Pids > 0 && a.Pids > w.Pids:
		return over("pids", strconv.FormatInt(w.Pids, 10))
	case w.MaxBid > 0 && (a.Bid > w.MaxBid || a.Auto && a.MaxBid > w.MaxBid):
		return over("bid", w.MaxBid.String())
	}
	if a.Cores == 0 {
		a.Cores = w.Cores
	}
	if a.Memory == 0 {
		a.Memory = w.Memory
	}
	if a.Pids == 0 {
		a.Pids = w.Pids
	}
	if a.MaxBid == 0 {
		a.MaxBid = min(w.MaxBid, demon.MostBid)
	}
	return nil
}

// boundBid refuses a bid above the max_bid of the rule that mem is under: that of its
// group where one attached it, else that of its user.
func (m *Market) boundBid(a actor, mem *member, bid unit.Price) error {
	if !m.durable() {
		return nil
	}
	if ruled := mem.ruled; ruled != nil && !a.admin {
		if ruled.MaxBid > 0 && bid > ruled.MaxBid {
			return overBid(ruled.MaxBid)
		}
		return nil
	}
	return m.bound(a.uid, &demon.Admission{Bid: bid})
}

func overBid(most unit.Price) error {
	return &demon.Refusal{What: "bid", Reason: fmt.Sprintf("the rule for it allows at most %v; ask an admin of this machine for more", most)}
}

// ruleForUser is the rule for what a user starts, and the user as rules see him.
func (m *Market) ruleForUser(uid uint32) (*config.Rule, config.Subject) {
	s := m.users.subject(uid)
	rule, _ := m.settings.Daemon.Config.Match(s)
	return rule, s
}

// guestLives is whether somebody is in a guest's group, asked from time to time.
func (mem *member) guestLives(now unit.Instant) bool {
	if mem.released || mem.gone {
		return false
	}
	if now < mem.askAt {
		return true
	}
	mem.askAt = now + guestEvery
	alive, err := mem.group.Populated()
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, fs.ErrNotExist) && !host.Gone(err) {
		return true // not known: it is asked again
	}
	mem.gone = err != nil || !alive
	return !mem.gone
}
