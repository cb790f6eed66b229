package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/telemetry"
	"quorate/transport"
)

// Names of goroutines in spans, as the design calls them.
const (
	onCaller   = "caller"
	onRaftCore = "RaftCore"
	onBuilder  = "builder"
	onFetcher  = "fetcher"
)

// pendingTrace is the trace of a proposal or a read that is sampled; others have none. It goes with its request through the channel, and
// belongs to whoever has that.
type pendingTrace struct {
	telemetry *telemetry.Telemetry
	parent    trace.SpanContext
	name      string         // raft.propose or raft.read
	span      telemetry.Span // see begin
	sent      time.Time      // into the channel
	taken     time.Time      // out of it, by RaftCore
	id        raft.LogID
	// The write that has the entry: when it began, its number, and whether it was found durable.
	written                        time.Time
	seq                            uint64
	appended, committed, concluded bool
}

// begin begins the measurement and the span of this node's users' proposal or read that is about to be handed to RaftCore.
func (r *request) begin(n *Node, parent trace.SpanContext) {
	if n.metrics != nil {
		r.pending.metrics, r.pending.sent, r.pending.read = n.metrics, time.Now(), r.read
	}
	r.trace(n, parent)
}

// trace begins the span of a proposal or a read that is about to be handed to RaftCore. Most are not sampled, and get none.
func (r *request) trace(n *Node, parent trace.SpanContext) {
	t := n.cfg.Telemetry
	if !t.Records(parent) {
		return
	}
	name := "raft.propose"
	if r.read {
		name = "raft.read"
	}
	r.pending.trace = beginPending(t, parent, name)
}

// beginPending notes that the span of a caller who waits for RaftCore begins.
func beginPending(t *telemetry.Telemetry, parent trace.SpanContext, name string) *pendingTrace {
	return &pendingTrace{telemetry: t, parent: parent, name: name, sent: time.Now()}
}

// begin makes the span, and reports whether it is sampled. RaftCore makes it and not the caller, who would come too late for a write that others
// share.
func (t *pendingTrace) begin() bool {
	if !t.span.Sampled() {
		t.span = t.telemetry.Begin(t.parent, t.name, onCaller, t.sent)
	}
	return t.span.Sampled()
}

// context is the span's, or the zero one if there is none.
func (t *pendingTrace) context() trace.SpanContext {
	if t == nil {
		return trace.SpanContext{}
	}
	return t.span.Context()
}

// end ends the span with the outcome.
func (t *pendingTrace) end(result Result, err error) {
	if t == nil || !t.begin() {
		return
	}
	if err == nil && result.ID.Index > 0 {
		t.span.Set(attrIndex(result.ID.Index))
	}
	t.concluded = true
	t.span.End(time.Now(), err)
}

// handingOn begins the span of a proposal's way to the leader and back.
func (t *pendingTrace) handingOn(leader raft.NodeID) telemetry.Span {
	if t == nil {
		return telemetry.Span{}
	}
	return t.telemetry.Begin(t.span.Context(), "raft.forward", onRaftCore, time.Time{}, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attrNATS, attrSend, attribute.String("quorate.peer", string(leader))))
}

// readIndex begins the span of a question to the leader: below the first of the reads that is sampled, and linked with the others.
func (t *tracing) readIndex(leader raft.NodeID, reads []request) telemetry.Span {
	var span telemetry.Span
	for _, r := range reads {
		switch p := r.pending.trace; {
		case p == nil:
		case !span.Sampled():
			span = t.telemetry.Begin(p.span.Context(), "raft.read_index", onRaftCore, time.Time{}, trace.WithSpanKind(trace.SpanKindClient),
				trace.WithAttributes(attrNATS, attrSend, attribute.String("quorate.peer", string(leader))))
		default:
			span.Link(p.span.Context())
		}
	}
	return span
}

// record records a part of the way that is over.
func (t *pendingTrace) record(name string, from, to time.Time) {
	t.telemetry.Record(t.span.Context(), name, onRaftCore, from, to)
}

