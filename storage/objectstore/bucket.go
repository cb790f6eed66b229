package objectstore

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"quorate/node/raft"
)

// Bucket keeps blobs in a NATS Object Store bucket, which clusters may share: an object's name begins with the cluster's id.
//
// What it stores is an ordinary object, which other tools read. But it does not use nats.go's Put and Get. Put publishes the
// object's description while chunks are still on their way, so that a failed one can be left with a description that looks complete;
// Get waits until its deadline for a chunk that is lost, and copies what it reads through a consumer that the server must keep.
// Here each chunk is acknowledged before the next is sent, the description comes after the last of them, and chunks are read one
// request each; whoever wants more speed moves several blobs at once. In memory there is one chunk a call.
type Bucket struct {
	js      jetstream.JetStream
	conn    *nats.Conn
	name    string
	prefix  string // of object names
	chunks  string // prefix of chunk subjects' last token
	options BucketOptions

	mu     sync.Mutex
	stream jetstream.Stream // nil until the bucket was found or made
}

// BucketOptions say how a bucket is made and used. The zero value works.
type BucketOptions struct {
	// Replicas of the bucket, when it is made. Default: 1.
	Replicas int
	// MaxBytes of the bucket, when it is made. Default: no limit.
	MaxBytes int64
	// ChunkBytes is the size of one message. Default: 512 KiB, or what the server allows if that is less.
	ChunkBytes int
	// Timeout of one request to the server. Default: 5 s.
	Timeout time.Duration
}

const (
	// defaultChunk keeps the messages of a 16 MiB part few, each well below NATS's usual limit of 1 MiB.
	defaultChunk = 512 << 10
	// chunkHeadroom is left in a message for the headers that the server adds.
	chunkHeadroom  = 4 << 10
	bucketTimeout  = 5 * time.Second
	listBatch      = 256
	listPatience   = 3
	maxChunksBlob  = 1 << 20
	consumerExpiry = 30 * time.Second
)

var bucketName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// NewBucket returns the blobs of a cluster in a bucket. The bucket is made by the first Put, if it is not there. The connection stays
// the caller's.
func NewBucket(conn *nats.Conn, bucket string, cluster raft.ClusterID, options BucketOptions) (*Bucket, error) {
	if !bucketName.MatchString(bucket) {
		return nil, fmt.Errorf("object store bucket %q: the name may have letters, digits, '-' and '_'", bucket)
	}
	if options.Timeout <= 0 {
		options.Timeout = bucketTimeout
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(options.Timeout))
	if err != nil {
		return nil, fmt.Errorf("object store bucket %s: %w", bucket, err)
	}
	return &Bucket{
		js: js, conn: conn, name: bucket, options: options,
		prefix: cluster.String() + "/", chunks: cluster.String() + "-",
	}, nil
}

func (b *Bucket) metaSubject(name string) string {
	return "$O." + b.name + ".M." + base64.URLEncoding.EncodeToString([]byte(b.prefix+name))
}

func (b *Bucket) chunkSubject(id string) string { return "$O." + b.name + ".C." + id }

func (b *Bucket) chunkBytes() int {
	n := b.options.ChunkBytes
	if n <= 0 {
		n = defaultChunk
	}
	if limit := int(b.conn.MaxPayload()) - chunkHeadroom; limit > 0 {
		n = min(n, limit)
	}
	return n
}

// Put implements Blobs.
func (b *Bucket) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	if err := checkBlobName(name); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	if err := b.put(ctx, name, size, r); err != nil {
		return fmt.Errorf("put %s into bucket %s: %w", name, b.name, err)
	}
	return nil
}

