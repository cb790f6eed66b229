package kv

import (
	"context"
	"fmt"
	"iter"

	"quorate/node/kv/kvpb"
)

// List yields the entries whose keys begin with prefix, in key order, all as of one revision, that of the first page. With keysOnly,
// values are left out. It fetches page by page; an error without a key ends the sequence: ErrCompacted if it takes so long that the history of its
// revision goes.
//
// An error with a key is of that entry alone, and comes with all of it but the value, which no message holds: NATS takes smaller ones than when
// it was written. The sequence goes on behind it, for whoever wants the others all the same.
func (c *Client) List(ctx context.Context, prefix string, keysOnly bool, opts ...ReadOption) iter.Seq2[Entry, error] {
	o := readOptions(opts)
	return func(yield func(Entry, error) bool) {
		l := pages{client: c, how: *o, prefix: []byte(prefix)}
		for {
			first := l.revision == 0
			page, err := l.next(ctx, keysOnly, 0)
			var noValue error
			if !keysOnly && isRefused(err, codeTooLarge) { // that of the page's first key; a page has no other value then
				noValue = fmt.Errorf("list %q: %w", prefix, err)
				page, err = l.next(ctx, true, 1)
				if first && err == nil {
					continue // it was of an unknown revision, and may not be the first by now
				}
			}
			if err != nil {
				yield(Entry{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			for _, v := range page.Versions {
				l.after = v.Key
				if !yield(entryOf(v), noValue) {
					return
				}
			}
			if !page.More || len(page.Versions) == 0 {
				return
			}
		}
	}
}

// pages is how far a List has come.
type pages struct {
	client   *Client
	how      readOption
	prefix   []byte
	after    []byte
	revision uint64 // of all pages; zero before the first
}

// next fetches the page behind after. limit is the most entries; 0 for as many as fit.
func (l *pages) next(ctx context.Context, keysOnly bool, limit uint32) (*kvpb.RangeResponse, error) {
	r := kvpb.RangeRequest{
		Version: commandVersion, Prefix: l.prefix, After: l.after, Revision: l.revision, KeysOnly: keysOnly, Limit: limit,
		Consistency: l.how.consistency, Unsampled: l.client.telemetry.BeginsTraces(),
	}
	var page kvpb.RangeResponse
	if err := l.client.askTraced(ctx, "kv.list", l.how.subject("range"), r.MarshalVT, page.UnmarshalVT); err != nil {
		return nil, err
	}
	l.how.report(page.StalenessNs, page.Node, page.Leased)
	if l.how.local() && l.how.node == "" {
		l.how.node = page.Node // all pages from one node
	}
	l.revision = page.Revision
	return &page, nil
}
