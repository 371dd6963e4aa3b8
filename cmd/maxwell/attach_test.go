package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/golden"
)

func (s *fakeService) Attach(_ context.Context, r *v1.AttachRequest) (*v1.AttachResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	out := &v1.AttachResponse{Name: r.GetTerms().GetName(), Cgroup: "/system.slice/web.service", Enforce: r.GetEnforce()}
	if out.GetName() == "" {
		out.Name = "web"
	}
	if out.GetEnforce() == "" {
		out.Enforce = "observe"
	}
	return out, nil
}

func (s *fakeService) Detach(_ context.Context, r *v1.DetachRequest) (*v1.DetachResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	w, err := s.named(r.GetName())
	return &v1.DetachResponse{Workload: w}, err
}

func (s *fakeService) SetEnforce(_ context.Context, r *v1.SetEnforceRequest) (*v1.SetEnforceResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	out := &v1.SetEnforceResponse{Enforce: r.GetEnforce(), Workloads: 1}
	if r.GetAll() {
		out.Workloads = int64(len(s.workloads))
		return out, nil
	}
	if r.GetName() == "indexer" { // under a ceiling
		out.Enforce = "observe"
	}
	_, err := s.named(r.GetName())
	return out, err
}

// TestAttachScreens is what attach, detach and enforce print, of good and bad input,
// and how they end.
func TestAttachScreens(t *testing.T) {
	var out strings.Builder
	for _, line := range []string{
		"attach --cgroup system.slice/web.service",
		"attach --container 4f1c --enforce observe --name web",
		"attach --pid 4711 --budget 500 --enforce on",
		"attach --pid 4711 --enforce warn --json",
		"detach agent-7",
		"detach nobody",
		"enforce agent-7 observe",
		"enforce agent-7 warn",
		"enforce agent-7 on",
		"enforce indexer on",
		"enforce --all observe",
		"enforce --all on",
		"enforce --all warn --json",
		"enforce nobody on",
		"attach",
		"attach --pid 4711 --cgroup a",
		"attach --cgroup a --container 4f1c",
		"attach --pid 4711 --cgroup a --container 4f1c",
		"attach --cgroup ''",
		"attach --container ''",
		"attach --pid 0",
		"attach --pid -1",
		"attach --pid x",
		"attach --pid 99999999999",
		"attach --pid 4711 web",
		"attach --pid 4711 --enforce off",
		"attach --pid 4711 --enforce ''",
		"attach --pid 4711 --name 'a b'",
		"attach --pid 4711 --budget -5",
		"attach --pid 4711 --budget 0",
		"attach --pid 4711 --bid 0x",
		"attach --pid 4711 --bid 9x --max-bid 8x",
		"attach --pid 4711 --bid auto",
		"attach --pid 4711 --grace -1s",
		"attach --pid 4711 --when-broke sleep",
		"attach --pid 4711 --cores 0",
		"attach --pid 4711 --memory 5",
		"attach --pid 4711 --memory 4G",
		"attach --pid 4711 --pids 100",
		"attach --pid 4711 --bogus",
		"detach",
		"detach a b",
		"detach ''",
		"detach --all",
		"enforce",
		"enforce agent-7",
		"enforce observe",
		"enforce agent-7 off",
		"enforce '' on",
		"enforce agent-7 observe on",
		"enforce --all",
		"enforce --all off",
		"enforce --all agent-7 observe",
	} {
		f := newFakeMarket().crowd()
		o := f.run(words(line)...)
		fmt.Fprintf(&out, "$ maxwell %s\n%s%s[%d]\n", line, o.out, o.err, o.code)
		if strings.Count(o.out+o.err, "\n") != 1 {
			t.Errorf("%s: not one line: %q", line, o.out+o.err)
		}
		if refused := o.code != 0; refused && len(f.service.asked) > 0 && !strings.Contains(line, "nobody") {
			t.Errorf("%s asked %v", line, f.service.asked)
		}
	}
	golden.Check(t, "attach.golden", out.String())
}

