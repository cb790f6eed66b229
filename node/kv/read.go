package kv

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"
)

// Get returns the version of key as of a revision, or the newest one for revision 0. ErrNotFound if there was none,
// ErrCompacted if the revision is older than the history that is kept.
// It reads what this node has applied: for a linearizable read call node.Node.ReadIndex first.
func (s *Store) Get(key string, revision uint64) (Entry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return Entry{}, errClosed
	}
	entry, err := s.at([]byte(key), revision)
	if err == nil && entry.Revision == 0 {
		err = ErrNotFound
	}
	return entry, err
}

// newest is at for the newest revision.
func (s *Store) newest(key []byte) (Entry, error) { return s.at(key, 0) }

// at returns the version of key as of the revision; the zero Revision says that there is none. mu must be held.
func (s *Store) at(key []byte, revision uint64) (Entry, error) {
	if revision == 0 {
		revision = math.MaxUint64
	}
	lower := appendVersionKey(make([]byte, 0, len(key)+16), key, revision)
	upper := appendKey(make([]byte, 0, len(key)+16), key)
	upper[len(upper)-1] = afterVersions
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return Entry{}, fmt.Errorf("read key %q: %w", key, err)
	}
	entry := Entry{Key: string(key)}
	if err = s.history.check(revision); err == nil && it.First() {
		err = fillEntry(&entry, it, true)
	}
	if err = errors.Join(err, it.Error(), it.Close()); err != nil {
		return Entry{}, fmt.Errorf("read key %q: %w", key, err)
	}
	return entry, nil
}

// fillEntry reads the version under the iterator. A tombstone leaves Revision zero.
func fillEntry(entry *Entry, it *pebble.Iterator, withValue bool) error {
	record, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	deleted, at, value, err := splitRecord(record)
	if err != nil || deleted {
		return err
	}
	if _, entry.Revision, err = splitVersionKey(nil, it.Key()); err != nil {
		return err
	}
	entry.Time = at
	if withValue {
		entry.Value = bytes.Clone(value)
	}
	return nil
}

// RangeOptions say which page of keys to read.
type RangeOptions struct {
	// Prefix that the keys begin with.
	Prefix string
	// After: only keys greater than this one.
	After string
	// Revision to read as of; 0 for what is applied now.
	Revision uint64
	// KeysOnly leaves values out.
	KeysOnly bool
	// Limit is the most entries, MaxBytes the most bytes of keys and values, with 64 for each entry, but at least one entry. 0 for no limit.
	Limit, MaxBytes int
}

// Range returns a page of entries in key order, and whether there are more. Like Get it reads what this node has applied.
// ErrCompacted as of Get.
func (s *Store) Range(o RangeOptions) (entries []Entry, more bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil, false, errClosed
	}
	if o.Revision == 0 {
		o.Revision = math.MaxUint64
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: rangeStart(o), UpperBound: prefixEnd(o.Prefix)})
	if err != nil {
		return nil, false, fmt.Errorf("list keys with prefix %q: %w", o.Prefix, err)
	}
	if err = s.history.check(o.Revision); err == nil {
		entries, more, err = s.scan(it, o)
	}
	if err = errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, false, fmt.Errorf("list keys with prefix %q: %w", o.Prefix, err)
	}
	return entries, more, nil
}

func rangeStart(o RangeOptions) []byte {
	if o.After < o.Prefix || o.After == "" {
		return appendEscaped([]byte{dataPrefix}, []byte(o.Prefix))
	}
	return versionsEnd([]byte(o.After))
}

// prefixEnd is the first Pebble key after all keys that begin with the prefix.
func prefixEnd(prefix string) []byte {
	end := appendEscaped([]byte{dataPrefix}, []byte(prefix))
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

func (s *Store) scan(it *pebble.Iterator, o RangeOptions) (entries []Entry, more bool, err error) {
	size := 0
	var seek []byte
	for ok := it.First(); ok; {
		key, revision, err := splitVersionKey(nil, it.Key())
		if err != nil {
			return nil, false, err
		}
		if revision > o.Revision { // too new: the newest one that is old enough
			seek = appendVersionKey(seek[:0], key, o.Revision)
			ok = it.SeekGE(seek)
			continue
		}
		entry := Entry{Key: string(key)}
		if err := fillEntry(&entry, it, !o.KeysOnly); err != nil {
			return nil, false, err
		}
		if entry.Revision != 0 {
			size += len(entry.Key) + len(entry.Value) + entryOverhead
			if (o.Limit > 0 && len(entries) == o.Limit) || (o.MaxBytes > 0 && size > o.MaxBytes && len(entries) > 0) {
				return entries, true, nil
			}
			entries = append(entries, entry)
		}
		seek = appendKey(seek[:0], key)
		seek[len(seek)-1] = afterVersions
		ok = it.SeekGE(seek)
	}
	return entries, false, nil
}
