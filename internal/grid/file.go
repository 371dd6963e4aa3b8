package grid

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// MaxFile is the most that a file of one number may have.
const MaxFile = 64

// Unwatched is how long a factor holds that can no longer be read, where nobody says
// how long what was written holds.
const Unwatched = time.Hour

// Price is what a source says.
type Price struct {
	Factor  unit.PPM
	Written time.Time // since when
}

// Until is when p is no longer believed: valid after it was written, or without that
// Unwatched after it was last read.
func (p Price) Until(read time.Time, valid time.Duration) time.Time {
	if valid == 0 {
		return read.Add(Unwatched)
	}
	if p.Written.After(read) { // by a clock that was set
		return read.Add(valid)
	}
	return p.Written.Add(valid)
}

// ReadFile reads the price from a file. It waits for the disk and for nobody else.
func ReadFile(name string) (Price, error) {
	p, err := readFile(name, os.Geteuid())
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	if err != nil {
		return Price{}, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func readFile(name string, uid int) (Price, error) {
	// Whoever has a FIFO open is not waited for, and a terminal is not taken over.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Price{}, errors.New("no such file; write a factor into it, as 1.5x")
	}
	if err != nil {
		return Price{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return Price{}, err
	case !info.Mode().IsRegular():
		return Price{}, errors.New("is no regular file; name one")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		as := fleet.Caller{UID: uid, SudoUID: -1, SudoGID: -1}
		if err := as.Trusts(name, info.Mode(), int(st.Uid), int(st.Gid), "it decides what energy costs"); err != nil {
			return Price{}, errors.New(strings.TrimPrefix(err.Error(), name+": "))
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return Price{}, err
	}
	factor, err := Parse(text)
	return Price{Factor: factor, Written: info.ModTime()}, err
}
