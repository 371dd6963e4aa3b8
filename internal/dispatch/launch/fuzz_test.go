package launch

import "testing"

// FuzzInvoker: whatever sudo's variables hold, a person is never taken for
// root, and nobody's command gets root's group by way of an unreadable number.
func FuzzInvoker(f *testing.F) {
	f.Add("1000", "1000")
	f.Add("0", "0")
	f.Add("00", "5")
	f.Add("+0", "5")
	f.Add("4294967296", "1")
	f.Add("4294967295", "4294967295")
	f.Fuzz(func(t *testing.T, uid, gid string) {
		id, err := Invoker(func(name string) string {
			return map[string]string{"SUDO_UID": uid, "SUDO_GID": gid}[name]
		})
		switch {
		case err != nil && id != nil:
			t.Errorf("%q %q: %+v with %v", uid, gid, id, err)
		case err != nil || id == nil:
		case id.UID == 0:
			t.Errorf("SUDO_UID %q runs the command as root", uid)
		case len(id.Groups) == 0 || id.Groups[0] != id.GID:
			t.Errorf("%q %q: groups %v of %d", uid, gid, id.Groups, id.GID)
		}
	})
}
