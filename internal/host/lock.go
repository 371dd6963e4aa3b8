package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// FileLock is a file that one process holds at a time. The kernel lets go of it when
// that process ends, however it ends.
type FileLock struct{ file *os.File }

// LockFile makes this process the holder of the lock file at path, readable by its
// owner alone; ErrLocked if another one is. The file says which process made it: a link
// in its place is not followed, or that would be written into another file.
func LockFile(path string) (*FileLock, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, ErrLocked
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// Its last holder may have removed the file before we had the lock.
		var have, want unix.Stat_t
		if unix.Fstat(int(f.Fd()), &have) == nil && unix.Stat(path, &want) == nil && have.Ino == want.Ino {
			// The lock is what counts: on a full disk nobody is named.
			if f.Truncate(0) == nil {
				_, _ = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
			}
			return &FileLock{f}, nil
		}
		_ = f.Close()
	}
}

// Orphaned reports whether whoever made the lock at path is dead. Who holds it then is
// a child of it that is no other program yet, and may be a long time on a full machine.
func Orphaned(path string) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	pid, err := strconv.ParseUint(string(text), 10, 31)
	return err == nil && pid > 0 && errors.Is(unix.Kill(int(pid), 0), unix.ESRCH)
}

// File is the open file, for a child that is to hold the lock too.
func (l *FileLock) File() *os.File { return l.file }

// Release removes the file and lets go of it, in this order: then it is nobody's.
func (l *FileLock) Release() error {
	err := os.Remove(l.file.Name())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.file.Close())
}

// Writable reports whether this process may write path.
func Writable(path string) bool { return unix.Access(path, unix.W_OK) == nil }
