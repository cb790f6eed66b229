package storagetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"quorate/node/raft"
	"quorate/storage"
)

// model is what a store must hold: the slow and obvious one. Its values are never changed in place.
type model struct {
	vote    raft.Vote
	purged  raft.LogID
	entries []raft.Entry // from purged.Index+1 on
}

func (m model) last() raft.LogID {
	if len(m.entries) == 0 {
		return m.purged
	}
	return m.entries[len(m.entries)-1].ID
}

func (m model) write(w storage.Write) model {
	if w.Vote != nil {
		m.vote = *w.Vote
	}
	if w.TruncateFrom != 0 && w.TruncateFrom <= m.last().Index {
		m.entries = m.entries[:w.TruncateFrom-m.purged.Index-1]
	}
	m.entries = slices.Concat(m.entries, w.Append)
	return m
}

func (m model) purge(upTo raft.LogID) model {
	m.entries = slices.Clone(m.entries[upTo.Index-m.purged.Index:])
	m.purged = upTo
	return m
}

// read is what Entries must return, for a range that begins in the log.
func (m model) read(lo, hi uint64, maxBytes int) []raft.Entry {
	var entries []raft.Entry
	for _, e := range m.entries[lo-m.purged.Index-1:] {
		if maxBytes -= len(e.Raw); e.ID.Index >= hi || maxBytes < 0 && len(entries) > 0 {
			break
		}
		entries = append(entries, e)
	}
	return entries
}

// String shows a state in a line.
func (m model) String() string {
	s := fmt.Sprintf("%v, purged %v, entries", m.vote, m.purged)
	for _, e := range m.entries {
		s += " " + e.ID.String()
	}
	return s
}

// difference says in what a store differs from the model, or "".
func (m model) difference(store storage.LogStore) string {
	if got := store.Vote(); got != m.vote {
		return fmt.Sprintf("the vote is %v, want %v", got, m.vote)
	}
	if got := store.Purged(); got != m.purged {
		return fmt.Sprintf("it is purged up to %v, want %v", got, m.purged)
	}
	if got := store.Last(); got != m.last() {
		return fmt.Sprintf("the last entry is %v, want %v", got, m.last())
	}
	if term, err := store.Term(m.purged.Index); err != nil || term != m.purged.Term {
		return fmt.Sprintf("the term at index %d, where the log begins, is %d (%v), want %d", m.purged.Index, term, err, m.purged.Term)
	}
	for i, want := range m.entries {
		// In a long log some, among them the last, stand for all: the terms are compared again with the entries.
		if stride := 1 + len(m.entries)/16; (len(m.entries)-1-i)%stride != 0 {
			continue
		}
		if term, err := store.Term(want.ID.Index); err != nil || term != want.ID.Term {
			return fmt.Sprintf("the term at index %d is %d (%v), want %d", want.ID.Index, term, err, want.ID.Term)
		}
	}
	if len(m.entries) == 0 {
		return ""
	}
	return m.differenceOfRead(store, m.purged.Index+1, m.last().Index+1, 1<<30)
}

// differenceOfRead says in what a read of a range that begins in the log differs, or "".
func (m model) differenceOfRead(store storage.LogStore, lo, hi uint64, maxBytes int) string {
	before := []raft.Entry{{ID: raft.LogID{Term: 1, Index: 1<<40 + lo}}} // what is in the slice already stays
	got, err := store.Entries(slices.Clone(before), lo, hi, maxBytes)
	if err != nil {
		return fmt.Sprintf("entries %d to %d: %v", lo, hi, err)
	}
	if len(got) == 0 || got[0].ID != before[0].ID {
		return fmt.Sprintf("entries %d to %d are not appended to the slice that was given", lo, hi)
	}
	got = got[1:]
	want := m.read(lo, hi, maxBytes)
	if !slices.EqualFunc(got, want, equalEntries) {
		return fmt.Sprintf("entries %d to %d, up to %d bytes, are %s, want %s", lo, hi, maxBytes, ids(got), ids(want))
	}
	return ""
}

func equalEntries(a, b raft.Entry) bool {
	return a.ID == b.ID && a.Kind == b.Kind && a.Time == b.Time && a.Session == b.Session && a.Sequence == b.Sequence &&
		a.LowWater == b.LowWater && bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Raw, b.Raw) && a.Membership.String() == b.Membership.String() &&
		(a.Setting == nil) == (b.Setting == nil) && (a.Setting == nil || *a.Setting == *b.Setting)
}

func ids(entries []raft.Entry) string {
	s := "["
	for _, e := range entries {
		s += fmt.Sprintf(" %v(%d bytes)", e.ID, len(e.Raw))
	}
	return s + " ]"
}

// entry returns an entry whose content follows from its log id, so that a reader can tell a wrong one, with n more bytes of payload.
func entry(t fataler, term, index uint64, n int) raft.Entry {
	t.Helper()
	e := raft.Entry{ID: raft.LogID{Term: term, Index: index}, Kind: raft.EntryCommand, Time: int64(index), Session: term, Sequence: index, LowWater: 1}
	e.Data = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, term), index)
	e.Data = append(e.Data, make([]byte, n)...)
	if err := storage.SealEntry(&e); err != nil {
		t.Fatalf("seal: %v", err)
	}
	return e
}

// setting returns an entry of the setting kind whose content follows from its log id.
func setting(t fataler, term, index uint64) raft.Entry {
	t.Helper()
	e := raft.Entry{
		ID: raft.LogID{Term: term, Index: index}, Kind: raft.EntrySetting, Setting: &raft.Setting{Lease: time.Duration(index) * time.Millisecond},
	}
	if err := storage.SealEntry(&e); err != nil {
		t.Fatalf("seal: %v", err)
	}
	return e
}

// entries returns small entries of one term, from index lo to hi inclusive.
func entries(t fataler, term, lo, hi uint64) []raft.Entry {
	t.Helper()
	var list []raft.Entry
	for index := lo; index <= hi; index++ {
		list = append(list, entry(t, term, index, 0))
	}
	return list
}

// genuine reports whether an entry's content is what entry gave it.
func genuine(e raft.Entry) bool {
	return len(e.Data) >= 16 && binary.BigEndian.Uint64(e.Data) == e.ID.Term && binary.BigEndian.Uint64(e.Data[8:]) == e.ID.Index &&
		e.Session == e.ID.Term && e.Sequence == e.ID.Index
}
