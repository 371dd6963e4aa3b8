package client

import (
	"os"
	"path/filepath"
	"strconv"
)

const socketName = "market.sock"

// places are the sockets where a market may listen, in the order in which they
// are tried:
//
//	$MAXWELL_SOCKET                       and nothing else: a workload's own
//	$MAXWELL_RUNTIME_DIR/market.sock      and nothing else: several markets in one test machine
//	/run/maxwell/market.sock              the machine's
//	$XDG_RUNTIME_DIR/maxwell/market.sock  this user's; or below /run/user/UID
//	/tmp/maxwell-UID/market.sock          this user's, without a session directory
//
// A directory of the user's own counts only if it is closed to all others: in
// /tmp it may be somebody's trap.
func places(getenv func(string) string, uid int, closed func(dir string, uid int) bool) []string {
	if socket := getenv("MAXWELL_SOCKET"); socket != "" {
		return []string{socket}
	}
	if dir := getenv("MAXWELL_RUNTIME_DIR"); dir != "" {
		return []string{filepath.Join(dir, socketName)}
	}
	found := []string{filepath.Join("/run/maxwell", socketName)}
	id := strconv.Itoa(uid)
	if uid != 0 {
		for _, session := range []string{getenv("XDG_RUNTIME_DIR"), "/run/user/" + id} {
			if filepath.IsAbs(session) && closed(session, uid) {
				return append(found, filepath.Join(session, "maxwell", socketName))
			}
		}
	}
	if dir := "/tmp/maxwell-" + id; closed(dir, uid) {
		found = append(found, filepath.Join(dir, socketName))
	}
	return found
}

// closedDir says whether dir is a real directory of uid that nobody else can
// enter.
func closedDir(dir string, uid int) bool {
	info, err := os.Lstat(dir)
	return err == nil && info.IsDir() && info.Mode().Perm()&0o077 == 0 && ownedBy(info, uid)
}