// tracing is what RaftCore knows of the requests that are sampled. Nothing in it costs more than a comparison while there are none.
type tracing struct {
	telemetry *telemetry.Telemetry
	self      raft.NodeID
	// entries is shared with the workers.
	entries *sampledEntries
	// pending are the proposals in the log that are not decided.
	pending []*pendingTrace
	// requests are those of peers that are not answered; fresh are those of this pass, before its write.
	requests, fresh []*requestTrace
	// offer is the newest offer of a snapshot by a peer, which causes a fetch and an installation.
	offer    trace.SpanContext
	election telemetry.Span
	role     raft.Role
}

// requestTrace is a peer's request that is sampled.
type requestTrace struct {
	span      telemetry.Span
	written   time.Time
	seq       uint64
	appended  bool
	concluded bool
}

func newTracing(t *telemetry.Telemetry, self raft.NodeID) tracing {
	return tracing{telemetry: t, self: self, entries: &sampledEntries{byIndex: map[uint64]sampledEntry{}}}
}

// queued notes that RaftCore has taken users' requests from their channel.
func (t *tracing) queued(requests []request, now time.Time) {
	for _, r := range requests {
		t.took(r.pending, now)
	}
}

func (t *tracing) took(p *Pending, now time.Time) {
	switch {
	case p.trace == nil:
	case !p.trace.begin():
		p.trace = nil
	default:
		p.trace.taken = now
		p.trace.record("raft.queue", p.trace.sent, now)
	}
}

// proposed notes where a proposal stands in the log.
func (t *tracing) proposed(p *pendingTrace, id raft.LogID) {
	if p == nil {
		return
	}
	p.id = id
	t.pending = append(t.pending, p)
	t.entries.add(id, p.span.Context())
}

// received begins the span of a peer's request, which ends with its answer.
func (t *tracing) received(in *transport.Incoming, now time.Time) {
	if !in.Trace.IsSampled() || !t.telemetry.Records(in.Trace) {
		if _, offers := in.Request.(*raft.InstallRequest); offers {
			t.offer = trace.SpanContext{}
		}
		return
	}
	name, appends := "", false
	switch in.Request.(type) {
	case *raft.AppendRequest:
		name, appends = "raft.append_entries", true
	case *raft.VoteRequest:
		name = "raft.vote"
	case *raft.InstallRequest:
		name = "raft.install_snapshot"
	default:
		return
	}
	r := &requestTrace{span: t.telemetry.Begin(in.Trace, name, onRaftCore, in.Arrived,
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attrNATS, attrProcess, attribute.String("quorate.peer", string(in.From.ID))))}
	if !r.span.Sampled() {
		return
	}
	t.telemetry.Record(r.span.Context(), "raft.queue", onRaftCore, in.Arrived, now)
	if appends {
		t.fresh = slices.DeleteFunc(t.fresh, func(r *requestTrace) bool { return r.concluded }) // those that needed no write
		t.requests, t.fresh = append(t.requests, r), append(t.fresh, r)
	}
	if name == "raft.install_snapshot" {
		t.offer = r.span.Context()
	}
	reply, refuse := in.Reply, in.Refuse
	in.Reply = func(response transport.Response) {
		r.concluded = true
		r.span.End(time.Now(), nil)
		reply(response)
	}
	in.Refuse = func(reason string) {
		r.concluded = true
		r.span.End(time.Now(), &transport.RefusedError{From: t.self, Reason: reason})
		refuse(reason)
	}
}

// wrote notes the write in which what was taken in this pass goes to the disk. It returns the first of that which is sampled.
func (t *tracing) wrote(w *raft.Write, began time.Time) (first trace.SpanContext) {
	for _, r := range t.fresh {
		if r.concluded { // it needed no write
			continue
		}
		r.written, r.seq = began, w.Seq
		first = firstOf(first, r.span)
	}
	t.fresh = t.fresh[:0]
	for _, p := range t.pending {
		if p.seq == 0 {
			p.written, p.seq = began, w.Seq
			first = firstOf(first, p.span)
		}
	}
	return first
}

// firstOf is the first one, if there is one already, and else the span.
func firstOf(first trace.SpanContext, span telemetry.Span) trace.SpanContext {
	if first.IsValid() {
		return first
	}
	return span.Context()
}

