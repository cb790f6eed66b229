package objectstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"quorate/node/raft"
)

// Clusters returns the ids of the clusters that have snapshots in a bucket, for somebody who has lost every disk and knows the cluster by its
// name only. Several mean that the name was used again. ErrNotFound: there is no such bucket, or nothing in it.
func Clusters(ctx context.Context, conn *nats.Conn, bucket string) ([]raft.ClusterID, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fmt.Errorf("list the clusters in bucket %s: %w", bucket, err)
	}
	store, err := js.ObjectStore(ctx, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fmt.Errorf("bucket %s: %w", bucket, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("list the clusters in bucket %s: %w", bucket, &UnavailableError{Err: err})
	}
	objects, err := store.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, fmt.Errorf("list the clusters in bucket %s: %w", bucket, &UnavailableError{Err: err})
	}
	var ids []raft.ClusterID
	for _, object := range objects {
		var id raft.ClusterID
		text, _, ok := strings.Cut(object.Name, "/")
		if n, err := hex.Decode(id[:], []byte(text[:min(len(text), 2*len(id))])); !ok || err != nil || n != len(id) || slices.Contains(ids, id) {
			continue
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("bucket %s has no snapshots: %w", bucket, ErrNotFound)
	}
	return ids, nil
}
