package pebblelog

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Pebble ends the replay of a write-ahead log at the first record that it cannot read. After a crash that is right: a torn record was
// never synced. But a bit that flipped in a record that was synced looks the same, and would silently take all acknowledged
// entries after it along. Pebble's own means against it (FormatWALSyncChunks) is coarse: it does not look into the block
// of the damage, does not count blocks that were written whole, and is not there yet in the first log file of a directory.
//
// So each batch begins with a durable mark: the place up to which Pebble's log was known to be on disk when the batch was made, as a
// sequence number of Pebble's. When a directory is opened, scanWriteAheadLogs looks for a mark beyond what can be read.
// What was synced after the last mark that was written is not covered: the newest batches when the power goes; none after a Close.

// markMagic tells a mark from other log data. It includes the mark's format.
const markMagic = "Qdm\x01"

// markBytes is the length of a mark.
const markBytes = len(markMagic) + 8

// durableMark is the place up to which Pebble's log is on disk: all records of a smaller sequence number.
type durableMark struct{ upTo atomic.Uint64 }

// begin puts the mark at the beginning of a batch.
func (d *durableMark) begin(batch *pebble.Batch) error {
	var data [markBytes]byte
	copy(data[:], markMagic)
	binary.LittleEndian.PutUint64(data[len(markMagic):], d.upTo.Load())
	return batch.LogData(data[:], nil)
}

// endOfBatch is where a batch ends that was applied, or 0 if Pebble has taken its content away, as it does with very large ones. A
// later batch stands for these.
func endOfBatch(batch *pebble.Batch) uint64 {
	seq := uint64(batch.SeqNum())
	if seq == 0 {
		return 0
	}
	return seq + uint64(batch.Count())
}

// advance notes that what ends there is on disk, and with it all before it.
func (d *durableMark) advance(end uint64) {
	for {
		old := d.upTo.Load()
		if end <= old || d.upTo.CompareAndSwap(old, end) {
			return
		}
	}
}

// parseRecord reads the beginning of a record of Pebble's log: a batch, with its durable mark if it begins with one.
func parseRecord(b []byte) (seq, end, mark uint64, ok bool) {
	const header = 12 // sequence number, count
	if len(b) < header {
		return 0, 0, 0, false
	}
	seq = binary.LittleEndian.Uint64(b)
	end = seq + uint64(binary.LittleEndian.Uint32(b[8:]))
	const begins = string(rune(pebble.InternalKeyKindLogData)) + string(rune(markBytes)) + markMagic
	if b = b[header:]; len(b) >= len(begins)+8 && string(b[:len(begins)]) == begins {
		mark = binary.LittleEndian.Uint64(b[len(begins):])
	}
	return seq, end, mark, true
}

// recordPrefix is how much of a record parseRecord reads at most.
const recordPrefix = 12 + 2 + markBytes
