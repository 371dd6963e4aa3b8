package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/golden"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// TestScreens runs the command lines of testdata/screens.txt, one a line, and
// compares what they print and return with screens.golden.
func TestScreens(t *testing.T) {
	raw, err := os.ReadFile("testdata/screens.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		o := newFakeMarket().crowd().run(words(line)...)
		fmt.Fprintf(&out, "$ maxwell %s\n", line)
		for text := range strings.Lines(o.out) {
			out.WriteString("| " + text)
		}
		for text := range strings.Lines(o.err) {
			out.WriteString("! " + text)
		}
		fmt.Fprintf(&out, "= %d\n\n", o.code)
		if o.code != 0 && strings.Count(o.err, "\n") != 1 {
			t.Errorf("%s: an error is one line, not %q", line, o.err)
		}
	}
	got := regexp.MustCompile(`after [0-9.]+ [num]?s\b`).ReplaceAllString(out.String(), "after TIME")
	got = regexp.MustCompile(`[0-9.]+ cores on average`).ReplaceAllString(got, "N cores on average")
	golden.Check(t, "screens.golden", got)
}

// words splits a line at blanks; ” is an empty word.
func words(line string) []string {
	fields := strings.Fields(line)
	for i, f := range fields {
		if f == "''" {
			fields[i] = ""
		}
	}
	return fields
}

