package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/api"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/internal/config"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
)

// load is how much a daemon gets to do.
type load struct {
	workloads int // a tenth of them runnable with changing bids, the others asleep
	clients   int // without sessions, half of them another user's; each calls 2 to 5 times a second
	window    time.Duration
	storm     time.Duration // of funding as fast as it is acknowledged, after the window; 0 = none
}

// strain is what a load came to.
type strain struct {
	ticks                int
	late                 []time.Duration // of the ticks in the window, sorted
	epoch                time.Duration
	answers, errors      int64
	slow                 []time.Duration // of the answers, sorted
	first                error
	sum                  int64
	postings             float64 // per second of the window, records
	cpu                  float64 // of the daemon, cores
	funded, raw, posting float64 // in the storm, per second: acknowledgements, bare flushes, records
}

// TestDaemonLoad: a daemon under a small load answers every call, and its books sum
// to zero. How fast it is, is for BenchmarkDaemonLoad.
func TestDaemonLoad(t *testing.T) {
	l := load{workloads: 200, clients: 20, window: 10 * time.Second, storm: time.Second}
	if testing.Short() {
		l.window = 3 * time.Second
	}
	s := runLoad(t, l)
	if s.errors > 0 {
		t.Errorf("%d of %d calls failed, the first: %v", s.errors, s.answers+s.errors, s.first)
	}
	if s.sum != 0 {
		t.Errorf("the books sum to %d", s.sum)
	}
	if s.answers < 50 || s.ticks < 10 || s.postings <= 0 || s.funded <= 0 {
		t.Errorf("nothing happened: %d answers, %d ticks, %.0f postings/s, %.0f funded/s", s.answers, s.ticks, s.postings, s.funded)
	}
}

// loadFor is how long BenchmarkDaemonLoad lasts; -short makes it five seconds.
var loadFor = flag.Duration("loadfor", time.Minute, "length of BenchmarkDaemonLoad")

// BenchmarkDaemonLoad is a daemon with 1,000 workloads and 200 clients for -loadfor,
// whatever -benchtime says: give -benchtime 1x. Lateness
// is of the ticks in that time; the figures of the journal come from the seconds of
// funding after it, beside bare writes and flushes in the same directory in turn
// with them.
func BenchmarkDaemonLoad(b *testing.B) {
	l := load{workloads: 1000, clients: 200, window: *loadFor, storm: 5 * time.Second}
	if testing.Short() {
		l.window, l.storm = 5*time.Second, 2*time.Second
	}
	for b.Loop() {
		s := runLoad(b, l)
		ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
		for _, p := range []struct {
			name string
			at   float64
		}{{"p50", .5}, {"p99", .99}, {"p99.9", .999}, {"p100", 1}} {
			b.ReportMetric(ms(quantile(s.late, p.at)), "ms-late-"+p.name)
		}
		b.ReportMetric(ms(s.epoch), "ms-epoch")
		b.ReportMetric(ms(quantile(s.slow, .99)), "ms-answer-p99")
		b.ReportMetric(float64(s.answers)/l.window.Seconds(), "answers/s")
		b.ReportMetric(float64(s.errors), "errors")
		b.ReportMetric(s.postings, "postings/s")
		b.ReportMetric(100*s.cpu, "%core")
		b.ReportMetric(s.funded, "durable-funds/s")
		b.ReportMetric(s.raw, "fdatasync/s")
		b.ReportMetric(s.funded/s.raw, "funds/fdatasync")
		b.ReportMetric(s.posting/s.raw, "postings/fdatasync")
		if s.first != nil {
			b.Logf("the first error: %v", s.first)
		}
	}
}

// BenchmarkIdleDaemon is a daemon in which nobody is, by the second: what it takes
// then, and how often it wakes.
func BenchmarkIdleDaemon(b *testing.B) {
	d := beginDaemon(b)
	time.Sleep(time.Second) // what it does once, at its start
	before, woke, start := processTime(b, d.pid), wakes(b, d.pid), time.Now()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	wall := time.Since(start)
	b.ReportMetric(100*float64(processTime(b, d.pid)-before)/float64(wall), "%core")
	b.ReportMetric(float64(wakes(b, d.pid)-woke)/wall.Seconds(), "wakes/s")
	d.end(b)
}

// wakes is how often the threads of a process gave up their processor to wait.
func wakes(tb testing.TB, pid int) (sum int64) {
	tb.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range tasks {
		text, _ := os.ReadFile(name)
		n, _ := host.Key(bytes.ReplaceAll(text, []byte(":\t"), []byte(" ")), "voluntary_ctxt_switches")
		sum += int64(n)
	}
	return sum
}

