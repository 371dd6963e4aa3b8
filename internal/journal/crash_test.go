package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// diary writes batches of which it can be told later whether all of each is there:
// one document says at which record its batch ended, three others what the last
// three batches were.
type diary struct {
	novel   *novel
	pages   int // that a batch tells
	batches int
	seq     uint64 // of the last record
}

func (d *diary) next() Batch {
	for range d.pages {
		d.novel.page()
	}
	b := Batch{Entries: d.novel.take()}
	d.batches++
	d.seq += uint64(len(b.Entries))
	b.Put = append(b.Put, Document{Kind: "workload", Key: "w", Body: fmt.Appendf(nil, "%d %d", d.batches, d.seq)}, diaryEvent(d.batches))
	if d.batches > 3 {
		b.Drop = []Ref{{"event", strconv.Itoa(d.batches - 3)}}
	}
	return b
}

// diaryEvent is the document of a batch, from a few bytes to a few pages long.
func diaryEvent(batch int) Document {
	return Document{
		Kind: "event", Key: strconv.Itoa(batch), UID: uint32(batch), Wall: time.Unix(int64(batch), 0).UTC(),
		Body: bytes.Repeat([]byte{byte(batch)}, 1+batch*977%9000),
	}
}

// checkDiary reads what a diary has written: how many batches are there. An error
// says that the chain does not hold or that a part of one is missing.
func checkDiary(t testing.TB, s Store) (batches int, err error) {
	t.Helper()
	r, err := Verify(s)
	if err != nil {
		return 0, err
	}
	var seq uint64
	for d, err := range s.Documents(Query{Kind: "workload", Key: "w"}) {
		if err != nil {
			return 0, err
		}
		if _, err := fmt.Sscan(string(d.Body), &batches, &seq); err != nil {
			return 0, err
		}
	}
	if seq != r.Head.Seq && (seq != r.Origin.Seq || r.Head.Seq != seq+1) { // but for books that were brought forward
		return batches, fmt.Errorf("batch %d ended at record %d, the journal ends at %d", batches, seq, r.Head.Seq)
	}
	events := gather(t, s.Documents(Query{Kind: "event"}))
	if want := min(3, batches); len(events) != want {
		return batches, fmt.Errorf("after batch %d, %d events, want %d", batches, len(events), want)
	}
	for i, have := range events {
		want := diaryEvent(batches - len(events) + 1 + i)
		if have.Key != want.Key || have.UID != want.UID || !have.Wall.Equal(want.Wall) || !bytes.Equal(have.Body, want.Body) {
			return batches, fmt.Errorf("after batch %d, event %s of %d with %d bytes, want %s whole",
				batches, have.Key, have.UID, len(have.Body), want.Key)
		}
	}
	return batches, nil
}

