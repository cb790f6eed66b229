package kv

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node/kv/kvpb"
)

func unavailable(cause error) error { return fmt.Errorf("%w (%w)", ErrUnavailable, cause) }
func unknown(cause error) error     { return fmt.Errorf("%w (%w)", ErrUnknownOutcome, cause) }

// errGone says that the leader that was sent a request is not the leader any more, or that the connection broke: no answer will come.
var errGone = errors.New("the leader or the connection to it is gone")

// errBusy is the answer of a node that did nothing. That is not all that may come of the message: the leader's subjects have no queue group, so
// another node that leads, or believes so, got it too.
var errBusy = errors.New("a node did not take it")

// errMoved is the answer of a leader that handed over with a request in its hands, which the next one may have got too.
var errMoved = errors.New("the leader has changed")

// Timing of requests. A leader that dies with a request in its hands never answers, so whoever waits asks now and then whether it is
// still there.
const (
	askAfter = 50 * time.Millisecond
	// othersPatience is how many times another leader may be seen before its answer is not waited for any more.
	othersPatience = 5
	// nodePatience is how long a node may take to answer a read before it is asked again.
	nodePatience = time.Second
	// lostPatience is how long a request is waited for whose leader is there, if it may be sent again: NATS delivers at most once, so it or its answer
	// may be lost.
	lostPatience = 3 * time.Second
	retryFirst   = 2 * time.Millisecond
	retryLongest = 50 * time.Millisecond
)

func retries() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = retryFirst, retryLongest
	return b
}

// sendWrites sends one message of writes. While nobody gets it it is sent again, as a new one. When somebody got it, whatever he answered but
// that it is done, it may have taken effect: with a session it is sent again under the same number, and takes effect once.
func (c *Client) sendWrites(ctx context.Context, operations []*operation) {
	wait := retries()
	var n number
	var request kvpb.BatchRequest
	handed := false // perhaps it has taken effect
	var last error  // why the attempt before this one came to nothing
	finish := func(err error) {
		if handed && !errors.Is(err, ErrUnknownOutcome) {
			err = unknown(err)
		}
		for _, o := range operations {
			o.finish(err)
		}
	}
	defer func() { c.session.done(n) }()
	for {
		if !handed {
			if operations = dropEnded(operations, last); len(operations) == 0 {
				return
			}
			if c.leader.Load() == nil { // nothing is sent, and so nothing unknown, before a leader was seen
				_, err := c.askLeader(ctx, operations)
				// Before a server was seen NATS keeps what it is given, however large: the server would close the connection.
				nobody := errors.Is(err, nats.ErrNoResponders) || err != nil && c.nc.MaxPayload() == 0
				if nobody && ctx.Err() == nil && !errors.Is(err, nats.ErrConnectionClosed) {
					last = unavailable(err)
					pause(ctx, operations, wait.NextBackOff())
					continue
				}
				if allEnded(operations) {
					continue
				}
			}
			if ctx.Err() != nil {
				finish(ErrClosed)
				return
			}
			c.session.done(n)
			var err error
			if n, err = c.numberFor(ctx, operations); err != nil {
				if ctx.Err() != nil {
					err = ErrClosed
				}
				finish(err)
				return
			}
			if operations = takeAll(operations, last); len(operations) == 0 {
				return
			}
			request = kvpb.BatchRequest{
				Version: commandVersion, Ops: make([]*kvpb.Op, len(operations)),
				Session: n.session, Cluster: n.cluster, Sequence: n.sequence, LowWater: n.lowWater, MessageId: n.id,
				Unsampled: c.telemetry.BeginsTraces(),
			}
			for i, o := range operations {
				request.Ops[i] = o.write
			}
			request.Traces = traceContexts(operations)
		}
		var response kvpb.BatchResponse
		err := c.once(ctx, operations, n.again(), "kv.batch", request.MarshalVT, response.UnmarshalVT)
		if errors.Is(err, nats.ErrMaxPayload) { // another server than the one that was connected to when they were asked for
			err = &TooLargeError{Size: operations[0].size(), Limit: c.maxWriteBytes()}
		}
		if err == nil && len(response.Ops) != len(operations) {
			err = unknown(fmt.Errorf("%d answers to %d writes", len(response.Ops), len(operations)))
		}
		switch {
		case err == nil:
			for i, o := range operations {
				o.outcome = response.Ops[i]
				o.finish(nil)
			}
			c.leader.Store(response.Leader)
			return
		case errors.Is(err, nats.ErrConnectionClosed): // nothing will ever be sent again
			if handed {
				err = unknown(nats.ErrConnectionClosed)
			}
			finish(err)
			return
		case errors.Is(err, ErrUnavailable): // nobody got it
			last = err
		case isTooLarge(err) && !handed && len(operations) > 1: // they came together before the cluster's limit was known
			c.session.done(n)
			for _, o := range operations {
				o.giveBack()
				c.sendWrites(ctx, []*operation{o})
			}
			return
		case isExpired(err):
			c.session.forget(n)
			if handed {
				finish(err)
				return
			}
		case errors.Is(err, errGone), errors.Is(err, errMoved), errors.Is(err, errBusy), isTimeout(err), errors.Is(err, ErrUnknownOutcome):
			handed = true
			if ctx.Err() != nil {
				err = ErrClosed
			}
			if !n.again() || ctx.Err() != nil {
				finish(err)
				return
			}
		default:
			finish(err)
			return
		}
		if handed && allEnded(operations) {
			for _, o := range operations {
				o.finish(unknown(o.ctx.Err()))
			}
			return
		}
		if !handed {
			for _, o := range operations {
				o.giveBack()
			}
		}
		pause(ctx, operations, wait.NextBackOff())
		if ctx.Err() != nil {
			finish(ErrClosed)
			return
		}
	}
}

