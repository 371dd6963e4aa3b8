package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// SystemDir is the runtime directory of the machine's daemon, and of a market
// that root started.
const SystemDir = "/run/maxwell"

// longestRuntimeDir leaves room for the name of a socket: its whole path has 107
// bytes (unix(7)).
const longestRuntimeDir = 107 - len("/market.sock")

// RuntimeDir makes and checks the directory of sockets and locks: one per
// machine for root, one per user otherwise, so that all of a user's terminals
// meet in one market.
//
//	$MAXWELL_RUNTIME_DIR         if set (tests, several markets in one test machine)
//	/run/maxwell                 root
//	$XDG_RUNTIME_DIR/maxwell     a user's session
//	/run/user/UID/maxwell        the same for a shell without that variable (su, cron)
//	/tmp/maxwell-UID             otherwise
//
// The directory must be a real directory, owned by uid, and closed to all
// others (others may look into /run/maxwell, to call a daemon); anything else in its place is refused, never repaired: in /tmp it
// may be somebody's trap.
func RuntimeDir(r Roots, uid int, getenv func(string) string) (string, error) {
	if dir := getenv("MAXWELL_RUNTIME_DIR"); dir != "" {
		switch { // the market runs in another directory, and sockets have short names
		case !filepath.IsAbs(dir):
			return dir, fmt.Errorf("MAXWELL_RUNTIME_DIR: %q is not an absolute path", dir)
		case len(dir) > longestRuntimeDir:
			return dir, fmt.Errorf("MAXWELL_RUNTIME_DIR: %d bytes are too long for a socket below it; name a place of at most %d", len(dir), longestRuntimeDir)
		}
		return dir, ownDir(dir, uid)
	}
	if uid == 0 {
		if dir := r.Path(SystemDir); isDir(r.Path("/run")) {
			if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return dir, fmt.Errorf("make runtime directory %s: %w", dir, plain(err))
			}
			return dir, checkMode(dir, uid, 0o022) // a daemon opened it to its callers
		}
	} else {
		for _, session := range []string{getenv("XDG_RUNTIME_DIR"), r.Path("/run/user/" + strconv.Itoa(uid))} {
			// A session directory of another user (after su) is not ours.
			if filepath.IsAbs(session) && checkDir(session, uid) == nil {
				dir := filepath.Join(session, "maxwell")
				return dir, ownDir(dir, uid)
			}
		}
	}
	dir := r.Path("/tmp/maxwell-" + strconv.Itoa(uid))
	return dir, ownDir(dir, uid)
}

// ServiceDir makes and checks the directory of a daemon's lock and socket: others
// may look in, to call, but nobody but uid may write.
func ServiceDir(dir string, uid int) error {
	err := os.MkdirAll(dir, 0o755)
	if err != nil {
		return fmt.Errorf("make runtime directory %s: %w", dir, plain(err))
	}
	return checkMode(dir, uid, 0o022)
}

// StateDir makes and checks the directory of a daemon's books, which may be reached by
// a link: who else may write in it could plant files in the place of the daemon's own.
func StateDir(dir string, uid int) error {
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		return fmt.Errorf("make state directory %s: %w", dir, plain(err))
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return fmt.Errorf("find state directory: %w", err)
	}
	return checkMode(dir, uid, 0o022)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// ownDir makes the directory if it is missing and checks it in any case.
func ownDir(dir string, uid int) error {
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make runtime directory %s: %w", dir, plain(err))
	}
	return checkDir(dir, uid)
}

func checkDir(dir string, uid int) error { return checkMode(dir, uid, 0o077) }

// checkMode refuses what is no directory, not uid's, or open to others by one of
// the bits.
func checkMode(dir string, uid int, closed os.FileMode) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("check directory %s: %w", dir, plain(err))
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("check directory %s: not a directory: %w", dir, ErrDenied)
	case !ok || int(st.Uid) != uid:
		return fmt.Errorf("check directory %s: not owned by uid %d: %w", dir, uid, ErrDenied)
	case info.Mode().Perm()&closed != 0:
		return fmt.Errorf("check directory %s: mode %04o lets others in; chmod %04o it: %w", dir, info.Mode().Perm(), 0o777&^closed, ErrDenied)
	}
	return nil
}