// TestFull: on a full disk nothing of a batch is there, what was acknowledged is,
// and the journal goes on when there is room again.
func TestFull(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.sqlite")
	s, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	room := func(pages int) {
		if _, err := s.writer.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	d := &diary{novel: newNovel(5), pages: 20}
	refused := 0
	for pages := 60; refused < 5; pages += 30 { // of 4 KiB
		room(pages)
		for {
			before := d.batches
			b := d.next()
			acknowledged, _ := s.Head()
			head, err := s.Append(time.Now(), b)
			if err == nil {
				continue
			}
			if refused++; !errors.Is(err, ErrFull) || head != acknowledged {
				t.Fatalf("full: head %v, %v; want %v, %v", head, err, acknowledged, ErrFull)
			}
			if n, err := checkDiary(t, s); err != nil || n != before {
				t.Errorf("after a refusal %d batches are there, %v; want %d", n, err, before)
			}
			if head, _ := s.Head(); head != acknowledged {
				t.Errorf("after a refusal the head is %v, want %v", head, acknowledged)
			}
			room(100_000)
			if _, err := s.Append(time.Now(), b); err != nil {
				t.Fatalf("with room again: %v", err)
			}
			if n, err := checkDiary(t, s); err != nil || n != d.batches {
				t.Errorf("with room again %d batches are there, %v; want %d", n, err, d.batches)
			}
			break
		}
	}
}

// writerVariable makes the test binary a writer that is going to be killed; with the
// other it kills itself at that step of its second rotation.
const (
	writerVariable = "MAXWELL_TEST_JOURNAL"
	stepVariable   = "MAXWELL_TEST_STEP"
)

// rotateEvery is how many batches such a writer keeps in a file.
const rotateEvery = 5

// TestMain runs the writer when asked to: it appends for ever, and says after
// each batch which one and which record is acknowledged.
func TestMain(m *testing.M) {
	path := os.Getenv(writerVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	s, err := Create(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	d := &diary{novel: newNovel(uint64(os.Getpid())), pages: 8}
	if head, _ := s.Head(); head.Seq > 0 {
		fmt.Println("not empty")
		os.Exit(1)
	}
	for {
		head, err := s.Append(time.Now(), d.next())
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(d.batches, head.Seq, head.Hash)
		if d.batches%rotateEvery > 0 {
			continue
		}
		if step := os.Getenv(stepVariable); step != "" && d.batches > rotateEvery {
			s.reached = func(here string) {
				if here == step {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				}
			}
		}
		if head, err = s.Rotate(time.Now(), d.novel.books.Books()); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		d.seq++
		fmt.Println(d.batches, head.Seq, head.Hash)
	}
}

// TestKilled kills writers at moments that nobody chose, mid-commit included:
// whatever they had acknowledged is there, each batch with all its entries and
// documents or with none, and it verifies.
func TestKilled(t *testing.T) {
	t.Parallel()
	const rounds = 25
	dir := t.TempDir()
	for round := range rounds {
		path := filepath.Join(dir, strconv.Itoa(round))
		ctx, kill := context.WithCancel(t.Context())
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), writerVariable+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, last := bufio.NewScanner(out), ""
		for n := 0; lines.Scan(); n++ {
			last = lines.Text()
			if n == round { // then it is somewhere in its next batches
				kill()
			}
		}
		_ = cmd.Wait()
		kill()
		var batches int
		var acknowledged uint64
		var hash string
		if _, err := fmt.Sscan(last, &batches, &acknowledged, &hash); err != nil {
			t.Fatalf("the writer said %q", last)
		}
		s, err := Create(path) // a writer again: nothing of the dead one is in the way
		if err != nil {
			t.Fatal(err)
		}
		if n, err := checkDiary(t, s); err != nil || n < batches {
			t.Errorf("round %d: %d batches, %v; %d were acknowledged", round, n, err, batches)
		}
		oneChain(t, path, acknowledged, hash)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// oneChain holds that the files of a journal are one chain from record 1, with a record
// that was acknowledged, and nothing beside them.
func oneChain(t *testing.T, path string, acknowledged uint64, hash string) {
	t.Helper()
	sum, err := VerifySeries(path, func() Bearer { return ledger.New(ledger.Config{}) })
	if err != nil || sum.Missing > 0 {
		t.Fatalf("%d files, %d records missing, %v", sum.Files, sum.Missing, err)
	}
	closed, err := closedFiles(path)
	if err != nil || sum.Files != len(closed)+1 {
		t.Fatalf("%d files were verified, %d are closed, %v", sum.Files, len(closed), err)
	}
	if left, _ := filepath.Glob(path + nextSuffix + "*"); left != nil {
		t.Errorf("left: %v", left)
	}
	for i, name := range append(closed, closedFile{path: path}) {
		s, err := Open(name.path)
		if err != nil {
			t.Fatal(err)
		}
		list := read(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if i < len(closed) && (list[0].Seq != name.first || list[len(list)-1].Seq != name.last) {
			t.Errorf("%s has the records %d to %d", name.path, list[0].Seq, list[len(list)-1].Seq)
		}
		if slices.ContainsFunc(list, func(r Record) bool { return r.Seq == acknowledged && r.Hash.String() == hash }) {
			return
		}
	}
	t.Errorf("no record %d with the hash that was acknowledged", acknowledged)
}

// TestKilledWhileRotating kills a writer at each step of going on in a new file: there
// is one chain, with all that was acknowledged, and it goes on.
func TestKilledWhileRotating(t *testing.T) {
	t.Parallel()
	for i, step := range []string{"half", "begun", "alone", "linked", "renamed"} {
		t.Run(step, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.sqlite")
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), writerVariable+"="+path, stepVariable+"="+step)
			out, err := cmd.Output()
			if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%v: %s", err, out)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			var batches int
			var acknowledged uint64
			var hash string
			if _, err := fmt.Sscan(lines[len(lines)-1], &batches, &acknowledged, &hash); err != nil {
				t.Fatal(err)
			}
			if r, err := Open(path); err != nil { // somebody who only reads, before it is cleared up
				t.Fatal(err)
			} else if n, err := checkDiary(t, r); err != nil || n != batches {
				t.Errorf("read as it was left: %d batches, %v; want %d", n, err, batches)
			} else if err := r.Close(); err != nil {
				t.Error(err)
			}
			s, err := Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if n, err := checkDiary(t, s); err != nil || n != batches {
				t.Errorf("%d batches, %v; %d were acknowledged", n, err, batches)
			}
			oneChain(t, path, acknowledged, hash)
			if closed, _ := closedFiles(path); len(closed) != 1+i/4 {
				t.Errorf("%d files are closed: %v", len(closed), closed)
			}
			head, _ := s.Head()
			d := &diary{novel: resumeNovel(t, s, 1), pages: 3, batches: batches, seq: head.Seq}
			for range 3 {
				if _, err := s.Append(time.Now(), d.next()); err != nil {
					t.Fatal(err)
				}
				if head, err = s.Rotate(time.Now(), d.novel.books.Books()); err != nil {
					t.Fatal(err)
				}
				d.seq++
			}
			if n, err := checkDiary(t, s); err != nil || n != batches+3 {
				t.Errorf("after three more: %d batches, %v", n, err)
			}
			oneChain(t, path, head.Seq, head.Hash.String())
		})
	}
}

// disk is what a power loss can leave of a journal: its file and SQLite's log.
type disk struct{ file, log []byte }

func readDisk(t *testing.T, path string) disk {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return disk{file, log}
}

// logHeader is the part of SQLite's log before its frames. When a log begins anew
// it is written and flushed before any frame is.
const logHeader = 32

// TestPowerLoss takes the power away at the worst moment that SQLite leaves to it:
// what was flushed is on the disk, and of what was written since then any part. Each
// variant must open with everything that was acknowledged, a chain that verifies and
// no part of a batch; and every fourth is written to again.
//
// How it is modelled. SQLite's own order is: frames into the log, flush (the batch is
// acknowledged); at a checkpoint pages into the file, flush; afterwards, with the
// next batch, a new header over the old log, flush, frames over the old frames, flush.
// The test takes the files at these moments, with nobody writing, and makes up what
// can be between two of them. That SQLite flushes there, and in this order, is what
// it believes and not what it tests: seeing each write and flush takes a file layer
// of our own below SQLite, which its translation to Go does not offer without a
// further dependency. TestWithoutLog checks the settings on which it rests. Neither
// are disks modelled that lie about a flush, nor bits that rot later, nor the first
// moment of a new file, before anything was acknowledged, nor what the file system
// does to names: the log is there, as is a lock file and an index from before.
//
// The seed decides everything but the salts of SQLite's log.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	p := &powerLoss{t: t, rng: rand.New(rand.NewPCG(20, 26)), dir: t.TempDir()}
	for seed := range uint64(2) {
		s, err := Create(filepath.Join(p.dir, fmt.Sprint("journal", seed)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.writer.Exec("PRAGMA wal_autocheckpoint = 0"); err != nil {
			t.Fatal(err)
		}
		p.s, p.diary = s, &diary{novel: newNovel(seed), pages: 3}
		for range 4 {
			for range 1 + p.rng.IntN(6) {
				p.append()
			}
			p.checkpoint()
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d variants: %d with the last batch, %d without it", p.variants, p.with, p.variants-p.with)
	if p.variants < 200 || p.with == 0 || p.with == p.variants {
		t.Error("these are too few, or all of a kind: they show nothing")
	}
}

type powerLoss struct {
	t     *testing.T
	rng   *rand.Rand
	dir   string
	s     *SQLite
	diary *diary

	variants, with int
}

// append lets the power go while a batch is written.
func (p *powerLoss) append() {
	acknowledged, _ := p.s.Head()
	empty := acknowledged.Seq == 0
	before := readDisk(p.t, p.s.path)
	head, err := p.s.Append(time.Unix(int64(p.diary.batches), 0), p.diary.next())
	if err != nil {
		p.t.Fatal(err)
	}
	after := readDisk(p.t, p.s.path)
	if !bytes.Equal(before.file, after.file) {
		p.t.Fatal("a batch was written to the file itself: this is not how the test models it")
	}
	if empty { // without a batch there is nothing to check
		return
	}
	n := p.diary.batches
	headed := slices.Concat(after.log[:logHeader], before.log[logHeader:])
	if !bytes.Equal(headed, before.log) { // the log began anew
		for range 3 {
			torn := slices.Concat(damage(p.rng, before.log[:logHeader], after.log[:logHeader]), before.log[logHeader:])
			p.lose(disk{before.file, torn}, acknowledged, n-1, n-1)
		}
	}
	for range 5 {
		p.lose(disk{before.file, damage(p.rng, headed, after.log)}, acknowledged, n-1, n)
	}
	p.lose(after, head, n, n)
}

// checkpoint lets the power go while SQLite moves its log into the file.
func (p *powerLoss) checkpoint() {
	before := readDisk(p.t, p.s.path)
	var busy, frames, moved int
	if err := p.s.writer.QueryRow("PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &frames, &moved); err != nil || busy != 0 || moved != frames {
		p.t.Fatalf("checkpoint: %d of %d frames, %d, %v", moved, frames, busy, err)
	}
	after := readDisk(p.t, p.s.path)
	if !bytes.Equal(before.log, after.log) || bytes.Equal(before.file, after.file) {
		p.t.Fatal("a checkpoint wrote to the log, or not to the file: this is not how the test models it")
	}
	head, _ := p.s.Head()
	for range 5 {
		p.lose(disk{damage(p.rng, before.file, after.file), after.log}, head, p.diary.batches, p.diary.batches)
	}
}

// lose opens what a power loss has left: at least the batches least and at most
// those to most are there.
func (p *powerLoss) lose(left disk, acknowledged Head, least, most int) {
	p.variants++
	path := filepath.Join(p.dir, fmt.Sprint("variant", p.variants))
	index := make([]byte, 32768) // SQLite makes it anew
	for i := range index {
		index[i] = byte(p.rng.Uint32())
	}
	for end, text := range map[string][]byte{"": left.file, "-wal": left.log, "-shm": index, ".lock": nil} {
		if err := os.WriteFile(path+end, text, mode); err != nil {
			p.t.Fatal(err)
		}
	}
	s, err := Create(path)
	if err != nil {
		p.t.Fatalf("variant %d: %v", p.variants, err)
	}
	defer s.Close()
	n, err := checkDiary(p.t, s)
	if err != nil || n < least || n > most {
		p.t.Errorf("variant %d: %d batches, %v; want %d to %d", p.variants, n, err, least, most)
		return
	}
	if n == p.diary.batches {
		p.with++
	}
	if !slices.ContainsFunc(read(p.t, s), func(r Record) bool { return r.Seq == acknowledged.Seq && r.Hash == acknowledged.Hash }) {
		p.t.Errorf("variant %d: no record %d with the hash that was acknowledged", p.variants, acknowledged.Seq)
	}
	if p.variants%4 > 0 {
		return
	}
	head, _ := s.Head()
	d := &diary{novel: resumeNovel(p.t, s, 1), pages: 3, batches: n, seq: head.Seq}
	if _, err := s.Append(time.Now(), d.next()); err != nil {
		p.t.Errorf("variant %d takes no more: %v", p.variants, err)
	}
	if have, err := checkDiary(p.t, s); err != nil || have != n+1 {
		p.t.Errorf("variant %d with one more batch: %d, %v", p.variants, have, err)
	}
}

// damage returns what may be there of writes that turned old into fresh and were not
// flushed yet: of each sector the old, the new, both in part, or, of the bytes that
// were written, anything; and a file as long as before, as afterwards or between.
// That a write harms no byte beside its own, not even in its sector, SQLite assumes
// ("powersafe overwrite"), and so does this.
func damage(rng *rand.Rand, old, fresh []byte) []byte {
	first, past := changed(old, fresh)
	sector := []int{1, 512, 4096}[rng.IntN(3)]
	if sector == 1 { // the writes in order, up to a byte
		cut := first + rng.IntN(past-first+1)
		return append(slices.Clone(fresh[:cut]), old[min(cut, len(old)):]...)
	}
	list := slices.Clone(fresh)
	chance := rng.Float64() // of a sector to have been written
	for at := first / sector * sector; at < past; at += sector {
		from, to := max(at, first), min(at+sector, past)
		was := make([]byte, to-from) // zeros where the file was longer already
		copy(was, old[min(from, len(old)):min(to, len(old))])
		switch cut := rng.IntN(to - from); {
		case rng.Float64() < chance:
		case rng.IntN(8) == 0: // torn
			copy(list[from+cut:to], was[cut:])
		case rng.IntN(16) == 0 && !bytes.Equal(was, fresh[from:to]): // neither
			for i := from; i < to; i++ {
				list[i] = byte(rng.Uint32())
			}
		default:
			copy(list[from:to], was)
		}
	}
	if longer := len(fresh) - len(old); longer > 0 && rng.IntN(2) == 0 {
		list = list[:len(old)+rng.IntN(longer+1)]
	}
	return list
}

// changed is the range of bytes in which fresh, which is as long or longer, differs
// from old.
func changed(old, fresh []byte) (first, past int) {
	for first < len(old) && old[first] == fresh[first] {
		first++
	}
	past = len(fresh)
	for past > first && past <= len(old) && old[past-1] == fresh[past-1] {
		past--
	}
	return first, past
}
