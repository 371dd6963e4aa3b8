package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

// receipt is where a receipt goes. It is opened before the command starts, so
// that a place that cannot be written stops everything.
type receipt struct {
	name string   // the file; "" for a descriptor
	temp *os.File // beside the file, renamed over it; or the descriptor
}

// openReceipt takes FILE or fd:N; "" is no receipt.
func openReceipt(target string) (*receipt, error) {
	if target == "" {
		return nil, nil
	}
	if number, ok := strings.CutPrefix(target, "fd:"); ok {
		return openReceiptFD(target, number)
	}
	if info, err := os.Stat(target); err == nil && !info.Mode().IsRegular() {
		return openReceiptDevice(target, info)
	}
	temp, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".*")
	if err != nil {
		reason := errors.Unwrap(err)
		return nil, usagef("run --receipt: %q: cannot be written: %v; name a file in a directory of yours", target, reason)
	}
	return &receipt{name: target, temp: temp}, nil
}

func openReceiptFD(target, number string) (*receipt, error) {
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 {
		return nil, usagef("run --receipt: %q: not a descriptor; write fd:3", target)
	}
	// Looked at before os.NewFile: a file of Go's closes its number in the end,
	// and that may be another's by then.
	if err := unix.Fstat(n, &unix.Stat_t{}); err != nil {
		return nil, usagef("run --receipt: %q: the descriptor is not open; open it: maxwell run --receipt fd:3 ... 3>receipt.json", target)
	}
	return &receipt{temp: os.NewFile(uintptr(n), target)}, nil
}

// openReceiptDevice writes to a pipe or device in place: it cannot be renamed
// over.
func openReceiptDevice(target string, info fs.FileInfo) (*receipt, error) {
	if info.IsDir() {
		return nil, usagef("run --receipt: %q: is a directory; name a file", target)
	}
	f, err := os.OpenFile(target, os.O_WRONLY, 0)
	if err != nil {
		return nil, usagef("run --receipt: %q: cannot be written: %v; name another file", target, errors.Unwrap(err))
	}
	return &receipt{temp: f}, nil
}

// write puts the receipt in place, whole or not at all.
func (r *receipt) write(content *report.Receipt) error {
	var b bytes.Buffer
	if err := content.WriteJSON(&b); err != nil {
		return err
	}
	if _, err := r.temp.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	if r.name == "" {
		return r.temp.Close()
	}
	if err := errors.Join(r.temp.Chmod(0o644), r.temp.Sync(), r.temp.Close()); err != nil {
		return fmt.Errorf("write receipt %s: %w", r.name, err)
	}
	if err := os.Rename(r.temp.Name(), r.name); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	return nil
}

// drop takes back what openReceipt made when nothing was started.
func (r *receipt) drop() {
	if r == nil || r.name == "" {
		return
	}
	_ = r.temp.Close()
	_ = os.Remove(r.temp.Name())
}

// label is the receipt's name for a closing line.
func (r *receipt) label() string {
	if r == nil {
		return ""
	}
	return r.name
}