func TestHelpOfEveryVerb(t *testing.T) {
	root := (&app{out: os.Stdout, err: os.Stderr, environ: os.Environ}).root()
	var out strings.Builder
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.Name() == "help" {
			return
		}
		fmt.Fprintf(&out, "== %s\n", cmd.CommandPath())
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		if cmd.Short == "" {
			t.Errorf("%s has no summary", cmd.CommandPath())
		}
		if !cmd.Hidden && !cmd.HasSubCommands() && cmd.Example == "" && !cmd.Parent().Hidden {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no help", cmd.CommandPath(), f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	golden.Check(t, "help.golden", out.String())
}

func TestRunParsesEveryFlag(t *testing.T) {
	f := newFakeMarket()
	o := f.run("run", "--budget", "500", "--bid", "auto", "--max-bid", "6x", "--horizon", "2h", "--max-energy", "500J",
		"--max-cpu", "10m", "--memory", "4G", "--pids", "512", "--cores", "2", "--timeout", "10m", "--when-broke", "pause",
		"--grace", "0s", "--name", "job", "-q", "--enforcement", "signal", "--", "sleep", "--budget", "5")
	if o.code != 0 || o.out != "" || o.err != "" {
		t.Fatalf("got %+v, want silence and 0", o)
	}
	want := &v1.AdmitRequest{
		Name: "job", BudgetUcredits: 500_000_000, Auto: true, MaxBidMilli: 6000, HorizonNs: int64(2 * time.Hour), CoresMilli: 2000,
		MaxEnergyUj: 500_000_000, MaxCpuNs: int64(10 * time.Minute), MemoryBytes: 4 << 30, Pids: 512, TimeoutNs: int64(10 * time.Minute),
		PauseWhenBroke: true, Command: []string{"sleep", "--budget", "5"}, Terminal: f.admitted[0].GetTerminal(),
	}
	if diff := cmp.Diff(want, f.admitted[0], protocmp.Transform()); diff != "" {
		t.Errorf("terms (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"sleep", "--budget", "5"}, f.specs[0].Args); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	if f.opened[0].enforce != "signal" || f.opened[0].client != "run" {
		t.Errorf("opened %+v", f.opened[0])
	}
}

func TestRunNamesItself(t *testing.T) {
	f := newFakeMarket()
	f.living = []string{"make", "make-2"}
	if o := f.run("run", "-q", "--", "/usr/bin/make"); o.code != 0 {
		t.Fatalf("got %+v", o)
	}
	if got := f.admitted[0].GetName(); got != "make-3" {
		t.Errorf("named %q, want make-3", got)
	}
	if o := f.run("run", "-q", "--name", "make", "--", "x"); o.code != 125 {
		t.Errorf("a taken name that was asked for: %+v, want 125", o)
	}
}

func TestRunTellsTheStoryOfABankruptcy(t *testing.T) {
	f := newFakeMarket()
	f.end = &v1.Workload{
		State: "dead", Reason: "insolvent", ExitCode: 122, ChildExit: 143, HasChildExit: true, BudgetUcredits: 500_000_000,
		SpentUcredits: 500_000_000, EnergyUcredits: 463_000_000, RentUcredits: 37_000_000, EnergyUj: 463_000_000, CpuNs: 47_200_000_000,
		PriceMilli: 1800, Retryable: true, Remedy: "fund agent-7",
	}
	f.story = []*v1.Event{
		{Kind: "admitted"},
		{Kind: "started"},
		{Kind: "warned", Percent: 80, What: "budget", LeftNs: int64(40 * time.Second)},
		{Kind: "warned", Percent: 95, What: "memory"},
		{Kind: "broke", LeftNs: int64(10 * time.Second)},
		{Kind: "dying", Reason: "insolvent"},
	}
	file := filepath.Join(t.TempDir(), "agent-7.json")
	o := f.run("run", "--name", "agent-7", "--budget", "500", "--memory", "4G", "--receipt", file, "--", "./agent")
	o.err = strings.ReplaceAll(o.err, file, "agent-7.json")
	const want = `maxwell: agent-7 has spent 80 % of 500 $J (about 40 s left at this rate).  More: maxwell fund agent-7 200
maxwell: agent-7 has used 95 % of its memory cap, 4 GiB; it ends at 100 %
maxwell: agent-7 is broke and paused; ends in 10 s unless funded
maxwell: agent-7 stopped: insolvent (exit 122) after 463 J, 47.2 core-s; last price 1.8x; receipt agent-7.json
`
	if diff := cmp.Diff(want, o.err); diff != "" || o.code != 122 || o.out != "" {
		t.Errorf("exit %d, out %q, err (-want +got):\n%s", o.code, o.out, diff)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), `{"reason":"insolvent","retryable":true,"exit_code":122,"child_exit":143,"remedy":"fund agent-7"`) {
		t.Errorf("receipt %s", text)
	}
	onlyFile(t, file)
}

// TestAWarningNamesADepositThatIsNoSmallPart: a warning counts what is left without
// it, so 80 % of a small budget are not what was spent.
func TestAWarningNamesADepositThatIsNoSmallPart(t *testing.T) {
	for budget, want := range map[int64]string{
		30:  "maxwell: a has spent 80 % of 30 $J less its deposit of 10.7 $J.  More: maxwell fund a 15",
		500: "maxwell: a has spent 80 % of 500 $J.  More: maxwell fund a 200",
	} {
		n, ok := noticeOf(&v1.Event{Kind: "warned", What: "budget", Percent: 80, Workload: "a", WorkloadState: &v1.Workload{
			BudgetUcredits: budget * 1_000_000, DepositUcredits: 10_662_400,
		}})
		if got := n.Line(); !ok || got != want {
			t.Errorf("budget %d: %q, want %q", budget, got, want)
		}
	}
}

// onlyFile fails if anything else lies beside the file: a forgotten temporary.
func onlyFile(t *testing.T, file string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Name() != filepath.Base(file) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestReceiptNeedsAPlaceBeforeTheCommandStarts(t *testing.T) {
	dir := t.TempDir()
	for _, target := range []string{dir, filepath.Join(dir, "no", "such"), "fd:x", "fd:-1", "fd:999999"} {
		f := newFakeMarket()
		o := f.run("run", "--receipt", target, "--", "x")
		if o.code != 125 || len(f.admitted) != 0 || strings.Count(o.err, "\n") != 1 {
			t.Errorf("%s: %+v, admitted %d", target, o, len(f.admitted))
		}
	}
	f := newFakeMarket()
	f.refuse = &launch.ExecError{Command: "x", Code: 127, Err: os.ErrNotExist}
	file := filepath.Join(dir, "r.json")
	if o := f.run("run", "--receipt", file, "--", "x"); o.code != 127 {
		t.Errorf("a missing program: %+v, want 127", o)
	}
	onlyFile(t, file)
	if _, err := os.Stat(file); err == nil {
		t.Error("a receipt of a command that never ran")
	}
}

func TestReceiptToADescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0) // the command owns and closes it
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if o := newFakeMarket().run("run", "-q", "--receipt", fmt.Sprintf("fd:%d", fd), "--", "x"); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	var got map[string]any
	if err := json.NewDecoder(r).Decode(&got); err != nil || got["reason"] != "exited" {
		t.Errorf("read %v, %v", got, err)
	}
}

