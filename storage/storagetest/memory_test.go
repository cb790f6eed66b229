package storagetest_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/storagetest"
)

// defect is one promise that a memoryStore breaks.
type defect string

const (
	none                  defect = ""
	losesWaitedWrite      defect = "a crash loses the last write that was waited for"
	losesIdentity         defect = "a crash loses the identity"
	losesWriteInTheMiddle defect = "a crash keeps a write and loses the one before it"
	tearsWrite            defect = "a crash keeps a write's vote without its entries"
	shownButNotDurable    defect = "what a restart shows is lost by the next crash"
	keepsTruncated        defect = "truncated entries are read from a cache"
	keepsAfterReset       defect = "a reset keeps the entries"
	servesPurged          defect = "purged entries can be read"
	forgetsPurgedTerm     defect = "the purged entry's term is not known"
	ignoresMaxBytes       defect = "reads are not bounded by bytes"
	returnsNothing        defect = "a read returns nothing when the first entry is too large"
	overwritesSlice       defect = "a read drops what the caller's slice held"
	acceptsGap            defect = "a gap is accepted"
	halfRefuses           defect = "a refused write changes the vote"
	acceptsUnsealed       defect = "an entry without its Raw form is accepted"
	changesIdentity       defect = "another identity replaces the first"
	changesGenesis        defect = "another genesis replaces the first"
	forgetsVote           defect = "a restart forgets the vote"
	purgesAnything        defect = "a purge is not compared with the log"
	usableAfterClose      defect = "it goes on after Close"
	races                 defect = "readers see a truncation and what is appended in its place half done"
)

// state is what is stored. It is a value: changes make a new one.
type state struct {
	vote     raft.Vote
	purged   raft.LogID
	entries  []raft.Entry // from purged.Index+1 on
	identity *storage.Identity
	genesis  *storage.Genesis
}

func (s state) last() raft.LogID {
	if len(s.entries) == 0 {
		return s.purged
	}
	return s.entries[len(s.entries)-1].ID
}

// memoryDisk is what outlives a memoryStore.
type memoryDisk struct {
	defect  defect
	mu      sync.Mutex // guards what follows
	durable state
	pending []func(state) state // written, not durable yet
	acked   int                 // how many of the pending ones were waited for: only a broken disk has any
}

func (d *memoryDisk) Open() (storage.LogStore, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.current()
	if d.defect != shownButNotDurable {
		d.durable, d.pending, d.acked = s, nil, 0
	}
	if d.defect == forgetsVote {
		s.vote = raft.Vote{}
	}
	return &memoryStore{disk: d, state: s}, nil
}

func (d *memoryDisk) current() state {
	s := d.durable
	for _, change := range d.pending {
		s = change(s)
	}
	return s
}

func (d *memoryDisk) Crash(survivingPercent int, random *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keep := 0
	for keep < len(d.pending) && random.IntN(100) < survivingPercent {
		keep++
	}
	before := d.durable
	lost := d.pending[keep:]
	for _, change := range d.pending[:keep] {
		d.durable = change(d.durable)
	}
	switch {
	case d.defect == losesWriteInTheMiddle && len(lost) > 1:
		if after := lost[1](lost[0](d.durable)); len(after.entries) > len(d.durable.entries) {
			d.durable.entries = after.entries // but not lost[0]'s vote
		}
	case d.defect == tearsWrite && len(lost) > 0:
		d.durable.vote = lost[0](d.durable).vote
	case d.defect == losesIdentity:
		d.durable.identity = nil
	}
	if d.defect == shownButNotDurable && survivingPercent == 100 { // it is there, but a page cache away from the disk
		d.durable, d.pending = before, d.pending[:keep]
		return
	}
	d.pending, d.acked = nil, 0
}

// memoryStore is a log store in memory, right but for its disk's defect.
type memoryStore struct {
	disk   *memoryDisk
	mu     sync.RWMutex // guards what follows
	state  state
	cache  map[uint64]raft.Entry
	closed bool
}

type memoryCommit struct {
	store *memoryStore
	upTo  int
}

func (c memoryCommit) Wait() error {
	d := c.store.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	n := c.upTo
	if d.defect == losesWaitedWrite {
		n-- // the disk said yes too early
	}
	for d.acked < n && len(d.pending) > 0 {
		d.durable = d.pending[0](d.durable)
		d.pending = d.pending[1:]
		d.acked++
	}
	return nil
}

func (s *memoryStore) apply(change func(state) state) memoryCommit {
	s.state = change(s.state)
	d := s.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending = append(d.pending, change)
	return memoryCommit{store: s, upTo: d.acked + len(d.pending)}
}

func (s *memoryStore) check() error {
	if s.closed && s.disk.defect != usableAfterClose {
		return storage.ErrClosed
	}
	return nil
}

