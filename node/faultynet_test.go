package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/pebblelog"
	"quorate/transport"
	"quorate/transport/memnet"
)

// swap is a command of register: it answers with the value before.
type swap struct {
	Key   int `json:"key"`
	Value int `json:"value"`
}

const keys = 3

// register holds a few values in memory.
type register struct {
	journal
	mu     sync.Mutex
	values [keys]int
}

func (r *register) Apply(batch node.Batch) ([][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var results [][]byte
	for _, c := range batch.Commands {
		var s swap
		if err := json.Unmarshal(c.Data, &s); err != nil {
			return nil, err
		}
		results = append(results, fmt.Append(nil, r.values[s.Key]))
		r.values[s.Key] = s.Value
	}
	return results, nil
}

func (r *register) get() [keys]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.values
}

// seenCalls is what clients saw, for porcupine to judge. A read has the value -1, a call without an answer has no output.
type seenCalls struct {
	mu    sync.Mutex
	began time.Time
	calls []porcupine.Operation
}

func (s *seenCalls) note(client int, in swap, called time.Duration, out any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(called), Return: int64(time.Since(s.began))})
}

// check looks for an order of the calls that explains all answers. A write without an answer may take effect whenever, or never; whose value
// nobody saw is left out.
func (s *seenCalls) check(t *testing.T) {
	t.Helper()
	seen := map[int]bool{}
	for _, call := range s.calls {
		if value, ok := call.Output.(int); ok {
			seen[value] = true
		}
	}
	model := porcupine.Model{
		Init: func() any { return 0 },
		Step: func(state, input, output any) (bool, any) {
			if value, ok := output.(int); ok && value != state.(int) {
				return false, state
			}
			if in := input.(swap); in.Value >= 0 {
				return true, in.Value
			}
			return true, state
		},
	}
	answered := 0
	var byKey [keys][]porcupine.Operation
	for _, call := range s.calls {
		in := call.Input.(swap)
		if _, ok := call.Output.(int); ok {
			answered++
		} else if !seen[in.Value] || in.Value < 0 {
			continue
		} else {
			call.Return = int64(time.Hour)
		}
		byKey[in.Key] = append(byKey[in.Key], call)
	}
	for key, calls := range byKey {
		if porcupine.CheckOperationsTimeout(model, calls, time.Minute) == porcupine.Illegal {
			t.Errorf("no order explains what the clients saw of register %d: %+v", key, calls)
		}
	}
	if answered < 50 {
		t.Errorf("only %d of %d calls were answered", answered, len(s.calls))
	}
	t.Logf("%d of %d calls were answered", answered, len(s.calls))
}

// Whole nodes, with all their goroutines, over a network that loses, repeats, delays and reorders what they say, and is cut in one
// direction or both: what clients see is linearizable, and once the network is well all nodes have the same.
func TestNodesAgreeOverANetworkThatRepeatsAndReorders(t *testing.T) {
	members := []raft.NodeID{"n1", "n2", "n3"}
	const seed, storm = 1, 4 * time.Second
	network := memnet.New(seed)
	quiet := slog.New(slog.DiscardHandler)
	nodes := make([]*node.Node, len(members))
	states := make([]*register, len(members))
	for i, id := range members {
		log, err := pebblelog.OpenLog("log", pebblelog.Options{FS: vfs.NewMem(), Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		states[i] = &register{}
		nodes[i], err = node.Start(t.Context(), node.Config{
			Cluster: "memnet", ID: id, Members: members, Log: log, Logger: quiet,
			HeartbeatInterval: 20 * time.Millisecond, ElectionTimeout: 150 * time.Millisecond,
			Transport: func(self raft.Peer, boot uint64) (transport.Transport, error) {
				return network.Join(self, boot, quiet), nil
			},
		}, states[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nodes[i].Close(context.Background()) })
	}
	for _, n := range nodes {
		if _, err := n.WaitLeader(within(t, 30*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	// In sessions: a proposal without one that is handed on to the leader is applied twice when the network repeats it.
	sessions := make([]*node.Session, 6)
	for client := range sessions {
		var err error
		if sessions[client], err = nodes[client%len(nodes)].OpenSession(within(t, 30*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	network.SetFaults(memnet.Faults{Loss: 0.03, Duplicate: 0.2, Delay: 4 * time.Millisecond, Late: 0.02, LateDelay: time.Second})
	ctx, end := context.WithTimeout(t.Context(), storm)
	defer end()
	var group sync.WaitGroup
	group.Go(func() { // links come and go
		rng := rand.New(rand.NewPCG(seed, 1))
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			network.Heal()
			victim := rng.IntN(len(members))
			out, in := rng.IntN(2) == 0, rng.IntN(2) == 0
			for i := range members {
				if i != victim && out {
					network.Cut(members[victim], members[i])
				}
				if i != victim && in {
					network.Cut(members[i], members[victim])
				}
			}
		}
	})
	seen := &seenCalls{began: time.Now()}
	var next atomic.Int64
	for client, session := range sessions {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(client)+2))
			for ctx.Err() == nil {
				at := rng.IntN(len(nodes))
				in := swap{Key: rng.IntN(keys), Value: -1}
				call, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
				called := time.Since(seen.began)
				var out any
				if rng.IntN(2) == 0 {
					if _, err := nodes[at].ReadIndex(call); err == nil {
						out = states[at].get()[in.Key]
					}
				} else {
					in.Value = int(next.Add(1))
					data, _ := json.Marshal(in)
					if result, err := session.Propose(call, data); err == nil {
						var before int
						_ = json.Unmarshal(result.Value, &before)
						out = before
					}
				}
				cancel()
				seen.note(client, in, called, out)
				select {
				case <-time.After(time.Duration(rng.IntN(20)) * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	group.Wait()
	seen.check(t)

	network.Heal()
	network.SetFaults(memnet.Faults{})
	well := within(t, 30*time.Second)
	var last node.Result
	for { // until a leader is there and takes it
		var err error
		if last, err = nodes[0].Barrier(well); err == nil {
			break
		}
		if well.Err() != nil {
			t.Fatal(err)
		}
		_, _ = nodes[0].WaitLeader(well)
	}
	for i, n := range nodes {
		if status, err := n.Wait(well, func(s node.Status) bool { return s.AppliedIndex >= last.ID.Index }); err != nil {
			t.Fatalf("%v: %+v", err, status)
		}
		if states[i].get() != states[0].get() {
			t.Errorf("%s has %v, n1 %v", members[i], states[i].get(), states[0].get())
		}
		if refused := n.Status().Refused; len(refused) > 0 {
			t.Errorf("%s refused %v, although nobody lies", members[i], refused)
		}
	}
}
