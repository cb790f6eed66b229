// Package sessions is the replicated table that makes proposals take effect exactly once. It is pure, as the engine is: no goroutine,
// no clock, no I/O.
package sessions

import (
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"quorate/node/raft"
	"quorate/storage"
)

// Bounds of the session table. They are the same on every node, since the table is replicated: replicas that forget differently
// would differ for ever. Changing one is a change of the entries' format.
const (
	maxSessions = 10_000
	// MaxResults is how many answers a session may have that its client has not acknowledged.
	MaxResults = 4096
	// maxOnce proposals with an id are remembered, for onceWindow of log time.
	maxOnce    = 65_536
	onceWindow = 2 * time.Minute
	// MaxMessageID is the longest id of a proposal, in bytes.
	MaxMessageID = 256
)

// Table makes proposals take effect exactly once (dissertation section 6.3): a session's proposals are numbered by its client, and a
// number that was applied before is answered by its first result. The table changes by log entries alone, in their order, so all
// replicas have the same; it is stored with the state machine's state, in the same atomic write.
//
// It belongs to one goroutine; in a running node that is RaftCore.
type Table struct {
	byID map[uint64]*list.Element // of *session
	// used orders the sessions by their last entry, the longest unused first.
	used list.List
	once map[string]*list.Element // of *onceResult
	// onceOrder: the oldest first.
	onceOrder list.List
	// dirty are the records that changed since they were taken last.
	dirty map[string]bool
}

type session struct {
	id uint64
	// index and time of the last entry that used it.
	index uint64
	time  int64
	// idle is how much log time may pass between its entries before it expires.
	idle     int64
	lowWater uint64
	results  map[uint64]Result
}

// Result is the answer of a command that was applied.
type Result struct {
	// ID is that of the entry that was applied.
	ID raft.LogID
	// Value is the state machine's answer.
	Value []byte
	// known: Value is. Until then the command is in the batch that is being applied.
	known bool
}

type onceResult struct {
	key    string
	time   int64
	result Result
}

// New returns an empty table.
func New() *Table {
	return &Table{byID: map[uint64]*list.Element{}, once: map[string]*list.Element{}, dirty: map[string]bool{}}
}

// Verdict is what becomes of an entry of a session.
type Verdict uint8

const (
	// Apply: it is new, and goes to the state machine.
	Apply Verdict = iota
	// Known: it was applied before; its first result is the answer.
	Known
	// Refused: its session is not known, or has expired, or has too many results: it must not be applied.
	Refused
	// Wait: its first instance is in the batch that is being put together. That one is to be applied first.
	Wait
)

// Judge says what to do with a committed command, and notes that it was seen. It must be called for all entries, in the log's order.
func (s *Table) Judge(e *raft.Entry) (Verdict, Result) {
	switch {
	case e.Kind == raft.EntryOnce:
		return s.judgeOnce(e)
	case e.Session == 0:
		return Apply, Result{}
	}
	element, ok := s.byID[e.Session]
	if !ok {
		return Refused, Result{}
	}
	x := element.Value.(*session)
	if e.Time-x.time > x.idle {
		s.remove(element)
		return Refused, Result{}
	}
	result, known := x.results[e.Sequence]
	if known && !result.known {
		return Wait, result
	}
	s.touch(element, e)
	if e.LowWater > x.lowWater {
		x.lowWater = e.LowWater
		for sequence := range x.results {
			if sequence < x.lowWater {
				delete(x.results, sequence)
				s.dirty[resultKey(x.id, sequence)] = true
			}
		}
		result, known = x.results[e.Sequence]
	}
	switch {
	case known:
		return Known, result
	case e.Sequence < x.lowWater, e.Sequence == 0, len(x.results) >= MaxResults:
		return Refused, Result{} // the client said that it has the answer, or breaks the rules
	}
	x.results[e.Sequence] = Result{ID: e.ID}
	return Apply, Result{}
}

func (s *Table) judgeOnce(e *raft.Entry) (Verdict, Result) {
	for first := s.onceOrder.Front(); first != nil; first = s.onceOrder.Front() {
		if e.Time-first.Value.(*onceResult).time <= int64(onceWindow) {
			break
		}
		s.removeOnce(first)
	}
	id, _, err := SplitOnce(e.Data)
	if err != nil {
		return Refused, Result{}
	}
	if element, ok := s.once[id]; ok {
		result := element.Value.(*onceResult).result
		if !result.known {
			return Wait, result
		}
		return Known, result
	}
	if s.onceOrder.Len() >= maxOnce {
		s.removeOnce(s.onceOrder.Front())
	}
	s.once[id] = s.onceOrder.PushBack(&onceResult{key: id, time: e.Time, result: Result{ID: e.ID}})
	return Apply, Result{}
}