// advance records what has become durable, and what is committed. It is called before anything is applied or answered.
func (t *tracing) advance(e *raft.Engine, durable uint64) {
	t.stand(e)
	if len(t.pending) == 0 && len(t.requests) == 0 {
		return
	}
	now := time.Now()
	leads, term, commit := e.Role() == raft.Leader, e.Vote().Term, e.Commit()
	t.pending = slices.DeleteFunc(t.pending, func(p *pendingTrace) bool { return p.concluded })
	for _, p := range t.pending {
		if !p.appended && p.seq > 0 && p.seq <= durable {
			p.appended = true
			p.record("raft.append", p.written, now)
		}
		if !p.committed && leads && p.id.Term == term && p.id.Index <= commit {
			p.commit(now)
		}
	}
	t.requests = slices.DeleteFunc(t.requests, func(r *requestTrace) bool { return r.concluded })
	for _, r := range t.requests {
		if !r.appended && r.seq > 0 && r.seq <= durable {
			r.appended = true
			t.telemetry.Record(r.span.Context(), "raft.append", onRaftCore, r.written, now)
		}
	}
}

// commit records the time until a quorum had the entry.
func (p *pendingTrace) commit(now time.Time) {
	p.committed = true
	p.record("raft.commit", p.taken, now)
}

// applied records that the state machine was given entries. It returns the first of them that is sampled.
func (t *tracing) applied(entries []raft.Entry, began time.Time) (sampled trace.SpanContext) {
	if len(t.pending) == 0 || len(entries) == 0 {
		return sampled
	}
	now := time.Now()
	for _, p := range t.pending {
		first := entries[0].ID.Index
		if p.concluded || p.id.Index < first || p.id.Index-first >= uint64(len(entries)) || entries[p.id.Index-first].ID != p.id {
			continue
		}
		if !p.committed { // by another leader
			p.commit(began)
		}
		p.record("raft.apply", began, now)
		sampled = firstOf(sampled, p.span)
	}
	return sampled
}

// stand follows an election, from the first pre-vote until somebody leads.
func (t *tracing) stand(e *raft.Engine) {
	role := e.Role()
	if role == t.role && !t.election.Sampled() {
		return
	}
	standing := role == raft.Candidate || role == raft.PreCandidate
	wasStanding := t.role == raft.Candidate || t.role == raft.PreCandidate
	begins := (standing && !wasStanding) || (role == raft.Leader && t.role != raft.Leader && !t.election.Sampled())
	if begins && t.telemetry.Records(trace.SpanContext{}) {
		t.election = t.telemetry.Begin(trace.SpanContext{}, "raft.election", onRaftCore, time.Time{})
	}
	if !standing && t.election.Sampled() {
		t.election.Set(attrTerm(e.Vote().Term), attribute.Bool("quorate.elected", role == raft.Leader))
		t.election.End(time.Time{}, nil)
		t.election = telemetry.Span{}
	}
	t.role = role
}

// vote begins the span of a vote that is asked for.
func (t *tracing) vote(v *raft.SendVote) telemetry.Span {
	if !t.election.Sampled() {
		return telemetry.Span{}
	}
	return t.telemetry.Begin(t.election.Context(), "raft.vote", onRaftCore, time.Time{}, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attrNATS, attrSend, attribute.String("quorate.peer", string(v.To.ID)), attrTerm(v.Request.Term), attribute.Bool("quorate.pre_vote", v.Request.Pre)))
}

// end ends what is open when RaftCore ends.
func (t *tracing) end() { t.election.End(time.Time{}, ErrStopped) }

// replicating begins the span of one message of a worker: below the first of its entries that is sampled, with links to the others.
func (w *worker) replicating(req transport.Request) telemetry.Span {
	parent, name := trace.SpanContext{}, "raft.replicate"
	var links []trace.Link
	var attributes []attribute.KeyValue
	switch req := req.(type) {
	case *raft.AppendRequest:
		if parent, links = w.sampled.of(req.Entries); !parent.IsValid() {
			return telemetry.Span{}
		}
		first, last := req.Entries[0].ID.Index, req.Entries[len(req.Entries)-1].ID.Index
		attributes = append(attributes, attribute.Int("messaging.batch.message_count", len(req.Entries)),
			attribute.Int64("quorate.first_index", int64(first)), attribute.Int64("quorate.last_index", int64(last)), attrTerm(req.Term))
	case *raft.InstallRequest:
		if !w.telemetry.Records(parent) {
			return telemetry.Span{}
		}
		name = "raft.snapshot.offer"
		attributes = append(attributes, attrIndex(req.Snapshot.Last.Index), attrTerm(req.Term))
	}
	target := string(w.newest.Peer.ID)
	attributes = append(attributes, attrNATS, attrSend, attribute.String("quorate.target", target))
	return w.telemetry.Begin(parent, name, "worker "+target, time.Time{},
		trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links...), trace.WithAttributes(attributes...))
}