// TestAttachRequests: what is asked of the market.
func TestAttachRequests(t *testing.T) {
	usual := func(change func(*v1.AdmitRequest)) *v1.AdmitRequest {
		r := &v1.AdmitRequest{BidMilli: 2000, MaxBidMilli: 8000, GraceNs: int64(10 * time.Second)}
		change(r)
		return r
	}
	for _, tt := range []struct {
		line string
		want proto.Message
	}{
		{"attach --cgroup /a/b", &v1.AttachRequest{Group: &v1.AttachRequest_Cgroup{Cgroup: "/a/b"}, Terms: usual(func(*v1.AdmitRequest) {})}},
		{"attach --container 4f1c --name web --enforce warn", &v1.AttachRequest{
			Group: &v1.AttachRequest_Container{Container: "4f1c"}, Enforce: "warn", Terms: usual(func(r *v1.AdmitRequest) { r.Name = "web" }),
		}},
		{"attach --pid 4711 --budget 500 --bid 4x --when-broke pause --enforce on", &v1.AttachRequest{
			Group: &v1.AttachRequest_Pid{Pid: 4711}, Enforce: "on",
			Terms: usual(func(r *v1.AdmitRequest) { r.BudgetUcredits, r.BidMilli, r.PauseWhenBroke = 500_000_000, 4000, true }),
		}},
		{"detach agent-7", &v1.DetachRequest{Name: "agent-7"}},
		{"enforce agent-7 on", &v1.SetEnforceRequest{Name: "agent-7", Enforce: "on"}},
		{"enforce --all observe", &v1.SetEnforceRequest{All: true, Enforce: "observe"}},
	} {
		f := newFakeMarket().crowd()
		if o := f.run(words(tt.line)...); o.code != 0 {
			t.Errorf("%s: %+v", tt.line, o)
		}
		got := f.service.asked[len(f.service.asked)-1]
		diff := cmp.Diff(tt.want, got, protocmp.Transform(), protocmp.IgnoreFields(&v1.AttachRequest{}, "request_id"),
			protocmp.IgnoreFields(&v1.DetachRequest{}, "request_id"), protocmp.IgnoreFields(&v1.SetEnforceRequest{}, "request_id"))
		if diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.line, diff)
		}
	}
}

// TestAttachOverLinesThatBreak: it happens once, whatever is lost.
func TestAttachOverLinesThatBreak(t *testing.T) {
	for _, line := range []string{"attach --pid 4711", "detach agent-7", "enforce agent-7 on", "enforce --all observe"} {
		want := newFakeMarket().crowd().run(words(line)...)
		f := newFakeMarket().crowd()
		f.service.durable = true
		f.service.breaks, f.service.away = 2, 3
		if got := f.run(words(line)...); !reflect.DeepEqual(got, want) || want.code != 0 {
			t.Errorf("%s over a line that breaks: %+v, want %+v", line, got, want)
		}
		ids := f.changes()
		if len(ids) != 3 || string(ids[0]) != string(ids[1]) || string(ids[1]) != string(ids[2]) || len(ids[0]) != 16 {
			t.Errorf("%s: ids %x, want one three times", line, ids)
		}
	}
}

func TestAttachRefused(t *testing.T) {
	for _, line := range []string{"attach --pid 4711", "detach agent-7", "enforce agent-7 on", "enforce --all observe"} {
		f := newFakeMarket().crowd()
		f.service.refuse = connect.NewError(connect.CodePermissionDenied, errors.New("this group is not yours; an admin may attach it"))
		o := f.run(words(line)...)
		if o.code != 125 || o.out != "" || strings.Count(o.err, "\n") != 1 || !strings.Contains(o.err, "this group is not yours; an admin may attach it") {
			t.Errorf("%s: %+v", line, o)
		}
	}
}

// TestObservedIsShown: who is only observed is told from who is governed, everywhere.
func TestObservedIsShown(t *testing.T) {
	f := newFakeMarket().crowd()
	at := ago(time.Hour)
	agent := f.service.workloads[0]
	agent.Enforce, agent.WouldStopReason, agent.WouldStopWallNs, agent.WouldStopStill = "observe", "insolvent", at, true
	f.service.past = []*v1.Event{
		{Workload: "agent-7", Kind: "would-stop", Reason: "insolvent", WallNs: at, WorkloadState: agent},
		{Workload: "agent-7", Kind: "broke", Reason: "insolvent", LeftNs: 1e9, WallNs: at, WorkloadState: &v1.Workload{Name: "agent-7", Enforce: "warn"}},
	}
	for line, want := range map[string][]string{
		"ps":        {"observed", "WOULD HAVE STOPPED", "11:00:00 insolvent"},
		"ps --json": {`"enforce":"observe","would_stop_reason":"insolvent"`, `"would_stop_still":true`, `"enforce":"on"`},
		"events":    {"agent-7 would have been stopped: insolvent", "agent-7 was told that it is broke"},
	} {
		o := f.run(words(line)...)
		for _, text := range want {
			if !strings.Contains(o.out, text) {
				t.Errorf("%s does not say %q:\n%s", line, text, o.out)
			}
		}
		if strings.Contains(o.out, "broke and paused") {
			t.Errorf("%s says that something was done:\n%s", line, o.out)
		}
	}
	for _, tt := range []struct {
		kind, enforce string
		told          bool
	}{
		{"would-stop", "observe", false}, {"would-stop", "warn", true}, {"broke", "warn", false}, {"paused", "observe", false}, {"broke", "", true},
	} {
		n, ok := noticeOf(&v1.Event{Workload: "agent-7", Kind: tt.kind, Reason: "insolvent", WorkloadState: &v1.Workload{Enforce: tt.enforce}})
		if ok != tt.told {
			t.Errorf("%s of one with %q: told %v, %q", tt.kind, tt.enforce, ok, n.Line())
		}
	}
}
