package node

import (
	"context"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/config"
)

// subjectOf is a group as the rules see it. Whose it is, is told by the name of a
// user's slice (systemd), or by who owns the directory where that is not root. Not
// known: a rule asks for labels, and the container's engine did not answer; the first
// rule that matches wins, so that none can be found.
func (m *Market) subjectOf(dir, path string) (s config.Subject, known bool) {
	s = config.Subject{Cgroup: path}
	s.Container, _ = config.ContainerOf(path)
	if s.Container != "" && m.engines != nil {
		var err error
		s.Labels, known, err = m.engines.Labels(context.Background(), s.Container)
		if err != nil {
			m.fault("labels of container "+s.Container[:12]+": no rule is looked up for it until its engine answers", err)
		}
		if !known {
			return s, false
		}
	}
	uid, ok := sliceUser(path)
	if info, err := os.Stat(dir); !ok && err == nil {
		if st, is := info.Sys().(*syscall.Stat_t); is && st.Uid != 0 {
			uid, ok = st.Uid, true
		}
	}
	if !ok {
		s.UID = unknownUser
		return s, true
	}
	of := m.users.subject(uid)
	of.Cgroup, of.Container, of.Labels = s.Cgroup, s.Container, s.Labels
	return of, true
}

// unknownUser is the uid of work that no user is known of: -1 is no user's (setuid(2)).
const unknownUser = ^uint32(0)

// sliceUser reads the uid of user.slice/user-UID.slice.
func sliceUser(path string) (uint32, bool) {
	for segment := range strings.SplitSeq(path, "/") {
		if text, ok := strings.CutPrefix(segment, "user-"); ok {
			if n, err := strconv.ParseUint(strings.TrimSuffix(text, ".slice"), 10, 32); err == nil {
				return uint32(n), true
			}
		}
	}
	return 0, false
}

// withUser adds what the machine knows of a user.
func withUser(s config.Subject, uid uint32) config.Subject {
	s.UID = uid
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return s
	}
	s.User = u.Username
	ids, err := u.GroupIds()
	if err != nil {
		return s
	}
	// The primary group first.
	ids = append([]string{u.Gid}, slices.DeleteFunc(ids, func(id string) bool { return id == u.Gid })...)
	for _, id := range ids {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			continue
		}
		name := ""
		if g, err := user.LookupGroupId(id); err == nil {
			name = g.Name
		}
		s.GIDs, s.Groups = append(s.GIDs, uint32(n)), append(s.Groups, name)
	}
	return s
}

// users remembers for a while what the machine knows of its users: a directory
// service may take its time.
type users struct {
	mu    sync.Mutex
	known map[uint32]known
}

type known struct {
	subject config.Subject
	until   time.Time
}

const userKnown = time.Minute

func (u *users) subject(uid uint32) config.Subject {
	u.mu.Lock()
	defer u.mu.Unlock()
	if k, ok := u.known[uid]; ok && time.Now().Before(k.until) {
		return k.subject
	}
	if u.known == nil || len(u.known) > 1000 {
		u.known = make(map[uint32]known)
	}
	s := withUser(config.Subject{}, uid)
	u.known[uid] = known{s, time.Now().Add(userKnown)}
	return s
}

// accounts are the users and groups that this machine knows.
type accounts struct{ users *users }

// User implements config.Accounts.
func (a accounts) User(word string) (config.Subject, bool) {
	uid, err := strconv.ParseUint(word, 10, 32)
	if err == nil {
		return a.users.subject(uint32(uid)), true
	}
	u, err := user.Lookup(word)
	if err == nil {
		uid, err = strconv.ParseUint(u.Uid, 10, 32)
	}
	if err != nil {
		return config.Subject{}, false
	}
	return a.users.subject(uint32(uid)), true
}

// Group implements config.Accounts.
func (a accounts) Group(name string) bool {
	_, err := user.LookupGroup(name)
	return err == nil
}
