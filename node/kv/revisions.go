package kv

import (
	"encoding/binary"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// revisionsProperty names the property of Pebble's blocks and tables that holds the range of revisions in them. Tables without it are read.
const revisionsProperty = "quorate.revisions"

// newRevisionCollector makes Pebble note the range of revisions in each block and table, so that a reader of a few revisions skips the
// others. A revision is a part of the key, thus a version and its deletion by Pebble have the same: none is skipped without the other.
func newRevisionCollector() pebble.BlockPropertyCollector {
	return sstable.NewBlockIntervalCollector(revisionsProperty, revisionMapper{}, nil)
}

type revisionMapper struct{}

func (revisionMapper) MapPointKey(key sstable.InternalKey, _ []byte) (sstable.BlockInterval, error) {
	k := key.UserKey
	if len(k) < 1+2+8 || k[0] != dataPrefix {
		return sstable.BlockInterval{}, nil
	}
	revision := min(^binary.BigEndian.Uint64(k[len(k)-8:]), math.MaxUint64-1)
	return sstable.BlockInterval{Lower: revision, Upper: revision + 1}, nil
}

func (revisionMapper) MapRangeKeys(sstable.Span) (sstable.BlockInterval, error) {
	return sstable.BlockInterval{}, nil // there are none
}

// revisionsAfter are the options of an iterator over all versions that may skip those outside after < revision <= upto. It need not
// skip them: what is in memory and what shares a block with the others is shown.
func revisionsAfter(after, upto uint64) *pebble.IterOptions {
	o := allVersions()
	o.PointKeyFilters = []pebble.BlockPropertyFilter{sstable.NewBlockIntervalFilter(revisionsProperty, after+1, upto+1, nil)}
	return o
}

func allVersions() *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: []byte{dataPrefix}, UpperBound: []byte{dataPrefix + 1}}
}
