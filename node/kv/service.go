package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node"
	"quorate/node/kv/kvpb"
	"quorate/telemetry"
)

// Headers of the service.
const (
	HeaderRevision   = "Quorate-Revision"
	HeaderIfRevision = "Quorate-If-Revision"
	HeaderLimit      = "Quorate-Limit"
	// HeaderConsistency of a get over plain NATS is linearizable, the default, lease or local. The answer has what it was served with: lease only
	// if the node had one.
	HeaderConsistency = "Quorate-Consistency"
	// HeaderMessageID makes a write over plain NATS take effect once: of those with the same id, within two minutes, only the first does,
	// and all get its answer.
	HeaderMessageID = "Nats-Msg-Id"
)

// Error codes of the service, in Nats-Service-Error-Code.
const (
	codeBadRequest  = "400"
	codeNotFound    = "404"
	codeSession     = "410"
	codeCondition   = "409"
	codeTooLarge    = "413"
	codeMoved       = "421"
	codeCompacted   = "416"
	codeUnavailable = "503"
	codeUnknown     = "504"
)

// ServiceName is the name of the micro service.
const ServiceName = "quorate-kv"

// ServiceOptions change how a Service serves. The zero value serves.
type ServiceOptions struct {
	// Version shown by `nats micro info`, in the form of semantic versioning. Default: 0.1.0.
	Version string
	// Logger. Default: slog.Default().
	Logger *slog.Logger
	// Telemetry gets spans of the requests. Default: that of the node.
	Telemetry *telemetry.Telemetry
}

// Service answers clients over NATS: reads always, on subjects of the node's own, and writes and reads on the cluster's subjects while
// its node leads.
type Service struct {
	node    *node.Node
	store   *Store
	options ServiceOptions
	stop    func()
	ended   chan struct{}
}

// Serve starts the service of a node: it subscribes whenever the node serves as leader, and unsubscribes when it does not. Close it
// before the node.
func Serve(n *node.Node, store *Store, options ServiceOptions) (*Service, error) {
	if options.Version == "" {
		options.Version = "0.1.0"
	}
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	if options.Telemetry == nil {
		options.Telemetry = n.Config().Telemetry
	}
	changes, stop := n.Watch()
	s := &Service{node: n, store: store, options: options, stop: stop, ended: make(chan struct{})}
	go s.run(changes)
	return s, nil
}

// Close ends the service and waits for it.
func (s *Service) Close() error {
	s.stop()
	<-s.ended
	return nil
}

// run follows the node's leadership.
func (s *Service) run(changes <-chan node.Status) {
	defer close(s.ended)
	var current, reader *server
	defer func() {
		if reader != nil {
			reader.close()
		}
	}()
	for status := range changes {
		if reader == nil && s.node.Conn() != nil {
			started, err := s.serveReads()
			if err != nil {
				s.options.Logger.Error("cannot serve reads", "error", err)
			} else {
				reader = started
			}
		}
		if current != nil && (!status.Serving || status.Term != current.term) {
			current.close()
			current = nil
		}
		if current == nil && status.Serving && s.node.Conn() != nil {
			started, err := s.lead(status)
			if err != nil {
				s.options.Logger.Error("cannot serve clients", "error", err)
				continue
			}
			current = started
		}
	}
	if current != nil {
		current.close()
	}
}

// Bounds of what waits in a service; beyond them clients are told that it is busy.
const maxWaiting = 16 << 10

// mostBatchOps is how many operations a batch may have, whoever sends it: more than Client puts into one, and few enough that to apply
// one takes milliseconds, as every command should.
const mostBatchOps = 8 * maxBatchOps

// server is the service during one leadership, or that of reads at a node, in all its roles.
type server struct {
	*Service
	// term of the leadership; zero for the reads of any node.
	term    uint64
	service micro.Service
	cancel  context.CancelFunc
	ended   func() <-chan struct{}
	group   sync.WaitGroup
	writes  chan writing
	reads   chan reading
	// readIndex gets the index that the node must have applied for the reads that wait, and waits until it has.
	readIndex func(context.Context) (uint64, error)
}

