package kv

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node"
	"quorate/node/kv/kvpb"
)

// reading is a request that waits for a read index.
type reading struct {
	request micro.Request
	// leased: a lease will do in place of a read index.
	leased bool
	// answer reads the store, which includes everything up to the read index.
	answer func(request micro.Request, at readAt) error
}

// readAt is where a read stands, and what it was served with.
type readAt struct {
	index       uint64
	consistency uint32
}

// staleness of what this node has applied, in nanoseconds, or -1 if it never heard of a leader.
func (l *server) staleness() int64 {
	d, ok := l.node.Staleness()
	if !ok {
		return -1
	}
	return int64(d)
}

func (l *server) get(request micro.Request) {
	request = l.trace(request, "kv.get", false)
	key := l.keyOf(request)
	if err := checkKey(key); err != nil {
		l.fail(request, codeBadRequest, err.Error())
		return
	}
	name := request.Headers().Get(HeaderConsistency)
	consistency, ok := consistencies[name]
	if !ok {
		l.fail(request, codeBadRequest, fmt.Sprintf("header %s: %q is none that this node knows", HeaderConsistency, name))
		return
	}
	l.enqueue(request, consistency, func(request micro.Request, at readAt) error {
		entry, err := l.store.Get(key, 0)
		if errors.Is(err, ErrNotFound) {
			l.fail(request, codeNotFound, err.Error())
			return nil
		}
		if err != nil {
			return err
		}
		header := nats.Header{HeaderRevision: {strconv.FormatUint(entry.Revision, 10)}}
		if name != "" {
			header.Set(HeaderConsistency, at.name())
		}
		l.reply(request, entry.Value, header)
		return nil
	})
}

func (l *server) read(request micro.Request) {
	var read kvpb.ReadRequest
	if err := read.UnmarshalVTUnsafe(request.Data()); err != nil || read.Version != commandVersion {
		l.fail(request, codeBadRequest, fmt.Sprintf("request version %d: %v", read.Version, err))
		return
	}
	request = l.trace(request, "kv.get", read.Unsampled, read.Traces...)
	l.enqueue(request, read.Consistency, func(request micro.Request, at readAt) error {
		response := kvpb.ReadResponse{
			Leader: l.self(), Node: string(l.node.Config().ID), StalenessNs: l.staleness(), Leased: at.consistency == consistencyLease,
		}
		limit, size := l.pageBytes(), 0
		for _, key := range read.Keys {
			entry, err := l.store.Get(string(key), 0)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			// What does not fit into one message is left out; the client asks again for the rest.
			if size += len(entry.Value) + len(key) + entryOverhead; size > limit && len(response.Versions) > 0 {
				break
			}
			response.Versions = append(response.Versions, versionOf(entry))
		}
		l.respond(request, response.MarshalVT)
		return nil
	})
}

func (l *server) list(request micro.Request) {
	var r kvpb.RangeRequest
	err := r.UnmarshalVT(request.Data())
	request = l.trace(request, "kv.list", r.Unsampled)
	if err != nil || r.Version != commandVersion {
		l.fail(request, codeBadRequest, fmt.Sprintf("request version %d: %v", r.Version, err))
		return
	}
	limit := maxPageEntries
	if r.Limit > 0 {
		limit = int(min(r.Limit, maxPageEntries))
	}
	l.enqueue(request, r.Consistency, func(request micro.Request, at readAt) error {
		if applied := l.store.history.last.Load(); r.Revision > applied {
			// A crash has set this node back since the page before; what it has yet to apply again must not be left out.
			return fmt.Errorf("a page as of revision %d: this node has applied %d only", r.Revision, applied)
		}
		revision := r.Revision
		if revision == 0 {
			revision = at.index
		}
		page := RangeOptions{
			Prefix: string(r.Prefix), After: string(r.After), Revision: revision, KeysOnly: r.KeysOnly,
			Limit: limit, MaxBytes: l.pageBytes(),
		}
		entries, more, err := l.store.Range(page)
		for r.Revision == 0 && errors.Is(err, ErrCompacted) { // writes went on, and little history is kept: a first page may be newer
			revision = l.store.history.last.Load()
			page.Revision = revision
			entries, more, err = l.store.Range(page)
		}
		if errors.Is(err, ErrCompacted) {
			l.fail(request, codeCompacted, err.Error())
			return nil
		}
		if err != nil {
			return err
		}
		response := kvpb.RangeResponse{
			Revision: revision, More: more, Node: string(l.node.Config().ID), StalenessNs: l.staleness(), Leased: at.consistency == consistencyLease,
		}
		for _, entry := range entries {
			response.Versions = append(response.Versions, versionOf(entry))
		}
		if size, most := response.SizeVT(), l.mostAnswer(); size > most && len(entries) == 1 {
			l.fail(request, codeTooLarge, fmt.Sprintf("the answer with the value of %q has %d bytes, and one that this NATS server takes at most %d", entries[0].Key, size, most))
			return nil
		}
		l.respond(request, response.MarshalVT)
		return nil
	})
}

