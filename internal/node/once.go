package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// requestID is what a caller drew for one change: 128 bits.
type requestID [16]byte

// mostAnswers bounds what the market remembers of changes that were made: a
// delivery that comes after as many others is taken for a new change. At twenty changes
// a second that is a quarter of an hour; each takes half a KB, more with v1 groups. Who
// has most of them forgets first: nobody pushes out those of others who have fewer.
const mostAnswers = 1 << 14

// onceKey names a change: ids are each user's own.
type onceKey struct {
	uid uint32
	id  requestID
}

// answer is what a change came to, for those who ask for it again.
type answer struct {
	asked [sha256.Size]byte // of the request: an id is not for another one
	done  chan struct{}     // closed when it is known
	out   any
	err   error
}

// answers lets a change that is delivered several times be made once.
type answers struct {
	mu    sync.Mutex
	known map[onceKey]*answer
	order map[uint32][]onceKey // each user's, oldest first
	count int                  // of all in order
}

// Ids that are refused.
var (
	errID   = connect.NewError(connect.CodeInvalidArgument, errors.New("request_id: use 16 random bytes, or none"))
	errUsed = connect.NewError(connect.CodeInvalidArgument, errors.New("request_id: it was used for another change; draw a new one"))
)

// change is a request that carries an id.
type change interface {
	proto.Message
	GetRequestId() []byte
}

// fingerprint tells requests apart.
func fingerprint(req change) [sha256.Size]byte {
	// A message that came over the wire can be written again.
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	return sha256.Sum256(append(b, req.ProtoReflect().Descriptor().FullName()...))
}

// once makes a change unless it was made before: then it gives the same answer
// again, after waiting for it where it is still being made. Without an id every
// delivery is a change of its own. Refusals are remembered too, but for those
// that say nothing of the change itself (the market is closing, the caller went
// away).
//
// The answer to a change that was made is kept with it, in one write: the next
// process has both or neither. A refusal is kept in memory alone. Repeated after a
// restart, the request is a new try, and may be made then. That is one effect still:
// a refusal had none, and from the moment that the change is made its answer is
// kept. What is given up is that a refusal holds for ever, and only for who repeats
// a request to which he had an answer: a client draws a new id then. Kept on the
// disk, refusals would let anybody write there who may ask, and none could be given
// while it is full.
func once[T any](ctx context.Context, all *answers, uid uint32, req change, effect func() (T, error)) (T, error) {
	var none T
	id := req.GetRequestId()
	if len(id) == 0 {
		return effect()
	}
	if len(id) != len(requestID{}) {
		return none, errID
	}
	key := onceKey{uid: uid, id: requestID(id)}
	asked := fingerprint(req)
	a, first := all.take(key, asked)
	if !first {
		if a.asked != asked {
			return none, errUsed
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return none, ctx.Err()
		}
		out, _ := a.out.(T)
		return out, a.err
	}
	out, err := effect()
	a.out, a.err = out, err
	if err != nil && undecided(err) {
		all.drop(key)
	}
	close(a.done)
	return out, err
}

// answered is the answer of a change that was made, for a delivery that comes when
// what it was about may be gone.
func answered[T any](all *answers, uid uint32, req change) (out T, known bool) {
	id := req.GetRequestId()
	if len(id) != len(requestID{}) {
		return out, false
	}
	all.mu.Lock()
	a := all.known[onceKey{uid: uid, id: requestID(id)}]
	all.mu.Unlock()
	if a == nil || a.asked != fingerprint(req) {
		return out, false
	}
	select {
	case <-a.done:
		out, known = a.out.(T)
		return out, known && a.err == nil
	default:
		return out, false // it is being made: what it is about is there
	}
}

// undecided reports whether an error leaves open what the change would come to.
func undecided(err error) bool {
	switch connect.CodeOf(err) { //nolint:exhaustive // the others are answers
	case connect.CodeUnavailable, connect.CodeUnknown, connect.CodeCanceled, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted:
		return true
	}
	return false
}

// take is the answer to a change, and whether the caller is the one to make it.
func (all *answers) take(key onceKey, asked [sha256.Size]byte) (a *answer, first bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if a = all.known[key]; a != nil {
		return a, false
	}
	if all.known == nil {
		all.known, all.order = make(map[onceKey]*answer), make(map[uint32][]onceKey)
	}
	if all.count >= mostAnswers {
		all.forgetLocked()
	}
	a = &answer{asked: asked, done: make(chan struct{})}
	all.known[key] = a
	all.order[key.uid] = append(all.order[key.uid], key)
	all.count++
	return a, true
}

// forgetLocked forgets the oldest of whoever has most: a part of them at once, because
// the whole list moves.
func (all *answers) forgetLocked() {
	var who uint32
	for uid, list := range all.order {
		if len(list) > len(all.order[who]) {
			who = uid
		}
	}
	list := all.order[who]
	n := (len(list) + 7) / 8
	for _, old := range list[:n] {
		delete(all.known, old)
	}
	all.count -= n
	if all.order[who] = append(list[:0], list[n:]...); len(all.order[who]) == 0 {
		delete(all.order, who)
	}
}

// drop forgets a change that was not made.
func (all *answers) drop(key onceKey) {
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.known, key)
	list := all.order[key.uid]
	for i, have := range slices.Backward(list) { // it is among the newest
		if have == key {
			all.order[key.uid] = slices.Delete(list, i, i+1)
			all.count--
			break
		}
	}
	if len(all.order[key.uid]) == 0 {
		delete(all.order, key.uid)
	}
}