// numberFor takes a number of the session, as long as somebody waits for these operations.
func (c *Client) numberFor(ctx context.Context, operations []*operation) (number, error) {
	if len(operations) == 1 {
		alone, cancel := context.WithCancel(operations[0].ctx)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		ctx = alone
	} else {
		latest := time.Time{}
		for _, o := range operations {
			deadline, ok := o.ctx.Deadline()
			if !ok {
				return c.session.take(ctx, c)
			}
			if deadline.After(latest) {
				latest = deadline
			}
		}
		until, cancel := context.WithDeadline(ctx, latest)
		defer cancel()
		ctx = until
	}
	return c.session.take(ctx, c)
}

// sendReads sends one message of reads, again until it is answered: reading twice does no harm.
func (c *Client) sendReads(ctx context.Context, operations []*operation, consistency uint32) {
	wait := retries()
	var last error // why the attempt before this one came to nothing
	for {
		if operations = dropEnded(operations, last); len(operations) == 0 {
			return
		}
		request := kvpb.ReadRequest{Version: commandVersion, Keys: make([][]byte, len(operations)), Consistency: consistency, Unsampled: c.telemetry.BeginsTraces()}
		for i, o := range operations {
			request.Keys[i] = []byte(o.read)
		}
		request.Traces = traceContexts(operations)
		var response kvpb.ReadResponse
		err := c.once(ctx, operations, true, "kv.read", request.MarshalVT, response.UnmarshalVT)
		switch {
		case err == nil && len(response.Versions) > 0 && len(response.Versions) <= len(operations):
			for i, v := range response.Versions {
				operations[i].version, operations[i].source = v, &response
				operations[i].finish(nil)
			}
			operations = operations[len(response.Versions):] // what did not fit into the answer
			c.leader.Store(response.Leader)
		case isRefused(err, codeTooLarge): // the first: what comes after it is left out of an answer that it makes too large
			operations[0].finish(err)
			operations = operations[1:]
		case isFinal(err):
			for _, o := range operations {
				o.finish(err)
			}
			return
		default:
			if !allEnded(operations) {
				last = err
			}
			pause(ctx, operations, wait.NextBackOff())
		}
		if ctx.Err() != nil {
			for _, o := range operations {
				o.finish(ErrClosed)
			}
			return
		}
	}
}

// askTraced is ask with a span of that name.
func (c *Client) askTraced(ctx context.Context, name, op string, encode func() ([]byte, error), decode func([]byte) error) error {
	span := c.beginSpan(ctx, name, op)
	if !span.Sampled() {
		return c.ask(ctx, op, encode, decode)
	}
	err := c.ask(ctx, op, encode, decode, &operation{ctx: ctx, span: span})
	span.End(time.Time{}, err)
	return err
}

// ask sends a request that may be repeated, until it is answered or the context ends. traced, if it is given, has the span that goes along.
func (c *Client) ask(ctx context.Context, op string, encode func() ([]byte, error), decode func([]byte) error, traced ...*operation) error {
	return c.repeat(ctx, false, op, encode, decode, traced...)
}

