package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/storage/pebblestats"
	"quorate/telemetry"
)

// metrics are the instruments of a node; nil if nothing is measured. What the node publishes anyway is read when it is asked for, so it
// costs nothing meanwhile; what is measured as it happens is measured once a batch where that will do.
type metrics struct {
	proposals metric.Int64Counter
	propose   metric.Float64Histogram
	queue     metric.Float64Histogram
	batch     metric.Int64Histogram
	append    metric.Float64Histogram
	fsync     metric.Float64Histogram
	apply     metric.Float64Histogram
	roundTrip metric.Float64Histogram
	elections metric.Int64Counter
	leaders   metric.Int64Counter
	leased    metric.Int64Counter
	snapshots snapshotMetrics
	// Options with attributes, made once.
	channels  [channelCount][]metric.RecordOption
	decided   map[string]decidedOptions
	meter     metric.Meter
	observing []metric.Registration

	mu      sync.Mutex // guards targets
	targets map[raft.NodeID]*targetMetrics
}

// channel is one of those between goroutines.
type channel int

const (
	channelAPI      channel = iota // user → RaftCore
	channelControl                 // the same, for what is rare
	channelRPC                     // transport → RaftCore
	channelTarget                  // RaftCore → worker
	channelReplies                 // transport → worker
	channelProgress                // worker → RaftCore
	channelDurable                 // sync waiter → RaftCore
	channelAnswers                 // transport → RaftCore, of its own votes and probes
	channelSnapshot                // builder and fetcher → RaftCore
	channelCount
)

func (c channel) String() string {
	return [...]string{"api", "control", "rpc", "target", "replies", "progress", "durable", "answers", "snapshot"}[c]
}

// targetMetrics are those of one worker.
type targetMetrics struct {
	options []metric.RecordOption
	// What is under way to the target.
	messages, bytes atomic.Int64
}

// flying notes what is under way now.
func (t *targetMetrics) flying(messages, bytes int) {
	if t != nil {
		t.messages.Store(int64(messages))
		t.bytes.Store(int64(bytes))
	}
}

type decidedOptions struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

// Outcomes of proposals, in metrics.
const (
	outcomeApplied   = "applied"
	outcomeNotLeader = "not_leader"
	outcomeBusy      = "busy"
	outcomeLost      = "lost"
	outcomeUnknown   = "unknown"
	outcomeRefused   = "refused"
)

// seconds are the bounds of histograms of durations: from a channel's hand-over to an election timeout.
var seconds = metric.WithExplicitBucketBoundaries(
	.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5)

// newMetrics makes the instruments.
func newMetrics(t *telemetry.Telemetry) (*metrics, error) {
	if !t.Measures() {
		return nil, nil
	}
	meter := t.Meter()
	m := &metrics{decided: map[string]decidedOptions{}, meter: meter, targets: map[raft.NodeID]*targetMetrics{}}
	var errs [12]error
	m.proposals, errs[0] = meter.Int64Counter("quorate.proposals", metric.WithUnit("{proposal}"), metric.WithDescription("Proposals and reads of this node's users that were decided, by kind and outcome."))
	m.propose, errs[1] = meter.Float64Histogram("quorate.propose.duration", metric.WithUnit("s"), seconds, metric.WithDescription("Time from a proposal or read to its outcome."))
	m.queue, errs[2] = meter.Float64Histogram("quorate.queue.duration", metric.WithUnit("s"), seconds, metric.WithDescription("Time in a channel before it was taken out, by channel."))
	m.batch, errs[3] = meter.Int64Histogram("quorate.append.batch.size", metric.WithUnit("{entry}"), metric.WithExplicitBucketBoundaries(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048), metric.WithDescription("Entries in one write to the log."))
	m.append, errs[4] = meter.Float64Histogram("quorate.append.duration", metric.WithUnit("s"), seconds, metric.WithDescription("Time from a write to the log until it is durable, fsync included."))
	m.apply, errs[5] = meter.Float64Histogram("quorate.apply.duration", metric.WithUnit("s"), seconds, metric.WithDescription("Time that the state machine took for a batch."))
	m.roundTrip, errs[6] = meter.Float64Histogram("quorate.replication.duration", metric.WithUnit("s"), seconds, metric.WithDescription("Time from sending a message to a target until its answer, by target."))
	m.elections, errs[7] = meter.Int64Counter("quorate.elections", metric.WithUnit("{election}"), metric.WithDescription("Times that this node stood for election in a new term; pre-votes do not count."))
	m.leaders, errs[8] = meter.Int64Counter("quorate.leader.changes", metric.WithUnit("{change}"), metric.WithDescription("Times that this node saw another leader than before."))
	m.leased, errs[9] = meter.Int64Counter("quorate.lease.reads", metric.WithUnit("{read}"), metric.WithDescription("Reads that were served under this leader's lease, without a round to the quorum."))
	m.fsync, errs[10] = meter.Float64Histogram("quorate.fsync.duration", metric.WithUnit("s"), seconds, metric.WithDescription("Time that one fsync of the log's write-ahead log took."))
	m.snapshots, errs[11] = newSnapshotMetrics(meter)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	for c := range m.channels {
		m.channels[c] = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("quorate.channel", channel(c).String())))}
	}
	for _, kind := range []string{"propose", "read"} {
		for _, outcome := range []string{outcomeApplied, outcomeNotLeader, outcomeBusy, outcomeLost, outcomeUnknown, outcomeRefused} {
			set := metric.WithAttributeSet(attribute.NewSet(attribute.String("quorate.kind", kind), attribute.String("quorate.outcome", outcome)))
			m.decided[kind+outcome] = decidedOptions{add: []metric.AddOption{set}, record: []metric.RecordOption{set}}
		}
	}
	return m, nil
}

