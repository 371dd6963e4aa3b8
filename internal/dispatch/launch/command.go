package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Exit codes of a shell for a command that could not be run.
const (
	CodeNotExecutable = 126
	CodeNotFound      = 127
)

// ExecError says that the command could not be run, as a shell would.
type ExecError struct {
	Command string
	Code    int // CodeNotExecutable or CodeNotFound
	Err     error
}

// Error is one line with the command and the reason.
func (e *ExecError) Error() string { return fmt.Sprintf("run %s: %v", e.Command, e.Err) }

// Unwrap gives the kernel's reason.
func (e *ExecError) Unwrap() error { return e.Err }

// errEmpty refuses a command without a first word.
var errEmpty = errors.New("empty command")

// resolve finds the program and the environment of a spec.
func resolve(spec Spec) (path string, env []string, err error) {
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return "", nil, errEmpty
	}
	env = spec.Env
	if env == nil {
		env = os.Environ()
	}
	env = lastOfEach(env)
	if spec.Dir != "" {
		info, err := os.Stat(spec.Dir)
		if err != nil {
			return "", nil, fmt.Errorf("enter %s: %w", spec.Dir, plain(err))
		}
		if !info.IsDir() {
			return "", nil, fmt.Errorf("enter %s: %w", spec.Dir, syscall.ENOTDIR)
		}
	}
	path, err = lookPath(spec.Args[0], spec.Dir, pathOf(env))
	return path, env, err
}

// lastOfEach drops all but the last entry of each name, where it stands: C
// programs read the first.
func lastOfEach(env []string) []string {
	seen := make(map[string]bool, len(env))
	out := make([]string, 0, len(env))
	for _, entry := range slices.Backward(env) {
		name, _, ok := strings.Cut(entry, "=")
		if ok && seen[name] {
			continue
		}
		seen[name] = true
		out = append(out, entry)
	}
	slices.Reverse(out)
	return out
}

// pathOf is the PATH that the child will see.
func pathOf(env []string) string {
	path := ""
	for _, entry := range env {
		if v, ok := strings.CutPrefix(entry, "PATH="); ok {
			path = v
		}
	}
	return path
}

// lookPath finds a program as a shell does: 127 when there is none, 126 when
// there is one that may not be run. exec.LookPath does not tell the two apart.
func lookPath(name, dir, path string) (string, error) {
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(file) && dir != "" {
			file = filepath.Join(dir, file)
		}
		if err := executable(file); err != nil {
			return "", explain(name, err)
		}
		return name, nil
	}
	var denied error
	for _, d := range filepath.SplitList(path) {
		if d == "" {
			d = "."
		}
		file := filepath.Join(d, name)
		if !strings.Contains(file, "/") {
			file = "./" + file
		}
		info, err := os.Stat(file)
		if err != nil {
			// Not there, or in a directory that may not be searched: bash,
			// dash and busybox all go on, and say 127 at the end.
			continue
		}
		err = permitted(info)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, fs.ErrPermission) && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", &ExecError{Command: name, Code: CodeNotExecutable, Err: denied}
	}
	return "", &ExecError{Command: name, Code: CodeNotFound, Err: errors.New("command not found")}
}

// executable checks a file as execve would, before anything is forked.
func executable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return plain(err)
	}
	return permitted(info)
}

// permitted checks the kind and the mode of a file that is there.
func permitted(info fs.FileInfo) error {
	if info.IsDir() {
		return syscall.EISDIR
	}
	if info.Mode()&0o111 == 0 {
		return syscall.EACCES
	}
	return nil
}

// explain gives an error of the fork or the exec its exit code. Errors that
// are Maxwell's own (a group that is gone, a thread that could not join) stay
// as they are.
func explain(command string, err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if _, joining := errors.AsType[*joinError](err); joining || !ok {
		return err
	}
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR:
		return &ExecError{Command: command, Code: CodeNotFound, Err: errno}
	case syscall.EACCES, syscall.ENOEXEC, syscall.EISDIR, syscall.ELIBBAD, syscall.ETXTBSY, syscall.E2BIG,
		syscall.EPERM, syscall.ELOOP, syscall.ENAMETOOLONG:
		return &ExecError{Command: command, Code: CodeNotExecutable, Err: errno}
	default:
		return fmt.Errorf("start %s: %w", command, err)
	}
}

// plain strips the path of an *fs.PathError; the caller names it in its own
// words.
func plain(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