// repeat is ask. If the request changes something, and somebody may have got it, its outcome is unknown when the context ends.
func (c *Client) repeat(ctx context.Context, changes bool, op string, encode func() ([]byte, error), decode func([]byte) error, traced ...*operation) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	wait := retries()
	ended := unavailable
	var last error
	for {
		err := c.once(ctx, traced, true, op, encode, decode)
		switch {
		case errors.Is(err, nats.ErrConnectionClosed):
			return ended(nats.ErrConnectionClosed)
		case err == nil || isFinal(err):
			return err
		}
		if changes && !errors.Is(err, ErrUnavailable) {
			ended = unknown
		}
		if ctx.Err() == nil {
			last = err
		}
		pause(ctx, traced, wait.NextBackOff())
		switch {
		case caller.Err() != nil:
			return ended(why(caller.Err(), last, op))
		case ctx.Err() != nil:
			return ended(ErrClosed)
		}
	}
}

// isFinal reports whether the same request would get the same answer again.
func isFinal(err error) bool {
	var refused *RequestError
	return errors.As(err, &refused) || isTooLarge(err) || errors.Is(err, ErrCompacted) || errors.Is(err, nats.ErrConnectionClosed)
}

// isRefused reports whether the service answered with that code.
func isRefused(err error, code string) bool {
	var refused *RequestError
	return errors.As(err, &refused) && refused.Code == code
}

func isTooLarge(err error) bool {
	var tooLarge *TooLargeError
	return errors.As(err, &tooLarge)
}

// why is why time ran out: the end of the context, and what the last attempt before it came to.
// op is what was asked, which may be a node of the caller's choice.
func why(ended, last error, op string) error {
	id, _, chosen := strings.Cut(strings.TrimPrefix(op, "node."), ".kv.")
	switch {
	case errors.Is(last, nats.ErrNoResponders) && chosen:
		return fmt.Errorf("%w; node %s does not take requests now", ended, id)
	case errors.Is(last, nats.ErrNoResponders):
		return fmt.Errorf("%w; no node takes requests now", ended)
	case last == nil || errors.Is(last, ended):
		return ended
	}
	return fmt.Errorf("%w; before that: %v", ended, last)
}

// pause waits, but for a lone operation not longer than its caller.
func pause(ctx context.Context, operations []*operation, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-loneEnd(operations):
	}
}

// loneEnd is the end of a lone operation's caller; where several share a message, the others wait on.
func loneEnd(operations []*operation) <-chan struct{} {
	if len(operations) != 1 {
		return nil
	}
	return operations[0].ctx.Done()
}

// dropEnded leaves out operations whose callers have given up; nothing was done for them. last is what the last attempt came to.
func dropEnded(operations []*operation, last error) []*operation {
	return keep(operations, last, func(o *operation) bool { return o.ctx.Err() == nil })
}

// takeAll takes the operations that are going to be sent, and leaves out those whose callers came before it.
func takeAll(operations []*operation, last error) []*operation {
	return keep(operations, last, (*operation).take)
}

func keep(operations []*operation, last error, keeps func(*operation) bool) []*operation {
	kept := operations[:0:len(operations)]
	for _, o := range operations {
		if !keeps(o) {
			o.finish(unavailable(why(o.ctx.Err(), last, "")))
			continue
		}
		kept = append(kept, o)
	}
	return kept
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, nats.ErrTimeout)
}

// once sends a request once. Errors: ErrUnavailable if nobody got it; errGone if the leader or the connection went away with it, errBusy if it did nothing,
// ErrUnknownOutcome if it said so or its answer is not understood; *RequestError.
// It gives up when the context ends, or all callers have. again: it may be sent again.
func (c *Client) once(ctx context.Context, operations []*operation, again bool, op string, encode func() ([]byte, error), decode func([]byte) error) error {
	b, err := encode()
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	reply, err := c.await(ctx, operations, again, op, b)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return unavailable(err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrHeadersNotSupported): // by a connection that never was
		return unavailable(err)
	case err != nil:
		return err
	}
	if err := serviceError(reply); err != nil {
		return err
	}
	if err := decode(reply.Data); err != nil {
		return unknown(fmt.Errorf("the answer is not understood: %w", err)) // what was asked for may have been done
	}
	return nil
}

