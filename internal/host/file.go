package host

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// fileBuffer bounds what a File reads at once. The files read each epoch
// (counters, flat-keyed statistics) stay below 2 KiB on every kernel known.
const fileBuffer = 4096

// File is a kernel file kept open and read by pread. It allocates when it is
// opened and never again. It is not safe for concurrent use.
type File struct {
	fd   int
	path string
	buf  [fileBuffer]byte
}

// OpenFile opens a kernel file by path, for those found in a CgroupRef.
func OpenFile(path string) (*File, error) {
	fd, err := openRetry(path, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return newFile(fd, path), nil
}

func newFile(fd int, path string) *File { return &File{fd: fd, path: path} }

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// Path is where the file was found.
func (f *File) Path() string { return f.path }

// Close closes the file; a second Close is harmless.
func (f *File) Close() error {
	if f.fd < 0 {
		return nil
	}
	fd := f.fd
	f.fd = -1
	return unix.Close(fd)
}

// Read reads the file from its start, at most 4 KiB. The bytes are valid
// until the next read of this File.
func (f *File) Read() ([]byte, error) {
	if f.fd < 0 {
		return nil, fmt.Errorf("read %s: %w", f.path, os.ErrClosed)
	}
	for {
		// Kernel files of this kind answer in one piece, so one call is enough.
		n, err := unix.Pread(f.fd, f.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.path, err)
		}
		return f.buf[:n], nil
	}
}

// ReadInt reads a file that holds one decimal integer, such as
// cpuacct.usage or energy_uj. "max" reads as math.MaxInt64, which is what
// cgroup files mean by it.
func (f *File) ReadInt() (int64, error) {
	b, err := f.Read()
	if err != nil {
		return 0, err
	}
	v, err := ParseInt(b)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", f.path, err)
	}
	return v, nil
}

// ReadKey reads one value of a flat-keyed file, such as usage_usec of
// cpu.stat.
func (f *File) ReadKey(key string) (int64, error) {
	b, err := f.Read()
	if err != nil {
		return 0, err
	}
	v, ok := Key(b, key)
	if !ok {
		return 0, fmt.Errorf("read %s: no number for key %s: %w", f.path, key, ErrUnavailable)
	}
	return v, nil
}

// errNotInteger is fixed so that a bad read in the epoch loop costs little.
var errNotInteger = errors.New("not an integer")

// ParseInt parses one decimal integer with white space around it; "max" is
// math.MaxInt64. Values beyond int64 are refused.
func ParseInt(b []byte) (int64, error) {
	b = trim(b)
	if string(b) == "max" {
		return math.MaxInt64, nil
	}
	v, ok := digits(b)
	if !ok {
		return 0, errNotInteger
	}
	return v, nil
}

// Key finds the line "key value" in a flat-keyed file and parses value.
func Key(b []byte, key string) (int64, bool) {
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		if len(line) <= len(key) || line[len(key)] != ' ' || string(line[:len(key)]) != key {
			continue
		}
		v, err := ParseInt(line[len(key)+1:])
		return v, err == nil
	}
	return 0, false
}

func cutLine(b []byte) (line, rest []byte) {
	for i, c := range b {
		if c == '\n' {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

func trim(b []byte) []byte {
	for len(b) > 0 && space(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && space(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func space(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// digits parses [-]digits without allocating.
func digits(b []byte) (int64, bool) {
	negative := false
	if len(b) > 0 && b[0] == '-' {
		negative, b = true, b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	var v int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := int64(c - '0')
		if v > (math.MaxInt64-d)/10 {
			return 0, false
		}
		v = v*10 + d
	}
	if negative {
		v = -v
	}
	return v, true
}

// Knob is a kernel control file kept open for writing, such as cpu.weight.
// Writing does not allocate. It is not safe for concurrent use.
type Knob struct {
	fd   int
	path string
	buf  [64]byte
}

// OpenKnob opens an existing control file; it never creates one.
func OpenKnob(path string) (*Knob, error) {
	fd, err := openRetry(path, unix.O_WRONLY)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &Knob{fd: fd, path: path}, nil
}

// Path is where the control file was found.
func (k *Knob) Path() string { return k.path }

// Close closes the file; a second Close is harmless.
func (k *Knob) Close() error {
	if k.fd < 0 {
		return nil
	}
	fd := k.fd
	k.fd = -1
	return unix.Close(fd)
}

// WriteInt writes one decimal integer.
func (k *Knob) WriteInt(v int64) error { return k.write(strconv.AppendInt(k.buf[:0], v, 10)) }

// WriteInts writes two integers with a space, as cpu.max takes them.
func (k *Knob) WriteInts(a, b int64) error {
	text := append(strconv.AppendInt(k.buf[:0], a, 10), ' ')
	return k.write(strconv.AppendInt(text, b, 10))
}

// WriteText writes a word such as "max 100000".
func (k *Knob) WriteText(s string) error { return k.write(append(k.buf[:0], s...)) }

func (k *Knob) write(b []byte) error {
	if k.fd < 0 {
		return fmt.Errorf("write %s: %w", k.path, os.ErrClosed)
	}
	for {
		_, err := unix.Pwrite(k.fd, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write %q to %s: %w", b, k.path, err)
		}
		return nil
	}
}

// WriteOnce writes a word to an existing control file that is not kept open.
func WriteOnce(path, text string) error {
	k, err := OpenKnob(path)
	if err != nil {
		return err
	}
	return errors.Join(k.WriteText(text), k.Close())
}