// writing is a proposal on its way, with what to do when it is decided.
type writing struct {
	pending *node.Pending
	request micro.Request
	// single: one operation over plain NATS, answered in headers.
	single bool
	// session: the registration of one.
	session bool
	// again: the client can send it again, since it takes effect once.
	again bool
}

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

func (s *Service) lead(status node.Status) (*server, error) {
	config := s.node.Config()
	service, err := micro.AddService(s.node.Conn(), micro.Config{
		Name:        ServiceName,
		Version:     s.options.Version,
		Description: "linearizable key-value store of Quorate cluster " + config.Cluster,
		Metadata:    map[string]string{"cluster": config.Cluster, "node": string(config.ID), "term": strconv.FormatUint(status.Term, 10)},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &server{
		Service: s, term: status.Term, service: service, cancel: cancel, ended: ctx.Done,
		writes: make(chan writing, maxWaiting), reads: make(chan reading, maxWaiting),
	}
	l.readIndex = l.leaderReadIndex
	l.group.Go(func() { l.answerWrites(ctx) })
	l.group.Go(func() { l.answerReads(ctx) })
	group := service.AddGroup(config.Prefix+"."+config.Cluster+".kv", micro.WithGroupQueueGroupDisabled())
	for _, endpoint := range []struct {
		name, subject string
		handle        micro.HandlerFunc
	}{
		{"put", "put.>", l.put}, {"get", "get.>", l.get}, {"del", "del.>", l.del},
		{"batch", "batch", l.batch}, {"session", "session", l.session}, {"read", "read", l.read}, {"range", "range", l.list}, {"leader", "leader", l.leader},
		{"history", "history", l.history},
	} {
		// Without a queue group: a paused old leader in a group would swallow requests.
		err := group.AddEndpoint(endpoint.name, endpoint.handle, micro.WithEndpointSubject(endpoint.subject),
			micro.WithEndpointQueueGroupDisabled(), micro.WithEndpointPendingLimits(64<<10, 256<<20))
		if err != nil {
			l.close()
			return nil, fmt.Errorf("serve %s: %w", endpoint.name, err)
		}
	}
	return l, nil
}

// serveReads serves reads at this node, whatever its role: on subjects of its own, and, in a group with all others, on one for any node.
func (s *Service) serveReads() (*server, error) {
	config := s.node.Config()
	service, err := micro.AddService(s.node.Conn(), micro.Config{
		Name: ServiceName + "-reads", Version: s.options.Version,
		Description: "reads at one node of the key-value store of Quorate cluster " + config.Cluster,
		Metadata:    map[string]string{"cluster": config.Cluster, "node": string(config.ID)},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &server{Service: s, service: service, cancel: cancel, ended: ctx.Done, reads: make(chan reading, maxWaiting), readIndex: s.node.ReadIndex}
	l.group.Go(func() { l.answerReads(ctx) })
	stem := config.Prefix + "." + config.Cluster
	own := stem + ".node." + string(config.ID) + ".kv."
	any := stem + ".kv.any."
	for _, endpoint := range []struct {
		name, subject string
		handle        micro.HandlerFunc
		queue         micro.EndpointOpt
	}{
		{"node-read", own + "read", l.read, micro.WithEndpointQueueGroupDisabled()},
		{"node-range", own + "range", l.list, micro.WithEndpointQueueGroupDisabled()},
		{"any-read", any + "read", l.read, micro.WithEndpointQueueGroup("any")},
		{"any-range", any + "range", l.list, micro.WithEndpointQueueGroup("any")},
	} {
		err := service.AddEndpoint(endpoint.name, endpoint.handle, micro.WithEndpointSubject(endpoint.subject),
			endpoint.queue, micro.WithEndpointPendingLimits(64<<10, 256<<20))
		if err != nil {
			l.close()
			return nil, fmt.Errorf("serve %s: %w", endpoint.name, err)
		}
	}
	return l, nil
}

// staleness of what this node has applied, in nanoseconds, or -1 if it never heard of a leader.
func (l *server) staleness() int64 {
	d, ok := l.node.Staleness()
	if !ok {
		return -1
	}
	return int64(d)
}

func (l *server) close() {
	if err := l.service.Stop(); err != nil && l.node.Err() == nil {
		l.options.Logger.Debug("stop the service", "error", err)
	}
	l.cancel()
	l.group.Wait()
}

// answerWrites answers proposals in the order in which they were made, which is that in which they are decided.
func (l *server) answerWrites(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			l.sendAway()
			return
		case w := <-l.writes:
			result, err := w.pending.Wait(ctx)
			if ctx.Err() != nil {
				l.moved(w)
				l.sendAway()
				return
			}
			l.answerWrite(w, result, err)
		}
	}
}

// sendAway tells those whose writes are not answered when leadership ends.
func (l *server) sendAway() {
	for range len(l.writes) {
		l.moved(<-l.writes)
	}
}

// moved tells a client that can send its write again, under the same number, to do so at once. It takes effect once, whatever became of it
// here, and whoever else got it. To others a node that no longer leads stays silent: the outcome is not known here.
func (l *server) moved(w writing) {
	if w.again {
		l.fail(w.request, codeMoved, errMoved.Error())
		return
	}
	spanOf(w.request).End(time.Time{}, errMoved)
}

func (l *server) answerWrite(w writing, result node.Result, err error) {
	var notLeader *node.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		l.moved(w)
		return // a node that does not lead stays silent; the leader answers, or NATS says that there is none
	case errors.Is(err, node.ErrSessionExpired):
		l.fail(w.request, codeSession, err.Error())
		return
	case errors.Is(err, node.ErrLost):
		l.fail(w.request, codeUnavailable, err.Error())
		return
	case err != nil:
		l.fail(w.request, codeUnknown, ErrUnknownOutcome.Error())
		return
	}
	if w.session {
		l.respond(w.request, (&kvpb.SessionResponse{Session: result.ID.Index}).MarshalVT)
		return
	}
	var outcome kvpb.Outcome
	if err := outcome.UnmarshalVT(result.Value); err != nil {
		l.fail(w.request, codeUnknown, ErrUnknownOutcome.Error())
		return
	}
	if !w.single {
		l.respond(w.request, (&kvpb.BatchResponse{Ops: outcome.Ops, Leader: l.self()}).MarshalVT)
		return
	}
	if len(outcome.Ops) != 1 {
		l.fail(w.request, codeUnknown, ErrUnknownOutcome.Error())
		return
	}
	l.answerSingle(w.request, outcome.Ops[0])
}

func (l *server) answerSingle(request micro.Request, outcome *kvpb.OpOutcome) {
	switch outcome.Status {
	case outcomeDone:
		l.reply(request, nil, nats.Header{HeaderRevision: {strconv.FormatUint(outcome.Revision, 10)}})
	case outcomeNotFound:
		l.fail(request, codeNotFound, ErrNotFound.Error())
	case outcomeCondition:
		l.failWith(request, codeCondition, fmt.Sprintf("%v: the key is at revision %d", ErrCondition, outcome.Revision), HeaderRevision, strconv.FormatUint(outcome.Revision, 10))
	default:
		l.fail(request, codeBadRequest, ErrInvalidKey.Error())
	}
}

func (l *server) put(request micro.Request) { l.single(request, opPut) }
func (l *server) del(request micro.Request) { l.single(request, opDelete) }

// single is one write over plain NATS: the key is the subject's tail, the value the payload.
func (l *server) single(request micro.Request, kind uint32) {
	request = l.trace(request, spanOfOp(kind))
	op := &kvpb.Op{Kind: kind, Key: []byte(l.keyOf(request))}
	if err := checkKey(op.Key); err != nil {
		l.fail(request, codeBadRequest, err.Error())
		return
	}
	if kind == opPut {
		op.Value = request.Data()
	}
	if text := request.Headers().Get(HeaderIfRevision); text != "" {
		expected, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			l.fail(request, codeBadRequest, fmt.Sprintf("header %s: %q is not a revision", HeaderIfRevision, text))
			return
		}
		op.Conditional, op.Expected = true, expected
	}
	l.propose(request, []*kvpb.Op{op}, true, node.Tag{MessageID: request.Headers().Get(HeaderMessageID)})
}