// Store keeps the result of a command that Judge let through. A session that a later entry of the batch has removed stays removed.
func (s *Table) Store(e *raft.Entry, value []byte) {
	result := Result{ID: e.ID, Value: value, known: true}
	if e.Kind == raft.EntryOnce {
		if id, _, err := SplitOnce(e.Data); err == nil {
			if element, ok := s.once[id]; ok && element.Value.(*onceResult).result.ID == e.ID {
				element.Value.(*onceResult).result = result
				s.dirty[onceKey(id)] = true
			}
		}
		return
	}
	element, ok := s.byID[e.Session]
	if !ok {
		return
	}
	x := element.Value.(*session)
	if kept, ok := x.results[e.Sequence]; ok && kept.ID == e.ID {
		x.results[e.Sequence] = result
		s.dirty[resultKey(x.id, e.Sequence)] = true
	}
}

// Register begins a session, whose id is the entry's index. The longest unused ones make room.
func (s *Table) Register(e *raft.Entry) {
	for first := s.used.Front(); first != nil; first = s.used.Front() {
		x := first.Value.(*session)
		if s.used.Len() < maxSessions && e.Time-x.time <= x.idle {
			break
		}
		s.remove(first)
	}
	idle := int64(binary.BigEndian.Uint64(append(make([]byte, 8), e.Data...)[len(e.Data):]))
	x := &session{id: e.ID.Index, index: e.ID.Index, time: e.Time, idle: idle, results: map[uint64]Result{}}
	s.byID[x.id] = s.used.PushBack(x)
	s.dirty[sessionKey(x.id)] = true
}

func (s *Table) touch(element *list.Element, e *raft.Entry) {
	x := element.Value.(*session)
	x.index, x.time = e.ID.Index, e.Time
	s.used.MoveToBack(element)
	s.dirty[sessionKey(x.id)] = true
}

func (s *Table) remove(element *list.Element) {
	x := s.used.Remove(element).(*session)
	delete(s.byID, x.id)
	s.dirty[sessionKey(x.id)] = true
	for sequence := range x.results {
		s.dirty[resultKey(x.id, sequence)] = true
	}
}

func (s *Table) removeOnce(element *list.Element) {
	x := s.onceOrder.Remove(element).(*onceResult)
	delete(s.once, x.key)
	s.dirty[onceKey(x.key)] = true
}

// Keys of the records. Sessions come first in their order, so that a result finds its session.
const (
	sessionPrefix = "session/"
	resultPrefix  = "session-result/"
	oncePrefix    = "once/"
)

// IsOnce reports whether a record is of a proposal with an id of its own, not of a session.
func IsOnce(record storage.SystemRecord) bool { return strings.HasPrefix(record.Key, oncePrefix) }

func sessionKey(id uint64) string { return fmt.Sprintf("%s%016x", sessionPrefix, id) }
func resultKey(id, sequence uint64) string {
	return fmt.Sprintf("%s%016x/%016x", resultPrefix, id, sequence)
}
func onceKey(id string) string { return oncePrefix + id }

// TakeRecords returns the records that changed, in ascending order of keys.
func (s *Table) TakeRecords() []storage.SystemRecord {
	if len(s.dirty) == 0 {
		return nil
	}
	records := make([]storage.SystemRecord, 0, len(s.dirty))
	for key := range s.dirty {
		records = append(records, storage.SystemRecord{Key: key, Value: s.record(key)})
	}
	clear(s.dirty)
	slices.SortFunc(records, func(a, b storage.SystemRecord) int { return strings.Compare(a.Key, b.Key) })
	return records
}

// AllRecords returns the whole table.
func (s *Table) AllRecords() []storage.SystemRecord {
	for id, element := range s.byID {
		s.dirty[sessionKey(id)] = true
		for sequence := range element.Value.(*session).results {
			s.dirty[resultKey(id, sequence)] = true
		}
	}
	for id := range s.once {
		s.dirty[onceKey(id)] = true
	}
	return s.TakeRecords()
}

// record encodes what stands under a key now; nothing deletes it.
func (s *Table) record(key string) []byte {
	if id, ok := strings.CutPrefix(key, oncePrefix); ok {
		element, ok := s.once[id]
		if !ok {
			return nil
		}
		x := element.Value.(*onceResult)
		return appendResult(binary.AppendUvarint(nil, uint64(x.time)), x.result)
	}
	id, sequence, isResult, err := parseSessionKey(key)
	if err != nil {
		return nil
	}
	element, ok := s.byID[id]
	if !ok {
		return nil
	}
	x := element.Value.(*session)
	if isResult {
		result, ok := x.results[sequence]
		if !ok {
			return nil
		}
		return appendResult(nil, result)
	}
	b := binary.AppendUvarint(nil, x.index)
	b = binary.AppendUvarint(b, uint64(x.time))
	b = binary.AppendUvarint(b, uint64(x.idle))
	return binary.AppendUvarint(b, x.lowWater)
}

