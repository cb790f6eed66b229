package node

import (
	"context"
	"errors"
	"io"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"quorate/storage/objectstore"
)

// snapshotMetrics are the instruments of builder and fetcher.
type snapshotMetrics struct {
	ended metric.Int64Counter
	moved metric.Int64Counter
}

func newSnapshotMetrics(meter metric.Meter) (s snapshotMetrics, err error) {
	var errs [2]error
	s.ended, errs[0] = meter.Int64Counter("quorate.snapshots", metric.WithUnit("{snapshot}"), metric.WithDescription("Snapshots that this node has built or installed, or failed to, by action and outcome."))
	s.moved, errs[1] = meter.Int64Counter("quorate.snapshot.moved", metric.WithUnit("By"), metric.WithDescription("Bytes of snapshots as they are moved, by action: read of the state, stored in the object store or a directory, fetched from there."))
	if err := errors.Join(errs[:]...); err != nil {
		return s, err
	}
	// What has not happened yet is zero, so that the first time is seen as an increase.
	for _, action := range []string{snapshotBuild, snapshotInstall} {
		s.count(0, action, "done")
		s.count(0, action, "failed")
	}
	for _, action := range []string{snapshotRead, snapshotStore, snapshotFetch} {
		s.moved.Add(context.Background(), 0, ofAction(action))
	}
	return s, nil
}

// What is done with a snapshot.
const (
	snapshotBuild   = "build"
	snapshotInstall = "install"
)

func (s *snapshotMetrics) count(n int64, action, outcome string) {
	s.ended.Add(context.Background(), n, metric.WithAttributes(attribute.String("quorate.action", action), attribute.String("quorate.outcome", outcome)))
}

// snapshotEnded counts a build or an installation.
func (m *metrics) snapshotEnded(action string, err error) {
	if m == nil {
		return
	}
	outcome := "done"
	if err != nil {
		outcome = "failed"
	}
	m.snapshots.count(1, action, outcome)
}

// What is done with the bytes of one.
const (
	snapshotRead  = "read"
	snapshotStore = "store"
	snapshotFetch = "fetch"
)

func ofAction(action string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("quorate.action", action))
}

// moving counts bytes, from several goroutines. It is nil if nobody measures.
type moving struct {
	bytes  metric.Int64Counter
	action metric.MeasurementOption
}

func (m *metrics) moving(action string) *moving {
	if m == nil {
		return nil
	}
	return &moving{bytes: m.snapshots.moved, action: ofAction(action)}
}

func (m *moving) add(n int) {
	if m != nil && n > 0 {
		m.bytes.Add(context.Background(), int64(n), m.action)
	}
}

// movingBlobs count what is got from them.
type movingBlobs struct {
	objectstore.Blobs
	moving *moving
}

// Get implements objectstore.Blobs.
func (b *movingBlobs) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := b.Blobs.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	return &movingReader{ReadCloser: r, moving: b.moving}, nil
}

type movingReader struct {
	io.ReadCloser
	moving *moving
}

func (r *movingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.moving.add(n)
	return n, err
}
