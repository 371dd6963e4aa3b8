package node

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
)

// reread takes the last receipts, events and answers into memory. Whoever was buried since
// the start has a receipt there, too, and is known already.
func (m *Market) reread(p *past) error {
	store := p.keeper.store
	known := make(map[uint64]bool)
	for _, mem := range m.chronicle.graves(mostDead, func(*member) bool { return true }) {
		known[mem.serial] = true
	}
	var dead []*member
	for d, err := range store.Documents(journal.Query{Kind: ofReceipt, Newest: true, Limit: mostDead}) {
		g := grave{Workload: message{&v1.Workload{}}}
		if err == nil {
			err = json.Unmarshal(d.Body, &g)
		}
		if err != nil {
			return fmt.Errorf("read receipt %s: %w", d.Key, err)
		}
		w := g.Workload.Message.(*v1.Workload)
		serial, _ := strconv.ParseUint(d.Key, 10, 64)
		if known[serial] {
			continue
		}
		mem := &member{name: w.GetName(), serial: serial, uid: d.UID, client: w.GetClient(), closed: w, buried: make(chan struct{})}
		close(mem.buried)
		if s := m.session[g.Session]; s != nil {
			mem.session = s
			s.lost(mem)
		} else if time.Since(d.Wall) < resumeAfterRestart*3 {
			mem.session = m.sessionOf(g.Session, w.GetClient(), d.UID)
			mem.session.lost(mem)
		}
		dead = append(dead, mem)
	}
	m.chronicle.before(dead)
	var events []happening
	for d, err := range store.Documents(journal.Query{Kind: ofEvent, Newest: true, Limit: mostEvents / 2}) {
		e := &v1.Event{}
		if err == nil {
			err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(d.Body, e)
		}
		if err != nil {
			return fmt.Errorf("read event %s: %w", d.Key, err)
		}
		events = append(events, happening{d.UID, e})
	}
	for _, h := range slices.Backward(events) {
		m.chronicle.add(h.uid, h.e)
	}
	var answers []journal.Document
	for d, err := range store.Documents(journal.Query{Kind: ofRequest, Newest: true, Limit: mostAnswers / 2}) {
		if err != nil {
			return fmt.Errorf("read request %s: %w", d.Key, err)
		}
		answers = append(answers, d)
	}
	for _, d := range slices.Backward(answers) { // the oldest is forgotten first
		if err := m.answers.recall(d); err != nil {
			return fmt.Errorf("read request %s: %w", d.Key, err)
		}
	}
	return nil
}

// recall takes an answer of an earlier process.
func (all *answers) recall(d journal.Document) error {
	var a struct {
		Asked, Kind string
		Answer      json.RawMessage
	}
	if err := json.Unmarshal(d.Body, &a); err != nil {
		return err
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(a.Kind))
	if err != nil {
		return err
	}
	out := kind.New().Interface()
	if err := (message{out}).UnmarshalJSON(a.Answer); err != nil {
		return err
	}
	var key onceKey
	key.uid = d.UID
	_, id, err := parseRequestKey(d.Key)
	if err != nil {
		return err
	}
	key.id = id
	asked, err := hex.DecodeString(a.Asked)
	if err != nil || len(asked) != len(answer{}.asked) {
		return fmt.Errorf("fingerprint %q", a.Asked)
	}
	known, first := all.take(key, [32]byte(asked))
	if first {
		known.out = out
		close(known.done)
	}
	return nil
}

// parseRequestKey reads what requestNote wrote: UID/ID.
func parseRequestKey(key string) (uid uint64, id requestID, err error) {
	var digits string
	if _, err := fmt.Sscanf(key, "%d/%32s", &uid, &digits); err != nil {
		return 0, id, fmt.Errorf("key %q: %w", key, err)
	}
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != len(id) {
		return 0, id, fmt.Errorf("key %q is no request's", key)
	}
	return uid, requestID(raw), nil
}
