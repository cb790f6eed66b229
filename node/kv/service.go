package kv

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node"
	"quorate/node/kv/kvpb"
	"quorate/telemetry"
)

// Headers of the service.
const (
	HeaderRevision   = "Quorate-Revision"
	HeaderIfRevision = "Quorate-If-Revision"
	HeaderLimit      = "Quorate-Limit"
	// HeaderConsistency of a get over plain NATS is linearizable, the default, lease or local. The answer has what it was served with: lease only
	// if the node had one.
	HeaderConsistency = "Quorate-Consistency"
	// HeaderMessageID makes a write over plain NATS take effect once: of those with the same id, within two minutes, or until 65,536 others have
	// come if that is sooner, only the first does, and all get its answer.
	HeaderMessageID = "Nats-Msg-Id"
)

// Error codes of the service, in Nats-Service-Error-Code.
const (
	codeBadRequest  = "400"
	codeNotFound    = "404"
	codeSession     = "410"
	codeCondition   = "409"
	codeTooLarge    = "413"
	codeMoved       = "421"
	codeCompacted   = "416"
	codeUnavailable = "503"
	codeUnknown     = "504"
)

// ServiceName is the name of the micro service.
const ServiceName = "quorate-kv"

// ServiceOptions change how a Service serves. The zero value serves.
type ServiceOptions struct {
	// Version shown by `nats micro info`, in the form of semantic versioning. Default: 0.1.0.
	Version string
	// Logger. Default: that of the node.
	Logger *slog.Logger
	// Telemetry gets spans of the requests. Default: that of the node.
	Telemetry *telemetry.Telemetry
}

// Service answers clients over NATS: reads always, on subjects of the node's own, and writes and reads on the cluster's subjects while
// its node leads.
type Service struct {
	node    *node.Node
	store   *Store
	options ServiceOptions
	stop    func()
	ended   chan struct{}
}

// Serve starts the service of a node: it subscribes whenever the node serves as leader, and unsubscribes when it does not. Close it
// before the node.
func Serve(n *node.Node, store *Store, options ServiceOptions) (*Service, error) {
	if options.Version == "" {
		options.Version = "0.1.0"
	}
	if options.Logger == nil {
		options.Logger = n.Logger()
	}
	if options.Telemetry == nil {
		options.Telemetry = n.Config().Telemetry
	}
	changes, stop := n.Watch()
	s := &Service{node: n, store: store, options: options, stop: stop, ended: make(chan struct{})}
	go s.run(changes)
	return s, nil
}

// Close ends the service and waits for it.
func (s *Service) Close() error {
	s.stop()
	<-s.ended
	return nil
}

// run follows the node's leadership.
func (s *Service) run(changes <-chan node.Status) {
	defer close(s.ended)
	var current, reader *server
	defer func() {
		if reader != nil {
			reader.close()
		}
	}()
	var status node.Status
	again := time.NewTimer(0) // to look once more whether another cluster serves under this name
	defer again.Stop()
	for open := true; ; {
		var other string // a cluster that serves under this name
		looks := false   // for one
		var namesakes <-chan string
		if current != nil {
			namesakes = current.namesakes
		}
		select {
		case status, open = <-changes:
		case other = <-namesakes:
		case <-again.C:
			looks = true
		}
		if !open {
			break
		}
		if reader == nil && s.node.Conn() != nil {
			started, err := s.serveReads()
			if err != nil {
				s.options.Logger.Error("cannot serve reads", "error", err)
				again.Reset(serveAgain)
			} else {
				reader = started
			}
		}
		if current != nil && (other != "" || !status.Serving || status.Term != current.term) {
			current.close()
			current = nil
		}
		if current == nil && status.Serving && s.node.Conn() != nil {
			var err error
			if other == "" {
				other, err = s.namesake(context.Background())
			}
			if other != "" {
				s.options.Logger.Error("another cluster serves under this name: this one does not serve clients until that one is stopped",
					"its_cluster_id", other, "cluster_id", status.ClusterID)
				again.Reset(namesakeAgain + rand.N(namesakeAgain/5)) // of two that gave way to each other one is first
				continue
			} else if err != nil {
				s.options.Logger.Warn("cannot ask whether another cluster serves under this name", "error", err)
			}
			started, err := s.lead(status)
			if err != nil {
				s.options.Logger.Error("cannot serve clients", "error", err)
				again.Reset(serveAgain) // nothing else may change
				continue
			}
			current, looks = started, true // another may have begun since namesake asked
		}
		if current != nil && looks {
			if err := current.look(); err != nil {
				s.options.Logger.Debug("cannot ask whether another cluster serves under this name", "error", err)
			}
			again.Reset(namesakeAgain)
		}
	}
	if current != nil {
		current.close()
	}
}