// quantile is the p-th of a sorted list.
func quantile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[min(len(list)-1, int(p*float64(len(list))))]
}

// runLoad puts a daemon in a process of its own under a load.
func runLoad(tb testing.TB, l load) *strain {
	began := time.Now()
	stage := func(what string) { tb.Logf("%6.1f s: %s", time.Since(began).Seconds(), what) }
	d := beginDaemon(tb)
	session := d.join(tb)
	stage("daemon")
	populate(tb, session, l.workloads)
	stage("populated")
	out := &strain{}
	from, before := d.look(tb), processTime(tb, d.pid)
	start := time.Now()
	d.clients(tb, l, out)
	wall := time.Since(start)
	to := d.look(tb)
	out.cpu = float64(processTime(tb, d.pid)-before) / float64(wall)
	out.postings = float64(to.head-from.head) / wall.Seconds()
	out.epoch = time.Duration(to.snap.GetNode().GetEpochUs()) * time.Microsecond
	if l.storm > 0 {
		d.storm(tb, l.storm, out)
	}
	stage("loaded")
	out.sum = d.look(tb).snap.GetLedger().GetSumUcredits()
	if _, err := session.Leave(context.Background()); err != nil {
		tb.Error(err)
	}
	stage("left")
	d.end(tb)
	stage("ended")
	for _, e := range d.epochs(tb) {
		if e.Epoch > uint64(from.snap.GetNode().GetEpochs()) && e.Epoch <= uint64(to.snap.GetNode().GetEpochs()) {
			out.ticks++
			out.late = append(out.late, max(0, time.Duration(e.LateNS))) // one that was brought forward is not late
		}
	}
	slices.Sort(out.late)
	slices.Sort(out.slow)
	return out
}

// daemonVerb makes the test binary a daemon: daemon DIR.
const daemonVerb = "daemon"

// daemonHere is that process. A trace of its epochs is in the directory, in memory:
// the file is written on the loop's thread.
func daemonHere(dir string) int {
	ossignal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := ossignal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	pipe := os.NewFile(ReadyFD, "ready")
	syscall.CloseOnExec(ReadyFD)
	s := Settings{Enforce: "cgroup", Trace: os.Getenv("MAXWELL_LOAD_TRACE"), Daemon: &Daemon{
		Config: &config.Config{}, Journal: filepath.Join(dir, "journal.sqlite"), Socket: filepath.Join(dir, SocketName),
		Access: api.Access{Everybody: true},
	}}
	err := Serve(ctx, dir, s, func(err error) {
		if err != nil {
			fmt.Fprintln(pipe, err)
		} else {
			fmt.Fprintln(pipe, "ready")
		}
		_ = pipe.Close()
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// hostedDaemon is a daemon in a process of its own.
type hostedDaemon struct {
	dir, trace string
	pid        int
	cmd        *exec.Cmd
	log        *os.File
}

// beginDaemon starts one. Its directory is on the disk that tests use.
func beginDaemon(tb testing.TB) *hostedDaemon {
	tb.Helper()
	if os.Geteuid() != 0 {
		hosttest.Skip(tb, "root", "a daemon governs a machine")
	}
	dir, err := os.MkdirTemp("", "mxload-") // a socket's path is at most 107 bytes
	if err != nil {
		tb.Fatal(err)
	}
	d := &hostedDaemon{dir: dir, trace: filepath.Join(dir, "trace")}
	if shm, err := os.MkdirTemp("/dev/shm", "mxload-"); err == nil {
		d.trace = filepath.Join(shm, "trace")
		tb.Cleanup(func() { _ = os.RemoveAll(shm) })
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	if d.log, err = os.Create(filepath.Join(dir, LogName)); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = d.log.Close() })
	ready, theirs, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	d.cmd = exec.Command("/proc/self/exe", daemonVerb, dir)
	d.cmd.Env = append(os.Environ(), "MAXWELL_LOAD_TRACE="+d.trace)
	d.cmd.Stderr, d.cmd.ExtraFiles, d.cmd.SysProcAttr = d.log, []*os.File{theirs}, &syscall.SysProcAttr{Setsid: true}
	err = d.cmd.Start()
	_ = theirs.Close()
	if err != nil {
		tb.Fatal(err)
	}
	d.pid = d.cmd.Process.Pid
	said, _ := bufio.NewReader(ready).ReadString('\n')
	_ = ready.Close()
	if said = strings.TrimSpace(said); said != "ready" {
		_ = d.cmd.Wait()
		if strings.Contains(said, "held by a living daemon") || strings.Contains(said, "enforce cgroup") {
			hosttest.Skip(tb, host.FeatureCgroupCreate, said)
		}
		tb.Fatalf("no daemon: %s%s", said, logOf(dir))
	}
	tb.Cleanup(func() { // where the test failed before it was ended
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Signal(syscall.SIGTERM)
			_ = d.cmd.Wait()
		}
		if tb.Failed() {
			tb.Log(logOf(dir))
		}
	})
	return d
}

// end stops the daemon. No workload lives: none is left behind.
func (d *hostedDaemon) end(tb testing.TB) {
	tb.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		tb.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		tb.Errorf("the daemon ended with %v%s", err, logOf(d.dir))
	}
}

