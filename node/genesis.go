package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/transport"
)

var (
	// ErrDiskLost says that this name has taken part in the cluster with another directory. A name that has voted
	// never votes again from an empty one.
	ErrDiskLost = errors.New("this node has lost its disk")
	// ErrNotMember says that the cluster was founded without this node.
	ErrNotMember = errors.New("not a member of the cluster")
	// ErrMembersDiffer says that nodes were started with different lists of members.
	ErrMembersDiffer = errors.New("members lists differ")
)

// EntryEnvelope is what is kept free, of the NATS payload limit, for what surrounds the largest command on its way.
const EntryEnvelope = 4096

// MinEntryBytes is the least that a cluster takes as its largest command.
const MinEntryBytes = 1024

// gathering is how the first members of a cluster agree on its genesis (rule 10 of the design): every listed member
// has to be heard once; the smallest name then writes the genesis, with everyone's incarnation, to its disk and hands it out; the others adopt it
// from whoever has it. Each node adopts one genesis in its life, so no two can win a majority.
type gathering struct {
	node    *Node
	members []raft.NodeID // in ascending order
	adopts  chan adoption

	mu      sync.Mutex
	genesis *storage.Genesis
	waiting []raft.NodeID
}

type adoption struct {
	in      transport.Incoming
	genesis storage.Genesis
}

func newGathering(n *Node) *gathering {
	g := &gathering{node: n, members: slices.Sorted(slices.Values(n.cfg.Members)), adopts: make(chan adoption, 8)}
	if genesis, ok := n.log.Genesis(); ok {
		g.genesis = &genesis
	}
	return g
}

func (g *gathering) known() *storage.Genesis {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.genesis
}

func (g *gathering) waitingFor() []raft.NodeID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// hello answers who this node is. It is called by goroutines of the transport.
func (g *gathering) hello(in transport.Incoming, _ *transport.HelloRequest) {
	in.Reply(&transport.HelloResponse{
		From: g.node.self, Members: g.members, Genesis: g.known(),
		MaxPayloadBytes: int64(g.node.links.transport.MaxRequestBytes()), Priority: int32(g.node.cfg.Priority),
	})
}

// adopt handles a genesis that is handed out. It is called by goroutines of the transport.
func (g *gathering) adopt(in transport.Incoming, req *transport.AdoptRequest) {
	if known := g.known(); known != nil {
		resp := &transport.AdoptResponse{From: g.node.self}
		if !known.Equal(req.Genesis) {
			resp.Refusal = fmt.Sprintf("has adopted another genesis already, that of cluster id %s", known.ClusterID())
		}
		in.Reply(resp)
		return
	}
	select {
	case g.adopts <- adoption{in: in, genesis: req.Genesis}:
	default:
		in.Refuse("busy")
	}
}

// agree returns the genesis: from the disk, or once the members agree on one. It blocks until then.
func (g *gathering) agree(ctx context.Context) (storage.Genesis, error) {
	if known := g.known(); known != nil {
		if len(g.members) > 0 && !slices.Equal(g.members, memberIDs(*known)) {
			g.node.logger.Warn("the list of members is ignored: the cluster exists already",
				"given", joinIDs(g.members), "genesis", joinIDs(memberIDs(*known)))
		} else if len(g.members) > 0 {
			g.node.logger.Info("the list of members is ignored: the cluster exists already")
		}
		return *known, nil // it was checked before it was stored
	}
	if len(g.members) == 0 && g.node.cfg.Join {
		return g.join(ctx)
	}
	if len(g.members) == 0 {
		return storage.Genesis{}, fmt.Errorf("%w: the directory is empty and no members are listed: the first start needs the list of the cluster's first members, or, for a node that is added later, that it joins (--join)", ErrConfig)
	}
	return g.gather(ctx)
}