func appendResult(b []byte, r Result) []byte {
	b = binary.AppendUvarint(b, r.ID.Term)
	b = binary.AppendUvarint(b, r.ID.Index)
	return append(b, r.Value...)
}

var errSessionRecord = errors.New("a record of the session table is damaged")

func parseSessionKey(key string) (id, sequence uint64, isResult bool, err error) {
	if text, ok := strings.CutPrefix(key, resultPrefix); ok {
		first, second, _ := strings.Cut(text, "/")
		id, err1 := strconv.ParseUint(first, 16, 64)
		sequence, err2 := strconv.ParseUint(second, 16, 64)
		if err1 != nil || err2 != nil {
			return 0, 0, false, fmt.Errorf("%w: key %q", errSessionRecord, key)
		}
		return id, sequence, true, nil
	}
	id, err = strconv.ParseUint(strings.TrimPrefix(key, sessionPrefix), 16, 64)
	if err != nil {
		return 0, 0, false, fmt.Errorf("%w: key %q", errSessionRecord, key)
	}
	return id, 0, false, nil
}

// Load reads a table back from its records, which may be any part of a node's: those of others are ignored. It returns an error if a record
// is damaged.
func Load(records []storage.SystemRecord) (*Table, error) {
	s := New()
	var all []*session
	var once []*onceResult
	byID := map[uint64]*session{}
	for pass := range 2 { // results come after their sessions, whatever the order of the records
		for _, record := range records {
			switch {
			case len(record.Value) == 0:
			case strings.HasPrefix(record.Key, sessionPrefix) && pass == 0:
				id, _, _, err := parseSessionKey(record.Key)
				if err != nil {
					return nil, err
				}
				in := uvarints{b: record.Value}
				x := &session{id: id, index: in.next(), time: int64(in.next()), idle: int64(in.next()), lowWater: in.next(), results: map[uint64]Result{}}
				if in.bad {
					return nil, fmt.Errorf("%w: session %d", errSessionRecord, id)
				}
				all, byID[id] = append(all, x), x
			case strings.HasPrefix(record.Key, resultPrefix) && pass == 1:
				id, sequence, _, err := parseSessionKey(record.Key)
				if err != nil {
					return nil, err
				}
				result, err := splitResult(record.Value)
				if err != nil || byID[id] == nil {
					return nil, fmt.Errorf("%w: result %d of session %d", errSessionRecord, sequence, id)
				}
				byID[id].results[sequence] = result
			case strings.HasPrefix(record.Key, oncePrefix) && pass == 0:
				in := uvarints{b: record.Value}
				x := &onceResult{key: strings.TrimPrefix(record.Key, oncePrefix), time: int64(in.next())}
				var err error
				if x.result, err = splitResult(in.b); err != nil || in.bad {
					return nil, fmt.Errorf("%w: message id %q", errSessionRecord, x.key)
				}
				once = append(once, x)
			}
		}
	}
	slices.SortFunc(all, func(a, b *session) int { return compareUint(a.index, b.index) })
	for _, x := range all {
		s.byID[x.id] = s.used.PushBack(x)
	}
	slices.SortFunc(once, func(a, b *onceResult) int { return compareUint(a.result.ID.Index, b.result.ID.Index) })
	for _, x := range once {
		s.once[x.key] = s.onceOrder.PushBack(x)
	}
	return s, nil
}

func compareUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func splitResult(b []byte) (Result, error) {
	in := uvarints{b: b}
	r := Result{ID: raft.LogID{Term: in.next(), Index: in.next()}, known: true}
	if in.bad || r.ID.Term == 0 || r.ID.Index == 0 {
		return r, errSessionRecord
	}
	if len(in.b) > 0 {
		r.Value = slices.Clone(in.b)
	}
	return r, nil
}

// uvarints reads numbers from the front of b.
type uvarints struct {
	b   []byte
	bad bool
}

func (u *uvarints) next() uint64 {
	v, n := binary.Uvarint(u.b)
	if n <= 0 || u.bad {
		u.bad = true
		return 0
	}
	u.b = u.b[n:]
	return v
}

// JoinOnce makes the data of a raft.EntryOnce.
func JoinOnce(id string, data []byte) []byte {
	b := make([]byte, 0, len(id)+len(data)+binary.MaxVarintLen32)
	b = binary.AppendUvarint(b, uint64(len(id)))
	return append(append(b, id...), data...)
}

// SplitOnce takes the data of a raft.EntryOnce apart.
func SplitOnce(b []byte) (id string, data []byte, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n == 0 || n > MaxMessageID || uint64(len(b)-used) < n {
		return "", nil, errors.New("a proposal with an id that is not well-formed")
	}
	return string(b[used : used+int(n)]), b[used+int(n):], nil
}

// Registration makes the data of a raft.EntrySession: the session expires when the log's time has gone on by idle since its last entry.
func Registration(idle time.Duration) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(idle))
}
