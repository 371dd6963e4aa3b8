package node

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

// What a user who is no admin may change, so that nobody fills the disk that all books
// are on: each change is a record of about 2 KB. As many at once as a user may have
// workloads, and in the long run 20 a second.
const (
	changeEvery   = 50 * time.Millisecond
	changesAtOnce = mostWorkloads
)

// rates are how much users have changed lately. A user is at a time: each change moves it
// on by changeEvery, from now or from where it was, and it may be so far ahead (generic
// cell rate algorithm, ITU-T I.371 annex A).
type rates struct {
	mu sync.Mutex
	at map[uint32]time.Time
}

// take counts a change, or says for how long the user has to wait with it.
func (r *rates) take(uid uint32, now time.Time) (wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.at[uid]
	if at.Before(now) {
		at = now
	}
	if ahead := at.Sub(now); ahead > (changesAtOnce-1)*changeEvery {
		return ahead - (changesAtOnce-1)*changeEvery
	}
	if r.at == nil || len(r.at) >= 1000 { // now and then: who has changed nothing lately is not known
		kept := make(map[uint32]time.Time)
		for uid, at := range r.at {
			if at.After(now) {
				kept[uid] = at
			}
		}
		r.at = kept
	}
	r.at[uid] = at.Add(changeEvery)
	return 0
}

// mayChange refuses a change that could not be kept now, or that is one too many of a
// user. What stops work is never put off.
func (m *Market) mayChange(uid uint32, req change) error {
	switch req.(type) {
	case *v1.StopRequest, *v1.SetEnforceRequest:
		return nil
	}
	if !m.durable() {
		return nil
	}
	if err := m.keeper.trouble(); err != nil {
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("%w: nothing is changed until it can be written; ask again then", err))
	}
	return m.pace(uid)
}

// pace counts a change of a user's.
func (m *Market) pace(uid uint32) error {
	if !m.durable() || m.admin(uid) {
		return nil
	}
	wait := m.rates.take(uid, time.Now())
	if wait == 0 {
		return nil
	}
	return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("%w; wait %v", errOften, wait.Round(time.Millisecond)))
}

var errOften = errors.New("you have changed the market too often: 20 times a second is for everybody, and more for admins")
