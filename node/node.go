package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
	"quorate/telemetry"
	"quorate/transport"
)

// Node is a running member of a cluster. All methods are safe from several goroutines.
type Node struct {
	cfg    Config
	self   raft.Peer
	boot   uint64
	log    storage.LogStore
	sm     StateMachine
	logger *slog.Logger

	in       inputs
	pendings pendings
	links    links
	watch    watch
	limit    atomic.Int64 // MaxCommandBytes
	gather   *gathering
	// metrics is nil if nothing is measured.
	metrics *metrics

	fetchProgress fetchProgress
	heard         lastHeard
	// leased is what RaftCore gives to those who read under its lease.
	leased atomic.Pointer[raft.Leased]

	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // set before done is closed
}

// Start opens the node's directory and starts the node. It returns when the directory is open; connecting to NATS,
// agreeing on the genesis and electing a leader go on in the background: WaitLeader waits for that.
// The context bounds the start only. The node takes over sm and closes it, also when Start fails.
//
// Errors: ErrConfig, and those of a directory that cannot be used.
func Start(ctx context.Context, cfg Config, sm StateMachine) (*Node, error) {
	n, err := start(ctx, cfg, sm)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start node %s of cluster %s: %w", cfg.ID, cfg.Cluster, err), sm.Close())
	}
	return n, nil
}

func start(ctx context.Context, cfg Config, sm StateMachine) (*Node, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg:  cfg,
		boot: randomID(),
		sm:   sm,
		in:   newInputs(),
		log:  cfg.Log,
		done: make(chan struct{}),
	}
	n.heard.began = time.Now()
	n.logger = slog.New(telemetry.LogHandler(cfg.Logger.Handler(), n.logged)).With("cluster", cfg.Cluster, "node", string(cfg.ID))
	var err error
	if n.metrics, err = newMetrics(cfg.Telemetry); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	var runCtx context.Context
	runCtx, n.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if n.log == nil {
		options := pebblelog.Options{
			Logger:  n.logger,
			OnFatal: func(err error) { n.fail(fmt.Errorf("log store: %w", err)) },
		}
		if n.metrics != nil {
			options.OnSync = n.metrics.synced
		}
		log, err := pebblelog.OpenLog(cfg.Dir, options)
		if err != nil {
			return nil, err
		}
		n.log = log
	}
	if failing, ok := sm.(FailingStateMachine); ok {
		failing.OnFailure(func(err error) { n.fail(fmt.Errorf("state machine: %w", err)) })
	}
	if err := n.identify(); err != nil {
		return nil, errors.Join(err, n.log.Close())
	}
	restored, err := n.restore()
	if err != nil {
		return nil, errors.Join(err, n.log.Close())
	}
	n.gather = newGathering(n)
	n.watch.init(n.initialStatus(restored))
	if err := n.metrics.observe(n); err != nil {
		return nil, errors.Join(fmt.Errorf("metrics: %w", err), n.log.Close())
	}
	go n.run(runCtx, restored)
	return n, nil
}

// logged is what each line of the log says of the node as it is then.
func (n *Node) logged() []slog.Attr {
	s := n.watch.state.Load()
	if s == nil {
		return nil // it is starting
	}
	return []slog.Attr{slog.Uint64("term", s.term)}
}

// run is the life of the node: connect, agree on the genesis, be RaftCore, end. Everything it starts has ended when done is closed.
func (n *Node) run(ctx context.Context, restored restored) {
	var group sync.WaitGroup
	err := n.live(ctx, &group, restored)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // Close, or the failure that came first
	}
	n.cancel(err) // whatever still runs ends with it
	n.answerLeftOver()
	if failed := n.metrics.close(); failed != nil {
		n.logger.Warn("metrics are still observed", "error", failed)
	}
	closing := n.links.close(context.WithoutCancel(ctx))
	group.Wait()
	n.answerLeftOver() // also what the last of them have reported
	if closing = errors.Join(closing, n.sm.Close(), n.log.Close()); closing != nil {
		err = errors.Join(err, closing)
	}
	n.err = err
	if errors.Is(n.err, ErrStopped) {
		n.logger.Info("node stopped")
	} else {
		n.logger.Error("node failed", "error", n.err)
	}
	n.watch.end(n.err)
	close(n.done)
	n.answerLeftOver() // whoever squeezed in between
}