// keyOf is the part of the subject after `<prefix>.<cluster>.kv.<op>.`.
func (l *server) keyOf(request micro.Request) string {
	config := l.node.Config()
	tail := strings.TrimPrefix(request.Subject(), config.Prefix+"."+config.Cluster+".kv.")
	_, key, _ := strings.Cut(tail, ".")
	return key
}

func (l *server) batch(request micro.Request) {
	var batch kvpb.BatchRequest
	err := batch.UnmarshalVTUnsafe(request.Data())
	if err == nil {
		err = checkBatch(&batch)
	}
	if err != nil {
		l.fail(request, codeBadRequest, err.Error())
		return
	}
	request = l.trace(request, spanOfOps(batch.Ops))
	l.propose(request, batch.Ops, false, node.Tag{Session: batch.Session, Sequence: batch.Sequence, LowWater: batch.LowWater, MessageID: batch.MessageId})
}

// session registers a session for a client.
func (l *server) session(request micro.Request) {
	var r kvpb.SessionRequest
	if err := r.UnmarshalVT(request.Data()); err != nil || r.Version != commandVersion || r.IdleNs <= 0 {
		l.fail(request, codeBadRequest, fmt.Sprintf("request version %d, idle time %d ns: %v", r.Version, r.IdleNs, err))
		return
	}
	pending, err := l.node.SubmitSession(time.Duration(r.IdleNs))
	if err != nil {
		l.fail(request, codeUnavailable, err.Error())
		return
	}
	l.expect(writing{pending: pending, request: request, session: true, again: true})
}