func writeFleet(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestUpStartsAFleetAndStatesIt(t *testing.T) {
	f := newFakeMarket()
	f.end.Work, f.end.Open = 7, false
	file := writeFleet(t, `
node: {cores: 1, floor: 0, watts_per_core: 9}
workloads:
  b: {command: [maxwell, work, hash], budget: 30, replicas: 2, env: {A: b}}
  a: {command: [true], budget: 40, income: {per: page, amount: 1}, bid: auto}
`)
	o := f.run("up", file, "--json", "--for", "10s")
	if o.code != 0 || o.err != "" {
		t.Fatalf("got %+v", o)
	}
	var doc struct {
		Workloads []struct {
			Name     string `json:"name"`
			WorkKind string `json:"work_kind"`
		} `json:"workloads"`
		Ledger struct {
			Sum *int64 `json:"sum_ucredits"`
		} `json:"ledger"`
	}
	if err := json.Unmarshal([]byte(o.out), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Workloads) != 3 || doc.Workloads[0].Name != "b-1" || doc.Workloads[1].Name != "b-2" || doc.Workloads[2].WorkKind != "page" {
		t.Errorf("workloads %+v, want those of the file in its order", doc.Workloads)
	}
	if doc.Ledger.Sum == nil || *doc.Ledger.Sum != 0 {
		t.Error("no sum")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{self, "work", "hash"}, f.specs[0].Args); diff != "" {
		t.Errorf("maxwell is this program (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"PATH=/bin", "A=b"}, f.specs[0].Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if s := settings(f.opened[0]); s.Cores != unit.Core || s.Floor >= 0 || s.WattsPerCore != 9_000_000 {
		t.Errorf("settings %+v", s)
	}
	if !f.admitted[2].GetAuto() || f.admitted[2].GetHorizonNs() != int64(fleet.DefaultHorizon) || f.admitted[2].GetIncomeKind() != "page" {
		t.Errorf("terms %v", f.admitted[2])
	}
}

func TestUpOnPaper(t *testing.T) {
	f := newFakeMarket()
	f.story = []*v1.Event{{Kind: "broke", LeftNs: int64(2 * time.Second)}}
	f.end.Reason, f.end.ExitCode = "insolvent", 122
	o := f.run("up", writeFleet(t, "workloads: {a: {command: [sh], budget: 30}}"), "--for", "10s")
	if o.code != 0 {
		t.Fatalf("%+v", o)
	}
	got := regexp.MustCompile(`after [0-9.]+ [num]?s\b`).ReplaceAllString(o.out, "after TIME")
	golden.Check(t, "up.golden", got)
}

func TestUpPutsThePlaceBeforeARefusal(t *testing.T) {
	f := newFakeMarket()
	f.refuse = fmt.Errorf("budget: 1 $J is below twice the deposit")
	file := writeFleet(t, "workloads:\n  a: {command: [sh], budget: 1}\n")
	o := f.run("up", file)
	want := "maxwell: " + file + ":2:3: workloads.a: budget: 1 $J is below twice the deposit\n"
	if o.code != 125 || o.err != want {
		t.Errorf("got %d %q, want 125 %q", o.code, o.err, want)
	}
}

func TestUpRefusesAFileThatOthersWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "a plain user's fleet runs as himself: only root refuses it")
	}
	file := writeFleet(t, "workloads: {a: {command: [sh]}}")
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	f := newFakeMarket()
	if o := f.run("up", file); o.code != 125 || len(f.opened) != 0 || !strings.Contains(o.err, "chmod go-w") {
		t.Errorf("got %+v", o)
	}
}

func TestExamplesParse(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fleet.Parse(file, text); err != nil {
			t.Error(err)
		}
	}
}

func TestCompletions(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"ru"}, "run"},
		{[]string{"run", "--bid", ""}, "auto"},
		{[]string{"run", "--when-broke", ""}, "pause"},
		{[]string{"up", "--enforcement", ""}, "signal"},
		{[]string{"up", ""}, "yaml"},
		{[]string{"clear", ""}, "json"},
		{[]string{"run", "--max-"}, "--max-energy"},
	}
	for _, tt := range tests {
		o := newFakeMarket().run(append([]string{"__complete"}, tt.args...)...)
		if !strings.Contains(o.out, tt.want) {
			t.Errorf("completion of %v: %q holds no %q", tt.args, o.out, tt.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if o := newFakeMarket().run("completion", shell); o.code != 0 || len(o.out) < 1000 {
			t.Errorf("completion %s: exit %d, %d bytes", shell, o.code, len(o.out))
		}
	}
}
