package bounds

import (
	"encoding/json"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// memory is what a process says of its memory, in bytes.
type memory struct {
	// Live is the most that the garbage collector found to be in use since the last question; Total the most that the runtime had of the
	// operating system.
	Live, Total uint64
}

// serveMemory measures this process's memory and answers on memory.<id>, until the connection is closed.
func serveMemory(url, id string) (*nats.Conn, error) {
	var live, total atomic.Uint64
	closed := make(chan struct{})
	conn, err := nats.Connect(url, nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		return nil, err
	}
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		for {
			select {
			case <-closed:
				return
			case <-tick.C:
			}
			metrics.Read(samples)
			live.Store(max(live.Load(), samples[0].Value.Uint64()))
			total.Store(max(total.Load(), samples[1].Value.Uint64()-samples[2].Value.Uint64()))
		}
	}()
	_, err = conn.Subscribe("memory."+id, func(m *nats.Msg) {
		b, err := json.Marshal(memory{Live: live.Load(), Total: total.Load()})
		runtime.GC() // what is garbage now shall not be counted in the next answer
		live.Store(0)
		total.Store(0)
		if err == nil {
			_ = m.Respond(b) // who asked has a timeout
		}
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// memoryOf asks a process for its memory since it was asked last.
func memoryOf(tb testing.TB, conn *nats.Conn, id string) (m memory) {
	tb.Helper()
	reply, err := conn.Request("memory."+id, nil, 20*time.Second)
	if err == nil {
		err = json.Unmarshal(reply.Data, &m)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return m
}