// outcomeOf names an error in metrics.
func outcomeOf(err error) string {
	var notLeader *NotLeaderError
	switch {
	case err == nil:
		return outcomeApplied
	case errors.As(err, &notLeader):
		return outcomeNotLeader
	case errors.Is(err, ErrLost):
		return outcomeLost
	case errors.Is(err, ErrUnknownOutcome):
		return outcomeUnknown
	case errors.Is(err, ErrBusy):
		return outcomeBusy
	}
	return outcomeRefused
}

// decide notes the outcome of a proposal or read. A histogram's exemplar names its trace, if it has one.
func (m *metrics) decide(p *Pending, err error) {
	if m == nil {
		return
	}
	kind := "propose"
	if p.read {
		kind = "read"
	}
	options := m.decided[kind+outcomeOf(err)]
	ctx := tracedBy(p.trace.context())
	m.proposals.Add(ctx, 1, options.add...)
	m.propose.Record(ctx, time.Since(p.sent).Seconds(), options.record...)
}

// now is the time, if anybody measures.
func (m *metrics) now() time.Time {
	if m == nil {
		return time.Time{}
	}
	return time.Now()
}

// tracedBy is what a measurement is made in, so that its exemplar names the trace, if that is sampled.
func tracedBy(span trace.SpanContext) context.Context {
	if !span.IsSampled() {
		return context.Background()
	}
	return trace.ContextWithSpanContext(context.Background(), span)
}

// waited notes how long something was in a channel.
func (m *metrics) waited(in channel, sent, now time.Time) {
	m.queued(trace.SpanContext{}, in, sent, now)
}

// queued is waited, of something that may be traced.
func (m *metrics) queued(span trace.SpanContext, in channel, sent, now time.Time) {
	if m != nil && !sent.IsZero() {
		m.queue.Record(tracedBy(span), max(0, now.Sub(sent)).Seconds(), m.channels[in]...)
	}
}

// took notes how long users' requests were in their channel.
func (m *metrics) took(requests []request, now time.Time) {
	if m == nil {
		return
	}
	for _, r := range requests {
		m.queued(r.pending.trace.context(), channelAPI, r.pending.sent, now)
	}
}

// synced notes an fsync. The log store calls it.
func (m *metrics) synced(took time.Duration) { m.fsync.Record(context.Background(), took.Seconds()) }

// durable notes that a write is on disk. The sync waiter calls it.
func (m *metrics) durable(item syncItem) {
	if m == nil {
		return
	}
	ctx := tracedBy(item.trace)
	m.append.Record(ctx, time.Since(item.began).Seconds())
	if item.entries > 0 {
		m.batch.Record(ctx, int64(item.entries))
	}
}

// applied notes a batch that the state machine was given, of which span is the first that is traced.
func (m *metrics) applied(span trace.SpanContext, began time.Time) {
	if m != nil {
		m.apply.Record(tracedBy(span), time.Since(began).Seconds())
	}
}

// answered notes the round trip of a worker's message.
func (m *metrics) answered(span trace.SpanContext, sent, arrived time.Time, target *targetMetrics) {
	if m != nil {
		m.roundTrip.Record(tracedBy(span), max(0, arrived.Sub(sent)).Seconds(), target.options...)
	}
}