// await sends a request and waits for the answer, asking every now and then whether the leader that took it is still there.
//
// Another leadership than the one that was known when the request was sent may still have taken it, so its answer is waited for a
// little longer. So may one that is there have lost it; if it may be sent again, it is given up after a while. That one leader is busy is not the
// answer yet: another's, which takes the time of a commit, counts more.
func (c *Client) await(ctx context.Context, operations []*operation, again bool, op string, b []byte) (*nats.Msg, error) {
	known, reconnects, lost := c.leader.Load(), c.nc.Stats().Reconnects, time.Now().Add(lostPatience)
	toLeader := strings.HasPrefix(op, "kv.") && !strings.HasPrefix(op, anyNode)
	if known == nil && toLeader && op != "kv.leader" { // else a change of leaders before the first look would not be seen
		var err error
		if known, err = c.askLeader(ctx, operations); errors.Is(err, nats.ErrNoResponders) {
			return nil, err
		}
		if ctx.Err() != nil || len(operations) > 0 && allEnded(operations) { // in the meantime: it need not be sent
			return nil, unavailable(endOf(ctx, operations))
		}
	}
	answer, forget, err := c.mail.send(c.stem+op, traceHeader(operations), b)
	if err != nil {
		return nil, sendError(err)
	}
	defer forget()
	ended := loneEnd(operations) // who need not wait for the next look at the leader
	timer := time.NewTimer(askAfter)
	defer timer.Stop()
	if !toLeader { // whether that node is still there cannot be asked of the leader; a read may be sent again
		timer.Reset(nodePatience)
	}
	var busy *nats.Msg
	for others := 0; ; {
		select {
		case reply := <-answer:
			if !toLeader || reply.Header.Get(micro.ErrorCodeHeader) != codeUnavailable {
				return answered(reply)
			}
			busy = reply
			timer.Reset(askAfter)
			continue
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ended:
			return nil, endOf(ctx, operations)
		case <-timer.C:
		}
		if busy != nil {
			return busy, nil
		}
		if !toLeader {
			return nil, errGone
		}
		leader, err := c.askLeader(ctx, operations)
		if err == nil && (known == nil || leader.Term != known.Term || leader.Node != known.Node) { // nil: nobody answered before it was sent
			others++
		}
		if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrConnectionClosed) || others > othersPatience || c.nc.Stats().Reconnects != reconnects ||
			again && err == nil && time.Now().After(lost) {
			select {
			case reply := <-answer: // it came after all
				return answered(reply)
			default:
				return nil, errGone
			}
		}
		if len(operations) > 0 && allEnded(operations) {
			return nil, endOf(ctx, operations)
		}
		timer.Reset(askAfter)
	}
}

// sendError tells why a request was not sent from what broke the connection under it: NATS writes much at once when it is published, and then
// nobody can say how much got through.
func sendError(err error) error {
	for _, unsent := range []error{
		nats.ErrConnectionClosed, nats.ErrConnectionDraining, nats.ErrReconnectBufExceeded, nats.ErrMaxPayload, nats.ErrHeadersNotSupported,
		nats.ErrBadSubject, nats.ErrInvalidConnection,
	} {
		if errors.Is(err, unsent) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

func answered(reply *nats.Msg) (*nats.Msg, error) {
	if noResponders(reply) {
		return nil, nats.ErrNoResponders
	}
	return reply, nil
}

func allEnded(operations []*operation) bool {
	for _, o := range operations {
		if o.ctx.Err() == nil {
			return false
		}
	}
	return true
}

// endOf is why nobody waits for operations any more: that of ctx, or of the first one's caller.
func endOf(ctx context.Context, operations []*operation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return operations[0].ctx.Err()
}

// askLeader asks who leads now, for these operations, and notes it. nats.ErrNoResponders: nobody.
func (c *Client) askLeader(ctx context.Context, operations []*operation) (*kvpb.Leader, error) {
	answer, forget, err := c.mail.send(c.stem+"kv.leader", nil, nil)
	if err != nil {
		return nil, err
	}
	defer forget()
	timer := time.NewTimer(10 * askAfter)
	defer timer.Stop()
	var reply *nats.Msg
	select {
	case reply = <-answer:
	case <-timer.C:
		return nil, unavailable(nats.ErrTimeout)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-loneEnd(operations):
		return nil, endOf(ctx, operations)
	}
	if _, err := answered(reply); err != nil {
		return nil, err
	}
	if err := serviceError(reply); err != nil {
		return nil, err
	}
	var leader kvpb.Leader
	if err := leader.UnmarshalVT(reply.Data); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	c.leader.Store(&leader)
	return &leader, nil
}

// serviceError turns an error answer into an error.
func serviceError(reply *nats.Msg) error {
	code := reply.Header.Get(micro.ErrorCodeHeader)
	if code == "" {
		return nil
	}
	description := reply.Header.Get(micro.ErrorHeader)
	switch code {
	case codeMoved:
		return errMoved
	case codeUnavailable:
		return fmt.Errorf("%w: %s", errBusy, description)
	case codeUnknown:
		return unknown(errors.New(description))
	case codeCompacted:
		return fmt.Errorf("%w (%s)", ErrCompacted, description)
	case codeTooLarge:
		limit, err := strconv.Atoi(reply.Header.Get(HeaderLimit))
		if err == nil {
			return &TooLargeError{Size: limit + 1, Limit: limit}
		}
	}
	return &RequestError{Code: code, Description: description}
}