func (d *hostedDaemon) socket() string { return filepath.Join(d.dir, SocketName) }

func (d *hostedDaemon) join(tb testing.TB) *Session {
	tb.Helper()
	s, err := Join(tb.Context(), JoinOptions{Dir: d.dir, Daemon: d.socket(), Client: "load"})
	if err != nil {
		tb.Fatalf("join: %v%s", err, logOf(d.dir))
	}
	tb.Cleanup(func() { _, _ = s.Leave(context.Background()) })
	go func() {
		for range s.Events() {
		}
	}()
	return s
}

// populate starts n workloads. The market bids for them: every runnable one's bid
// changes every epoch.
func populate(tb testing.TB, s *Session, n int) {
	tb.Helper()
	begin := func(name string, args ...string) {
		_, err := s.Start(tb.Context(), Workload{
			Terms: &v1.AdmitRequest{
				Name: name, Auto: true, BudgetUcredits: 1e9 + rand.Int64N(1e10), HorizonNs: int64(time.Hour),
			},
			Spec: launch.Spec{Args: args},
		})
		if err != nil {
			tb.Errorf("start %s: %v", name, err)
		}
	}
	// The sleepers first: under a hundred hogs a start waits its turn.
	side(n-n/10, func(i int) { begin(fmt.Sprint("sleeper", i), "sleep", "3600") })
	side(n/10, func(i int) { begin(fmt.Sprint("hog", i), "sh", "-c", "while :; do :; done") })
	if tb.Failed() {
		tb.FailNow()
	}
}

// side runs f for 0 to n-1, sixteen at a time: what they write is flushed together.
func side(n int, f func(i int)) {
	var next atomic.Int64
	var crew sync.WaitGroup
	for range 16 {
		crew.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i))
			}
		})
	}
	crew.Wait()
}

// sight is the market and its journal at one moment.
type sight struct {
	snap *v1.Snapshot
	head uint64 // of the journal
}

func (d *hostedDaemon) look(tb testing.TB) sight {
	tb.Helper()
	r, err := d.line(0).Snapshot(tb.Context(), &v1.SnapshotRequest{})
	if err != nil {
		tb.Fatal(err)
	}
	return sight{r.GetSnapshot(), d.head(tb)}
}

func (d *hostedDaemon) head(tb testing.TB) uint64 {
	tb.Helper()
	j, err := journal.Open(filepath.Join(d.dir, "journal.sqlite"))
	if err != nil {
		tb.Fatal(err)
	}
	defer j.Close()
	head, err := j.Head()
	if err != nil {
		tb.Fatal(err)
	}
	return head.Seq
}

// epochs reads the trace of a daemon that has ended.
func (d *hostedDaemon) epochs(tb testing.TB) (list []TraceEpoch) {
	tb.Helper()
	f, err := os.Open(d.trace)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	for in := json.NewDecoder(f); ; {
		var e TraceEpoch
		if err := in.Decode(&e); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			tb.Fatal(err)
		}
		e.Wallets = nil
		list = append(list, e)
	}
}

// line is a connection of its own, of a user.
func (d *hostedDaemon) line(uid int) maxwellv1connect.MarketServiceClient {
	tr := transport(d.socket())
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return dialAs(uid, d.socket()) }
	tr.IdleConnTimeout = 10 * time.Second
	return maxwellv1connect.NewMarketServiceClient(&http.Client{Transport: tr}, "http://market", connect.WithAcceptCompression("gzip", nil, nil))
}

// dialAs connects as another user: the kernel notes whose thread it is that does.
func dialAs(uid int, socket string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := threadUID(uid); err != nil {
		return nil, err
	}
	c, err := net.Dial("unix", socket)
	return c, errors.Join(err, threadUID(0))
}

// threadUID sets the effective user of this thread alone.
func threadUID(uid int) error {
	keep := ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); e != 0 {
		return e
	}
	return nil
}

// anotherUID is a user who has no workload.
const anotherUID = 65534