// target are the measurements of a worker, nil if nothing is measured.
func (m *metrics) target(id raft.NodeID) *targetMetrics {
	if m == nil {
		return nil
	}
	t := &targetMetrics{options: []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("quorate.target", string(id))))}}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.targets[id] = t // in the place of an earlier worker's
	return t
}

// inFlight is what is under way to a target.
func (m *metrics) inFlight(id raft.NodeID) (messages, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.targets[id]; t != nil {
		return t.messages.Load(), t.bytes.Load()
	}
	return 0, 0
}

// changed counts elections and changes of leaders.
func (m *metrics) changed(old, now *coreState) {
	if m == nil {
		return
	}
	if now.stood > old.stood { // once at most in a pass: a vote is handed out to the disk, and asked for, at its end
		m.elections.Add(context.Background(), 1)
	}
	if now.leader != "" && now.leader != old.leader {
		m.leaders.Add(context.Background(), 1)
	}
}

// readLeased counts a read under the lease.
func (m *metrics) readLeased(n int) {
	if m != nil {
		m.leased.Add(context.Background(), int64(n))
	}
}

func (m *metrics) close() error {
	if m == nil {
		return nil
	}
	var err error
	for _, o := range m.observing {
		err = errors.Join(err, o.Unregister())
	}
	return err
}

// observe has what the node publishes, and what its stores tell of themselves, read at each collection until the metrics are closed.
func (m *metrics) observe(n *Node) error {
	if m == nil {
		return nil
	}
	for name, store := range map[string]any{"log": n.log, "state": n.sm} {
		if source, ok := store.(pebblestats.Source); ok {
			registered, err := pebblestats.Observe(m.meter, name, source)
			if err != nil {
				return errors.Join(err, m.close())
			}
			m.observing = append(m.observing, registered)
		}
	}
	registered, err := m.observeStatus(n)
	if err != nil {
		return errors.Join(err, m.close())
	}
	m.observing = append(m.observing, registered)
	return nil
}