func (s *memoryStore) Write(w storage.Write) (storage.Commit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.disk.defect == halfRefuses && w.Vote != nil {
		s.state.vote = *w.Vote
	}
	from := int(w.TruncateFrom) - int(s.state.purged.Index) - 1
	kept := s.state.entries
	if w.TruncateFrom != 0 && w.TruncateFrom <= s.state.last().Index {
		if from < 0 {
			return nil, storage.ErrPurged
		}
		kept = kept[:from]
	}
	end := state{purged: s.state.purged, entries: kept}.last()
	for _, e := range w.Append {
		if (e.ID.Index != end.Index+1 || e.ID.Term < end.Term) && s.disk.defect != acceptsGap {
			return nil, fmt.Errorf("%v does not follow on %v", e.ID, end)
		}
		if e.Raw == nil && s.disk.defect != acceptsUnsealed {
			return nil, fmt.Errorf("%v is not sealed", e.ID)
		}
		end = e.ID
	}
	if s.disk.defect == keepsTruncated {
		if s.cache == nil {
			s.cache = map[uint64]raft.Entry{}
		}
		for _, e := range w.Append {
			if _, ok := s.cache[e.ID.Index]; !ok {
				s.cache[e.ID.Index] = e
			}
		}
	}
	if s.disk.defect == races && len(kept) < len(s.state.entries) {
		s.state.entries = slices.Concat(kept, s.state.entries[:0:0])
		for i := range w.Append { // one visible at a time, the wrong way round
			s.state.entries = slices.Concat(kept, w.Append[len(w.Append)-1-i:])
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	return s.apply(func(old state) state {
		if w.Vote != nil {
			old.vote = *w.Vote
		}
		old.entries = slices.Concat(kept, w.Append)
		return old
	}), nil
}

func (s *memoryStore) Reset(to raft.LogID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(); err != nil {
		return err
	}
	if _, err := storage.EncodeLogID(to); err != nil {
		return err
	}
	return s.apply(func(old state) state {
		if s.disk.defect != keepsAfterReset {
			old.entries = nil
		}
		old.purged = to
		return old
	}).Wait()
}

func (s *memoryStore) Purge(upTo raft.LogID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(); err != nil {
		return err
	}
	if upTo.Index <= s.state.purged.Index {
		return nil
	}
	if upTo.Index > s.state.last().Index {
		return storage.ErrOutOfRange
	}
	n := int(upTo.Index - s.state.purged.Index)
	if s.state.entries[n-1].ID != upTo && s.disk.defect != purgesAnything {
		return fmt.Errorf("%v is not in the log", upTo)
	}
	if s.disk.defect == servesPurged {
		return nil
	}
	s.apply(func(old state) state {
		old.purged, old.entries = upTo, old.entries[n:]
		return old
	})
	return nil
}

func (s *memoryStore) Entries(into []raft.Entry, lo, hi uint64, maxBytes int) ([]raft.Entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(); err != nil {
		return nil, err
	}
	if lo <= s.state.purged.Index {
		return into, storage.ErrPurged
	}
	if lo > s.state.last().Index {
		return nil, storage.ErrOutOfRange
	}
	if hi <= lo {
		return into, fmt.Errorf("the range %d to %d is empty", lo, hi)
	}
	entries := into
	if s.disk.defect == overwritesSlice {
		entries = into[:0]
	}
	for _, e := range s.state.entries[min(lo-s.state.purged.Index-1, uint64(len(s.state.entries))):] {
		if cached, ok := s.cache[e.ID.Index]; ok {
			e = cached
		}
		least := 1
		if s.disk.defect == returnsNothing {
			least = 0
		}
		maxBytes -= len(e.Raw)
		if e.ID.Index >= hi || maxBytes < 0 && len(entries) >= len(into)+least && s.disk.defect != ignoresMaxBytes {
			break
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (s *memoryStore) Term(index uint64) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(); err != nil {
		return 0, err
	}
	switch purged := s.state.purged; {
	case index == purged.Index && (index == 0 || s.disk.defect != forgetsPurgedTerm):
		return purged.Term, nil
	case index <= purged.Index:
		return 0, storage.ErrPurged
	case index > s.state.last().Index:
		return 0, storage.ErrOutOfRange
	default:
		return s.state.entries[min(index-purged.Index, uint64(len(s.state.entries)))-1].ID.Term, nil
	}
}

func (s *memoryStore) Last() raft.LogID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.last()
}

func (s *memoryStore) Purged() raft.LogID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.purged
}

func (s *memoryStore) Vote() raft.Vote {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.vote
}

func (s *memoryStore) Identity() (storage.Identity, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.state.identity == nil {
		return storage.Identity{}, false
	}
	return *s.state.identity, true
}

func (s *memoryStore) SetIdentity(id storage.Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(); err != nil {
		return err
	}
	if _, err := storage.EncodeIdentity(id); err != nil {
		return err
	}
	if old := s.state.identity; old != nil && *old != id && s.disk.defect != changesIdentity {
		return fmt.Errorf("the identity is %v", *old)
	}
	return s.apply(func(old state) state { old.identity = &id; return old }).Wait()
}

func (s *memoryStore) Genesis() (storage.Genesis, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.state.genesis == nil {
		return storage.Genesis{}, false
	}
	return *s.state.genesis, true
}

func (s *memoryStore) SetGenesis(g storage.Genesis) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(); err != nil {
		return err
	}
	if _, err := storage.EncodeGenesis(g); err != nil {
		return err
	}
	if old := s.state.genesis; old != nil && !old.Equal(g) && s.disk.defect != changesGenesis {
		return fmt.Errorf("the genesis is %v", *old)
	}
	return s.apply(func(old state) state { old.genesis = &g; return old }).Wait()
}

func (s *memoryStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func newMemoryDisk(d defect) storagetest.Factory {
	return func(testing.TB) storagetest.Disk { return &memoryDisk{defect: d} }
}
