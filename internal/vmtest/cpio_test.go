//go:build vm

package vmtest

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// archive writes an initial ram disk in the format "newc" of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst. It is not
// compressed: unpacking under emulation takes longer than copying.
type archive struct {
	w    io.Writer
	n    int64
	ino  int
	dirs []string
	err  error
}

func (a *archive) entry(name string, mode uint32, size int64, major, minor int) {
	a.ino++
	name = strings.TrimPrefix(name, "/")
	a.printf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0)
	a.printf("%s\x00", name)
	a.pad()
}

func (a *archive) printf(format string, args ...any) {
	if a.err != nil {
		return
	}
	n, err := fmt.Fprintf(a.w, format, args...)
	a.n, a.err = a.n+int64(n), err
}

func (a *archive) pad() {
	for a.n%4 != 0 && a.err == nil {
		a.printf("\x00")
	}
}

// dir makes a directory and those above it.
func (a *archive) dir(name string) {
	if name == "/" || name == "." || slices.Contains(a.dirs, name) {
		return
	}
	a.dir(path.Dir(name))
	a.dirs = append(a.dirs, name)
	a.entry(name, 0o040755, 0, 0, 0)
}

func (a *archive) bytes(name string, mode uint32, b []byte) {
	a.dir(path.Dir(name))
	a.entry(name, 0o100000|mode, int64(len(b)), 0, 0)
	if a.err == nil {
		var n int
		n, a.err = a.w.Write(b)
		a.n += int64(n)
	}
	a.pad()
}

func (a *archive) device(name string, major, minor int) {
	a.dir(path.Dir(name))
	a.entry(name, 0o020600, 0, major, minor)
}

// file copies a file of the host.
func (a *archive) file(name, from string) {
	if a.err != nil {
		return
	}
	b, err := os.ReadFile(from)
	if err != nil {
		a.err = err
		return
	}
	a.bytes(name, 0o755, b)
}

// tree copies a directory of the host, if there is one.
func (a *archive) tree(name, from string) {
	if _, err := os.Stat(from); err != nil {
		return
	}
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		switch to := path.Join(name, filepath.ToSlash(rel)); {
		case d.IsDir():
			a.dir(to)
		case d.Type().IsRegular():
			a.file(to, p)
		}
		return a.err
	})
	if a.err == nil {
		a.err = err
	}
}

func (a *archive) end() error {
	a.entry("TRAILER!!!", 0, 0, 0, 0)
	for a.n%512 != 0 && a.err == nil {
		a.printf("\x00")
	}
	return a.err
}
