package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/transport/natsrpc"
)

// Operators' calls travel as JSON on `<prefix>.<cluster>.node.<id>.<op>`. A node that does not lead hands on to the leader what only
// that can do.

type transferArgs struct {
	To raft.NodeID `json:"to,omitempty"`
}

// adminAnswer is the answer to an operator's call.
type adminAnswer struct {
	Result json.RawMessage `json:"result,omitempty"`
	// Error in words, with its code, and what a program needs of it.
	Error   string          `json:"error,omitempty"`
	Code    string          `json:"code,omitempty"`
	Details json.RawMessage `json:"details,omitempty"`
}

// onLeader does what only the leader can do: here, or by asking the node that leads.
func (n *Node) onLeader(ctx context.Context, op string, args, result any, here func() error) error {
	err := here()
	var notLeader *NotLeaderError
	if errors.As(err, &notLeader) && notLeader.Leader == "" { // an election is under way, or this node has just come
		patience, cancel := context.WithTimeout(ctx, 2*n.cfg.ElectionTimeout)
		_, waited := n.WaitLeader(patience)
		cancel()
		if waited == nil {
			err = here()
		}
	}
	if !errors.As(err, &notLeader) || notLeader.Leader == "" || notLeader.Leader == n.cfg.ID || n.cfg.NoForwarding || n.Conn() == nil {
		return err
	}
	return NewAdmin(n.Conn(), n.cfg.Prefix, n.cfg.Cluster).call(ctx, notLeader.Leader, op, args, result)
}

const (
	// adminTimeout bounds a call whose caller did not say how long it waits.
	adminTimeout = 2 * time.Minute
	// longestAdminWait bounds one whose caller did: a snapshot of a large state takes its time.
	longestAdminWait = 2 * time.Hour
)

// mostAdminCalls run, or wait to be run, at a time. More are refused.
const mostAdminCalls = 64

// adminCall is an operator's call that has come.
type adminCall struct {
	message *nats.Msg
	handle  adminOp
}

// serveAdmin has a goroutine of the group answer operators' calls until the context ends.
func (l *links) serveAdmin(ctx context.Context, n *Node, group *sync.WaitGroup) error {
	stem := fmt.Sprintf("%s.%s.node.%s.", n.cfg.Prefix, n.cfg.Cluster, n.cfg.ID)
	calls := make(chan adminCall, mostAdminCalls)
	taken := make(chan struct{}, mostAdminCalls) // a place for each call that is taken
	group.Go(func() { n.answerAdminCalls(ctx, calls, taken) })
	for op, handle := range adminOps {
		_, err := l.client.Subscribe(stem+op, func(m *nats.Msg) {
			select {
			case taken <- struct{}{}:
				calls <- adminCall{m, handle}
				if ctx.Err() != nil { // who answers may have ended
					n.refuseAdminCalls(calls, taken)
				}
			default:
				n.answerAdmin(m, nil, ErrBusy)
			}
		})
		if err != nil {
			return fmt.Errorf("subscribe to %s%s: %w", stem, op, err)
		}
	}
	return nil
}

// answerAdminCalls does what is called for, and gives the places back.
func (n *Node) answerAdminCalls(ctx context.Context, calls <-chan adminCall, taken <-chan struct{}) {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		select {
		case <-ctx.Done():
			n.refuseAdminCalls(calls, taken)
			return
		case c := <-calls:
			group.Go(func() {
				defer func() { <-taken }()
				n.answerAdminCall(ctx, c)
			})
		}
	}
}

// refuseAdminCalls answers what a stop leaves over.
func (n *Node) refuseAdminCalls(calls <-chan adminCall, taken <-chan struct{}) {
	for {
		select {
		case c := <-calls:
			n.answerAdmin(c.message, nil, ErrStopped)
			<-taken
		default:
			return
		}
	}
}

func (n *Node) answerAdminCall(ctx context.Context, c adminCall) {
	limit := adminTimeout
	if wait, err := time.ParseDuration(c.message.Header.Get(headerWait)); err == nil && wait > 0 {
		limit = min(wait, longestAdminWait)
	}
	ctx, cancel := context.WithTimeout(trace.ContextWithRemoteSpanContext(ctx, natsrpc.ExtractTrace(c.message.Header)), limit)
	defer cancel()
	result, err := c.handle(ctx, n, c.message.Data)
	n.answerAdmin(c.message, result, err)
}