// callTraced calls a peer and ends the span with the answer, before done is told.
func callTraced(t transport.Transport, to raft.Peer, req transport.Request, span telemetry.Span, timeout time.Duration, done func(transport.Answer)) {
	carrier, ok := t.(transport.TraceCarrier)
	if !span.Sampled() || !ok {
		if span.Sampled() {
			done = endingSpan(span, done)
		}
		t.Call(to, req, timeout, done)
		return
	}
	carrier.CallTraced(to, req, span.Context(), timeout, endingSpan(span, done))
}

func endingSpan(span telemetry.Span, done func(transport.Answer)) func(transport.Answer) {
	return func(a transport.Answer) {
		span.End(a.Arrived, a.Err)
		done(a)
	}
}

// sampledEntries tells the workers which entries are sampled. An entry is remembered beyond its commit, since slower targets get it later, but
// only the newest ones are.
type sampledEntries struct {
	// newest index that was sampled: what lies beyond it needs no look, and no lock.
	newest atomic.Uint64

	mu      sync.Mutex // guards all below
	byIndex map[uint64]sampledEntry
	order   []uint64 // the keys of byIndex, each once, that which was added last at the end
}

type sampledEntry struct {
	id   raft.LogID
	span trace.SpanContext
}

// maxSampledEntries is how many are remembered: a second's worth of heavy sampling.
const maxSampledEntries = 1024

func (s *sampledEntries) add(id raft.LogID, span trace.SpanContext) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.byIndex[id.Index]; again { // another leader has written there meanwhile
		s.order = slices.DeleteFunc(s.order, func(index uint64) bool { return index == id.Index })
	}
	if len(s.order) == maxSampledEntries {
		delete(s.byIndex, s.order[0])
		s.order = append(s.order[:0], s.order[1:]...)
	}
	s.byIndex[id.Index] = sampledEntry{id: id, span: span}
	s.order = append(s.order, id.Index)
	s.newest.Store(max(s.newest.Load(), id.Index))
}

// of returns the first of the entries that is sampled, and links to the others.
func (s *sampledEntries) of(entries []raft.Entry) (first trace.SpanContext, others []trace.Link) {
	if len(entries) == 0 || entries[0].ID.Index > s.newest.Load() {
		return first, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range entries {
		e, ok := s.byIndex[entries[i].ID.Index]
		switch {
		case !ok || e.id != entries[i].ID:
		case !first.IsValid():
			first = e.span
		default:
			others = append(others, trace.Link{SpanContext: e.span})
		}
	}
	return first, others
}

// traceWork begins a span of the goroutines that build and fetch snapshots, and returns a context in which it is the current one.
func traceWork(ctx context.Context, t *telemetry.Telemetry, name, goroutine string) (context.Context, telemetry.Span) {
	parent := trace.SpanContextFromContext(ctx)
	if !t.Records(parent) {
		if t.BeginsTraces() { // what is a part of it is not sampled either
			ctx = trace.ContextWithSpanContext(ctx, telemetry.Unsampled())
		}
		return ctx, telemetry.Span{}
	}
	span := t.Begin(parent, name, goroutine, time.Time{})
	return span.In(ctx), span
}

// endSnapshot ends the span of work on a snapshot.
func endSnapshot(span telemetry.Span, index uint64, err error) {
	if span.Sampled() {
		span.Set(attrIndex(index))
		span.End(time.Time{}, err)
	}
}

// Attributes, after the conventions for messaging where there are any.
var (
	attrNATS    = attribute.String("messaging.system", "nats")
	attrSend    = attribute.String("messaging.operation.type", "send")
	attrProcess = attribute.String("messaging.operation.type", "process")
)

func attrTerm(term uint64) attribute.KeyValue { return attribute.Int64("quorate.term", int64(term)) }
func attrIndex(index uint64) attribute.KeyValue {
	return attribute.Int64("quorate.index", int64(index))
}
