package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// A guest is a group that others made and that stays theirs: a container, a
// service, a user's slice. Nothing is made in it and nobody is moved; observed
// guests are only read. Of governed ones the freezer, cgroup.kill and the
// weight are used. The weight is never above the one that was found: a guest's
// neighbours are outside the market and have not agreed to be outweighed.

// guestKind says how far a group is a guest.
type guestKind uint8

const (
	notGuest guestKind = iota
	observed           // nothing is written, whatever is asked
	governed           // stopped, ended and weighed
)

// guestAttr keeps on the directory what was found there, so that it is given
// back after a crash.
const guestAttr = "maxwell.guest"

// original is what a governed guest was before, and whose guest it is.
type original struct {
	boot   string
	uid    int
	weight int64 // cpu.weight; 0 if there is none, or it is idle
	idle   bool
	frozen bool
	root   string // the first of the market's roots: its lock says whether the host lives
}

const guestVersion = "maxwell1"

var errGuest = errors.New("not a maxwell guest")

// String is the stored form: "maxwell1 BOOT UID WEIGHT IDLE FROZEN ROOT".
func (o original) String() string {
	return fmt.Sprintf("%s %s %d %d %d %d %s", guestVersion, o.boot, o.uid, o.weight, digit(o.idle), digit(o.frozen), o.root)
}

func digit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// parseOriginal is the inverse of String.
func parseOriginal(text string) (original, error) {
	word := strings.SplitN(text, " ", 7)
	if len(word) != 7 || word[0] != guestVersion || word[1] == "" || !filepath.IsAbs(word[6]) {
		return original{}, fmt.Errorf("parse %q: %w", text, errGuest)
	}
	uid, err := strconv.ParseUint(word[2], 10, 31)
	weight, err2 := strconv.ParseUint(word[3], 10, 31)
	o := original{boot: word[1], uid: int(uid), weight: int64(weight), idle: word[4] == "1", frozen: word[5] == "1", root: word[6]}
	if err != nil || err2 != nil || o.weight > spanV2().most || o.String() != text {
		return original{}, fmt.Errorf("parse %q: %w", text, errGuest)
	}
	return o, nil
}

// remembered reads what was found at a guest. Root believes the trusted name
// space, which only root can write, and a user's word only about the user's
// own directory: it would write on behalf of whoever forged it.
func remembered(dir string) (original, bool) {
	for _, space := range []string{"trusted.", "user."} {
		var buf [512]byte
		n, err := unix.Lgetxattr(dir, space+guestAttr, buf[:])
		if err != nil {
			continue
		}
		o, err := parseOriginal(string(buf[:n]))
		return o, err == nil && (space == "trusted." || ownedBy(dir, os.Geteuid()) && o.uid == os.Geteuid())
	}
	return original{}, false
}

func ownedBy(dir string, uid int) bool {
	var st unix.Stat_t
	return unix.Lstat(dir, &st) == nil && int(st.Uid) == uid
}

// remember is the inverse of remembered.
func remember(dir string, o original) error {
	err := unix.Setxattr(dir, "trusted."+guestAttr, []byte(o.String()), 0)
	if err != nil && ownedBy(dir, os.Geteuid()) {
		err = unix.Setxattr(dir, "user."+guestAttr, []byte(o.String()), 0)
	}
	return err
}

// Refusal is why a directory cannot be a guest.
type Refusal string

// Refusals.
const (
	NotCgroup2  Refusal = "it is no directory of the cgroup2 hierarchy"
	WholeTree   Refusal = "it is the whole hierarchy"
	HoldsNode   Refusal = "it holds Maxwell's own processes"
	HoldsInit   Refusal = "it holds the machine's first process"
	HoldsMarket Refusal = "it belongs to a market or holds one"
	Taken       Refusal = "it is governed already"
	NoMemory    Refusal = "what it was before cannot be kept through a crash (extended attributes refused)"
)

// GuestError refuses a directory as a guest.
type GuestError struct {
	Dir string
	Why Refusal
}

// Error is one line.
func (e *GuestError) Error() string { return "attach " + e.Dir + ": " + string(e.Why) }

// Attach makes a group of a cgroup2 directory that others made. An observed one
// accepts every order and carries out none; Settle says dispatch.ErrRunning.
// *GuestError says what can never be a guest.
func (e *Enforcer) Attach(slot int, dir string, observe bool) (dispatch.Group, error) {
	if slot < 0 {
		return nil, fmt.Errorf("attach %s: slot %d is negative", dir, slot)
	}
	if why := e.refuse(dir); why != "" {
		return nil, &GuestError{Dir: dir, Why: why}
	}
	if err := e.Admit(1); err != nil {
		return nil, err
	}
	g := &Group{market: e, slot: slot, name: dir, unified: dir, foreign: true, guest: observed}
	g.memory, g.pids = actuator{dir: dir, v2: true}, actuator{dir: dir, v2: true}
	if !observe {
		g.guest, g.cpu = governed, actuator{dir: dir, v2: true}
	}
	if err := e.invite(g); err != nil {
		return nil, err
	}
	err := g.identify()
	if err == nil {
		err = g.receive()
	}
	if err != nil {
		e.mu.Lock()
		delete(e.names, dir)
		e.mu.Unlock()
		return nil, errors.Join(fmt.Errorf("attach %s: %w", dir, err), g.closeKnobs())
	}
	e.seat(g)
	return g, nil
}