// headerWait says how long the caller waits.
const headerWait = "Quorate-Wait"

func (n *Node) answerAdmin(m *nats.Msg, result any, err error) {
	var answer adminAnswer
	if err != nil {
		answer = encodeAdminError(err)
	} else if result != nil {
		if answer.Result, err = json.Marshal(result); err != nil {
			answer = encodeAdminError(err)
		}
	}
	b, err := json.Marshal(answer)
	if err == nil {
		err = m.Respond(b)
	}
	if err != nil && !errors.Is(err, nats.ErrMsgNoReply) && n.Err() == nil {
		n.logger.Warn("cannot answer an operator's call", "error", err)
	}
}

type adminOp func(ctx context.Context, n *Node, args []byte) (any, error)

// adminOps are the operators' calls. Those that only a leader can do are not handed on a second time.
var adminOps = map[string]adminOp{
	"membership": func(ctx context.Context, n *Node, args []byte) (any, error) {
		var change MembershipChange
		if err := decodeArgs(args, &change); err != nil {
			return nil, err
		}
		ctx, span := traceWork(ctx, n.cfg.Telemetry, "raft.change_membership", onCaller)
		id, err := n.changeMembership(ctx, change)
		span.End(time.Time{}, err)
		return id, err
	},
	"transfer": func(ctx context.Context, n *Node, args []byte) (any, error) {
		var to transferArgs
		if err := decodeArgs(args, &to); err != nil {
			return nil, err
		}
		return nil, n.transfer(ctx, to.To)
	},
	"snapshot":  func(ctx context.Context, n *Node, _ []byte) (any, error) { return n.snapshotHere(ctx) },
	"snapshots": func(ctx context.Context, n *Node, _ []byte) (any, error) { return n.heldSnapshots(ctx) },
	"change-setting": func(ctx context.Context, n *Node, args []byte) (any, error) {
		var change SettingChange
		if err := decodeArgs(args, &change); err != nil {
			return nil, err
		}
		return n.changeSetting(ctx, change)
	},
	"members": func(_ context.Context, n *Node, _ []byte) (any, error) { return n.Membership(), nil },
	"setting": func(_ context.Context, n *Node, _ []byte) (any, error) { return n.Setting(), nil },
	"elect": func(ctx context.Context, n *Node, _ []byte) (any, error) {
		stands, err := n.Elect(ctx)
		return map[string]bool{"stands": stands}, err
	},
	"heartbeat": func(ctx context.Context, n *Node, _ []byte) (any, error) { return nil, n.Heartbeat(ctx) },
}

// adminReads change nothing.
var adminReads = []string{"members", "snapshots", "setting"}

func decodeArgs(b []byte, args any) error {
	if len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, args); err != nil {
		return fmt.Errorf("%w: the call's arguments are no JSON of the kind that is wanted: %w", ErrConfig, err)
	}
	return nil
}

// Admin makes operators' calls to the nodes of a cluster over NATS. It is safe for several goroutines.
type Admin struct {
	conn            *nats.Conn
	prefix, cluster string
}

// NewAdmin returns an Admin. conn stays the caller's.
func NewAdmin(conn *nats.Conn, prefix, cluster string) *Admin {
	return &Admin{conn: conn, prefix: prefix, cluster: cluster}
}