func (b *Bucket) put(ctx context.Context, name string, size int64, r io.Reader) error {
	stream, err := b.open(ctx, true)
	if err != nil {
		return err
	}
	old, err := b.describe(ctx, stream, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	object := &jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: b.prefix + name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(b.chunkBytes())}},
		Bucket:     b.name, NUID: b.chunks + nuid.Next(), Size: uint64(size),
	}
	subject := b.chunkSubject(object.NUID)
	if err := b.putChunks(ctx, object, r); err != nil {
		b.purge(stream, subject)
		return err
	}
	description, err := json.Marshal(object)
	if err != nil {
		return err
	}
	message := nats.NewMsg(b.metaSubject(name))
	message.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	message.Data = description
	if err := b.publish(ctx, message); err != nil {
		// It may have been stored all the same, so its chunks stay; clean removes them when no description names them.
		return err
	}
	if old != nil {
		b.purge(stream, b.chunkSubject(old.NUID))
	}
	return nil
}

// putChunks sends the bytes and sets the object's digest and number of chunks. It returns when all are acknowledged.
func (b *Bucket) putChunks(ctx context.Context, object *jetstream.ObjectInfo, r io.Reader) error {
	digest := sha256.New()
	chunk := make([]byte, min(int64(object.Opts.ChunkSize), int64(object.Size)+1))
	for left := int64(object.Size); ; {
		n, err := io.ReadFull(r, chunk)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if left -= int64(n); left < 0 || err != nil && left > 0 {
			return fmt.Errorf("the source does not have the %d bytes that it should", object.Size)
		}
		if n > 0 {
			digest.Write(chunk[:n])
			if err := b.publishChunk(ctx, object.NUID, chunk[:n]); err != nil {
				return err
			}
			object.Chunks++
		}
		if err != nil {
			object.Digest = jetstream.GetObjectDigestValue(digest)
			return nil
		}
	}
}

func (b *Bucket) publishChunk(ctx context.Context, id string, chunk []byte) error {
	return b.publish(ctx, &nats.Msg{Subject: b.chunkSubject(id), Data: chunk})
}

func (b *Bucket) publish(ctx context.Context, message *nats.Msg) error {
	request, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	if _, err := b.js.PublishMsg(request, message, jetstream.WithRetryAttempts(0)); err != nil {
		b.forget() // the bucket may be gone
		return b.failed(ctx, err)
	}
	return nil
}

// purge removes messages that nothing names any more. It is done as well as can be, also after the caller's ctx has ended: what stays
// is removed by clean.
func (b *Bucket) purge(stream jetstream.Stream, subject string) {
	if !b.conn.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
}

// Get implements Blobs.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	stream, object, err := b.find(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("get %s from bucket %s: %w", name, b.name, err)
	}
	return &bucketReader{ctx: ctx, bucket: b, stream: stream, name: name, object: object}, nil
}

// bucketReader reads an object chunk by chunk.
type bucketReader struct {
	// ctx is Get's: reading is a part of it.
	ctx    context.Context
	bucket *Bucket
	stream jetstream.Stream
	name   string
	object *jetstream.ObjectInfo

	rest     []byte // of the chunk read last
	chunks   uint32 // read so far
	bytes    uint64
	sequence uint64 // the next chunk's, at least
	err      error
}

// Read implements io.Reader.
func (r *bucketReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 && r.err == nil {
		if r.err = r.next(); r.err != nil && r.err != io.EOF {
			r.err = fmt.Errorf("get %s from bucket %s: %w", r.name, r.bucket.name, r.err)
		}
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *bucketReader) next() error {
	if r.chunks == r.object.Chunks {
		if r.bytes != r.object.Size {
			return fmt.Errorf("%w: %d of %d bytes", ErrIncomplete, r.bytes, r.object.Size)
		}
		return io.EOF
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.bucket.options.Timeout)
	defer cancel()
	m, err := r.stream.GetMsg(ctx, r.sequence, jetstream.WithGetMsgSubject(r.bucket.chunkSubject(r.object.NUID)))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("%w: chunk %d of %d is missing", ErrIncomplete, r.chunks+1, r.object.Chunks)
	}
	if err != nil {
		r.bucket.forget()
		return r.bucket.failed(r.ctx, err)
	}
	r.rest, r.sequence = m.Data, m.Sequence+1
	r.chunks++
	r.bytes += uint64(len(m.Data))
	return nil
}

