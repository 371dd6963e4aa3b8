package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/internal/config"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/meter"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// ghosts is an enforcement of nothing, and a meter of it: everybody runs a little all
// the time, and is gone when its end was told. What a market keeps of them is its own.
type ghosts struct {
	runs []unit.CoreTime // by slot; -1 = free
}

const ghostRuns = unit.CoreTime(time.Millisecond) // between two readings

func (g *ghosts) Open(int, string, dispatch.Limits) (dispatch.Group, error) { return ghost{}, nil }
func (g *ghosts) Apply(time.Duration, []dispatch.Share) error               { return nil }
func (g *ghosts) Describe() dispatch.Description                            { return dispatch.Description{} }
func (g *ghosts) Close() error                                              { return nil }

type ghost struct{}

func (ghost) Placement() dispatch.Placement        { return dispatch.Placement{} }
func (ghost) Ref() host.CgroupRef                  { return host.CgroupRef{} }
func (ghost) Freeze() error                        { return nil }
func (ghost) Thaw() error                          { return nil }
func (ghost) Lane(bool) error                      { return nil }
func (ghost) Signal(syscall.Signal) error          { return nil }
func (ghost) Kill() error                          { return nil }
func (ghost) Populated() (bool, error)             { return false, nil }
func (ghost) Counters() (dispatch.Counters, error) { return dispatch.Counters{}, nil }
func (ghost) PeakMemory() (unit.Bytes, error)      { return 1 << 20, nil }
func (ghost) Remove() error                        { return nil }

// ghostMeter is the ghosts' meter.
type ghostMeter struct{ *ghosts }

func (g ghostMeter) Add(slot int, _ host.CgroupRef) error {
	for slot >= len(g.runs) {
		g.runs = append(g.runs, -1)
	}
	g.runs[slot] = 0
	return nil
}

func (g ghostMeter) Remove(slot int) (meter.Sample, error) {
	s, err := g.ReadOne(slot)
	g.runs[slot] = -1
	return s, err
}

func (g ghostMeter) Read(dst []meter.Sample) (meter.Node, error) {
	clear(dst)
	for slot := range g.runs {
		if g.runs[slot] < 0 || slot >= len(dst) {
			continue
		}
		g.runs[slot] += ghostRuns
		dst[slot].Run = g.runs[slot]
	}
	return meter.Node{}, nil
}

func (g ghostMeter) ReadOne(slot int) (meter.Sample, error) {
	return meter.Sample{Run: g.runs[slot]}, nil
}
func (g ghostMeter) Describe() meter.Description { return meter.Description{Kind: meter.Files} }
func (g ghostMeter) Close() error                { return nil }

// nursery is a daemon's market of ghosts in this process, of which a test sees all.
type nursery struct {
	m     *Market
	rpc   maxwellv1connect.MarketServiceClient
	token string
	born  atomic.Int64
}

func openNursery(t *testing.T) *nursery {
	t.Helper()
	dir, err := os.MkdirTemp("", "mxnurse-") // a socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	lock, err := takeLock(filepath.Join(dir, LockName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Release() })
	m, err := open(dir, Settings{Enforce: "signal", Log: 8, Daemon: &Daemon{
		Config: &config.Config{}, Journal: filepath.Join(dir, "journal.sqlite"),
	}}, lock.File())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.enforcer.Close(), m.meter.Close()); err != nil {
		t.Fatal(err)
	}
	g := &ghosts{}
	m.enforcer, m.meter, m.duty = g, &ghostMeter{g}, false
	m.start()
	servers, err := m.listen(m.socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	tr := transport(m.socket(dir))
	n := &nursery{m: m, rpc: maxwellv1connect.NewMarketServiceClient(&http.Client{Transport: tr}, "http://market",
		connect.WithAcceptCompression("gzip", nil, nil))}
	life, leave := context.WithCancel(context.Background())
	var crew sync.WaitGroup
	stream, err := n.rpc.Join(life, &v1.JoinRequest{Client: "nursery"})
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	n.token = stream.Msg().GetSession().GetToken()
	crew.Go(func() {
		for stream.Receive() {
		}
	})
	t.Cleanup(func() {
		leave()
		crew.Wait()
		tr.CloseIdleConnections()
		m.handOver()
		bye, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, s := range servers {
			if err := s.Shutdown(bye); err != nil {
				t.Errorf("shut down: %v", err)
			}
		}
	})
	return n
}

