package main

import (
	"strings"
	"testing"
)

// TestPolicy feeds the events of small runs and compares what is printed and
// what is refused.
func TestPolicy(t *testing.T) {
	const (
		pass = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
		ok   = `{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}` + "\n" + `{"Action":"pass","Package":"p"}` + "\n"
		skip = `{"Action":"skip","Package":"p","Test":"TestB"}` + "\n"
	)
	said := func(text string) string {
		return `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: ` + text + `\n"}` + "\n" + skip
	}
	for _, c := range []struct {
		name, in, must string
		want, err      string
	}{
		{"passes", pass + ok, "bpf", "ok  \tp\t0.1s\n1 passed, 0 failed, 0 skipped\n", ""},
		{
			"skips what may be skipped", pass + said("maxwell-skip: bpf: not permitted") + ok, "",
			"ok  \tp\t0.1s\nskipped  p.TestB: bpf: not permitted\n1 passed, 0 failed, 1 skipped\n", "",
		},
		{
			"skips what must run", pass + said("maxwell-skip: bpf: not permitted") + ok, "cgroup-cpu,bpf",
			"ok  \tp\t0.1s\nskipped  p.TestB: bpf: not permitted, which must work here\n1 passed, 0 failed, 1 skipped\n",
			"p.TestB is skipped, but bpf must work here",
		},
		{
			"skips without a reason", pass + said("not today") + ok, "",
			"ok  \tp\t0.1s\nskipped  p.TestB: does not say why\n1 passed, 0 failed, 1 skipped\n",
			"p.TestB is skipped and prints no maxwell-skip",
		},
		{
			"fails", `{"Action":"output","Package":"p","Test":"TestA","Output":"bad\n"}` + "\n" +
				`{"Action":"fail","Package":"p","Test":"TestA"}` + "\n" +
				`{"Action":"output","Package":"p","Output":"FAIL\n"}` + "\n" +
				`{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n",
			"", "bad\nFAIL\nFAIL\tp\t0.1s\n0 passed, 1 failed, 0 skipped\n", "1 tests failed",
		},
		{
			"dies in the middle", `{"Action":"output","Package":"p","Test":"TestA","Output":"panic: x\n"}` + "\n" +
				`{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n",
			"", "FAIL\tp\t0.1s\npanic: x\n0 passed, 1 failed, 0 skipped\n", "1 tests failed",
		},
		{
			"does not build", `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: no\n"}` + "\n" +
				`{"ImportPath":"p","Action":"build-fail"}` + "\n",
			"", "p.go:1: no\n0 passed, 1 failed, 0 skipped\n", "1 tests failed",
		},
		{"is empty", "go: no such package\n", "", "go: no such package\n0 passed, 0 failed, 0 skipped\n", "no test passed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			err := run(strings.NewReader(c.in), &out, strings.FieldsFunc(c.must, func(r rune) bool { return r == ',' }))
			if out.String() != c.want {
				t.Errorf("printed %q, want %q", out.String(), c.want)
			}
			if (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}