// Close implements io.Closer.
func (r *bucketReader) Close() error {
	r.rest, r.err = nil, errors.New("read after close")
	return nil
}

// Stat implements Blobs. An object of which a chunk is missing is not found: it would not be sent again otherwise.
func (b *Bucket) Stat(ctx context.Context, name string) (BlobInfo, error) {
	info, err := b.stat(ctx, name)
	if err != nil {
		return BlobInfo{}, fmt.Errorf("look for %s in bucket %s: %w", name, b.name, err)
	}
	return info, nil
}

func (b *Bucket) stat(ctx context.Context, name string) (BlobInfo, error) {
	stream, object, err := b.find(ctx, name)
	if err != nil {
		return BlobInfo{}, err
	}
	counts, err := b.subjects(ctx, stream, b.chunkSubject(object.NUID))
	if err != nil {
		return BlobInfo{}, err
	}
	if n := counts[b.chunkSubject(object.NUID)]; n != uint64(object.Chunks) {
		return BlobInfo{}, fmt.Errorf("%w: %w: %d of %d chunks", ErrNotFound, ErrIncomplete, n, object.Chunks)
	}
	return BlobInfo{Name: name, Size: int64(object.Size), Modified: object.ModTime}, nil
}

// Delete implements Blobs. Nothing of the object stays, not even a mark: names are digests, and marks would pile up.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	stream, object, err := b.find(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		// The description first: without chunks it would look like a damaged object.
		for _, subject := range []string{b.metaSubject(name), b.chunkSubject(object.NUID)} {
			if err = b.purgeNow(ctx, stream, subject); err != nil {
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("delete %s from bucket %s: %w", name, b.name, err)
	}
	return nil
}

func (b *Bucket) purgeNow(ctx context.Context, stream jetstream.Stream, subject string) error {
	request, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	if err := stream.Purge(request, jetstream.WithPurgeSubject(subject)); err != nil {
		b.forget()
		return b.failed(ctx, err)
	}
	return nil
}