// lives lets so many more come, be funded, and end, a hundred at a time.
func (n *nursery) lives(t *testing.T, count int) {
	t.Helper()
	var left atomic.Int64
	left.Store(int64(count))
	var crew sync.WaitGroup
	for range 100 {
		crew.Go(func() {
			for left.Add(-1) >= 0 && !t.Failed() {
				if err := n.life(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	crew.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func (n *nursery) life(ctx context.Context) error {
	name := fmt.Sprint("mayfly", n.born.Add(1))
	_, err := n.rpc.Admit(ctx, &v1.AdmitRequest{Token: n.token, Name: name, BudgetUcredits: 1e9, Command: []string{"true"}, RequestId: drawID()})
	if err != nil {
		return fmt.Errorf("admit %s: %w", name, err)
	}
	if _, err := n.rpc.Started(ctx, &v1.StartedRequest{Token: n.token, Name: name}); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if _, err := n.rpc.Report(ctx, &v1.ReportRequest{Token: n.token, Name: name, Kind: "lap", Units: 1, Batch: 1}); err != nil {
		return fmt.Errorf("report %s: %w", name, err)
	}
	if _, err := n.rpc.Exited(ctx, &v1.ExitedRequest{Token: n.token, Name: name}); err != nil {
		return fmt.Errorf("end %s: %w", name, err)
	}
	return nil
}

// TestNothingIsLeftOfTheDead: after lives that ended a market keeps their receipts,
// events and answers, each up to a bound, and nothing else.
func TestNothingIsLeftOfTheDead(t *testing.T) {
	const lives, before = 2000, 500
	n := openNursery(t)
	n.lives(t, before)
	threads, heap := runtime.NumGoroutine(), held()
	n.lives(t, lives-before)
	each := (held() - heap) / (lives - before)
	m := n.m
	m.loop.do(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.chronicle.mu.Lock()
		defer m.chronicle.mu.Unlock()
		for what, have := range map[string]int{
			"names": len(m.names), "rooms": len(m.rooms), "serials": len(m.loop.serials), "gates": len(m.loop.gates),
			"living of the demon": m.loop.demon.Alive(), "living of the session": len(m.session[n.token].living()),
			"saved of the demon": len(m.loop.demon.Saves()), "entries of the demon": len(m.loop.demon.Entries()),
		} {
			if have != 0 {
				t.Errorf("%d %s are left", have, what)
			}
		}
		for what, bound := range map[string][2]int{
			"slots":     {len(m.loop.members), 2 * 100},
			"events":    {len(m.chronicle.events), 2 * lives},
			"dead":      {len(m.chronicle.dead), lives},
			"answers":   {len(m.answers.known), lives},
			"of guests": {len(m.guests.events), 0},
		} {
			if bound[0] > bound[1] {
				t.Errorf("%d %s, want at most %d", bound[0], what, bound[1])
			}
		}
	})
	for range 100 { // those of the last calls end by and by
		if runtime.NumGoroutine() <= threads+20 {
			break
		}
		runtime.Gosched()
	}
	if now := runtime.NumGoroutine(); now > threads+20 {
		t.Errorf("%d goroutines, %d before", now, threads)
	}
	// What is remembered of a life until the bounds are reached; 6 KB when this was written.
	if each > 16<<10 {
		t.Errorf("%d bytes are kept of each life", each)
	}
	t.Logf("%d bytes a life", each)
}

// TestMemory is the whole of it: the second fifty thousand of a hundred thousand
// lives takes no more memory than the first did.
func TestMemory(t *testing.T) {
	if os.Getenv("MAXWELL_LONG") == "" {
		t.Log("only with MAXWELL_LONG set: 100,000 lives take minutes")
		return
	}
	const half = 50_000
	n := openNursery(t)
	began := time.Now()
	say := func() int64 {
		rss := resident(t)
		t.Logf("%6d lives, %4.0f s: resident %d KB, heap %d KB", n.born.Load(), time.Since(began).Seconds(), rss>>10, held()>>10)
		return rss
	}
	step := func() (rss int64) {
		for range 5 {
			n.lives(t, half/5)
			rss = say()
		}
		return rss
	}
	say()
	first := step()
	second := step()
	if float64(second) > 1.05*float64(first) {
		t.Errorf("resident after the first half %d, after the second %d: %.3f times", first, second, float64(second)/float64(first))
	}
}

// held is what the heap holds after a collection.
func held() int64 {
	runtime.GC()
	runtime.GC() // what the first one found finalizers of
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// resident is the process's resident memory with what the runtime holds back given
// to the kernel.
func resident(t *testing.T) int64 {
	t.Helper()
	held()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// TestLateLooksDoNotMeet: whoever is connected gets its answer after the loop's end,
// and the demon takes notes while it is looked at.
func TestLateLooksDoNotMeet(t *testing.T) {
	n := openNursery(t)
	m := n.m
	for i := range 20 {
		if _, err := n.rpc.Admit(t.Context(), &v1.AdmitRequest{Token: n.token, Name: fmt.Sprint("job", i), BudgetUcredits: 1e9, IncomeUcredits: 1e6}); err != nil {
			t.Fatal(err)
		}
	}
	m.mu.Lock()
	own := m.session[n.token]
	m.mu.Unlock()
	m.handOver()
	for _, mem := range own.living() {
		m.loop.demon.Report(mem.slot, "", 1) // it is not in the books yet
	}
	var crew sync.WaitGroup
	for range 20 {
		crew.Go(func() {
			if got := len(service{m: m}.sessionSeen(actor{admin: true}, own).GetWorkloads()); got != 20 {
				t.Errorf("%d workloads, want 20", got)
			}
		})
		crew.Go(func() {
			m.withDeparted(m.view().GetLedger())
		})
	}
	crew.Wait()
}
