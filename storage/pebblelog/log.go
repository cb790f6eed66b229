package pebblelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node/raft"
	"quorate/storage"
)

// Kinds of keys below a group's prefix.
const (
	kindEntry    = 'e'
	kindGenesis  = 'g'
	kindIdentity = 'i'
	kindPurge    = 'p'
	kindVote     = 'v'
)

// Log is the log of one group. It implements storage.LogStore. One goroutine at a time may call the methods that write (Write, Purge,
// SetIdentity, SetGenesis); all others are safe from several goroutines, beside writes too.
type Log struct {
	db     *DB
	name   string
	ownsDB bool
	prefix []byte
	closed atomic.Bool

	writing sync.Mutex // held from before a write changes Pebble until the window has followed
	window  window
	records records

	reclaimer reclaimer
}

// records are the small things that a log keeps beside its entries.
type records struct {
	mu       sync.RWMutex // guards what follows
	vote     raft.Vote
	identity *storage.Identity
	genesis  *storage.Genesis
}

// OpenLog opens a directory that holds one log. Closing the log closes the directory.
func OpenLog(dir string, options Options) (*Log, error) {
	db, err := Open(dir, options)
	if err != nil {
		return nil, err
	}
	log, err := db.Group("log")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("directory %s: %w", dir, err), db.Close())
	}
	log.ownsDB = true
	return log, nil
}

// Group opens the log of that name, or makes it. A name can be open once at a time. It reads the records and the newest entries, as many
// as stay in memory, and refuses a log in which these are damaged; older entries are checked whenever they are read.
func (db *DB) Group(name string) (*Log, error) {
	if len(name) == 0 || len(name) > 255 {
		return nil, fmt.Errorf("open log group: name %q must have 1 to 255 bytes", name)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil, fmt.Errorf("open log group %q: %w", name, storage.ErrClosed)
	}
	if db.groups[name] != nil {
		return nil, fmt.Errorf("log group %q is open already", name)
	}
	l := &Log{db: db, name: name, prefix: append([]byte{1, byte(len(name))}, name...)}
	l.window.maxBytes = db.options.WindowBytes
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("open log group %q: %w (its data is damaged: restore this node from a backup, or replace it by a node with an empty directory and a new name)", name, err)
	}
	db.groups[name] = l
	return l, nil
}

func (l *Log) key(kind byte) []byte { return append(l.prefix[:len(l.prefix):len(l.prefix)], kind) }

func (l *Log) entryKey(index uint64) []byte {
	return binary.BigEndian.AppendUint64(l.key(kindEntry), index)
}

// load reads the records and the end of the log.
func (l *Log) load() error {
	var purged raft.LogID
	err := errors.Join(
		loadRecord(l, kindVote, storage.DecodeVote, func(v raft.Vote) { l.records.vote = v }),
		loadRecord(l, kindPurge, storage.DecodeLogID, func(id raft.LogID) { purged = id }),
		loadRecord(l, kindIdentity, storage.DecodeIdentity, func(id storage.Identity) { l.records.identity = &id }),
		loadRecord(l, kindGenesis, storage.DecodeGenesis, func(g storage.Genesis) { l.records.genesis = &g }),
	)
	if err != nil {
		return err
	}
	l.window.purged, l.window.last = purged, purged
	return l.loadEnd(purged)
}

func loadRecord[T any](l *Log, kind byte, decode func([]byte) (T, error), take func(T)) error {
	value, closer, err := l.db.pebble.Get(l.key(kind))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
	}
	v, err := decode(value)
	if err == nil {
		take(v)
	}
	return errors.Join(err, closer.Close())
}

// loadEnd fills the window backwards from the log's last entry, and checks that the log begins after what was purged.
func (l *Log) loadEnd(purged raft.LogID) (err error) {
	it, err := l.iterate(0, storage.MaxIndex)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.First() {
		return damagedIf(it.Error())
	}
	first, err := openAt(it)
	if err != nil {
		return err
	}
	if first.ID.Index != purged.Index+1 || first.ID.Term < purged.Term {
		return fmt.Errorf("%w: the log begins with %v, but it was purged up to %v", storage.ErrCorrupt, first.ID, purged)
	}
	var newestFirst []raft.Entry
	bytes := 0
	for ok := it.Last(); ok && bytes < l.window.maxBytes; ok = it.Prev() {
		entry, err := openAt(it)
		if err != nil {
			return err
		}
		if n := len(newestFirst); n > 0 && !follows(newestFirst[n-1].ID, entry.ID) {
			return fmt.Errorf("%w: after entry %v comes %v", storage.ErrCorrupt, entry.ID, newestFirst[n-1].ID)
		}
		newestFirst = append(newestFirst, entry)
		bytes += weight(&entry)
	}
	if err := damagedIf(it.Error()); err != nil {
		return err
	}
	l.window.load(newestFirst)
	return nil
}

// follows reports whether an entry may stand in a log right after another.
func follows(id, before raft.LogID) bool { return id.Index == before.Index+1 && id.Term >= before.Term }

// damagedIf wraps what Pebble says of bytes that it could not read.
func damagedIf(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
}

func (l *Log) iterate(lo, hi uint64) (*pebble.Iterator, error) {
	return l.db.pebble.NewIter(&pebble.IterOptions{LowerBound: l.entryKey(lo), UpperBound: l.entryKey(hi)})
}

// openAt decodes the entry under the iterator, from a copy of it, and checks that it stands where it says.
func openAt(it *pebble.Iterator) (raft.Entry, error) {
	value, err := it.ValueAndErr()
	if err != nil {
		return raft.Entry{}, damagedIf(err)
	}
	key := it.Key()
	return openEntry(binary.BigEndian.Uint64(key[len(key)-8:]), append([]byte(nil), value...))
}

func openEntry(index uint64, raw []byte) (raft.Entry, error) {
	entry, err := storage.OpenEntry(raw)
	if err != nil {
		return raft.Entry{}, fmt.Errorf("log index %d: %w", index, err)
	}
	if entry.ID.Index != index {
		return raft.Entry{}, fmt.Errorf("log index %d: %w: entry %v stands there", index, storage.ErrCorrupt, entry.ID)
	}
	return entry, nil
}

// enter must be called before Pebble is used, and db.leave after it, if enter returned nil.
func (l *Log) enter() error {
	if l.closed.Load() {
		return storage.ErrClosed
	}
	return l.db.enter()
}

// Close releases the log, and the directory if OpenLog opened it. Closing again does nothing.
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	l.reclaimer.close()
	l.db.mu.Lock()
	delete(l.db.groups, l.name)
	l.db.mu.Unlock()
	if l.ownsDB {
		return l.db.Close()
	}
	return nil
}

// PebbleMetrics returns the figures of the Pebble that the log is in, or nil when that is closed.
func (l *Log) PebbleMetrics() *pebble.Metrics { return l.db.PebbleMetrics() }