func (m *metrics) observeStatus(n *Node) (metric.Registration, error) {
	o := observed{meter: m.meter}
	role := o.gauge("quorate.role", "{node}", "1 for what the node is now, 0 for what it is not.")
	term := o.gauge("quorate.term", "{term}", "The present term.")
	serving := o.gauge("quorate.serving", "{node}", "1 if this node leads and takes writes.")
	lease := o.duration("quorate.lease.left", "How long this leader's lease lasts unless it is renewed; 0 without one.")
	last := o.gauge("quorate.log.last.index", "{entry}", "Index of the newest entry in the log.")
	durable := o.gauge("quorate.log.durable.index", "{entry}", "Index of the newest entry that is on this disk.")
	commit := o.gauge("quorate.commit.index", "{entry}", "Index of the newest entry that is known to be committed.")
	applied := o.gauge("quorate.applied.index", "{entry}", "Index of the newest entry that the state machine has.")
	purged := o.gauge("quorate.log.purged.index", "{entry}", "Index of the newest entry that is not in the log any more.")
	lag := o.gauge("quorate.replication.lag", "{entry}", "How many entries a target is behind this leader's log.")
	reachable := o.gauge("quorate.replication.reachable", "{node}", "1 if a target answers this leader.")
	flying := o.gauge("quorate.replication.in.flight", "{message}", "Messages with entries that a target has not answered.")
	flyingBytes := o.gauge("quorate.replication.in.flight.size", "By", "Bytes of the entries in them.")
	waiting := o.gauge("quorate.channel.length", "{message}", "How much waits in a channel for RaftCore.")
	snapshotIndex := o.gauge("quorate.snapshot.index", "{entry}", "Index of the newest complete snapshot.")
	snapshotBytes := o.gauge("quorate.snapshot.size", "By", "Size of the newest snapshot, before compression.")
	snapshotSent := o.gauge("quorate.snapshot.sent", "By", "What was uploaded for the newest snapshot that this node built.")
	built := o.duration("quorate.snapshot.build.last.duration", "How long the newest snapshot took to build, if this node built it.")
	installed := o.duration("quorate.snapshot.install.last.duration", "How long it took to install the newest snapshot that was installed here.")
	buildRate := o.gauge("quorate.snapshot.build.last.rate", "By/s", "Bytes a second that were read of the state for the newest snapshot that this node built: only what changed, where that can be told.")
	installRate := o.gauge("quorate.snapshot.install.last.rate", "By/s", "Bytes of state a second, of the newest snapshot that was fetched and installed here.")
	connected := o.gauge("quorate.nats.connected", "{node}", "1 if NATS is connected.")
	disconnects := o.counter("quorate.nats.disconnects", "{event}", "Connections to NATS that were lost.")
	reconnects := o.counter("quorate.nats.reconnects", "{event}", "Connections to NATS that were found again.")
	slow := o.counter("quorate.nats.slow.consumers", "{event}", "Times that NATS found this process to be too slow.")
	refused := o.counter("quorate.messages.refused", "{message}", "Messages that were refused, by reason.")
	if o.err != nil {
		return nil, o.err
	}
	roles := map[Role]metric.ObserveOption{}
	for _, r := range []Role{RoleWaiting, RoleFollower, RoleCandidate, RoleLeader, RoleLearner, RoleStopped} {
		roles[r] = metric.WithAttributes(attribute.String("quorate.role", string(r)))
	}
	return m.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		s := n.Status()
		for r, option := range roles {
			to.ObserveInt64(role, one(s.Role == r), option)
		}
		to.ObserveInt64(term, int64(s.Term))
		to.ObserveInt64(serving, one(s.Serving))
		to.ObserveFloat64(lease, s.LeaseLeft.Seconds())
		to.ObserveInt64(last, int64(s.LastIndex))
		to.ObserveInt64(durable, int64(s.DurableIndex))
		to.ObserveInt64(commit, int64(s.CommittedIndex))
		to.ObserveInt64(applied, int64(s.AppliedIndex))
		to.ObserveInt64(purged, int64(s.PurgedIndex))
		if s.Role == RoleLeader {
			for _, member := range s.Members {
				target := metric.WithAttributes(attribute.String("quorate.target", string(member.ID)))
				to.ObserveInt64(lag, max(0, int64(s.LastIndex)-int64(member.Matched)), target)
				to.ObserveInt64(reachable, one(member.Reachable), target)
				messages, bytes := m.inFlight(member.ID)
				to.ObserveInt64(flying, messages, target)
				to.ObserveInt64(flyingBytes, bytes, target)
			}
		}
		for name, length := range map[string]int{
			"api": len(n.in.api), "rpc": len(n.in.rpc), "progress": len(n.in.progress), "answers": len(n.in.answers), "snapshot": len(n.in.snapshot), "control": len(n.in.control),
		} {
			to.ObserveInt64(waiting, int64(length), metric.WithAttributes(attribute.String("quorate.channel", name)))
		}
		to.ObserveInt64(snapshotIndex, int64(s.Snapshot.Index))
		to.ObserveInt64(snapshotBytes, int64(s.Snapshot.Bytes))
		to.ObserveInt64(snapshotSent, int64(s.Snapshot.Sent))
		to.ObserveFloat64(built, s.Snapshot.Took.Seconds())
		to.ObserveFloat64(installed, s.Snapshot.InstallTook.Seconds())
		to.ObserveInt64(buildRate, perSecond(s.Snapshot.Read, s.Snapshot.Took))
		to.ObserveInt64(installRate, perSecond(s.Snapshot.InstalledBytes, s.Snapshot.InstallTook))
		to.ObserveInt64(connected, one(s.NATS.Connected))
		to.ObserveInt64(disconnects, int64(s.NATS.Disconnects))
		to.ObserveInt64(reconnects, int64(s.NATS.Reconnects))
		to.ObserveInt64(slow, int64(s.NATS.SlowConsumers))
		for reason, count := range s.Refused {
			to.ObserveInt64(refused, int64(count), metric.WithAttributes(attribute.String("quorate.reason", reason)))
		}
		return nil
	}, o.all...)
}

func perSecond(bytes uint64, took time.Duration) int64 {
	if took <= 0 {
		return 0
	}
	return int64(float64(bytes) / took.Seconds())
}

func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// observed makes instruments that one callback observes.
type observed struct {
	meter metric.Meter
	all   []metric.Observable
	err   error
}

func (o *observed) gauge(name, unit, description string) metric.Int64ObservableGauge {
	g, err := o.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
	o.all, o.err = append(o.all, g), errors.Join(o.err, err)
	return g
}

func (o *observed) counter(name, unit, description string) metric.Int64ObservableCounter {
	c, err := o.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	o.all, o.err = append(o.all, c), errors.Join(o.err, err)
	return c
}

func (o *observed) duration(name, description string) metric.Float64ObservableGauge {
	g, err := o.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(description))
	o.all, o.err = append(o.all, g), errors.Join(o.err, err)
	return g
}