// find returns an object's description, or ErrNotFound, also when there is no bucket.
func (b *Bucket) find(ctx context.Context, name string) (jetstream.Stream, *jetstream.ObjectInfo, error) {
	if err := checkBlobName(name); err != nil {
		return nil, nil, err
	}
	stream, err := b.open(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	object, err := b.describe(ctx, stream, name)
	return stream, object, err
}

func (b *Bucket) describe(ctx context.Context, stream jetstream.Stream, name string) (*jetstream.ObjectInfo, error) {
	request, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	m, err := stream.GetLastMsgForSubject(request, b.metaSubject(name))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		b.forget()
		return nil, b.failed(ctx, err)
	}
	object, err := b.parse(m.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if object.Name != b.prefix+name {
		return nil, fmt.Errorf("%w: what stands there describes %q", ErrNotFound, object.Name)
	}
	object.ModTime = m.Time
	return object, nil
}

func (b *Bucket) parse(description []byte) (*jetstream.ObjectInfo, error) {
	var object jetstream.ObjectInfo
	if err := json.Unmarshal(description, &object); err != nil {
		return nil, fmt.Errorf("its description cannot be read: %w", err)
	}
	// Chunks under another's name could be another cluster's, and would be deleted as ours.
	if object.Deleted || !strings.HasPrefix(object.NUID, b.chunks) || strings.ContainsAny(object.NUID, ".*> ") ||
		object.Chunks > maxChunksBlob || object.Size > maxBlobBytes {
		return nil, errors.New("its description is not one of ours")
	}
	return &object, nil
}

// List implements Blobs.
func (b *Bucket) List(ctx context.Context) ([]BlobInfo, error) {
	blobs, _, err := b.list(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list bucket %s: %w", b.name, err)
	}
	return blobs, nil
}

// list returns the blobs, and the names of their chunks.
func (b *Bucket) list(ctx context.Context) (blobs []BlobInfo, ids map[string]bool, err error) {
	for try := 0; ; try++ {
		blobs, ids, err = b.listOnce(ctx)
		if !errors.Is(err, errListBroken) || try == listPatience {
			return blobs, ids, err
		}
	}
}

// errListBroken says that a list may lack something: what the server had sent was lost on the way, or it has forgotten what it had sent.
var errListBroken = errors.New("the list broke off")

func (b *Bucket) listOnce(ctx context.Context) (blobs []BlobInfo, ids map[string]bool, err error) {
	stream, err := b.open(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	request, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	consumer, err := stream.CreateConsumer(request, jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, MemoryStorage: true, Replicas: 1,
		FilterSubject: "$O." + b.name + ".M.>", InactiveThreshold: consumerExpiry,
	})
	if err != nil {
		b.forget()
		return nil, nil, b.failed(ctx, err)
	}
	defer func() {
		request, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = stream.DeleteConsumer(request, consumer.CachedInfo().Name) // the server does it after consumerExpiry
	}()
	ids = make(map[string]bool)
	// The server numbers what it sends. It sends nothing twice, and a fetch ends without an error when nothing has come for a second.
	var received uint64
	for left, idle := consumer.CachedInfo().NumPending, 0; left > 0; {
		batch, err := consumer.FetchNoWait(listBatch)
		if err != nil {
			return nil, nil, b.failed(ctx, err)
		}
		before, lost := left, false
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return nil, nil, b.failed(ctx, err)
			}
			received++
			lost = lost || meta.Sequence.Consumer != received
			left = meta.NumPending
			object, err := b.parse(m.Data())
			if err != nil || !strings.HasPrefix(object.Name, b.prefix) {
				continue // another cluster's
			}
			name := strings.TrimPrefix(object.Name, b.prefix)
			if checkBlobName(name) != nil || m.Subject() != b.metaSubject(name) {
				continue
			}
			ids[object.NUID] = true
			blobs = append(blobs, BlobInfo{Name: name, Size: int64(object.Size), Modified: meta.Timestamp})
		}
		if err := context.Cause(ctx); err != nil {
			return nil, nil, err
		}
		if lost {
			return nil, nil, b.failed(ctx, errListBroken)
		}
		if left < before {
			idle = 0
			continue
		}
		// Nothing came: it was lost, or what was left has been deleted meanwhile, or the server does not answer.
		if idle++; idle > listPatience {
			return nil, nil, b.failed(ctx, errors.Join(errListBroken, batch.Error()))
		}
		var sent uint64
		if left, sent, err = b.pending(ctx, consumer); err != nil {
			return nil, nil, err
		}
		if sent != received {
			return nil, nil, b.failed(ctx, errListBroken)
		}
	}
	return blobs, ids, nil
}

// pending returns how much a consumer has left to send, and how much it has sent.
func (b *Bucket) pending(ctx context.Context, consumer jetstream.Consumer) (left, sent uint64, err error) {
	request, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	info, err := consumer.Info(request)
	if errors.Is(err, jetstream.ErrConsumerNotFound) { // it is in the server's memory: that was started again
		return 0, 0, b.failed(ctx, fmt.Errorf("%w: %w", errListBroken, err))
	}
	if err != nil {
		b.forget()
		return 0, 0, b.failed(ctx, err)
	}
	return info.NumPending, info.Delivered.Consumer, nil
}

