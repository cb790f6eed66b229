package chaos

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"quorate/node/kv"
)

// kind of a call.
type kind int

const (
	read kind = iota
	put
	putIf // on a condition
	remove
)

// call is what a client asked for. No value is written by two calls.
type call struct {
	key      string
	kind     kind
	value    uint64
	expected uint64 // revision that putIf wants
}

// answer is what the client was told. A call whose outcome is unknown has none.
type answer struct {
	// value that was read; zero if there was no such key.
	value uint64
	// revision of the value that was read, or of the write.
	revision uint64
	// refused: there was no such key to remove, or the condition was not met.
	refused bool
}

// history is what all clients saw.
type history struct {
	began time.Time

	mu  sync.Mutex
	ops []porcupine.Operation
	// revisions of the values, as far as they are known, and their keys: also local reads, whose time says nothing, must agree with them.
	revisions map[uint64]uint64
	keys      map[uint64]string
	wrong     []error
}

func newHistory() *history {
	return &history{began: time.Now(), revisions: map[uint64]uint64{}, keys: map[uint64]string{}}
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// writing notes that the value is about to be written, before anybody can see it.
func (h *history) writing(c call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.value != 0 {
		h.keys[c.value] = c.key
	}
}

// note adds a call that began at that time and ends now. Of the errors, those that say that there was no effect leave nothing to
// be judged; any that is not foreseen is wrong.
func (h *history) note(client int, began int64, c call, a answer, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	op := porcupine.Operation{ClientId: client, Input: c, Call: began, Return: int64(time.Since(h.began))}
	switch {
	case err == nil:
		op.Output = a
		if c.kind == read {
			h.sawLocked(c.key, a)
		} else if !a.refused && c.value != 0 {
			h.sawLocked(c.key, answer{value: c.value, revision: a.revision})
		}
	case c.kind == read && (errors.Is(err, kv.ErrUnavailable) || errors.Is(err, kv.ErrUnknownOutcome)), errors.Is(err, kv.ErrUnavailable):
		return // no effect
	case errors.Is(err, kv.ErrUnknownOutcome):
		op.Return = math.MaxInt64 // it takes effect whenever, or never: the last thing of all is as good as never
	default:
		h.wrong = append(h.wrong, fmt.Errorf("%v: %w", c, err))
		return
	}
	h.ops = append(h.ops, op)
}

// saw notes what a local read gave.
func (h *history) saw(key string, a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sawLocked(key, a)
}

func (h *history) sawLocked(key string, a answer) {
	if a.value == 0 {
		return
	}
	if of, written := h.keys[a.value]; !written || of != key {
		h.wrong = append(h.wrong, fmt.Errorf("%s has value %d, which was written for %q", key, a.value, of))
	}
	if before, known := h.revisions[a.value]; known && before != a.revision {
		h.wrong = append(h.wrong, fmt.Errorf("value %d of %s has revision %d, and had %d", a.value, key, a.revision, before))
	}
	h.revisions[a.value] = a.revision
}

// register is the state of one key. A write whose outcome is unknown leaves a revision that is unknown as well, but greater than those before.
type register struct {
	value    uint64 // 0: there is no such key
	revision uint64 // 0: unknown, or there is no such key
	above    uint64 // revisions to come are greater
}

var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, output any) (bool, any) {
		r, c := state.(register), input.(call)
		a, answered := output.(answer)
		if !answered {
			return true, r.unanswered(c)
		}
		return r.answered(c, a)
	},
	Equal: func(a, b any) bool { return a == b },
}

func (r register) unanswered(c call) register {
	if c.kind == remove {
		return register{above: r.above}
	}
	if c.kind == putIf && !r.mayBeAt(c.expected) {
		return r
	}
	return register{value: c.value, above: r.above}
}

func (r register) answered(c call, a answer) (bool, register) {
	switch {
	case c.kind == read:
		if a.value != r.value {
			return false, r
		}
		if r.value == 0 {
			return true, r
		}
		return r.mayBeAt(a.revision), register{value: r.value, revision: a.revision, above: a.revision}
	case a.refused && c.kind == remove:
		return r.value == 0, r
	case a.refused:
		return !r.isAt(c.expected), r
	case c.kind == remove && r.value == 0, c.kind == putIf && !r.mayBeAt(c.expected), a.revision <= r.above:
		return false, r
	}
	next := register{above: a.revision}
	if c.value != 0 {
		next.value, next.revision = c.value, a.revision
	}
	return true, next
}

// isAt reports whether the key is at that revision for certain; zero means that there is no such key.
func (r register) isAt(revision uint64) bool {
	return revision == r.revision && (revision != 0 || r.value == 0)
}

// mayBeAt reports whether it can be.
func (r register) mayBeAt(revision uint64) bool {
	return r.isAt(revision) || r.value != 0 && r.revision == 0 && revision > r.above
}

// patience is how long one key may be judged.
const patience = time.Minute

// check looks for one order of the calls of each key that explains all answers and contradicts no client's clock.
func (h *history) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	byKey := map[string][]porcupine.Operation{}
	for _, op := range h.ops {
		key := op.Input.(call).key
		byKey[key] = append(byKey[key], op)
	}
	wrong := h.wrong
	for key, ops := range byKey {
		result := porcupine.CheckOperationsTimeout(model, ops, patience)
		if result == porcupine.Ok {
			continue
		}
		words := "no order explains what clients saw"
		if result == porcupine.Unknown {
			words = fmt.Sprintf("not judged within %v is what clients saw", patience)
		}
		s := ""
		for _, op := range ops {
			s += fmt.Sprintf("\n  %v to %v, client %d: %+v -> %+v", time.Duration(op.Call), time.Duration(op.Return), op.ClientId, op.Input, op.Output)
		}
		wrong = append(wrong, fmt.Errorf("%s of %s:%s", words, key, s))
	}
	return errors.Join(wrong...)
}

func (h *history) counts() (calls, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.ops {
		if op.Output == nil {
			unknown++
		}
	}
	return len(h.ops), unknown
}
