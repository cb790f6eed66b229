package pebblelog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node/raft"
	"quorate/storage"
)

// Last returns the newest log id, or the purged one if the log is empty.
func (l *Log) Last() raft.LogID {
	_, last := l.window.bounds()
	return last
}

// Purged returns the newest purged log id.
func (l *Log) Purged() raft.LogID {
	purged, _ := l.window.bounds()
	return purged
}

// Entries appends entries from lo up to, not including, hi: from memory if the first of them is there, else from disk.
func (l *Log) Entries(into []raft.Entry, lo, hi uint64, maxBytes int) ([]raft.Entry, error) {
	if hi <= lo {
		return into, fmt.Errorf("read entries %d to %d: the range is empty", lo, hi)
	}
	if l.closed.Load() {
		return into, storage.ErrClosed
	}
	if entries, ok := l.window.read(into, lo, hi, maxBytes); ok {
		return entries, nil
	}
	entries, err := readSettled(l, lo, func(last raft.LogID) ([]raft.Entry, error) {
		return l.readDisk(lo, min(hi, last.Index+1), maxBytes)
	})
	return append(into, entries...), err
}

// readSettled reads from disk what begins at an index. A read that fails is tried once more with no write under way: one that changed
// Pebble but not yet the window looks like damage.
func readSettled[T any](l *Log, index uint64, read func(last raft.LogID) (T, error)) (v T, err error) {
	if err := l.enter(); err != nil {
		return v, err
	}
	defer l.db.leave()
	last, err := l.checkIndex(index)
	if err != nil {
		return v, err
	}
	if v, err = read(last); err == nil {
		return v, nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if last, err = l.checkIndex(index); err != nil {
		return v, err
	}
	if v, err = read(last); err == nil {
		return v, nil
	}
	if fault := l.db.fault.Get(); fault != nil {
		return v, fmt.Errorf("read log index %d: the store has failed: %w", index, fault)
	}
	return v, fmt.Errorf("read the log from index %d: %w", index, err)
}

func (l *Log) readDisk(lo, hi uint64, maxBytes int) (entries []raft.Entry, err error) {
	it, err := l.iterate(lo, hi)
	if err != nil {
		return nil, damagedIf(err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	bytes := 0
	for ok := it.First(); ok; ok = it.Next() {
		entry, err := openAt(it)
		if err != nil {
			return nil, err
		}
		if bytes += len(entry.Raw); bytes > maxBytes && len(entries) > 0 {
			return entries, nil
		}
		if want := lo + uint64(len(entries)); entry.ID.Index != want {
			return nil, missing(want)
		}
		if n := len(entries); n > 0 && entry.ID.Term < entries[n-1].ID.Term {
			return nil, fmt.Errorf("%w: after entry %v comes %v", storage.ErrCorrupt, entries[n-1].ID, entry.ID)
		}
		entries = append(entries, entry)
	}
	if err := it.Error(); err != nil {
		return nil, damagedIf(err)
	}
	if len(entries) == 0 {
		return nil, missing(lo)
	}
	return entries, nil
}

func missing(index uint64) error {
	return fmt.Errorf("log index %d: %w: the entry is missing", index, storage.ErrCorrupt)
}

// checkIndex returns the end of the log, and an error if there is no entry at index.
func (l *Log) checkIndex(index uint64) (last raft.LogID, err error) {
	purged, last := l.window.bounds()
	switch {
	case index <= purged.Index:
		return last, fmt.Errorf("log index %d: %w (up to %v)", index, storage.ErrPurged, purged)
	case index > last.Index:
		return last, fmt.Errorf("log index %d: %w (the last is %v)", index, storage.ErrOutOfRange, last)
	}
	return last, nil
}

// Term returns the term of the entry at index.
func (l *Log) Term(index uint64) (uint64, error) {
	if l.closed.Load() {
		return 0, storage.ErrClosed
	}
	if term, ok := l.window.term(index); ok {
		return term, nil
	}
	return readSettled(l, index, func(raft.LogID) (uint64, error) { return l.readTerm(index) })
}

// termNow is Term for the writer, which holds what Term would wait for.
func (l *Log) termNow(index uint64) (uint64, error) {
	if term, ok := l.window.term(index); ok {
		return term, nil
	}
	if _, err := l.checkIndex(index); err != nil {
		return 0, err
	}
	return l.readTerm(index)
}

func (l *Log) readTerm(index uint64) (uint64, error) {
	value, closer, err := l.db.pebble.Get(l.entryKey(index))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, missing(index)
	}
	if err != nil {
		return 0, damagedIf(err)
	}
	entry, err := openEntry(index, value)
	return entry.ID.Term, errors.Join(err, closer.Close())
}
