// Command skips reads `go test -json`, prints what go test would have printed,
// and holds the skip policy.
//
// A test is skipped for one reason only: this machine lacks an ability that
// the test needs. It then prints
//
//	maxwell-skip: FEATURE: REASON
//
// skips lists all of them at the end. It fails if a test failed, if a skip
// says no such reason, or if FEATURE is one that must work here: a check that
// cannot run where it always ran is a defect, not a detail.
//
// Usage: go test -json ./... | skips [-must bpf,cgroup-create,...]
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	must := flag.String("must", "", "features whose tests must run on this machine, separated by commas")
	flag.Parse()
	features := strings.FieldsFunc(*must, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
	err := run(os.Stdin, os.Stdout, features)
	if err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		os.Exit(1)
	}
}

// event is one line of go test -json. See `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output, which has no Package
	Test       string
	Output     string
	Elapsed    float64
}

// key is one test, or one package (no Test).
type key struct{ pkg, test string }

// report is what has been read so far.
type report struct {
	out                     io.Writer
	output                  map[key][]string // of tests that have not ended, and of packages
	passed, failed, skipped int
	skips                   []skip
}

// skip is one skipped test.
type skip struct {
	key
	feature, reason string // no feature: it does not say one
}

// said finds the reason among the output of a test.
var said = regexp.MustCompile(`maxwell-skip: ([a-z0-9-]+): (.+)`)

func run(in io.Reader, out io.Writer, must []string) error {
	r := report{out: out, output: map[key][]string{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(out, lines.Text()) // what go itself said before the tests
			continue
		}
		r.read(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the output of go test: %w", err)
	}
	return r.close(must)
}

func (r *report) read(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.output[k] = append(r.output[k], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "build-fail":
		r.failed++
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(k)
		} else {
			r.endTest(k, e.Action)
		}
	}
}

// endTest counts a test, prints what it said if it failed, and forgets it.
func (r *report) endTest(k key, action string) {
	switch action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		fmt.Fprint(r.out, strings.Join(r.output[k], ""))
	case "skip":
		r.skipped++
		s := skip{key: k}
		if m := said.FindStringSubmatch(strings.Join(r.output[k], "")); m != nil {
			s.feature, s.reason = m[1], m[2]
		}
		r.skips = append(r.skips, s)
	}
	delete(r.output, k)
}

// endPackage prints the closing line of a package as go test does, and before
// it, if the package died, what it said at the end.
func (r *report) endPackage(k key) {
	output := r.output[k]
	closing := slices.ContainsFunc(output, func(s string) bool { return strings.HasPrefix(s, "FAIL\t") || s == "FAIL\n" })
	for _, line := range output {
		if closing || strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "?   \t") {
			fmt.Fprint(r.out, line)
		}
	}
	if closing {
		for open := range r.output { // a panic or a timeout ends tests without an event
			if open.pkg == k.pkg && open.test != "" {
				fmt.Fprint(r.out, strings.Join(r.output[open], ""))
				delete(r.output, open)
				r.failed++
			}
		}
	}
	delete(r.output, k)
}

// close lists the skips and judges the run.
func (r *report) close(must []string) error {
	slices.SortFunc(r.skips, func(a, b skip) int {
		return cmp.Or(cmp.Compare(a.feature, b.feature), cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test))
	})
	var causes []error
	if r.failed > 0 {
		causes = append(causes, fmt.Errorf("%d tests failed", r.failed))
	}
	for _, s := range r.skips {
		name := s.pkg + "." + s.test
		switch {
		case s.feature == "":
			fmt.Fprintf(r.out, "skipped  %s: does not say why\n", name)
			causes = append(causes, fmt.Errorf("%s is skipped and prints no maxwell-skip", name))
		case slices.Contains(must, s.feature):
			fmt.Fprintf(r.out, "skipped  %s: %s: %s, which must work here\n", name, s.feature, s.reason)
			causes = append(causes, fmt.Errorf("%s is skipped, but %s must work here", name, s.feature))
		default:
			fmt.Fprintf(r.out, "skipped  %s: %s: %s\n", name, s.feature, s.reason)
		}
	}
	if r.passed+r.failed == 0 {
		causes = append(causes, errors.New("no test passed"))
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return errors.Join(causes...)
}
