package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/internal/api"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

// actor is whom the market takes a caller for. It is made anew for every call,
// from what the kernel said of the connection, and carried to where it acts.
type actor struct {
	uid   uint32
	admin bool    // may act for everybody
	far   bool    // calls from another machine
	self  *member // from inside a workload: that one, and nobody else
}

// actor finds out who calls.
func (s service) actor(ctx context.Context) (actor, error) {
	c, err := api.CallerOf(ctx)
	if err != nil {
		return actor{}, connect.NewError(connect.CodeUnauthenticated, err)
	}
	if c.Remote {
		// A certificate makes nobody root: only who is named may act for others.
		return actor{uid: c.UID, admin: s.m.named(c.UID), far: true}, nil
	}
	a := actor{uid: c.UID, admin: s.m.admin(c.UID)}
	inside, mem := s.m.roomOf(c.Group)
	if !inside {
		return a, nil
	}
	if mem == nil {
		return actor{}, connect.NewError(connect.CodePermissionDenied, errors.New("the workload that this call comes from has ended"))
	}
	return actor{uid: mem.uid, self: mem}, nil
}

// admin reports whether a user may act for everybody: root, whoever the market
// runs as, and those that the configuration names.
func (m *Market) admin(uid uint32) bool { return uid == 0 || uid == m.uid || m.named(uid) }

// named reports whether the configuration names a user as an admin.
func (m *Market) named(uid uint32) bool {
	d := m.settings.Daemon
	return d != nil && d.Admin != nil && d.Admin(uid)
}

// may reports whether a may read and change mem. It is asked again where the
// change is made.
func (a actor) may(mem *member) bool {
	if a.self != nil {
		return a.self == mem
	}
	return a.admin || a.uid == mem.uid
}

// outside refuses what a workload may not do, whoever its user is.
func (a actor) outside(what string) error {
	if a.self == nil {
		return nil
	}
	return connect.NewError(connect.CodePermissionDenied,
		fmt.Errorf("a workload cannot %s: it lives on the wallet of %s; do it outside of it", what, a.self.name))
}

// here refuses what is done by starting processes: from another machine there are
// none to start.
func (a actor) here() error {
	if !a.far {
		return nil
	}
	return connect.NewError(connect.CodePermissionDenied,
		errors.New("a session starts processes, and is for callers on the market's own machine; call without a token"))
}

// roomOf finds the workload in whose group a process is, by the group's path.
// inside is true for every group of the market's, also of one that is buried.
func (m *Market) roomOf(group string) (inside bool, mem *member) {
	dir, ok := m.unified.Dir(group)
	top := m.top
	if !ok || top == "" || !strings.HasPrefix(dir, top+"/") {
		return false, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for ; len(dir) > len(top); dir = filepath.Dir(dir) {
		if mem := m.rooms[dir]; mem != nil {
			return true, mem
		}
	}
	return true, nil
}

// lodge notes whose group a directory is, and vacate that it is nobody's.
func (m *Market) lodge(mem *member) {
	if dir := mem.group.Placement().Cgroup; dir != "" {
		m.mu.Lock()
		m.rooms[dir] = mem
		m.mu.Unlock()
	}
}

func (m *Market) vacate(mem *member) {
	dir := mem.group.Placement().Cgroup
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rooms[dir] == mem {
		delete(m.rooms, dir)
	}
}

// noSuch refuses a name. It is the same answer for what is not there and for
// what the caller may not see.
func noSuch(name string) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("no workload %q; maxwell ps lists yours", name))
}

// visible is the living workload of that name, if a may act on it. From inside
// a workload an empty name means that one.
func (s service) visible(a actor, name string) (*member, error) {
	if name == "" && a.self != nil {
		return a.self, nil
	}
	s.m.mu.Lock()
	mem := s.m.names[name]
	s.m.mu.Unlock()
	if mem == nil || !a.may(mem) {
		return nil, noSuch(name)
	}
	return mem, nil
}

// Self implements MarketService.
func (s service) Self(ctx context.Context, _ *v1.SelfRequest) (*v1.SelfResponse, error) {
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	out := &v1.SelfResponse{Uid: a.uid, Admin: a.admin && a.self == nil, Durable: s.m.durable(), Version: s.m.settings.Version}
	snap := s.m.view()
	out.Price = snap.GetPrice()
	if a.self != nil {
		for _, w := range snap.GetWorkloads() {
			if w.GetName() == a.self.name && w.GetId() == a.self.id() {
				out.Workload = w
			}
		}
	}
	return out, nil
}