// join waits until a leader that adds this node hands it the genesis.
func (g *gathering) join(ctx context.Context) (storage.Genesis, error) {
	n := g.node
	n.logger.Info("waiting to be added to the cluster (quorate member add " + string(n.cfg.ID) + ")")
	for {
		select {
		case <-ctx.Done():
			return storage.Genesis{}, context.Cause(ctx)
		case a := <-g.adopts:
			resp := &transport.AdoptResponse{From: n.self}
			err := g.checkCluster(a.genesis, string(a.in.From.ID))
			if err == nil {
				err = g.store(a.genesis)
			}
			if err != nil {
				resp.Refusal = err.Error()
			}
			a.in.Reply(resp)
			if err == nil {
				return a.genesis, nil
			}
			n.logger.Warn("refused a genesis", "from", a.in.From.ID, "error", err)
		}
	}
}

// heard is an answer to a hello.
type heard struct {
	from   raft.NodeID
	answer transport.Answer
}

func (g *gathering) gather(ctx context.Context) (storage.Genesis, error) {
	const every, sayEvery = 200 * time.Millisecond, 3 * time.Second
	n := g.node
	answers := make(chan heard, 4*len(g.members))
	known := map[raft.NodeID]*transport.HelloResponse{}
	round := time.NewTicker(every)
	defer round.Stop()
	say := time.NewTicker(sayEvery)
	defer say.Stop()
	g.ask(answers, known)
	for {
		if genesis, ok := g.propose(known); ok {
			return genesis, g.found(genesis)
		}
		select {
		case <-ctx.Done():
			return storage.Genesis{}, context.Cause(ctx)
		case <-round.C:
			g.ask(answers, known)
		case <-say.C:
			n.logger.Info("waiting for members to agree on the genesis of the cluster", "waiting_for", joinIDs(g.waitingFor()))
		case a := <-g.adopts:
			err := g.take(a.genesis, string(a.in.From.ID))
			resp := &transport.AdoptResponse{From: n.self}
			if err != nil {
				resp.Refusal = err.Error()
			}
			a.in.Reply(resp)
			if err == nil {
				return a.genesis, nil
			}
			n.logger.Warn("refused a genesis", "from", a.in.From.ID, "error", err)
		case h := <-answers:
			resp, ok := h.answer.Response.(*transport.HelloResponse)
			if h.answer.Err != nil || !ok || resp.From.ID != h.from {
				continue
			}
			if resp.Genesis != nil {
				return *resp.Genesis, g.take(*resp.Genesis, string(h.from))
			}
			if err := g.compare(resp); err != nil {
				return storage.Genesis{}, err
			}
			if slices.Equal(resp.Members, g.members) {
				known[h.from] = resp
			}
		}
	}
}

// ask says hello to the members not heard yet, and once all are, to the one that writes the genesis.
func (g *gathering) ask(answers chan<- heard, known map[raft.NodeID]*transport.HelloResponse) {
	var waiting []raft.NodeID
	for _, id := range g.members {
		if id != g.node.self.ID && known[id] == nil {
			waiting = append(waiting, id)
		}
	}
	proposer := g.members[0]
	if len(waiting) == 0 && proposer != g.node.self.ID {
		waiting = []raft.NodeID{proposer}
	}
	g.mu.Lock()
	g.waiting = waiting
	g.mu.Unlock()
	g.node.watch.elsewhere()
	req := &transport.HelloRequest{Cluster: g.node.cfg.Cluster, Members: g.members}
	for _, id := range waiting {
		g.node.links.transport.Call(raft.Peer{ID: id}, req, time.Second, func(a transport.Answer) {
			select {
			case answers <- heard{from: id, answer: a}:
			default: // it is asked again
			}
		})
	}
}

// compare looks at the list that another member was started with.
func (g *gathering) compare(resp *transport.HelloResponse) error {
	if slices.Equal(resp.Members, g.members) {
		return nil
	}
	err := fmt.Errorf("%w: %s was started with [%s], this node with [%s]: start all first members with the same list",
		ErrMembersDiffer, resp.From.ID, joinIDs(resp.Members), joinIDs(g.members))
	if g.members[0] == g.node.self.ID {
		// The proposer waits: whoever was started with the wrong list may be started again.
		g.node.logger.Warn("cannot agree on the genesis", "error", err)
		return nil
	}
	if resp.From.ID == g.members[0] {
		return err
	}
	g.node.logger.Warn("cannot agree on the genesis", "error", err)
	return nil
}

