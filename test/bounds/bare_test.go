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

// A bare put is a simple replicated put, on NATS and Pebble: the leader's process writes and syncs while it asks two followers
// to do the same, and answers when it and one of them have. There is no Raft in it, no state and no check. It is something to compare with, not
// the least that is possible: its logs are Pebble's own, and another way to write or to ask may be faster.

const bareSubject = "bare."

var bareFollowers = []string{"f1", "f2"}

// playBare serves one caller at a time, by what serving makes of the process's store and connection.
func playBare(ctx context.Context, url, dir, id string, serving func(*pebble.DB, *nats.Conn) (func(*nats.Msg) error, error)) error {
	db, err := pebble.Open(filepath.Join(dir, "bare-"+id), &pebble.Options{MemTableSize: 64 << 20, Logger: quiet{}})
	if err != nil {
		return err
	}
	conn, err := nats.Connect(url, nats.WriteBufferSize(1)) // as Quorate's: whoever sends a message writes it
	if err != nil {
		return errors.Join(err, db.Close())
	}
	serve, err := serving(db, conn)
	if err == nil {
		err = answerBare(ctx, conn, id, serve)
	}
	conn.Close()
	return errors.Join(err, db.Close())
}

// answerBare answers requests until one fails or the context ends.
func answerBare(ctx context.Context, conn *nats.Conn, id string, serve func(*nats.Msg) error) error {
	asked, err := conn.SubscribeSync(bareSubject + id)
	if err != nil {
		return err
	}
	for {
		m, err := asked.NextMsgWithContext(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = serve(m)
		}
		if err == nil {
			err = m.Respond(m.Data[:8])
		}
		if err != nil {
			return err
		}
	}
}

func playBareFollower(ctx context.Context, url, dir, id string) error {
	return playBare(ctx, url, dir, id, func(db *pebble.DB, _ *nats.Conn) (func(*nats.Msg) error, error) {
		var n uint64
		return func(m *nats.Msg) error {
			n++
			return db.Set(binary.BigEndian.AppendUint64(nil, n), m.Data, pebble.Sync)
		}, nil
	})
}

func playBareLeader(ctx context.Context, url, dir, id string) error {
	return playBare(ctx, url, dir, id, func(db *pebble.DB, conn *nats.Conn) (func(*nats.Msg) error, error) {
		inbox := conn.NewInbox()
		answers, err := conn.SubscribeSync(inbox + ".*")
		if err != nil {
			return nil, err
		}
		var n uint64
		return func(m *nats.Msg) error {
			n++
			reply := fmt.Sprintf("%s.%d", inbox, n)
			durable := make(chan error, 1)
			go func() { durable <- db.Set(binary.BigEndian.AppendUint64(nil, n), m.Data, pebble.Sync) }()
			err := askBareFollowers(ctx, conn, answers, reply, m.Data)
			return errors.Join(err, <-durable)
		}, nil
	})
}

// askBareFollowers returns when one of them has answered.
func askBareFollowers(ctx context.Context, conn *nats.Conn, answers *nats.Subscription, reply string, value []byte) error {
	for _, follower := range bareFollowers {
		if err := conn.PublishRequest(bareSubject+follower, reply, value); err != nil {
			return err
		}
	}
	for {
		if a, err := answers.NextMsgWithContext(ctx); err != nil || a.Subject == reply {
			return err
		}
	}
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