// refuse says why a directory can never be a guest; empty if it can.
func (e *Enforcer) refuse(dir string) Refusal {
	followed, err := filepath.EvalSymlinks(dir)
	if e.mount == "" || err != nil || followed != dir || !below(dir, e.mount) {
		return NotCgroup2
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); err != nil {
		if dir == e.mount {
			return WholeTree
		}
		return NotCgroup2
	}
	if dir == e.mount {
		return WholeTree // of a container
	}
	if slices.Contains(strings.Split(dir, "/"), "init.scope") {
		return HoldsInit
	}
	for d := dir; d != e.mount; d = filepath.Dir(d) {
		if _, err := host.ReadMark(d); err == nil {
			return HoldsMarket
		}
	}
	if len(walk(dir, deepestGuest)) > 0 {
		return HoldsMarket
	}
	pids, err := listed(dir)
	switch {
	case err != nil:
		return NotCgroup2
	case slices.Contains(pids, 1):
		return HoldsInit
	case slices.Contains(pids, os.Getpid()):
		return HoldsNode
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.ContainsFunc(pids, func(pid int) bool { return slices.Contains(e.dogs, pid) }) {
		return HoldsNode
	}
	if e.names[dir] {
		return Taken
	}
	return ""
}

// below reports whether a clean path is top or below it.
func below(path, top string) bool { return path == top || strings.HasPrefix(path, top+"/") }

// invite takes the name and the slot.
func (e *Enforcer) invite(g *Group) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return dispatch.ErrClosed
	case e.names[g.name]:
		return &GuestError{Dir: g.name, Why: Taken}
	}
	if err := e.vacantLocked(g.slot, g.name); err != nil {
		return err
	}
	e.names[g.name] = true
	return nil
}

// receive reads what a guest is, and notes it on a governed one. What an earlier
// daemon changed of one that is only observed now is given back.
func (g *Group) receive() error {
	if g.guest == observed {
		return g.forgo()
	}
	now, err := look(g.unified)
	if err != nil {
		return err
	}
	now.boot, now.uid, now.root = g.market.boot, g.market.self.uid, g.market.roots[0].Dir
	g.found, g.idle = now, now.idle
	if old, known := remembered(g.unified); known && old.boot == now.boot {
		// A dead daemon's guest. What it was before is on it, not in it.
		if g.anothers(old) {
			return &GuestError{Dir: g.unified, Why: Taken}
		}
		if now.frozen && !old.frozen {
			g.held = heldByCall
		}
		g.found, g.found.root = old, now.root
	}
	if g.stop, err = host.OpenKnob(filepath.Join(g.unified, "cgroup.freeze")); err != nil {
		return err
	}
	if g.found.weight > 0 {
		g.weight, err = host.OpenKnob(g.cpu.file("cpu.weight"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if remember(g.unified, g.found) != nil {
		return &GuestError{Dir: g.unified, Why: NoMemory}
	}
	return nil
}

// forgo gives back what a dead daemon changed of a group that is only observed.
func (g *Group) forgo() error {
	old, known := remembered(g.unified)
	if !known || old.boot != g.market.boot {
		return nil
	}
	if g.anothers(old) {
		return &GuestError{Dir: g.unified, Why: Taken}
	}
	return restore(g.unified, old)
}

// anothers reports whether a note is of another daemon that lives.
func (g *Group) anothers(o original) bool {
	locked, err := host.Locked(o.root)
	return o.root != g.market.roots[0].Dir && err == nil && locked
}

// same tells a guest from a group that was made in its place when it was gone: a
// container that was started again has the path of the one before.
func (g *Group) same() error {
	if !g.foreign {
		return nil
	}
	id, err := host.CgroupID(g.unified)
	if err == nil && id != g.ref.ID {
		err = fmt.Errorf("guest %s: %w: another group has its name", g.unified, unix.ENOENT)
	}
	return err
}

// isObserved reports whether nothing is to be done to the group.
func (g *Group) isObserved() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.guest == observed
}

// Govern makes a governed guest of one that was only observed, or gives it back
// what it had and only observes it from here on.
func (g *Group) Govern(on bool) error {
	if !g.foreign {
		return fmt.Errorf("govern %s: %w", g.name, errGuest)
	}
	if err := g.govern(on); err != nil {
		return err
	}
	e := g.market
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed || e.groups[g.slot] != g: // it has just been let go
	case on:
		e.balance.open(g.slot)
	default:
		e.balance.close(g.slot)
	}
	return nil
}

func (g *Group) govern(on bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return dispatch.ErrClosed
	case on == (g.guest == governed):
		return nil
	}
	if err := g.same(); err != nil {
		return err
	}
	if on {
		g.guest, g.cpu = governed, actuator{dir: g.unified, v2: true}
		err := g.receive()
		if err != nil {
			err = errors.Join(err, g.standDownLocked())
		}
		return err
	}
	err := g.releaseGuestLocked()
	if err != nil {
		return err // the note stays: it is governed still
	}
	return g.standDownLocked()
}

