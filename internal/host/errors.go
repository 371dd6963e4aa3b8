package host

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Classes of refusal. Test with errors.Is.
var (
	// ErrUnavailable means that the machine does not have the ability.
	ErrUnavailable = errors.New("unavailable")
	// ErrDenied means that the machine has it and does not let us.
	ErrDenied = errors.New("denied")
	// ErrLocked means that a living process holds the lock.
	ErrLocked = errors.New("locked by a living process")
)

// Unavailable says why this machine lacks a feature, in words for the
// operator.
type Unavailable struct {
	Feature Feature
	Reason  string // what was tried and what the machine said
	Hint    string // what the operator can do; empty when nothing
	Class   error  // ErrUnavailable or ErrDenied; nil reads as ErrUnavailable
	Cause   error  // the kernel's own error; may be nil
}

// Error is one line: feature, class and reason. The hint is left to the
// caller, who knows whether a person is reading.
func (u *Unavailable) Error() string {
	return fmt.Sprintf("%s: %v: %s", u.Feature, u.class(), u.Reason)
}

// Unwrap gives the class and the kernel's error to errors.Is.
func (u *Unavailable) Unwrap() []error {
	if u.Cause == nil {
		return []error{u.class()}
	}
	return []error{u.class(), u.Cause}
}

func (u *Unavailable) class() error {
	if u.Class == nil {
		return ErrUnavailable
	}
	return u.Class
}

// refuse builds the Unavailable of a probe that met err: denied if the kernel
// spoke of permission, unavailable otherwise.
func refuse(f Feature, did string, err error, hint string) *Unavailable {
	class := ErrUnavailable
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		class = ErrDenied
	}
	return &Unavailable{Feature: f, Reason: fmt.Sprintf("%s: %v", did, plain(err)), Hint: hint, Class: class, Cause: err}
}

// plain strips the path of an *fs.PathError: the reason names what was tried
// in words already.
func plain(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// Gone reports whether err means that the thing behind a kernel file has
// ended: a removed cgroup (ENODEV on an open file, ENOENT on a path) or a
// process that is no more (ESRCH).
func Gone(err error) bool {
	return errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH)
}