const (
	// maxPageEntries is how many entries a page may have, so that no answer takes long to make.
	maxPageEntries = 10_000
	// entryOverhead is what surrounds the key and value of an entry in an answer, generously.
	entryOverhead = 64
)

// pageBytes is how much an answer may hold: half of the largest message, which leaves room for what surrounds the entries.
func (l *server) pageBytes() int { return int(l.node.Conn().MaxPayload() / 2) }

func versionOf(entry Entry) *kvpb.Version {
	v := &kvpb.Version{Key: []byte(entry.Key), Value: entry.Value, Revision: entry.Revision}
	if entry.Revision != 0 {
		v.Time = entry.Time.UnixNano()
	}
	return v
}

// Consistencies of reads, as they stand on the wire.
const (
	consistencyLinearizable = 0
	consistencyLocal        = 1
	consistencyLease        = 2
)

// consistencies by their names.
var consistencies = map[string]uint32{
	"": consistencyLinearizable, "linearizable": consistencyLinearizable, "local": consistencyLocal, "lease": consistencyLease,
}

func (at readAt) name() string { return [...]string{"linearizable", "local", "lease"}[at.consistency] }

// enqueue has a linearizable read wait for its index; a local one, and one under a lease, is answered at once.
func (l *server) enqueue(request micro.Request, consistency uint32, answer func(request micro.Request, at readAt) error) {
	r := reading{request: request, answer: answer, leased: consistency == consistencyLease}
	switch consistency {
	case consistencyLinearizable:
	case consistencyLocal:
		l.answerAll([]reading{r}, readAt{l.node.Status().AppliedIndex, consistency}, nil)
		return
	case consistencyLease:
		if index, ok := l.node.TryReadLease(); ok {
			l.answerAll([]reading{r}, readAt{index, consistency}, nil)
			return
		}
	default:
		l.fail(request, codeBadRequest, fmt.Sprintf("consistency %d is not known to this node", consistency))
		return
	}
	select {
	case l.reads <- r:
	default:
		l.refuse(request, errors.New("busy: too many reads are waiting"))
	}
}

// answerReads takes all reads that wait, gets one read index for them, and answers them.
func (l *server) answerReads(ctx context.Context) {
	ctx = inNone(ctx) // whether a read is sampled was decided when it came
	var waiting, leased []reading
	add := func(r reading) {
		if r.leased {
			leased = append(leased, r)
		} else {
			waiting = append(waiting, r)
		}
	}
	for {
		waiting, leased = waiting[:0], leased[:0]
		select {
		case <-ctx.Done():
			return
		case r := <-l.reads:
			add(r)
		}
		for range len(l.reads) {
			add(<-l.reads)
		}
		if len(leased) > 0 {
			at, err := l.readLease(readsBelow(ctx, leased))
			if ctx.Err() != nil {
				return
			}
			l.answerAll(leased, at, err)
		}
		if len(waiting) > 0 {
			index, err := l.readIndex(readsBelow(ctx, waiting))
			if ctx.Err() != nil {
				return
			}
			l.answerAll(waiting, readAt{index: index}, err)
		}
	}
}

// readLease waits until the node has applied what a read under its lease must see; without a lease for a read index.
func (l *server) readLease(ctx context.Context) (readAt, error) {
	index, leased, err := l.node.ReadLease(ctx)
	if !leased {
		return readAt{index: index}, err
	}
	return readAt{index, consistencyLease}, err
}

func (l *server) leaderReadIndex(ctx context.Context) (uint64, error) {
	pending, err := l.node.SubmitReadTraced(ctx)
	if err != nil {
		return 0, err
	}
	result, err := pending.Wait(ctx)
	return result.ID.Index, err
}

func (l *server) answerAll(waiting []reading, at readAt, err error) {
	var notLeader *node.NotLeaderError
	if errors.As(err, &notLeader) && l.term != 0 {
		for _, r := range waiting {
			giveUp(r.request, err)
		}
		return // stay silent: the leader answers
	}
	for _, r := range waiting {
		if err == nil {
			if failed := r.answer(r.request, at); failed != nil {
				l.refuse(r.request, failed)
			}
			continue
		}
		l.refuse(r.request, err)
	}
}