// call asks one node.
func (a *Admin) call(ctx context.Context, id raft.NodeID, op string, args, result any) error {
	m := nats.NewMsg(fmt.Sprintf("%s.%s.node.%s.%s", a.prefix, a.cluster, id, op))
	if args != nil {
		b, err := json.Marshal(args)
		if err != nil {
			return err
		}
		m.Data = b
	}
	if deadline, ok := ctx.Deadline(); ok {
		m.Header.Set(headerWait, time.Until(deadline).String())
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, adminTimeout)
		defer cancel()
	}
	natsrpc.InjectTrace(m.Header, trace.SpanContextFromContext(ctx))
	reply, err := a.conn.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return &UnreachableError{Node: id, Err: err}
	case err != nil && !slices.Contains(adminReads, op):
		return fmt.Errorf("ask %s: %w: %w", id, ErrUnknownOutcome, err)
	case err != nil:
		return fmt.Errorf("ask %s: %w", id, err)
	}
	var answer adminAnswer
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return fmt.Errorf("the answer of %s is not understood: %w", id, err)
	}
	if err := answer.err(); err != nil {
		return err
	}
	if result != nil && len(answer.Result) > 0 {
		if err := json.Unmarshal(answer.Result, result); err != nil {
			return fmt.Errorf("the answer of %s is not understood: %w", id, err)
		}
	}
	return nil
}

// Status asks one node for its status.
func (a *Admin) Status(ctx context.Context, id raft.NodeID) (Status, error) {
	var status Status
	reply, err := a.conn.RequestWithContext(ctx, fmt.Sprintf("%s.%s.node.%s.status", a.prefix, a.cluster, id), nil)
	if err != nil {
		return status, fmt.Errorf("ask %s for its status: %w", id, err)
	}
	if err := json.Unmarshal(reply.Data, &status); err != nil {
		return status, fmt.Errorf("the status of %s is not understood: %w", id, err)
	}
	return status, nil
}

// Leader finds out who leads: the first node that says so of itself. It asks all nodes until one does or the context ends.
func (a *Admin) Leader(ctx context.Context) (raft.NodeID, error) {
	inbox := a.conn.NewInbox()
	answers, err := a.conn.SubscribeSync(inbox)
	if err != nil {
		return "", fmt.Errorf("ask for the leader: %w", err)
	}
	defer func() { _ = answers.Unsubscribe() }()
	for {
		if err := a.conn.PublishRequest(fmt.Sprintf("%s.%s.status", a.prefix, a.cluster), inbox, nil); err != nil {
			return "", fmt.Errorf("ask for the leader: %w", err)
		}
		round, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
		for {
			m, err := answers.NextMsgWithContext(round)
			if err != nil {
				break
			}
			var status Status
			if json.Unmarshal(m.Data, &status) == nil && status.Serving {
				cancel()
				return status.ID, nil
			}
		}
		<-round.Done() // nobody subscribes: the answer is there at once, and asking faster does not help
		cancel()
		if ctx.Err() != nil {
			return "", fmt.Errorf("no node of cluster %s says that it leads: %w", a.cluster, ctx.Err())
		}
	}
}

// Membership returns the leader's configuration.
func (a *Admin) Membership(ctx context.Context) (Membership, error) {
	var m Membership
	return m, a.leaderCall(ctx, "members", nil, &m)
}

// ChangeMembership is Node.ChangeMembership.
func (a *Admin) ChangeMembership(ctx context.Context, change MembershipChange) (raft.LogID, error) {
	var id raft.LogID
	return id, a.leaderCall(ctx, "membership", change, &id)
}

// Setting returns the leader's setting.
func (a *Admin) Setting(ctx context.Context) (Setting, error) {
	var s Setting
	return s, a.leaderCall(ctx, "setting", nil, &s)
}

// ChangeSetting is Node.ChangeSetting.
func (a *Admin) ChangeSetting(ctx context.Context, change SettingChange) (raft.LogID, error) {
	var id raft.LogID
	return id, a.leaderCall(ctx, "change-setting", change, &id)
}

// Snapshot is Node.Snapshot.
func (a *Admin) Snapshot(ctx context.Context) (storage.SnapshotRef, error) {
	var ref storage.SnapshotRef
	return ref, a.leaderCall(ctx, "snapshot", nil, &ref)
}

// TransferLeadership is Node.TransferLeadership.
func (a *Admin) TransferLeadership(ctx context.Context, to raft.NodeID) error {
	return a.leaderCall(ctx, "transfer", transferArgs{To: to}, nil)
}

func (a *Admin) leaderCall(ctx context.Context, op string, args, result any) error {
	leader, err := a.Leader(ctx)
	if err != nil {
		return err
	}
	err = a.call(ctx, leader, op, args, result)
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w: %s led, and is gone", &NotLeaderError{}, leader)
	}
	return err
}