// serveAgain is how long a node that could not begin to serve waits before it tries again.
const serveAgain = time.Second

// Bounds of what waits in a service; beyond them clients are told that it is busy.
const maxWaiting = 16 << 10

// server is the service during one leadership, or that of reads at a node, in all its roles.
type server struct {
	*Service
	// term of the leadership; zero for the reads of any node.
	term    uint64
	service micro.Service
	cancel  context.CancelFunc
	ended   func() <-chan struct{}
	group   sync.WaitGroup
	writes  chan writing
	reads   chan reading
	// readIndex gets the index that the node must have applied for the reads that wait, and waits until it has.
	readIndex func(context.Context) (uint64, error)
	// unsampled is the context of requests that are not sampled.
	unsampled context.Context
	// look asks, and namesakes tells, whether another cluster serves as well.
	look      func() error
	namesakes <-chan string
}

func (s *Service) lead(status node.Status) (*server, error) {
	config := s.node.Config()
	service, err := micro.AddService(s.node.Conn(), micro.Config{
		Name:        ServiceName,
		Version:     s.options.Version,
		Description: "linearizable key-value store of Quorate cluster " + config.Cluster,
		Metadata:    map[string]string{"cluster": config.Cluster, "node": string(config.ID), "term": strconv.FormatUint(status.Term, 10)},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &server{
		Service: s, term: status.Term, service: service, cancel: cancel, ended: ctx.Done,
		writes: make(chan writing, maxWaiting), reads: make(chan reading, maxWaiting), unsampled: inNone(context.Background()),
	}
	l.readIndex = l.leaderReadIndex
	l.group.Go(func() { l.answerWrites(ctx) })
	l.group.Go(func() { l.answerReads(ctx) })
	group := service.AddGroup(config.Prefix+"."+config.Cluster+".kv", micro.WithGroupQueueGroupDisabled())
	for _, endpoint := range []struct {
		name, subject string
		handle        micro.HandlerFunc
	}{
		{"put", "put.>", l.put}, {"get", "get.>", l.get}, {"del", "del.>", l.del},
		{"batch", "batch", l.batch}, {"session", "session", l.session}, {"read", "read", l.read}, {"range", "range", l.list}, {"leader", "leader", l.leader},
		{"history", "history", l.history},
	} {
		// Without a queue group: a paused old leader in a group would swallow requests.
		err := group.AddEndpoint(endpoint.name, endpoint.handle, micro.WithEndpointSubject(endpoint.subject),
			micro.WithEndpointQueueGroupDisabled(), micro.WithEndpointPendingLimits(64<<10, 256<<20))
		if err != nil {
			l.close()
			return nil, fmt.Errorf("serve %s: %w", endpoint.name, err)
		}
	}
	if err := l.watchNamesakes(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// serveReads serves reads at this node, whatever its role: on subjects of its own, and, in a group with all others, on one for any node.
func (s *Service) serveReads() (*server, error) {
	config := s.node.Config()
	service, err := micro.AddService(s.node.Conn(), micro.Config{
		Name: ServiceName + "-reads", Version: s.options.Version,
		Description: "reads at one node of the key-value store of Quorate cluster " + config.Cluster,
		Metadata:    map[string]string{"cluster": config.Cluster, "node": string(config.ID)},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &server{Service: s, service: service, cancel: cancel, ended: ctx.Done, reads: make(chan reading, maxWaiting), readIndex: s.node.ReadIndex}
	l.group.Go(func() { l.answerReads(ctx) })
	stem := config.Prefix + "." + config.Cluster
	own := stem + ".node." + string(config.ID) + ".kv."
	any := stem + ".kv.any."
	for _, endpoint := range []struct {
		name, subject string
		handle        micro.HandlerFunc
		queue         micro.EndpointOpt
	}{
		{"node-read", own + "read", l.read, micro.WithEndpointQueueGroupDisabled()},
		{"node-range", own + "range", l.list, micro.WithEndpointQueueGroupDisabled()},
		{"any-read", any + "read", l.read, micro.WithEndpointQueueGroup("any")},
		{"any-range", any + "range", l.list, micro.WithEndpointQueueGroup("any")},
	} {
		err := service.AddEndpoint(endpoint.name, endpoint.handle, micro.WithEndpointSubject(endpoint.subject),
			endpoint.queue, micro.WithEndpointPendingLimits(64<<10, 256<<20))
		if err != nil {
			l.close()
			return nil, fmt.Errorf("serve %s: %w", endpoint.name, err)
		}
	}
	return l, nil
}

func (l *server) close() {
	if err := l.service.Stop(); err != nil && l.node.Err() == nil {
		l.options.Logger.Debug("stop the service", "error", err)
	}
	l.cancel()
	l.group.Wait()
}

func (l *server) leader(request micro.Request) {
	b, err := l.self().MarshalVT()
	if err != nil {
		l.fail(request, codeUnavailable, err.Error())
		return
	}
	l.reply(request, b, nats.Header{headerClusterID: {l.node.ClusterID().String()}})
}

func (l *server) self() *kvpb.Leader {
	return &kvpb.Leader{Node: string(l.node.Config().ID), Term: l.term, MaxCommandBytes: uint64(l.node.MaxCommandBytes())}
}

func (l *server) respond(request micro.Request, encode func() ([]byte, error)) {
	b, err := encode()
	if err != nil {
		l.fail(request, codeUnavailable, err.Error())
		return
	}
	l.reply(request, b, nil)
}

func (l *server) fail(request micro.Request, code, description string) {
	l.reply(request, nil, nats.Header{micro.ErrorHeader: {description}, micro.ErrorCodeHeader: {code}})
}

// refuse answers that this node did nothing. A leader's subjects have no queue group, so whoever leads gets the message as well: a node that is
// not sure to lead stays silent, since its answer would come before that of its successor.
func (l *server) refuse(request micro.Request, why error) {
	if l.term != 0 && !l.node.Leads(l.term) {
		giveUp(request, why)
		return
	}
	l.fail(request, codeUnavailable, why.Error())
}

// failWith is fail with a header more.
func (l *server) failWith(request micro.Request, code, description, header, value string) {
	l.reply(request, nil, nats.Header{micro.ErrorHeader: {description}, micro.ErrorCodeHeader: {code}, header: {value}})
}

// mostAnswer is how much an answer may hold, beside its headers.
func (l *server) mostAnswer() int {
	const headers = 1 << 10
	return int(l.node.Conn().MaxPayload()) - headers
}

// reply answers a request. It does not use the request's own methods: they note errors in the request, which the library reads when the
// handler returns, and answers here come later, from other goroutines.
func (l *server) reply(request micro.Request, data []byte, header nats.Header) {
	if most := l.mostAnswer(); len(data) > most { // a value from when the server took more, for one
		l.fail(request, codeTooLarge, fmt.Sprintf("the answer has %d bytes, and one that this NATS server takes at most %d", len(data), most))
		return
	}
	endSpan(request, micro.Headers(header))
	if request.Reply() == "" {
		return // nobody waits
	}
	if err := l.node.Conn().PublishMsg(&nats.Msg{Subject: request.Reply(), Data: data, Header: header}); err != nil {
		l.options.Logger.Debug("cannot answer a client", "error", err)
	}
}
