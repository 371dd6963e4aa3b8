package host

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Processor describes the machine's processors, all of one kind.
type Processor struct {
	Vendor     string // "GenuineIntel", "AuthenticAMD", "0x41" (arm64 implementer); may be empty
	Model      string // "AMD EPYC 9654 96-Core Processor"; may be empty
	Family     int    // x86 family in decimal, as /proc/cpuinfo prints it
	ModelNo    int    // x86 model number
	Threads    int    // hardware threads per core, at least 1
	Cores      int    // cores in one package; 0 when unknown
	Packages   int    // packages (sockets) seen; 0 when unknown
	Hypervisor bool   // the processor says that it is virtual
	Online     []int  // logical processors switched on
	Allowed    []int  // those this process may run on
}

// ReadProcessor reads /proc/cpuinfo, the online list and the own affinity.
func ReadProcessor(r Roots) (Processor, error) {
	text, err := r.Proc.ReadFile("cpuinfo")
	if err != nil {
		return Processor{}, err
	}
	p := ParseProcessor(text)
	online, err := r.Sys.ReadText("devices/system/cpu/online")
	if err != nil {
		return Processor{}, err
	}
	if p.Online, err = ParseList(online); err != nil {
		return Processor{}, fmt.Errorf("read online processors: %w", err)
	}
	if text, err = r.Proc.ReadFile("self/status"); err != nil {
		return Processor{}, err
	}
	allowed, ok := statusField(text, "Cpus_allowed_list")
	if !ok {
		return Processor{}, fmt.Errorf("read affinity: no Cpus_allowed_list: %w", ErrUnavailable)
	}
	if p.Allowed, err = ParseList(allowed); err != nil {
		return Processor{}, fmt.Errorf("read affinity: %w", err)
	}
	// The affinity mask may name processors that are off or do not exist.
	p.Allowed = slices.DeleteFunc(p.Allowed, func(c int) bool { return !slices.Contains(p.Online, c) })
	if !p.Hypervisor {
		// arm64 has no such flag, Xen guests have this file.
		kind, err := r.Sys.ReadText("hypervisor/type")
		p.Hypervisor = err == nil && kind != ""
	}
	return p, nil
}

// ParseProcessor parses /proc/cpuinfo as far as Maxwell needs it. The file
// differs by architecture, so what is absent stays zero; it never fails.
func ParseProcessor(text []byte) Processor {
	p := Processor{Threads: 1}
	siblings := 0
	packages := map[string]bool{}
	for line := range bytes.Lines(text) {
		key, value, ok := strings.Cut(string(line), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "vendor_id", "CPU implementer":
			p.Vendor = value
		case "model name", "Model", "cpu model", "Processor":
			p.Model = value
		case "cpu family":
			p.Family, _ = strconv.Atoi(value)
		case "model":
			p.ModelNo, _ = strconv.Atoi(value)
		case "cpu cores":
			p.Cores, _ = strconv.Atoi(value)
		case "physical id":
			packages[value] = true
		case "siblings":
			siblings, _ = strconv.Atoi(value)
		case "flags":
			p.Hypervisor = p.Hypervisor || slices.Contains(strings.Fields(value), "hypervisor")
		}
	}
	p.Packages = len(packages)
	if p.Cores > 0 && siblings > p.Cores {
		p.Threads = siblings / p.Cores
	}
	return p
}

// statusField finds a line "Name:\tvalue" of /proc/PID/status.
func statusField(text []byte, name string) (string, bool) {
	for line := range bytes.Lines(text) {
		key, value, ok := strings.Cut(string(line), ":")
		if ok && key == name {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

// maxProcessors is above the largest NR_CPUS that Linux can be built with
// (8192); lists beyond it are refused so that a forged file costs no memory.
const maxProcessors = 1 << 14

var errList = errors.New("not a list such as 0-3,8")

// ParseList parses the kernel's list format "0-3,8" into sorted distinct
// numbers.
func ParseList(text string) ([]int, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		lo, err := strconv.ParseUint(first, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("parse %q: %w", text, errList)
		}
		hi, err := strconv.ParseUint(last, 10, 31)
		if err != nil || hi < lo || hi >= maxProcessors || len(list) > maxProcessors {
			return nil, fmt.Errorf("parse %q: %w", text, errList)
		}
		for n := lo; n <= hi; n++ {
			list = append(list, int(n))
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// FormatList is the inverse of ParseList.
func FormatList(list []int) string {
	var b strings.Builder
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(list[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(list[j]))
		}
		i = j + 1
	}
	return b.String()
}