// clean implements cleaner: it removes chunks of this cluster's that no object names.
func (b *Bucket) clean(ctx context.Context, olderThan time.Duration) ([]string, error) {
	stream, err := b.open(ctx, false)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("clean bucket %s: %w", b.name, err)
	}
	// The chunks before the objects: chunks that are not in the first list are not looked at, and those of an object that was
	// finished in between are in the second.
	counts, err := b.subjects(ctx, stream, "$O."+b.name+".C.>")
	if err != nil {
		return nil, fmt.Errorf("clean bucket %s: %w", b.name, err)
	}
	_, named, err := b.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("clean bucket %s: %w", b.name, err)
	}
	var removed []string
	for subject := range counts {
		id := strings.TrimPrefix(subject, b.chunkSubject(""))
		if !strings.HasPrefix(id, b.chunks) || named[id] {
			continue
		}
		request, cancel := context.WithTimeout(ctx, b.options.Timeout)
		last, err := stream.GetLastMsgForSubject(request, subject)
		cancel()
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && time.Since(last.Time) < olderThan {
			continue
		}
		if err == nil {
			err = b.purgeNow(ctx, stream, subject)
		} else {
			err = b.failed(ctx, err)
		}
		if err != nil {
			return removed, fmt.Errorf("clean bucket %s: %w", b.name, err)
		}
		removed = append(removed, "chunks "+id)
	}
	return removed, nil
}

// subjects returns how many messages each subject has that the filter matches.
func (b *Bucket) subjects(ctx context.Context, stream jetstream.Stream, filter string) (map[string]uint64, error) {
	request, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	info, err := stream.Info(request, jetstream.WithSubjectFilter(filter))
	if err != nil {
		b.forget()
		return nil, b.failed(ctx, err)
	}
	return info.State.Subjects, nil
}

// open returns the bucket's stream. If there is none, it is made, or the answer is ErrNotFound.
func (b *Bucket) open(ctx context.Context, create bool) (jetstream.Stream, error) {
	b.mu.Lock()
	stream := b.stream
	b.mu.Unlock()
	if stream != nil {
		return stream, nil
	}
	request, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	stream, err := b.js.Stream(request, "OBJ_"+b.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if !create {
			return nil, fmt.Errorf("%w: there is no bucket", ErrNotFound)
		}
		stream, err = b.create(request)
	}
	if errors.Is(err, nats.ErrNoResponders) { // nobody answers for JetStream itself
		err = fmt.Errorf("%w: %w", jetstream.ErrJetStreamNotEnabled, err)
	}
	if err != nil {
		return nil, b.failed(ctx, err)
	}
	b.mu.Lock()
	b.stream = stream
	b.mu.Unlock()
	return stream, nil
}

func (b *Bucket) create(ctx context.Context) (jetstream.Stream, error) {
	_, err := b.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: b.name, Description: "Snapshots of Quorate clusters", Replicas: b.options.Replicas, MaxBytes: b.options.MaxBytes,
	})
	if err != nil && !errors.Is(err, jetstream.ErrBucketExists) { // another node was first
		return nil, err
	}
	return b.js.Stream(ctx, "OBJ_"+b.name)
}

// forget lets the next call look for the bucket again: it may have been deleted, and made anew.
func (b *Bucket) forget() {
	b.mu.Lock()
	b.stream = nil
	b.mu.Unlock()
}

// failed says what a failed request means to a caller: that its ctx has ended, or that the store is not available.
func (b *Bucket) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	unavailable := &UnavailableError{Err: err}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		unavailable.Lasting = lasting(api)
	}
	return unavailable
}

// Codes of nats-server for "there is no room".
const (
	codeInsufficientResources = 10023
	codeNoRoomOnServer        = 10047
	codeStoreFailed           = 10077 // also "maximum bytes exceeded"
	codeAccountLimit          = 10002
)

func lasting(e *jetstream.APIError) bool {
	switch e.ErrorCode {
	case codeInsufficientResources, codeNoRoomOnServer, codeStoreFailed, codeAccountLimit,
		jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		return true
	case jetstream.JSErrCodeStreamNotFound, // deleted under our hands: the next try makes it
		jetstream.JSErrCodeConsumerNotFound: // the next list makes one
		return false
	}
	return e.Code < 500
}
