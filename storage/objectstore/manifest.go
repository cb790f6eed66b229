package objectstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"quorate/node/raft"
	"quorate/storage"
	pb "quorate/storage/objectstore/objectstorepb"
)

// manifestFormat is the newest that is known here. A newer one is refused.
const (
	manifestFormat = 2
	// inlineFormat has the records in the manifest. It is written where it will do: older versions know no other.
	inlineFormat = 1
)

const (
	// maxManifestBytes bounds what is read into memory: some 600,000 parts, or 10 TB of state.
	maxManifestBytes = 64 << 20
	// maxPartRaw is the largest part, before compression.
	maxPartRaw = 32 << 20
	// maxPartStored leaves room for what compression adds to what cannot be compressed.
	maxPartStored = maxPartRaw + maxPartRaw/64
	maxBlobBytes  = maxManifestBytes
	maxLayers     = 1024
	minSystemKey  = 4
	maxSystemKey  = 4 << 10
)

// Digest is a SHA-256.
type Digest [sha256.Size]byte

// String returns it in hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Manifest describes one complete snapshot and names its parts. Whoever applies its layers in order has the state.
type Manifest struct {
	Cluster raft.ClusterID
	// Meta has its System only if Records is empty. ReadMeta returns it complete.
	Meta storage.SnapshotMeta
	// Records are the parts of the stream of Meta's System, if that is too large to be in the manifest.
	Records []Part
	// Layers follow each other: each one's Since is the Upto of the one before, the first's is zero, the last's Upto is Meta.Last.
	Layers []Layer
	// MaxEntryBytes is the largest command that the cluster takes, for one that begins with its state. Zero: an older version did not write it.
	MaxEntryBytes uint64
}

// Layer is a stream of the state machine's: its whole state, or what changed since an earlier one.
type Layer struct {
	// Since is the log id of the state that the layer changes. Zero: it is a whole state.
	Since raft.LogID
	Upto  raft.LogID
	// Raw is the size of the stream, in bytes.
	Raw   uint64
	Parts []Part
}

// Part is a piece of a layer's stream, stored as one blob.
type Part struct {
	// Digest is that of the bytes stored; it is the blob's name.
	Digest Digest
	// Raw and Stored are the sizes before and after compression, in bytes.
	Raw, Stored uint64
	// Content is the CRC-32C of the bytes before compression.
	Content uint32
}

const (
	partPrefix     = "part-"
	manifestPrefix = "manifest-"
	// nameDigits of a manifest's digest stand in its name: enough to tell damage from the bytes and the name alone.
	nameDigits = 32
)

// Name is the name of the part's blob.
func (p Part) Name() string { return partPrefix + p.Digest.String() }

// Bytes is the size of all streams, in bytes.
func (m *Manifest) Bytes() uint64 {
	var n uint64
	for _, p := range m.Records {
		n += p.Raw
	}
	for _, l := range m.Layers {
		n += l.Raw
	}
	return n
}

// Unique returns the parts in their order, each one once. Those of the records come first, since nothing can be restored without them.
func (m *Manifest) Unique() []Part {
	var parts []Part
	seen := make(map[Digest]bool)
	add := func(more []Part) {
		for _, p := range more {
			if !seen[p.Digest] {
				seen[p.Digest] = true
				parts = append(parts, p)
			}
		}
	}
	add(m.Records)
	for _, l := range m.Layers {
		add(l.Parts)
	}
	return parts
}

// reference returns the reference to a manifest, given its bytes.
func (m *Manifest) reference(encoded []byte) storage.SnapshotRef {
	digest := sha256.Sum256(encoded)
	return storage.SnapshotRef{
		Name: fmt.Sprintf("%s%020d-%020d-%s", manifestPrefix, m.Meta.Last.Index, m.Meta.Last.Term, hex.EncodeToString(digest[:])[:nameDigits]),

		Digest: digest, Last: m.Meta.Last, Bytes: m.Bytes(),
	}
}

func isManifest(name string) bool { return strings.HasPrefix(name, manifestPrefix) }

