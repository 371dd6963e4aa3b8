package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Roots is one machine as files. The zero value is not usable; Open gives the
// real machine, OpenAt a recorded one.
type Roots struct {
	// Proc and Sys are the kernel's two trees. Names are relative to them:
	// Sys.Open("class/powercap").
	Proc, Sys *Root

	base string // directory that stands for "/"
}

// Open opens the real machine.
func Open() (Roots, error) { return OpenAt("/") }

// OpenAt opens the machine whose "/" is the directory base.
func OpenAt(base string) (Roots, error) {
	proc, err := openRoot(base, "/proc")
	if err != nil {
		return Roots{}, err
	}
	sys, err := openRoot(base, "/sys")
	if err != nil {
		return Roots{}, errors.Join(err, proc.Close())
	}
	return Roots{Proc: proc, Sys: sys, base: filepath.Clean(base)}, nil
}

// Close closes the roots; files opened from them stay open.
func (r Roots) Close() error { return errors.Join(r.Proc.Close(), r.Sys.Close()) }

// Path turns a path as the kernel spells it ("/sys/fs/cgroup") into the one to
// open. On the real machine they are equal.
func (r Roots) Path(kernel string) string { return filepath.Join(r.base, kernel) }

// Real reports whether these are the roots of the machine this process runs
// on. Probes that use an ability rather than read a file need that.
func (r Roots) Real() bool { return r.base == "/" }

// Root is one tree of kernel files. It follows links that stay inside and
// refuses those that leave.
type Root struct {
	dir *os.Root
	at  string // the path to print, as the kernel spells it
}

func openRoot(base, at string) (*Root, error) {
	dir, err := os.OpenRoot(filepath.Join(base, at))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", at, plain(err))
	}
	return &Root{dir: dir, at: at}, nil
}

// Close releases the root. Files stay open.
func (r *Root) Close() error { return r.dir.Close() }

// Open opens a file to be read many times.
func (r *Root) Open(name string) (*File, error) {
	f, err := r.dir.Open(name)
	if err != nil {
		return nil, r.fail("open", name, err)
	}
	defer f.Close()
	// A descriptor of our own keeps kernel files out of the runtime's poller,
	// which would wake at each change of a cgroup.events.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, r.fail("open", name, err)
	}
	return newFile(fd, filepath.Join(r.at, name)), nil
}

// ReadFile reads a whole file once, at most 4 MiB.
func (r *Root) ReadFile(name string) ([]byte, error) {
	f, err := r.dir.Open(name)
	if err != nil {
		return nil, r.fail("open", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	if err != nil {
		return nil, r.fail("read", name, err)
	}
	return b, nil
}

// ReadText reads a small file and trims white space at both ends.
func (r *Root) ReadText(name string) (string, error) {
	b, err := r.ReadFile(name)
	return strings.TrimSpace(string(b)), err
}

// ReadDir lists a directory, sorted by name.
func (r *Root) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(r.dir.FS(), name)
	if err != nil {
		return nil, r.fail("list", name, err)
	}
	return list, nil
}

// Stat describes a file, following links.
func (r *Root) Stat(name string) (fs.FileInfo, error) {
	info, err := r.dir.Stat(name)
	if err != nil {
		return nil, r.fail("stat", name, err)
	}
	return info, nil
}

func (r *Root) fail(verb, name string, err error) error {
	return fmt.Errorf("%s %s: %w", verb, filepath.Join(r.at, name), plain(err))
}
