package bounds

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/nats-io/nats.go"
)

// A bare put is the least that a replicated put can be, on NATS and Pebble: the leader's process writes and syncs while it asks two followers
// to do the same, and answers when it and one of them have. There is no Raft in it, no state and no check. What a real put takes more than that
// is Quorate's own work; what a bare one takes more than two round trips and two commits is the machine's.

const bareSubject = "bare."

var bareFollowers = []string{"f1", "f2"}

// barePlayer is what each of the three processes has.
func barePlayer(url, dir, id string) (*pebble.DB, *nats.Conn, error) {
	db, err := pebble.Open(filepath.Join(dir, "bare-"+id), &pebble.Options{MemTableSize: 64 << 20, Logger: quiet{}})
	if err != nil {
		return nil, nil, err
	}
	conn, err := nats.Connect(url, nats.WriteBufferSize(1)) // as Quorate's: whoever sends a message writes it
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, conn, nil
}

func playBareFollower(ctx context.Context, url, dir, id string) error {
	db, conn, err := barePlayer(url, dir, id)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	defer conn.Close()
	var n uint64
	if _, err := conn.Subscribe(bareSubject+id, func(m *nats.Msg) {
		n++
		if db.Set(binary.BigEndian.AppendUint64(nil, n), m.Data, pebble.Sync) == nil {
			_ = m.Respond(m.Data[:8])
		}
	}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// playBareLeader serves one caller at a time.
func playBareLeader(ctx context.Context, url, dir, id string) error {
	db, conn, err := barePlayer(url, dir, id)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	defer conn.Close()
	inbox := conn.NewInbox()
	answered := make(chan *nats.Msg, 16)
	if _, err := conn.ChanSubscribe(inbox+".*", answered); err != nil {
		return err
	}
	writes, durable := make(chan []byte, 1), make(chan error, 1)
	defer close(writes)
	go func() {
		var n uint64
		for value := range writes {
			n++
			durable <- db.Set(binary.BigEndian.AppendUint64(nil, n), value, pebble.Sync)
		}
	}()
	round := 0
	if _, err := conn.Subscribe(bareSubject+id, func(m *nats.Msg) {
		round++
		reply := fmt.Sprintf("%s.%d", inbox, round)
		writes <- m.Data
		for _, follower := range bareFollowers {
			_ = conn.PublishRequest(bareSubject+follower, reply, m.Data)
		}
		for a := range answered {
			if a.Subject == reply {
				break
			}
		}
		if <-durable == nil {
			_ = m.Respond(m.Data[:8])
		}
	}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// barePuts starts a bare leader and its followers, each a process of its own, and returns one put.
func barePuts(b *testing.B, url, dir string) func() error {
	conn, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	value := make([]byte, valueBytes)
	start := func(role, id string) func() error {
		startRole(b, role, url, dir, id)
		ask := func() error {
			_, err := conn.Request(bareSubject+id, value, 10*time.Second)
			return err
		}
		waitFor(b, "an answer of "+role+" "+id, func() bool { return ask() == nil })
		return ask
	}
	for _, id := range bareFollowers {
		start("bare-follower", id)
	}
	return start("bare-leader", "put") // asks the followers, who are there now
}