// partDigest returns the digest in a part's name.
func partDigest(name string) (Digest, bool) {
	text, ok := strings.CutPrefix(name, partPrefix)
	if !ok || len(text) != 2*sha256.Size {
		return Digest{}, false
	}
	var d Digest
	_, err := hex.Decode(d[:], []byte(text))
	return d, err == nil && d.String() == text
}

// EncodeManifest encodes a manifest. The same manifest always has the same bytes.
func EncodeManifest(m *Manifest) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("encode a manifest: %w", err)
	}
	membership, err := storage.EncodeMembership(m.Meta.Membership)
	if err != nil {
		return nil, fmt.Errorf("encode a manifest: %w", err)
	}
	out := &pb.Manifest{
		Format: inlineFormat, Cluster: m.Cluster[:], Last: encodeLogID(m.Meta.Last),
		Membership: membership, MembershipId: encodeLogID(m.Meta.MembershipID),
		System: make([]*pb.SystemRecord, 0, len(m.Meta.System)), Layers: make([]*pb.Layer, 0, len(m.Layers)),
		MaxEntryBytes: m.MaxEntryBytes, Records: encodeParts(m.Records),
	}
	if len(m.Records) > 0 {
		out.Format = manifestFormat
	}
	for _, r := range m.Meta.System {
		out.System = append(out.System, &pb.SystemRecord{Key: r.Key, Value: r.Value})
	}
	for _, l := range m.Layers {
		out.Layers = append(out.Layers, &pb.Layer{Since: encodeLogID(l.Since), Upto: encodeLogID(l.Upto), Raw: l.Raw, Parts: encodeParts(l.Parts)})
	}
	b, err := out.MarshalVT()
	if err == nil {
		err = checkWire(b)
	}
	if err == nil && len(b) > maxManifestBytes {
		err = fmt.Errorf("%d bytes are more than the %d that are read", len(b), maxManifestBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("encode a manifest: %w", err)
	}
	return b, nil
}

// DecodeManifest decodes a manifest and checks it. Errors wrap storage.ErrCorrupt or storage.ErrNewer.
func DecodeManifest(b []byte) (*Manifest, error) {
	m, err := decodeManifest(b)
	switch {
	case errors.Is(err, storage.ErrNewer):
		return nil, fmt.Errorf("manifest: %w", err)
	case err != nil:
		return nil, fmt.Errorf("manifest: %w: %w", storage.ErrCorrupt, err)
	}
	return m, nil
}

func decodeManifest(b []byte) (*Manifest, error) {
	if len(b) > maxManifestBytes {
		return nil, fmt.Errorf("%d bytes", len(b))
	}
	if err := checkWire(b); err != nil {
		return nil, err
	}
	var in pb.Manifest
	if err := in.UnmarshalVT(b); err != nil {
		return nil, err
	}
	if in.Format == 0 {
		return nil, errors.New("it has no format")
	}
	if in.Format == inlineFormat && len(in.Records) > 0 {
		return nil, fmt.Errorf("format %d has no parts of records", in.Format)
	}
	m := &Manifest{Meta: storage.SnapshotMeta{Last: decodeLogID(in.Last), MembershipID: decodeLogID(in.MembershipId)}, MaxEntryBytes: in.MaxEntryBytes}
	if copy(m.Cluster[:], in.Cluster) != len(m.Cluster) || len(in.Cluster) != len(m.Cluster) {
		return nil, fmt.Errorf("a cluster id of %d bytes", len(in.Cluster))
	}
	var err error
	if m.Meta.Membership, err = storage.DecodeMembership(in.Membership); err != nil {
		return nil, err
	}
	m.Meta.System = slices.Grow(m.Meta.System, len(in.System))
	for _, r := range in.System {
		m.Meta.System = append(m.Meta.System, storage.SystemRecord{Key: r.Key, Value: bytes.Clone(r.Value)})
	}
	if m.Records, err = decodeParts(in.Records); err != nil {
		return nil, err
	}
	for _, l := range in.Layers {
		layer := Layer{Since: decodeLogID(l.Since), Upto: decodeLogID(l.Upto), Raw: l.Raw}
		if layer.Parts, err = decodeParts(l.Parts); err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, layer)
	}
	return m, m.check()
}