// history answers how many revisions of history are kept, in decimal digits, or sets it to what the payload says.
func (l *server) history(request micro.Request) {
	if len(request.Data()) == 0 {
		l.enqueue(request, consistencyLinearizable, func(request micro.Request, _ readAt) error {
			l.reply(request, strconv.AppendUint(nil, l.store.History(), 10), nil)
			return nil
		})
		return
	}
	revisions, err := strconv.ParseUint(string(request.Data()), 10, 64)
	if err != nil || revisions == 0 {
		l.fail(request, codeBadRequest, fmt.Sprintf("%.20q is not a number of revisions to keep, from 1 on", request.Data()))
		return
	}
	op := &kvpb.Op{Kind: opHistory, Value: binary.BigEndian.AppendUint64(nil, revisions)}
	l.propose(request, []*kvpb.Op{op}, true, node.Tag{MessageID: request.Headers().Get(HeaderMessageID)})
}

// checkBatch refuses what must not get into the log.
func checkBatch(batch *kvpb.BatchRequest) error {
	if batch.Version != commandVersion {
		return fmt.Errorf("request version %d is not known, this node knows %d", batch.Version, commandVersion)
	}
	if len(batch.Ops) == 0 {
		return errors.New("the batch is empty")
	}
	if len(batch.Ops) > mostBatchOps {
		return fmt.Errorf("the batch has %d operations: the limit is %d", len(batch.Ops), mostBatchOps)
	}
	return checkOps(batch.Ops)
}

func (l *server) propose(request micro.Request, ops []*kvpb.Op, single bool, tag node.Tag) {
	if len(l.writes) == cap(l.writes) {
		l.fail(request, codeUnavailable, "busy: too many writes are waiting")
		return
	}
	command, err := encodeCommand(ops)
	if err != nil {
		l.fail(request, codeBadRequest, err.Error())
		return
	}
	pending, err := l.node.SubmitTraced(inSpan(context.Background(), request), command, tag)
	var tooLarge *node.TooLargeError
	switch {
	case errors.Is(err, node.ErrConfig):
		l.fail(request, codeBadRequest, err.Error())
	case errors.As(err, &tooLarge):
		limit := strconv.Itoa(tooLarge.Limit)
		l.failWith(request, codeTooLarge, tooLarge.Error(), HeaderLimit, limit)
	case err != nil:
		l.fail(request, codeUnavailable, err.Error())
	default:
		l.expect(writing{pending: pending, request: request, single: single, again: !single && tag != (node.Tag{})})
	}
}

