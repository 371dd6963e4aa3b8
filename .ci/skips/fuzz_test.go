package main

import (
	"io"
	"strings"
	"testing"
)

// FuzzRun: no output of a test, or of a build that went wrong, makes the policy
// pass without a test that passed, or lose a failure.
func FuzzRun(f *testing.F) {
	f.Add(`{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"pass","Package":"p"}`)
	f.Add(`{"Action":"output","Package":"p","Test":"T","Output":"maxwell-skip: bpf: no\n"}` + "\n" + `{"Action":"skip","Package":"p","Test":"T"}`)
	f.Add(`{"Action":"output","Package":"p","Test":"T","Output":"maxwell-skip: b: o"}` + "\n" + `{"Action":"skip","Package":"p","Test":"T"}`)
	f.Add(`{"Action":"fail","Package":"p"}`)
	f.Add("go: no such package\n{}\nnull\n[1]\n\"x\"")
	f.Fuzz(func(t *testing.T, in string) {
		err := run(strings.NewReader(in), io.Discard, []string{"bpf"})
		if err == nil && !strings.Contains(strings.ToLower(in), "pass") {
			t.Errorf("%q passes", in)
		}
	})
}