// standDownLocked makes an observed guest of a governed one.
func (g *Group) standDownLocked() error {
	err := g.closeKnobs()
	g.guest, g.cpu, g.found = observed, actuator{}, original{}
	g.weight, g.stop, g.written, g.held, g.idle, g.lane = nil, nil, 0, 0, false, false
	return err
}

// look reads what of a directory can be changed.
func look(dir string) (o original, err error) {
	frozen, err := os.ReadFile(filepath.Join(dir, "cgroup.freeze"))
	if err != nil {
		return o, fmt.Errorf("read cgroup.freeze: %w", bare(err))
	}
	o.frozen = bytes.HasPrefix(frozen, []byte("1"))
	idle, err := readNumber(filepath.Join(dir, "cpu.idle"), "")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	o.idle = idle != 0
	if o.idle {
		return o, nil
	}
	o.weight, err = readNumber(filepath.Join(dir, "cpu.weight"), "")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return o, err
}

// restore gives a directory back what was found in it, and takes the note away.
// A directory that is gone needs nothing.
func restore(dir string, o original) error {
	errs := []error{optional(filepath.Join(dir, "cgroup.freeze"), strconv.Itoa(digit(o.frozen)))}
	if o.weight > 0 || o.idle {
		errs = append(errs, optional(filepath.Join(dir, "cpu.idle"), strconv.Itoa(digit(o.idle))))
	}
	if o.weight > 0 {
		errs = append(errs, optional(filepath.Join(dir, "cpu.weight"), strconv.FormatInt(o.weight, 10)))
	}
	for _, err := range errs {
		if err != nil && !host.Gone(err) {
			return errors.Join(errs...) // the note stays for the next try
		}
	}
	removeAttr(dir, guestAttr)
	return nil
}

// releaseGuestLocked gives a guest back.
func (g *Group) releaseGuestLocked() error {
	if g.guest != governed || host.Gone(g.same()) {
		return nil
	}
	return restore(g.unified, g.found)
}

// dismiss is Remove of a guest: it is forgotten and lives on.
func (g *Group) dismiss() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return dispatch.ErrClosed
	}
	g.closed = true
	err := errors.Join(g.releaseGuestLocked(), g.closeKnobs())
	g.mu.Unlock()
	g.market.forget(g)
	return err
}

// fit keeps a target within what a guest may have.
func (g *Group) fit(t target) target {
	if g.guest == governed {
		if g.weight == nil {
			return target{keep: true}
		}
		t.weight = min(t.weight, g.found.weight)
	}
	return t
}

// deepestGuest is how far below the top a guest can lie: containers of pods of
// nodes that are containers.
const deepestGuest = 32

// guests finds the governed guests below a directory.
func guests(top string, depth int) []string {
	var found []string
	list, err := os.ReadDir(top)
	if err != nil {
		return nil
	}
	for _, entry := range list {
		if !entry.IsDir() {
			continue
		}
		dir := filepath.Join(top, entry.Name())
		if _, is := remembered(dir); is {
			found = append(found, dir)
		}
		if depth > 0 {
			found = append(found, guests(dir, depth-1)...)
		}
	}
	return found
}

// restoreGuests gives back the guests of this boot and user whose host is
// dead, as orphaned judges by its root.
func restoreGuests(mount, boot string, uid int, orphaned func(dir, root string) bool) []Action {
	if mount == "" {
		return nil
	}
	var list []Action
	for _, dir := range guests(mount, deepestGuest) {
		o, is := remembered(dir)
		if !is || o.boot != boot || o.uid != uid && uid != 0 || !orphaned(dir, o.root) {
			continue
		}
		a := Action{Dir: dir, Outcome: Thawed, Err: restore(dir, o)}
		if a.Err != nil {
			a.Outcome = Broken
		}
		list = append(list, a)
	}
	return list
}

// RestoreGuests gives back what a dead daemon governed and this one, which
// adopted its roots, does not: call it when every guest is attached.
func (e *Enforcer) RestoreGuests() []Action {
	return restoreGuests(e.mount, e.boot, e.self.uid, func(dir, root string) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return !e.closed && root == e.roots[0].Dir && !e.names[dir]
	})
}

// hostIsDead judges a guest's host by the lock of its root.
func hostIsDead(_, root string) bool {
	locked, err := host.Locked(root)
	return !locked && (err == nil || host.Gone(err))
}