// expect hands a proposal to the goroutine that answers it.
func (l *server) expect(w writing) {
	select { // a few handlers may be here at once, so it can wait a moment
	case l.writes <- w:
	case <-l.ended():
	}
}

func (l *server) get(request micro.Request) {
	request = l.trace(request, "kv.get")
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
	request = l.trace(request, "kv.get")
	var read kvpb.ReadRequest
	if err := read.UnmarshalVTUnsafe(request.Data()); err != nil || read.Version != commandVersion {
		l.fail(request, codeBadRequest, fmt.Sprintf("request version %d: %v", read.Version, err))
		return
	}
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
			if size += len(entry.Value) + len(key) + commandOverhead; size > limit && len(response.Versions) > 0 {
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
	if err := r.UnmarshalVT(request.Data()); err != nil || r.Version != commandVersion {
		l.fail(request, codeBadRequest, fmt.Sprintf("request version %d: %v", r.Version, err))
		return
	}
	l.enqueue(request, r.Consistency, func(request micro.Request, at readAt) error {
		revision := r.Revision
		if revision == 0 {
			revision = at.index
		}
		entries, more, err := l.store.Range(RangeOptions{
			Prefix: string(r.Prefix), After: string(r.After), Revision: revision, KeysOnly: r.KeysOnly,
			Limit: int(min(r.Limit, 10_000)), MaxBytes: l.pageBytes(),
		})
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
		l.respond(request, response.MarshalVT)
		return nil
	})
}

// pageBytes is how much an answer may hold: half of the largest message, which leaves room for what surrounds each entry.
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
		l.fail(request, codeUnavailable, "busy: too many reads are waiting")
	}
}

// answerReads takes all reads that wait, gets one read index for them, and answers them.
func (l *server) answerReads(ctx context.Context) {
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
			spanOf(r.request).End(time.Time{}, err)
		}
		return // stay silent: the leader answers
	}
	for _, r := range waiting {
		if err == nil {
			if failed := r.answer(r.request, at); failed != nil {
				l.fail(r.request, codeUnavailable, failed.Error())
			}
			continue
		}
		l.fail(r.request, codeUnavailable, err.Error())
	}
}

func (l *server) leader(request micro.Request) { l.respond(request, l.self().MarshalVT) }

func (l *server) self() *kvpb.Leader {
	return &kvpb.Leader{Node: string(l.node.Config().ID), Term: l.term, MaxCommandBytes: uint64(l.node.MaxCommandBytes())}
}

func (l *server) respond(request micro.Request, encode func() ([]byte, error)) {
	b, err := encode()
	if err != nil {
		l.fail(request, codeUnavailable, err.Error())
		return
	}
	l.reply(request, b, nil)
}

func (l *server) fail(request micro.Request, code, description string) {
	l.reply(request, nil, nats.Header{micro.ErrorHeader: {description}, micro.ErrorCodeHeader: {code}})
}

// failWith is fail with a header more.
func (l *server) failWith(request micro.Request, code, description, header, value string) {
	l.reply(request, nil, nats.Header{micro.ErrorHeader: {description}, micro.ErrorCodeHeader: {code}, header: {value}})
}

// reply answers a request. It does not use the request's own methods: they note errors in the request, which the library reads when the
// handler returns, and answers here come later, from other goroutines.
func (l *server) reply(request micro.Request, data []byte, header nats.Header) {
	endSpan(request, micro.Headers(header))
	if request.Reply() == "" {
		return // nobody waits
	}
	if err := l.node.Conn().PublishMsg(&nats.Msg{Subject: request.Reply(), Data: data, Header: header}); err != nil {
		l.options.Logger.Debug("cannot answer a client", "error", err)
	}
}
