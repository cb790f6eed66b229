package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node"
	"quorate/node/kv/kvpb"
)

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

// mostBatchOps is how many operations a batch may have, whoever sends it: more than Client puts into one, and few enough that to apply
// one takes milliseconds, as every command should.
const mostBatchOps = 8 * maxBatchOps

// answerWrites answers proposals in the order in which they were made, which is that in which they are decided.
func (l *server) answerWrites(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			l.sendAway()
			return
		case w := <-l.writes:
			l.await(ctx, w)
		}
	}
}

// await answers a write when it is decided, or when leadership ends before that.
func (l *server) await(ctx context.Context, w writing) {
	result, err := w.pending.Wait(ctx)
	if err != nil && ctx.Err() != nil {
		l.moved(w)
		return
	}
	l.answerWrite(w, result, err) // that it is done is true whoever leads now
}

// sendAway tells those whose writes are not answered when leadership ends.
func (l *server) sendAway() {
	for {
		select {
		case w := <-l.writes:
			l.leave(w)
		default:
			return
		}
	}
}

// leave is await when leadership has ended.
func (l *server) leave(w writing) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	l.await(over, w)
}

// moved tells a client that can send its write again, under the same number, to do so at once. It takes effect once, whatever became of it
// here, and whoever else got it. To others a node that no longer leads stays silent: the outcome is not known here.
func (l *server) moved(w writing) {
	if w.again {
		l.fail(w.request, codeMoved, errMoved.Error())
		return
	}
	giveUp(w.request, errMoved)
}

func (l *server) answerWrite(w writing, result node.Result, err error) {
	var notLeader *node.NotLeaderError
	switch {
	case errors.As(err, &notLeader), errors.Is(err, node.ErrLost):
		l.moved(w)
		return // a node that does not lead stays silent; the leader answers, or NATS says that there is none
	case errors.Is(err, node.ErrSessionExpired):
		l.fail(w.request, codeSession, err.Error())
		return
	case err != nil:
		l.fail(w.request, codeUnknown, ErrUnknownOutcome.Error())
		return
	}
	if w.session {
		cluster := l.node.ClusterID()
		l.respond(w.request, (&kvpb.SessionResponse{Session: result.ID.Index, Cluster: cluster[:]}).MarshalVT)
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
	request = l.trace(request, spanOfOp(kind), false)
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
	if own := l.node.ClusterID(); len(batch.Cluster) > 0 && !bytes.Equal(batch.Cluster, own[:]) {
		l.fail(request, codeSession, "the session is of another cluster that has this name, or had it")
		return
	}
	request = l.trace(request, spanOfOps(batch.Ops), batch.Unsampled, batch.Traces...)
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
		l.refuse(request, err)
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
	if err := checkOps(batch.Ops); err != nil {
		return err
	}
	for _, op := range batch.Ops {
		if op.Kind == opHistory { // who may write keys may not set it
			return fmt.Errorf("operation kind %d sets how much history is kept, which has a subject of its own: history", op.Kind)
		}
	}
	return checkPutsBehindDeletes(batch.Ops)
}

// checkPutsBehindDeletes refuses to put what the same batch has deleted. What else names a key twice Apply refuses, one operation at a time; this it
// takes, and always will, since all replicas must do the same, of whatever version.
func checkPutsBehindDeletes(ops []*kvpb.Op) error {
	var deleted map[string]bool
	for _, op := range ops {
		switch {
		case op.Kind == opDelete:
			if deleted == nil {
				deleted = map[string]bool{}
			}
			deleted[string(op.Key)] = true
		case op.Kind == opPut && deleted[string(op.Key)]:
			return fmt.Errorf("the batch deletes the key %.100q and puts it: send the put alone", op.Key)
		}
	}
	return nil
}

func (l *server) propose(request micro.Request, ops []*kvpb.Op, single bool, tag node.Tag) {
	if len(l.writes) == cap(l.writes) {
		l.refuse(request, errors.New("busy: too many writes are waiting"))
		return
	}
	command, err := encodeCommand(ops)
	if err != nil {
		l.fail(request, codeBadRequest, err.Error())
		return
	}
	pending, err := l.node.SubmitTraced(l.inSpan(request), command, tag)
	var tooLarge *node.TooLargeError
	switch {
	case errors.Is(err, node.ErrConfig):
		l.fail(request, codeBadRequest, err.Error())
	case errors.As(err, &tooLarge):
		limit := strconv.Itoa(tooLarge.Limit)
		l.failWith(request, codeTooLarge, tooLarge.Error(), HeaderLimit, limit)
	case err != nil:
		l.refuse(request, err)
	default:
		l.expect(writing{pending: pending, request: request, single: single, again: !single && tag != (node.Tag{})})
	}
}

// expect hands a proposal to the goroutine that answers it. As leadership ends that one may be gone before it, or after it has looked.
func (l *server) expect(w writing) {
	select { // a few handlers may be here at once, so it can wait a moment
	case l.writes <- w:
	case <-l.ended():
		l.leave(w)
	}
	select {
	case <-l.ended():
		l.sendAway()
	default:
	}
}