// check is made when a manifest is written and when it is read: what is written must not be refused later.
func (m *Manifest) check() error {
	if err := checkLogID(m.Meta.Last); err != nil || m.Meta.Last.Index == 0 {
		return fmt.Errorf("its last log id %v is out of bounds", m.Meta.Last)
	}
	if err := checkLogID(m.Meta.MembershipID); err != nil || m.Meta.MembershipID.Index > m.Meta.Last.Index {
		return fmt.Errorf("the membership's log id %v is out of bounds", m.Meta.MembershipID)
	}
	if m.MaxEntryBytes > math.MaxInt32 {
		return fmt.Errorf("a largest entry of %d bytes", m.MaxEntryBytes)
	}
	for _, r := range m.Meta.System {
		if err := checkRecord(r.Key); err != nil {
			return err
		}
	}
	parts := make(map[Digest]Part)
	if len(m.Records) > 0 && len(m.Meta.System) > 0 {
		return errors.New("it has records, and parts of records as well")
	}
	raw, err := checkParts(m.Records, parts)
	if err == nil && raw > maxRecords {
		err = tooManyRecords(raw)
	}
	if err != nil {
		return fmt.Errorf("records: %w", err)
	}
	if len(m.Layers) == 0 || len(m.Layers) > maxLayers {
		return fmt.Errorf("%d layers", len(m.Layers))
	}
	var upto raft.LogID
	for i, l := range m.Layers {
		if l.Since != upto {
			return fmt.Errorf("layer %d changes the state at %v, and the layers before it lead to %v", i, l.Since, upto)
		}
		if err := checkLogID(l.Upto); err != nil || l.Upto.Index <= l.Since.Index || l.Upto.Term < l.Since.Term {
			return fmt.Errorf("layer %d goes from %v to %v", i, l.Since, l.Upto)
		}
		raw, err := checkParts(l.Parts, parts)
		if err == nil && raw != l.Raw {
			err = fmt.Errorf("its parts have %d bytes, not %d", raw, l.Raw)
		}
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		upto = l.Upto
	}
	if upto != m.Meta.Last {
		return fmt.Errorf("its layers lead to %v, not to %v", upto, m.Meta.Last)
	}
	return nil
}

// checkParts returns their size before compression.
func checkParts(parts []Part, known map[Digest]Part) (raw uint64, err error) {
	for i, p := range parts {
		if p.Raw == 0 || p.Raw > maxPartRaw || p.Stored == 0 || p.Stored > maxPartStored {
			return 0, fmt.Errorf("part %d of %d bytes, %d stored", i, p.Raw, p.Stored)
		}
		if same, ok := known[p.Digest]; ok && same != p {
			return 0, fmt.Errorf("part %d is described in two ways", i)
		}
		known[p.Digest] = p
		raw += p.Raw
	}
	return raw, nil
}

func checkLogID(id raft.LogID) error {
	if id.Term > storage.MaxIndex || id.Index > storage.MaxIndex || (id.Term == 0) != (id.Index == 0) {
		return errors.New("out of bounds")
	}
	return nil
}

func encodeParts(parts []Part) []*pb.Part {
	out := make([]*pb.Part, 0, len(parts))
	for i := range parts {
		p := &parts[i]
		out = append(out, &pb.Part{Digest: p.Digest[:], Raw: p.Raw, Stored: p.Stored, Content: p.Content})
	}
	return out
}

func decodeParts(in []*pb.Part) ([]Part, error) {
	var parts []Part
	if len(in) > 0 {
		parts = make([]Part, len(in))
	}
	for i, p := range in {
		if len(p.Digest) != sha256.Size {
			return nil, fmt.Errorf("a digest of %d bytes", len(p.Digest))
		}
		parts[i] = Part{Digest: Digest(p.Digest), Raw: p.Raw, Stored: p.Stored, Content: p.Content}
	}
	return parts, nil
}

func encodeLogID(id raft.LogID) *pb.LogID { return &pb.LogID{Term: id.Term, Index: id.Index} }

func decodeLogID(id *pb.LogID) raft.LogID {
	return raft.LogID{Term: id.GetTerm(), Index: id.GetIndex()}
}
