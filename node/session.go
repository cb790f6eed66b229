package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/node/sessions"
)

// Tag makes a proposal take effect exactly once, however often it is proposed.
type Tag struct {
	// Session and Sequence: the session's id, and the proposal's number in it, from 1, in any order. LowWater is a number below which
	// the client has all its answers, and will not ask again.
	Session, Sequence, LowWater uint64
	// MessageID, in place of a session: within two minutes of log time, or until 65,536 others have come if that is sooner, only the first
	// proposal with it takes effect, and all get its result. At most 256 bytes.
	MessageID string
}

func (t Tag) entry(data []byte) (raft.Entry, error) {
	if t.MessageID == "" {
		return raft.Entry{Kind: raft.EntryCommand, Data: data, Session: t.Session, Sequence: t.Sequence, LowWater: t.LowWater}, nil
	}
	if t.Session != 0 || len(t.MessageID) > sessions.MaxMessageID {
		return raft.Entry{}, fmt.Errorf("%w: a message id has at most %d bytes, and no session beside it", ErrConfig, sessions.MaxMessageID)
	}
	return raft.Entry{Kind: raft.EntryOnce, Data: sessions.JoinOnce(t.MessageID, data)}, nil
}

// SubmitTagged is Submit for a proposal that takes effect once. Errors as well: ErrSessionExpired.
func (n *Node) SubmitTagged(data []byte, tag Tag) (*Pending, error) {
	return n.SubmitTraced(context.Background(), data, tag)
}

// SubmitTraced is SubmitTagged below the context's span. It looks at nothing else of the context.
func (n *Node) SubmitTraced(ctx context.Context, data []byte, tag Tag) (*Pending, error) {
	entry, err := tag.entry(data)
	if err != nil {
		return nil, err
	}
	if err := n.admit(entry.Data); err != nil {
		return nil, err
	}
	return n.submit(trace.SpanContextFromContext(ctx), request{pending: newPending(entry), local: true})
}

// SubmitSession is the registration of a session, whose id is the index of its result. It expires when the log's time has gone on by
// idle since its last proposal.
func (n *Node) SubmitSession(idle time.Duration) (*Pending, error) {
	if err := n.admit(nil); err != nil {
		return nil, err
	}
	return n.submit(trace.SpanContext{}, request{pending: newPending(raft.Entry{Kind: raft.EntrySession, Data: sessions.Registration(idle)}), local: true})
}

// Session is a client's place in the replicated table of sessions: its proposals take effect exactly once, so it tries again by
// itself when a leader is lost or an answer does not come. It is safe for several goroutines.
type Session struct {
	node *Node
	id   uint64

	mu sync.Mutex // guards all below
	// next sequence number; open are those without an answer, low is the lowest of them, or next if there is none.
	next, low uint64
	open      map[uint64]bool
	// moved is closed when the lowest open number is answered, if somebody waits for that.
	moved chan struct{}
}

// sessionWindow is how far the numbers of a session go ahead of the lowest one without an answer: what the table has to keep is then never more
// than twice that.
const sessionWindow = sessions.MaxResults / 2

// OpenSession registers a session. It blocks until that is committed or the context ends.
func (n *Node) OpenSession(ctx context.Context) (*Session, error) {
	result, err := n.persist(ctx, raft.Entry{Kind: raft.EntrySession, Data: sessions.Registration(n.cfg.SessionIdle)})
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	return &Session{node: n, id: result.ID.Index, next: 1, low: 1, open: map[uint64]bool{}}, nil
}

// ID is the session's id: the log index of its registration.
func (s *Session) ID() uint64 { return s.id }

// Propose is Node.Propose with exactly-once effect: it tries until the command is applied, or the context ends (ErrUnknownOutcome then,
// unless it was never handed over). ErrSessionExpired says that the cluster has forgotten the session. While more than some two thousand
// proposals were begun since the oldest one that has no answer, it waits for that one.
func (s *Session) Propose(ctx context.Context, data []byte) (Result, error) {
	sequence, low, err := s.take(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("propose in session %d: %w", s.id, err)
	}
	result, err := s.node.persist(ctx, raft.Entry{Kind: raft.EntryCommand, Data: data, Session: s.id, Sequence: sequence, LowWater: low})
	s.done(sequence) // also when it was given up: it is not proposed again, and its answer need not be kept
	if err != nil {
		return Result{}, fmt.Errorf("propose in session %d: %w", s.id, err)
	}
	return result, nil
}

// take gives out a number, and the lowest one that is open.
func (s *Session) take(ctx context.Context) (sequence, low uint64, err error) {
	for {
		s.mu.Lock()
		if s.next-s.low < sessionWindow {
			sequence, low = s.next, s.low
			s.next++
			s.open[sequence] = true
			s.mu.Unlock()
			return sequence, low, nil
		}
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-s.node.done:
			return 0, 0, ErrStopped
		}
	}
}

func (s *Session) done(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, sequence)
	if s.low != sequence {
		return
	}
	for s.low < s.next && !s.open[s.low] {
		s.low++
	}
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}

// persist proposes an entry that may be proposed several times, until it is applied.
func (n *Node) persist(ctx context.Context, entry raft.Entry) (Result, error) {
	handed := false
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*n.cfg.ElectionTimeout)
		result, err := n.propose(attempt, entry)
		cancel()
		var notLeader *NotLeaderError
		switch {
		case err == nil:
			return result, nil
		case errors.Is(err, ErrUnknownOutcome):
			handed = true
		case errors.As(err, &notLeader), errors.Is(err, ErrBusy), errors.Is(err, ErrLost), errors.Is(err, ErrNotInitialized):
		case handed: // an attempt before this one may have taken effect
			return Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		default:
			return Result{}, err
		}
		if ctx.Err() == nil && n.Err() == nil {
			timer := time.NewTimer(n.cfg.HeartbeatInterval / 2)
			select {
			case <-timer.C:
			case <-ctx.Done():
			case <-n.done:
			}
			timer.Stop()
		}
		if ctx.Err() == nil && n.Err() == nil {
			continue
		}
		if handed {
			err = ErrUnknownOutcome
		}
		if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
			err = fmt.Errorf("%w: %w", err, ended)
		}
		return Result{}, err
	}
}