// clients lets so many call for the window.
func (d *hostedDaemon) clients(tb testing.TB, l load, out *strain) {
	ctx, cancel := context.WithTimeout(tb.Context(), l.window)
	defer cancel()
	var mu sync.Mutex
	var crew sync.WaitGroup
	for i := range l.clients {
		c := &caller{rpc: d.line(i % 2 * anotherUID), other: i%2 == 1, rng: rand.New(rand.NewPCG(uint64(i), 1)), workloads: l.workloads}
		if i%10 == 0 {
			crew.Go(func() { c.follow(ctx) })
		}
		crew.Go(func() {
			c.run(ctx)
			mu.Lock()
			defer mu.Unlock()
			out.answers += int64(len(c.slow))
			out.slow = append(out.slow, c.slow...)
			out.errors += c.failed
			if out.first == nil {
				out.first = c.first
			}
		})
	}
	crew.Wait()
}

// caller is a client without a session.
type caller struct {
	rpc       maxwellv1connect.MarketServiceClient
	other     bool // the user of none of the workloads
	rng       *rand.Rand
	workloads int
	slow      []time.Duration
	failed    int64
	first     error
}

// run calls until ctx ends.
func (c *caller) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(200*time.Millisecond + time.Duration(c.rng.Int64N(int64(300*time.Millisecond)))):
		}
		start := time.Now()
		err := c.call(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			c.slow = append(c.slow, time.Since(start))
		default:
			c.failed++
			if c.first == nil {
				c.first = err
			}
		}
	}
}

// call asks for one thing or another.
func (c *caller) call(ctx context.Context) error {
	switch n := c.rng.IntN(100); {
	case n < 35:
		_, err := c.rpc.Self(ctx, &v1.SelfRequest{})
		return err
	case n < 65:
		name := fmt.Sprint("hog", c.rng.IntN(c.workloads/10))
		_, err := c.rpc.Explain(ctx, &v1.ExplainRequest{Name: name})
		if c.other && connect.CodeOf(err) == connect.CodeNotFound {
			return nil // as it should be
		}
		return err
	case n < 85:
		stream, err := c.rpc.Watch(ctx, &v1.WatchRequest{SinceWallNs: time.Now().Add(-time.Second).UnixNano()})
		if err != nil {
			return err
		}
		for stream.Receive() {
		}
		return errors.Join(stream.Err(), stream.Close())
	default:
		r, err := c.rpc.Snapshot(ctx, &v1.SnapshotRequest{})
		if err != nil {
			return err
		}
		if sum := r.GetSnapshot().GetLedger().GetSumUcredits(); sum != 0 {
			return fmt.Errorf("the books sum to %d", sum)
		}
		if have := len(r.GetSnapshot().GetWorkloads()); c.other != (have == 0) {
			return fmt.Errorf("other user %v, sees %d workloads", c.other, have)
		}
		return nil
	}
}

// follow keeps a stream of events open.
func (c *caller) follow(ctx context.Context) {
	stream, err := c.rpc.Watch(ctx, &v1.WatchRequest{Follow: true})
	if err != nil {
		return
	}
	for stream.Receive() {
	}
	_ = stream.Close()
}

// storm funds a workload from many clients, each as fast as it is acknowledged, in
// turn with bare writes and flushes of the size that a posting has in the journal.
func (d *hostedDaemon) storm(tb testing.TB, long time.Duration, out *strain) {
	const rounds, funders = 4, 64
	raw, err := os.Create(filepath.Join(d.dir, "raw"))
	if err != nil {
		tb.Fatal(err)
	}
	defer raw.Close()
	lines := make([]maxwellv1connect.MarketServiceClient, funders)
	for i := range lines {
		lines[i] = d.line(0)
	}
	var acked atomic.Int64
	var flushed int
	var funding, flushing time.Duration
	head := d.head(tb)
	for range rounds {
		start := time.Now()
		var crew sync.WaitGroup
		for i, c := range lines {
			crew.Go(func() {
				for time.Since(start) < long/rounds {
					_, err := c.Fund(tb.Context(), &v1.FundRequest{Name: fmt.Sprint("sleeper", i), AmountUcredits: 1, RequestId: drawID()})
					if err != nil {
						tb.Errorf("fund: %v", err)
						return
					}
					acked.Add(1)
				}
			})
		}
		crew.Wait()
		funding += time.Since(start)
		block := make([]byte, 300)
		for start = time.Now(); time.Since(start) < long/rounds/4; flushed++ {
			if _, err := raw.Write(block); err != nil {
				tb.Fatal(err)
			}
			if err := unix.Fdatasync(int(raw.Fd())); err != nil {
				tb.Fatal(err)
			}
		}
		flushing += time.Since(start)
	}
	out.funded = float64(acked.Load()) / funding.Seconds()
	out.posting = float64(d.head(tb)-head) / funding.Seconds()
	out.raw = float64(flushed) / flushing.Seconds()
}