// propose makes the genesis, on the member with the smallest name, when everyone was heard.
func (g *gathering) propose(known map[raft.NodeID]*transport.HelloResponse) (storage.Genesis, bool) {
	n := g.node
	if g.members[0] != n.self.ID || len(known) != len(g.members)-1 {
		return storage.Genesis{}, false
	}
	peers := []raft.Peer{n.self}
	payload := int64(n.links.transport.MaxRequestBytes())
	for _, resp := range known {
		peers = append(peers, resp.From)
		payload = min(payload, resp.MaxPayloadBytes)
	}
	return storage.NewGenesis(n.cfg.Cluster, peers, uint64(max(payload-EntryEnvelope, MinEntryBytes))), true
}

// found writes the genesis to disk and hands it out. A member that does not hear of it this way asks for it.
func (g *gathering) found(genesis storage.Genesis) error {
	if err := g.take(genesis, "this node"); err != nil {
		return err
	}
	for _, p := range genesis.Members {
		if p != g.node.self {
			g.node.links.transport.Call(raft.Peer{ID: p.ID}, &transport.AdoptRequest{Genesis: genesis}, time.Second, func(a transport.Answer) {
				if resp, ok := a.Response.(*transport.AdoptResponse); ok && resp.Refusal != "" {
					g.node.logger.Warn("a member refused the genesis", "member", p.ID, "reason", resp.Refusal)
				}
			})
		}
	}
	return nil
}

// take checks a genesis and writes it to disk.
func (g *gathering) take(genesis storage.Genesis, source string) error {
	if err := g.check(genesis, source); err != nil {
		return err
	}
	if ids := memberIDs(genesis); !slices.Equal(ids, g.members) {
		return fmt.Errorf("%w: %s has the genesis of [%s], this node was started with [%s]", ErrMembersDiffer, source, joinIDs(ids), joinIDs(g.members))
	}
	return g.store(genesis)
}

func (g *gathering) store(genesis storage.Genesis) error {
	if err := g.node.log.SetGenesis(genesis); err != nil {
		return fmt.Errorf("store the genesis: %w", err)
	}
	g.mu.Lock()
	g.genesis, g.waiting = &genesis, nil
	g.mu.Unlock()
	g.node.watch.elsewhere()
	g.node.logger.Info("the cluster's genesis is agreed", "cluster_id", genesis.ClusterID().String(), "members", joinIDs(memberIDs(genesis)),
		"max_entry_bytes", genesis.MaxEntryBytes)
	return nil
}

// check finds this node in a genesis.
func (g *gathering) check(genesis storage.Genesis, source string) error {
	self := g.node.self
	if err := g.checkCluster(genesis, source); err != nil {
		return err
	}
	for _, p := range genesis.Members {
		switch {
		case p == self:
			return nil
		case p.ID == self.ID:
			return fmt.Errorf("%w: %s knows %s with directory %s, and this directory is %s. Bring the old directory back; or replace the node by one with a new name (quorate member replace %s NEW); or start it with --join and add it again (quorate member add %s)",
				ErrDiskLost, source, p.ID, p.Incarnation, self.Incarnation, self.ID, self.ID)
		}
	}
	return fmt.Errorf("%w: the genesis that %s has lists [%s], without %s: start it without a list, as a node that joins (--join), and add it (quorate member add %s)",
		ErrNotMember, source, joinIDs(memberIDs(genesis)), self.ID, self.ID)
}

func (g *gathering) checkCluster(genesis storage.Genesis, source string) error {
	if genesis.Cluster != g.node.cfg.Cluster {
		return fmt.Errorf("%s has the genesis of cluster %s", source, genesis.Cluster)
	}
	return nil
}

func memberIDs(genesis storage.Genesis) []raft.NodeID {
	ids := make([]raft.NodeID, len(genesis.Members))
	for i, p := range genesis.Members {
		ids[i] = p.ID
	}
	return ids
}
