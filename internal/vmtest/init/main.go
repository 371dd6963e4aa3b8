// Command init is the first process of the test guest: it mounts the kernel's
// file systems, runs the binaries of /plan.json one after the other, says on
// the console how each ended, and switches the machine off.
//
// Every line of its own begins with Mark, so that the host can tell it from
// what the tests and the kernel print.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/vmtest/plan"
)

func main() {
	err := run()
	if err != nil {
		fmt.Printf("%s failed %v\n", plan.Mark, err)
	} else {
		fmt.Printf("%s done\n", plan.Mark)
	}
	// Without this the kernel panics when its first process ends.
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run() error {
	if os.Getpid() != 1 {
		return errors.New("init is for the first process of a guest")
	}
	if err := leaveRootfs(); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := m.mount(); err != nil {
			return err
		}
	}
	if err := controllers(); err != nil {
		return err
	}
	// busybox makes links to itself for every program it is.
	if out, err := exec.Command("/bin/busybox", "--install", "-s").CombinedOutput(); err != nil {
		return fmt.Errorf("install busybox: %w: %s", err, out)
	}
	_ = unix.Sethostname([]byte("guest"))
	b, err := os.ReadFile("/plan.json")
	if err != nil {
		return err
	}
	var steps []plan.Step
	if err := json.Unmarshal(b, &steps); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	fmt.Printf("%s kernel %s\n", plan.Mark, unix.ByteSliceToString(uts.Release[:]))
	for _, s := range steps {
		fmt.Printf("%s begin %s\n", plan.Mark, s.Name)
		from := time.Now()
		code := step(s)
		fmt.Printf("%s end %s %d %.1f\n", plan.Mark, s.Name, code, time.Since(from).Seconds())
	}
	return nil
}

// step runs one binary; 124 means that it was late, 125 that it did not start.
func step(s plan.Step) int {
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Dir, cmd.Env = s.Dir, s.Env
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // init itself has no session
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return 125
	}
	late := time.AfterFunc(time.Duration(s.TimeoutMS)*time.Millisecond, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	switch {
	case !late.Stop():
		return 124
	case err == nil:
		return 0
	case cmd.ProcessState.ExitCode() < 0: // a signal
		fmt.Println(err)
		return 128
	}
	return cmd.ProcessState.ExitCode()
}

// leaveRootfs makes the ram disk an ordinary mount. The kernel's first one is
// its own parent, which no machine shows to its programs after boot.
func leaveRootfs() error {
	const at = "/newroot"
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/", at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the ram disk: %w", err)
	}
	if err := os.Chdir(at); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the ram disk: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter the ram disk: %w", err)
	}
	return os.Chdir("/")
}

type mount struct {
	from, to, kind, data string
	optional             bool
}

var mounts = [...]mount{
	{"proc", "/proc", "proc", "", false},
	{"sysfs", "/sys", "sysfs", "", false},
	{"devtmpfs", "/dev", "devtmpfs", "", false},
	{"devpts", "/dev/pts", "devpts", "ptmxmode=0666", false},
	{"tmpfs", "/dev/shm", "tmpfs", "mode=1777", false},
	{"tmpfs", "/tmp", "tmpfs", "mode=1777", false},
	{"tmpfs", "/run", "tmpfs", "mode=0755", false},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", "nsdelegate", false},
	{"bpf", "/sys/fs/bpf", "bpf", "", true},
	{"tracefs", "/sys/kernel/tracing", "tracefs", "", true},
	{"securityfs", "/sys/kernel/security", "securityfs", "", true},
}

func (m mount) mount() error {
	if err := os.MkdirAll(m.to, 0o755); err != nil && !m.optional {
		return err
	}
	err := unix.Mount(m.from, m.to, m.kind, 0, m.data)
	if err != nil && !m.optional {
		return fmt.Errorf("mount %s: %w", m.to, err)
	}
	return nil
}

// controllers moves init out of the root group, as a manager would, and hands
// every controller down.
func controllers() error {
	const root = "/sys/fs/cgroup"
	leaf := filepath.Join(root, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("leave the root group: %w", err)
	}
	for _, c := range []string{"+cpu", "+cpuset", "+memory", "+pids", "+io"} {
		// One the kernel does not have is no reason to stop; the tests say
		// what they miss.
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte(c), 0)
	}
	return nil
}
