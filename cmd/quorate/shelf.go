package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/objectstore"
)

// shelf is where a cluster's snapshots are: in the object store, and, while there is no JetStream, at the nodes that built them.
type shelf struct {
	link   *link
	admin  *node.Admin
	id     raft.ClusterID
	bucket objectstore.Blobs
	// nodes that answered, and members that did not.
	nodes, silent []raft.NodeID
}

// shelved is one snapshot.
type shelved struct {
	objectstore.Stored
	// nodes that keep it; none if it is in the object store.
	nodes []raft.NodeID
}

// listing is what is on a shelf, the newest first.
type listing struct {
	snapshots []shelved
	// damaged is why others cannot be used. unseen are the nodes that could not be asked, when that matters.
	damaged []error
	unseen  []raft.NodeID
}

// withShelf runs f with the cluster's snapshots.
func (f *clientFlags) withShelf(ctx context.Context, use func(context.Context, *shelf) error) error {
	l, err := f.connect(ctx, "snapshots")
	if err != nil {
		return err
	}
	defer l.conn.Close()
	asking, cancel := within(ctx, f.timeout)
	defer cancel()
	view, err := gatherStatus(asking, l, "")
	if err != nil {
		return err
	}
	s := &shelf{link: l, admin: node.NewAdmin(l.conn, subjectPrefix, l.cluster), silent: view.silent}
	for _, answer := range view.answers {
		s.nodes = append(s.nodes, answer.ID)
	}
	if s.id, err = parseClusterID(view.newest().ClusterID); err != nil {
		return fmt.Errorf("cluster %s: %w", l.cluster, err)
	}
	if s.bucket, err = objectstore.NewBucket(l.conn, subjectPrefix+"-"+l.cluster, s.id, objectstore.BucketOptions{}); err != nil {
		return err
	}
	return l.explain(use(ctx, s))
}

func parseClusterID(text string) (id raft.ClusterID, err error) {
	if n, err := hex.Decode(id[:], []byte(text)); err != nil || n != len(id) {
		return id, withStatus(statusUnavailable, errors.New("it has no id yet: its members have not agreed on its genesis"))
	}
	return id, nil
}

// list looks what there is.
func (s *shelf) list(ctx context.Context) (found listing, err error) {
	stored, damaged, err := objectstore.ListStored(ctx, s.bucket)
	held := objectstore.WithoutJetStream(err)
	if err != nil && !held && !errors.Is(err, objectstore.ErrNotFound) {
		return found, err
	}
	for _, one := range stored {
		found.snapshots = append(found.snapshots, shelved{Stored: one})
	}
	for _, d := range damaged {
		found.damaged = append(found.damaged, d)
	}
	if held {
		found.unseen = slices.Clone(s.silent)
	}
	for _, id := range s.nodes {
		asking, cancel := within(ctx, defaultTimeout)
		kept, err := s.admin.HeldSnapshots(asking, id)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return found, context.Cause(ctx)
			}
			if held {
				found.unseen = append(found.unseen, id)
			}
			continue
		}
		for _, text := range kept.Damaged {
			found.damaged = append(found.damaged, fmt.Errorf("at %s: %s", id, text))
		}
		for _, one := range kept.Snapshots {
			found.add(one, id)
		}
	}
	slices.SortStableFunc(found.snapshots, func(a, b shelved) int { return b.Ref.Last.Compare(a.Ref.Last) })
	return found, nil
}

// add takes note of a snapshot that a node keeps.
func (l *listing) add(one objectstore.Stored, id raft.NodeID) {
	for i := range l.snapshots {
		if known := &l.snapshots[i]; known.Ref == one.Ref {
			if len(known.nodes) > 0 {
				known.nodes = append(known.nodes, id)
			}
			return
		}
	}
	l.snapshots = append(l.snapshots, shelved{Stored: one, nodes: []raft.NodeID{id}})
}

// remark says in words what could not be looked at, or nothing.
func (l *listing) remark() string {
	if len(l.unseen) == 0 {
		return ""
	}
	return fmt.Sprintf("there is no JetStream, so nodes keep what they built, and %s cannot be asked: what is there is not listed", joinIDs(l.unseen))
}

// parts is where the parts of a snapshot are read from.
func (s *shelf) parts(of shelved) objectstore.Blobs {
	if len(of.nodes) == 0 {
		return s.bucket
	}
	nodes := slices.Clone(of.nodes)
	for _, id := range s.nodes {
		if !slices.Contains(nodes, id) {
			nodes = append(nodes, id)
		}
	}
	return s.admin.HeldParts(s.bucket, s.id, nodes...)
}
