package host

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mark is written on every directory that Maxwell makes, so that repair after
// a crash touches nothing else.
type Mark struct {
	Boot string // boot id: a mark of another boot is stale
	UID  int    // who made it
	Mode string // what to do when its maker is dead: one word, such as "up" or "daemon"
	// Trusted means that the mark is in the trusted name space, which only
	// root can write. It is set by ReadMark and not stored.
	Trusted bool
}

const (
	trustedMark = "trusted.maxwell"
	userMark    = "user.maxwell"
	markVersion = "maxwell1"
)

var errMark = errors.New("not a maxwell mark")

// String is the stored form: "maxwell1 BOOT UID MODE".
func (m Mark) String() string {
	return fmt.Sprintf("%s %s %d %s", markVersion, m.Boot, m.UID, m.Mode)
}

// ParseMark is the inverse of String.
func ParseMark(text string) (Mark, error) {
	part := strings.Split(text, " ")
	if len(part) != 4 || part[0] != markVersion || part[1] == "" || part[3] == "" {
		return Mark{}, fmt.Errorf("parse %q: %w", text, errMark)
	}
	uid, err := strconv.ParseUint(part[2], 10, 32)
	if err != nil || strconv.FormatUint(uid, 10) != part[2] {
		return Mark{}, fmt.Errorf("parse %q: %w", text, errMark)
	}
	return Mark{Boot: part[1], UID: int(uid), Mode: part[3]}, nil
}

// Ours reports whether repair as uid during this boot may touch the directory:
// its maker may, and root may. (ReadMark has refused a mark that its maker
// could not have written.)
func (m Mark) Ours(boot string, uid int) bool {
	return m.Boot == boot && (m.UID == uid || uid == 0)
}

// SetMark writes the mark: trusted.maxwell where allowed (root), user.maxwell
// otherwise.
func SetMark(dir string, m Mark) error {
	if _, err := ParseMark(m.String()); err != nil {
		return err
	}
	text := []byte(m.String())
	err := unix.Setxattr(dir, trustedMark, text, 0)
	if err != nil {
		// No CAP_SYS_ADMIN in the initial user namespace.
		err = unix.Setxattr(dir, userMark, text, 0)
	}
	if err != nil {
		return refuse(FeatureMark, "set xattr on "+dir, err, "")
	}
	return nil
}

// ReadMark reads the mark of a directory. ErrUnavailable means that there is
// none or a forged one: a user mark counts only if the directory belongs to
// the user it names.
func ReadMark(dir string) (Mark, error) {
	if text, err := getxattr(dir, trustedMark); err == nil {
		m, err := ParseMark(text)
		m.Trusted = err == nil
		return m, markError(dir, err)
	}
	text, err := getxattr(dir, userMark)
	if err != nil {
		return Mark{}, markError(dir, err)
	}
	m, err := ParseMark(text)
	if err != nil {
		return Mark{}, markError(dir, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return Mark{}, markError(dir, err)
	}
	if int(st.Uid) != m.UID {
		return Mark{}, markError(dir, fmt.Errorf("made by uid %d, owned by uid %d", m.UID, st.Uid))
	}
	return m, nil
}

func markError(dir string, err error) error {
	if err == nil {
		return nil
	}
	return refuse(FeatureMark, "read the mark of "+dir, err, "")
}

// getxattr reads at most 256 bytes; a longer value is no mark of ours.
func getxattr(dir, name string) (string, error) {
	var buf [256]byte
	n, err := unix.Lgetxattr(dir, name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// BootID is the identity of this boot.
func BootID(r Roots) (string, error) {
	id, err := r.Proc.ReadText("sys/kernel/random/boot_id")
	if err == nil && (id == "" || strings.ContainsAny(id, " \n")) {
		err = fmt.Errorf("read boot id: %q: %w", id, ErrUnavailable)
	}
	return id, err
}

// DirLock is a held lock on a directory. The kernel drops it when the holder
// dies, however it dies: a free lock means a dead maker.
type DirLock struct{ fd int }

// LockDir locks a directory, or answers ErrLocked at once. It works on cgroup
// v1 and v2 directories too.
func LockDir(dir string) (*DirLock, error) {
	fd, err := openRetry(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return &DirLock{fd: fd}, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), unix.Close(fd))
}

// Locked reports whether a living process holds the lock. Who means to act on
// a free lock calls LockDir instead and keeps it.
func Locked(dir string) (bool, error) {
	l, err := LockDir(dir)
	if errors.Is(err, ErrLocked) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, l.Close()
}

// Fd is the locked descriptor, usable to open files beneath the directory.
func (l *DirLock) Fd() int { return l.fd }

// Close releases the lock; a second Close is harmless.
func (l *DirLock) Close() error {
	if l.fd < 0 {
		return nil
	}
	fd := l.fd
	l.fd = -1
	return unix.Close(fd)
}
