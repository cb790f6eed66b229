package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"quorate/node/kv"
)

const (
	clients = 6
	// keys that are in use at a time. A key is used for callsOfAKey calls and then left for a new one, since judging takes longer the more
	// calls of one key there are.
	keys        = 3
	callsOfAKey = 80
)

// traffic is clients that write and read until they are stopped, each by a cable of its own.
type traffic struct {
	cables  [clients]*cable
	history *history
	calls   [keys]atomic.Uint64
	values  atomic.Uint64
	ids     atomic.Pointer[[]string] // of nodes that reads may go to

	cancel context.CancelFunc
	group  sync.WaitGroup
}

func startTraffic(c *cluster, h *history, seed uint64) *traffic {
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{history: h, cancel: cancel}
	tr.setNodes(c)
	for i := range clients {
		var options []kv.ClientOption
		if i == 0 {
			options = append(options, kv.WithoutSession())
		}
		if i == 1 {
			options = append(options, kv.WithMessageIDs())
		}
		tr.cables[i] = layCable(c.t, c.address())
		client, err := kv.NewClient(c.connect(tr.cables[i].url()), clusterName, options...)
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { _ = client.Close() })
		source := rand.New(rand.NewPCG(seed, uint64(i)))
		tr.group.Go(func() {
			for ctx.Err() == nil {
				tr.one(client, i, source)
			}
		})
	}
	return tr
}

func (tr *traffic) setNodes(c *cluster) {
	var ids []string
	for _, m := range c.nodes {
		ids = append(ids, m.id)
	}
	tr.ids.Store(&ids)
}

// stop waits until each client has the answer to its last call.
func (tr *traffic) stop() {
	tr.cancel()
	tr.group.Wait()
}

func (tr *traffic) key(source *rand.Rand) string {
	k := source.IntN(keys)
	return fmt.Sprintf("key-%d-%d", k, tr.calls[k].Add(1)/callsOfAKey)
}

// one makes a call and notes what came of it.
func (tr *traffic) one(client *kv.Client, id int, source *rand.Rand) {
	c := call{key: tr.key(source)}
	// Some give up soon, so that there are writes whose outcome is unknown.
	patience := 20 * time.Second
	if source.IntN(4) == 0 {
		patience = time.Duration(1+source.IntN(500)) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch n := source.IntN(10); {
	case n < 3:
		c.kind = put
	case n < 5:
		c.kind = putIf
		if entry, err := client.Get(ctx, c.key, kv.Local(nil)); err == nil { // as good as any other
			tr.history.saw(c.key, answerOf(entry))
			c.expected = entry.Revision
		}
	case n < 6:
		c.kind = remove
	}
	if c.kind == put || c.kind == putIf {
		c.value = tr.values.Add(1)
	}
	tr.history.writing(c)
	began := tr.history.now()
	a, err := tr.call(ctx, client, c, source)
	tr.history.note(id, began, c, a, err)
}

func (tr *traffic) call(ctx context.Context, client *kv.Client, c call, source *rand.Rand) (a answer, err error) {
	switch c.kind {
	case put:
		a.revision, err = client.Put(ctx, c.key, strconv.AppendUint(nil, c.value, 10))
	case putIf:
		a.revision, err = client.Put(ctx, c.key, strconv.AppendUint(nil, c.value, 10), kv.IfRevision(c.expected))
		if errors.Is(err, kv.ErrCondition) {
			return answer{refused: true}, nil
		}
	case remove:
		a.revision, err = client.Delete(ctx, c.key)
		if errors.Is(err, kv.ErrNotFound) {
			return answer{refused: true}, nil
		}
	case read:
		var options []kv.ReadOption
		switch source.IntN(3) {
		case 0:
			ids := *tr.ids.Load()
			options = append(options, kv.FromNode(ids[source.IntN(len(ids))]))
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Second) // it may be gone for good
			defer cancel()
		case 1:
			options = append(options, kv.Lease(nil))
		}
		entry, err := client.Get(ctx, c.key, options...)
		if errors.Is(err, kv.ErrNotFound) {
			return answer{}, nil
		}
		return answerOf(entry), err
	}
	return a, err
}

func answerOf(entry kv.Entry) answer {
	value, _ := strconv.ParseUint(string(entry.Value), 10, 64) // what is no number was never written, and is found out as such
	return answer{value: value, revision: entry.Revision}
}