func (n *Node) live(ctx context.Context, group *sync.WaitGroup, restored restored) error {
	if err := n.links.open(ctx, n); err != nil {
		return err
	}
	if n.Conn() != nil {
		if err := n.links.serveAdmin(ctx, n, group); err != nil {
			return err
		}
	}
	if err := n.links.transport.Listen(ctx, n.receive); err != nil {
		return fmt.Errorf("listen to peers: %w", err)
	}
	genesis, err := n.gather.agree(ctx)
	if err != nil {
		return err
	}
	n.links.transport.SetCluster(genesis.ClusterID())
	n.limit.Store(int64(min(genesis.MaxEntryBytes, math.MaxInt32)))

	syncing := make(chan syncItem, 2*maxUnsynced)
	waiter := &syncWaiter{items: syncing, durable: n.in.durable, fail: n.fail, metrics: n.metrics}
	group.Go(func() { waiter.run(ctx) })
	core := n.newCore(genesis, restored, syncing, group)
	if core.snapshots, err = n.newSnapshots(ctx, genesis.ClusterID()); err != nil {
		return err
	}
	core.snapshots.localLast = restored.local
	core.snapshots.builtIndex = min(restored.applied.Index, n.log.Purged().Index+n.cfg.KeepEntries)
	return core.run(ctx)
}

// receive hands a peer's request on: to RaftCore, or to the genesis.
func (n *Node) receive(in transport.Incoming) {
	switch req := in.Request.(type) {
	case *transport.HelloRequest:
		n.gather.hello(in, req)
	case *transport.AdoptRequest:
		n.gather.adopt(in, req)
	case *transport.ReadIndexRequest, *transport.ProposeRequest:
		n.takeForwarded(in)
	default:
		select {
		case n.in.rpc <- in:
		default:
			in.Refuse("busy: too many requests are waiting")
		}
	}
}

// fail stops the node with an error. The first one is what Err tells.
func (n *Node) fail(err error) { n.cancel(err) }

// answerLeftOver answers users whose requests RaftCore will not take any more.
func (n *Node) answerLeftOver() {
	for {
		select {
		case r := <-n.in.api:
			r.pending.resolve(Result{}, ErrStopped)
		case in := <-n.in.rpc:
			in.Refuse("node is stopped")
		case f := <-n.in.control:
			f.value.dropped()
		case e := <-n.in.snapshot:
			e.value.drop(n.logger)
		default:
			return
		}
	}
}

// Propose replicates a command and returns the state machine's result once it is committed and applied by the leader. A node
// that does not lead hands it on to the leader (Config.NoForwarding: *NotLeaderError).
// It blocks until then, or until the context ends. data must not be changed afterwards, also not after a return.
//
// A proposal that is handed on may take effect twice, since NATS may deliver a message twice, after a reconnect for instance. Proposals of a
// Session take effect once, and so do those that are not handed on.
//
// Errors: *NotLeaderError, ErrBusy, *TooLargeError, ErrNotInitialized and ErrStopped if nothing was proposed; ErrLost if it was
// overwritten; ErrUnknownOutcome (which also wraps the context's error, if that ended the wait).
func (n *Node) Propose(ctx context.Context, data []byte) (Result, error) {
	result, err := n.propose(ctx, raft.Entry{Kind: raft.EntryCommand, Data: data})
	if err != nil {
		return Result{}, fmt.Errorf("propose: %w", err)
	}
	return result, nil
}

func (n *Node) propose(ctx context.Context, entry raft.Entry) (Result, error) {
	if err := n.admit(entry.Data); err != nil {
		return Result{}, err
	}
	p := n.pendings.take(entry)
	r := request{pending: p}
	r.begin(n, trace.SpanContextFromContext(ctx))
	if err := n.hand(ctx, r); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ErrBusy, err)
		}
		p.refuse(err)
		return Result{}, err
	}
	select {
	case o := <-p.reply: // so RaftCore is done with it
		n.pendings.put(p)
		return o.result, o.err
	case <-ctx.Done():
	case <-n.done:
	}
	return n.await(ctx, p)
}

// hand gives a request to RaftCore, and waits until there is room.
func (n *Node) hand(ctx context.Context, r request) error {
	if err := n.admit(nil); err != nil {
		return err
	}
	select {
	case n.in.api <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.done:
		return ErrStopped
	}
}

// Submit hands a command to this node, as leader, over and returns at once, without waiting for the outcome: proposals of one goroutine
// commit in the order of their calls. Pending.Wait tells the outcome. Unlike Propose it does not wait for room:
// ErrBusy comes at once. All of Propose's errors may come from either.
func (n *Node) Submit(data []byte) (*Pending, error) {
	if err := n.admit(data); err != nil {
		return nil, err
	}
	return n.submit(trace.SpanContext{}, request{pending: newPending(raft.Entry{Kind: raft.EntryCommand, Data: data}), local: true})
}

// SubmitRead is ReadIndex without the wait: Pending.Wait returns when a read of the state machine is linearizable.
func (n *Node) SubmitRead() (*Pending, error) { return n.SubmitReadTraced(context.Background()) }

