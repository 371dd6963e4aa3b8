package launch

import (
	"fmt"
	"os/user"
	"strconv"
	"syscall"
)

// Identity is whom a command runs as.
type Identity struct {
	UID, GID uint32
	Groups   []uint32
	Name     string // login name; may be empty
	Home     string // home directory; may be empty
}

func (i *Identity) credential() *syscall.Credential {
	return &syscall.Credential{Uid: i.UID, Gid: i.GID, Groups: i.Groups}
}

// Invoker is the person who became root by sudo, from SUDO_UID and SUDO_GID;
// nil if nobody did or root itself. A command run for him has no business
// being root.
func Invoker(getenv func(string) string) (*Identity, error) {
	text := getenv("SUDO_UID")
	if text == "" || text == "0" {
		return nil, nil
	}
	uid, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read SUDO_UID %q: %w", text, err)
	}
	if uid == 0 { // "00" is root too
		return nil, nil
	}
	gid, err := strconv.ParseUint(getenv("SUDO_GID"), 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read SUDO_GID %q: %w", getenv("SUDO_GID"), err)
	}
	id := &Identity{UID: uint32(uid), GID: uint32(gid), Groups: []uint32{uint32(gid)}}
	who, err := user.LookupId(text)
	if err != nil {
		return id, nil // a uid without an account has no further groups
	}
	id.Name, id.Home = who.Username, who.HomeDir
	list, err := who.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("read groups of %s: %w", who.Username, err)
	}
	for _, g := range list {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil && uint32(n) != id.GID {
			id.Groups = append(id.Groups, uint32(n))
		}
	}
	return id, nil
}

// Environ adapts an environment to the identity, as sudo -u would.
func (i *Identity) Environ(env []string) []string {
	out := make([]string, 0, len(env)+3)
	out = append(out, env...)
	// The last entry of a name wins.
	if i.Home != "" {
		out = append(out, "HOME="+i.Home)
	}
	if i.Name != "" {
		out = append(out, "USER="+i.Name, "LOGNAME="+i.Name)
	}
	return out
}