// SubmitReadTraced is SubmitRead below the context's span. It looks at nothing else of the context.
func (n *Node) SubmitReadTraced(ctx context.Context) (*Pending, error) {
	if err := n.admit(nil); err != nil {
		return nil, err
	}
	return n.submit(trace.SpanContextFromContext(ctx), request{pending: newPending(raft.Entry{}), read: true, local: true})
}

func (n *Node) submit(parent trace.SpanContext, r request) (*Pending, error) {
	r.begin(n, parent)
	select {
	case n.in.api <- r:
	default:
		r.pending.refuse(ErrBusy)
		return nil, ErrBusy
	}
	select {
	case <-n.done:
		n.answerLeftOver()
	default:
	}
	return r.pending, nil
}

// ReadIndex returns when this node's state machine includes every command that was committed when ReadIndex was
// called: a read of the state machine after it is linearizable (dissertation section 6.4). Waiting reads share one round to the
// quorum. A node that does not lead asks the leader for the read index, once for all reads that wait, and serves them itself when it
// has applied that far. The result is the read index.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	index, err := n.readIndex(ctx, request{pending: newPending(raft.Entry{}), read: true})
	if err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	return index, nil
}

// await waits for the outcome, also when the node stops in between.
func (n *Node) await(ctx context.Context, p *Pending) (Result, error) {
	select {
	case o := <-p.reply:
		return o.result, o.err
	case <-ctx.Done():
		return p.Wait(ctx)
	case <-n.done:
		n.answerLeftOver()
		return p.Wait(ctx)
	}
}

// admit refuses what need not be handed over.
func (n *Node) admit(data []byte) error {
	select {
	case <-n.done:
		return ErrStopped
	default:
	}
	limit := n.limit.Load()
	if limit == 0 {
		return ErrNotInitialized
	}
	if len(data) > MinEntryBytes {
		// Not more than can be sent now, either: an entry that cannot leave its leader holds up all that follow. What every server
		// takes is not worth asking for.
		limit = min(limit, int64(max(MinEntryBytes, n.links.transport.MaxRequestBytes()-EntryEnvelope)))
	}
	if int64(len(data)) > limit {
		return &TooLargeError{Size: len(data), Limit: int(limit)}
	}
	return nil
}

// MaxCommandBytes is the largest command that Propose takes; 0 while the genesis is not agreed.
func (n *Node) MaxCommandBytes() int { return int(n.limit.Load()) }

// Leads reports whether this node serves as leader in a term, and may be sure of it: a quorum followed it less than an election timeout ago, and
// it does not hand over. Else another node may lead already. It does not wait for RaftCore, which may hang in its disk.
func (n *Node) Leads(term uint64) bool {
	s := n.watch.state.Load()
	return s.serving && s.term == term && !s.transferring && time.Since(s.quorumAck) < s.electionTimeout
}

// ClusterID returns the cluster's id, or the zero one while the genesis is not agreed.
func (n *Node) ClusterID() raft.ClusterID {
	if genesis := n.gather.known(); genesis != nil {
		return genesis.ClusterID()
	}
	return raft.ClusterID{}
}

// Conn is the NATS connection for client traffic: services on top of the node subscribe here, so that no flood of requests
// delays a heartbeat, which travels on another. It is nil until NATS was reached, and if Config.Transport
// replaced NATS.
func (n *Node) Conn() *nats.Conn { return n.links.clientConn() }

// Logger returns what the node logs to: each line says whose it is, in which term, and, if there is one, in which trace.
func (n *Node) Logger() *slog.Logger { return n.logger }

// Config returns the configuration that the node was started with, defaults filled in.
func (n *Node) Config() Config { return n.cfg }

// Done is closed when the node has stopped, by Close or by a failure; Err then tells which.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err returns nil while the node runs, ErrStopped after Close, and else the failure that stopped it.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.err
	default:
		return nil
	}
}

// Close stops the node: a leader hands over first, if it can; what waits is answered with ErrStopped or ErrUnknownOutcome, the log, the state machine and the
// connections are closed. It blocks until everything has ended or the context does. It returns the failure if the
// node had failed before, else nil.
func (n *Node) Close(ctx context.Context) error {
	n.HandOver(ctx)
	n.cancel(ErrStopped)
	select {
	case <-n.done:
	case <-ctx.Done():
		return fmt.Errorf("close node %s: %w", n.cfg.ID, ctx.Err())
	}
	if n.err == ErrStopped { // not errors.Is: what is joined to it went wrong while stopping
		return nil
	}
	return n.err
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return max(1, binary.LittleEndian.Uint64(b[:]))
}
