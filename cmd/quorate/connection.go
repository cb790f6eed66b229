package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/jsm.go/natscontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/spf13/pflag"

	"quorate/node/kv"
	"quorate/transport/natsrpc"
)

const (
	defaultCluster = "dev"
	defaultTimeout = 5 * time.Second
)

// natsToken is what cluster and node names are made of, since they are tokens of NATS subjects.
var natsToken = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// natsFlags say which NATS to connect to, and as whom.
type natsFlags struct {
	url      string
	context  string
	creds    string
	nkey     string
	user     string
	password string
	tlsCert  string
	tlsKey   string
	tlsCA    string
}

func (f *natsFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "nats", "", "URL of the NATS server, or several separated by commas (default $NATS_URL, else "+nats.DefaultURL+")")
	flags.StringVar(&f.context, "context", "", "name of a NATS CLI context that says how to connect")
	flags.StringVar(&f.creds, "creds", "", "NATS credentials `file`")
	flags.StringVar(&f.nkey, "nkey", "", "`file` with a NATS nkey seed")
	flags.StringVar(&f.user, "user", "", "NATS user name")
	flags.StringVar(&f.password, "password", "", "NATS password (default $NATS_PASSWORD, which other users of the machine cannot see)")
	flags.StringVar(&f.tlsCert, "tlscert", "", "client certificate `file` (PEM)")
	flags.StringVar(&f.tlsKey, "tlskey", "", "`file` with the client certificate's key (PEM)")
	flags.StringVar(&f.tlsCA, "tlsca", "", "`file` with the certificate authorities to trust (PEM)")
}

// natsTarget is what natsFlags come to.
type natsTarget struct {
	url     string
	options []nats.Option
}

// target checks the flags and puts them together with the environment and the NATS CLI context.
func (f *natsFlags) target() (natsTarget, error) {
	if err := f.check(); err != nil {
		return natsTarget{}, err
	}
	t := natsTarget{url: f.url}
	if f.context != "" {
		c, err := natscontext.New(f.context, true)
		if err != nil {
			return natsTarget{}, usagef("--context %s: %w (known: %s)", f.context, err, strings.Join(natscontext.KnownContexts(), ", "))
		}
		if t.options, err = c.NATSOptions(); err != nil {
			return natsTarget{}, usagef("--context %s: %w", f.context, err)
		}
		if t.url == "" {
			t.url = c.ServerURL()
		}
	}
	if t.url == "" {
		t.url = os.Getenv("NATS_URL")
	}
	if t.url == "" {
		t.url = nats.DefaultURL
	}
	if f.creds != "" {
		t.options = append(t.options, nats.UserCredentials(f.creds))
	}
	if f.nkey != "" {
		o, err := nats.NkeyOptionFromSeed(f.nkey)
		if err != nil {
			return natsTarget{}, usagef("--nkey %s: %w", f.nkey, err)
		}
		t.options = append(t.options, o)
	}
	if f.user != "" {
		password := f.password
		if password == "" {
			password = os.Getenv("NATS_PASSWORD")
		}
		t.options = append(t.options, nats.UserInfo(f.user, password))
	}
	if f.tlsCert != "" {
		t.options = append(t.options, nats.ClientCert(f.tlsCert, f.tlsKey))
	}
	if f.tlsCA != "" {
		t.options = append(t.options, nats.RootCAs(f.tlsCA))
	}
	return t, t.check()
}

// check refuses at once what cannot work at any later time: no attempt to connect tells the user more.
func (t natsTarget) check() error {
	if err := natsrpc.CheckURLs(t.url); err != nil {
		return &usageError{err: err}
	}
	var o nats.Options
	for _, option := range t.options {
		if err := option(&o); err != nil {
			return usagef("options for NATS: %w", err)
		}
	}
	return nil
}

func (f *natsFlags) check() error {
	var identities []string
	for _, i := range []struct{ flag, value string }{{"--creds", f.creds}, {"--nkey", f.nkey}, {"--user", f.user}} {
		if i.value != "" {
			identities = append(identities, i.flag)
		}
	}
	if len(identities) > 1 {
		return usagef("%s exclude each other: give one", strings.Join(identities, " and "))
	}
	if f.password != "" && f.user == "" {
		return usagef("--password needs --user")
	}
	if (f.tlsCert == "") != (f.tlsKey == "") {
		return usagef("--tlscert and --tlskey belong together: give both")
	}
	for _, i := range []struct{ flag, file string }{
		{"--creds", f.creds}, {"--nkey", f.nkey}, {"--tlscert", f.tlsCert}, {"--tlskey", f.tlsKey}, {"--tlsca", f.tlsCA},
	} {
		if i.file == "" {
			continue
		}
		if _, err := os.Stat(i.file); err != nil {
			return usagef("%s: %w", i.flag, err)
		}
	}
	if f.creds != "" {
		return checkCredentials(f.creds)
	}
	return nil
}

// checkCredentials reads a credentials file as nats.UserCredentials does, which looks into it at each connect only.
func checkCredentials(file string) error {
	content, err := os.ReadFile(file)
	if err == nil {
		_, err = nkeys.ParseDecoratedJWT(content)
	}
	if err == nil {
		_, err = nkeys.ParseDecoratedUserNKey(content)
	}
	if err != nil {
		return usagef("--creds %s is not a NATS credentials file: %w", file, err)
	}
	return nil
}

// clientFlags are what every client command needs to reach a cluster.
type clientFlags struct {
	nats    natsFlags
	cluster string
	timeout time.Duration
}

func (f *clientFlags) add(flags *pflag.FlagSet) {
	f.nats.add(flags)
	addClusterFlag(flags, &f.cluster)
	flags.DurationVar(&f.timeout, "timeout", defaultTimeout, "how long to wait for an answer")
}

func addClusterFlag(flags *pflag.FlagSet, cluster *string) {
	flags.StringVar(cluster, "cluster", "", "name of the cluster (default $QUORATE_CLUSTER, else "+defaultCluster+")")
}

// clusterOrDefault returns the cluster that a flag and the environment name.
func clusterOrDefault(flag string) (string, error) {
	cluster := flag
	if cluster == "" {
		cluster = os.Getenv("QUORATE_CLUSTER")
	}
	if cluster == "" {
		cluster = defaultCluster
	}
	if !natsToken.MatchString(cluster) {
		return "", usagef("cluster name %q must be 1 to 64 letters, digits, '-' or '_'", cluster)
	}
	return cluster, nil
}

// link is a client's connection to NATS, and the cluster that is meant.
type link struct {
	conn    *nats.Conn
	cluster string
	url     string // that was asked for
}

// at says where it is connected to.
func (l *link) at() string {
	if url := l.conn.ConnectedUrl(); url != "" {
		return natsrpc.RedactURLs(url)
	}
	return natsrpc.RedactURLs(l.url) + ", to which the connection is lost"
}

// explain says of an error what forbidden has to say of it, else the error.
func (l *link) explain(err error) error {
	if forbidden := l.forbidden(err); forbidden != nil {
		return forbidden
	}
	return err
}

// forbidden is what to say of the error of a request without an answer if NATS let the user not publish or subscribe, which it tells beside
// the request; else nil. Of any other error that is not the reason.
func (l *link) forbidden(err error) error {
	refused := l.conn.LastError()
	if !errors.Is(refused, nats.ErrPermissionViolation) || exitStatus(context.Background(), err) != statusUnavailable {
		return nil
	}
	return withStatus(statusUnavailable, fmt.Errorf("NATS at %s does not let this user do that: %w: %w", l.at(), refused, err))
}

// connect reaches NATS, or fails: a person at a terminal waits for no server to come up.
func (f *clientFlags) connect(ctx context.Context, purpose string) (*link, error) {
	if f.timeout <= 0 {
		return nil, usagef("--timeout %v must be more than nothing", f.timeout)
	}
	cluster, err := clusterOrDefault(f.cluster)
	if err != nil {
		return nil, err
	}
	target, err := f.nats.target()
	if err != nil {
		return nil, err
	}
	conn, err := target.dial(ctx, "quorate "+purpose, f.timeout)
	if err != nil {
		return nil, err
	}
	return &link{conn: conn, cluster: cluster, url: target.url}, nil
}

// dial connects once. An established connection comes back by itself after a break, without replaying what was under way:
// what a request became is the request's business.
func (t natsTarget) dial(ctx context.Context, name string, timeout time.Duration) (*nats.Conn, error) {
	options := append([]nats.Option{
		nats.Name(name),
		nats.Timeout(timeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectJitter(25*time.Millisecond, 25*time.Millisecond),
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // by default it prints; the error of the request tells it
	}, t.options...)
	dialer := &interruptibleDialer{ctx: ctx, timeout: timeout}
	conn, err := nats.Connect(t.url, append(options, nats.SetCustomDialer(dialer))...)
	dialer.connected()
	switch {
	case ctx.Err() != nil:
		if err == nil {
			conn.Close()
		}
		return nil, fmt.Errorf("connect to NATS at %s: %w", natsrpc.RedactURLs(t.url), context.Cause(ctx))
	case err == nil:
		return conn, nil
	case errors.Is(err, nats.ErrNoServers):
		return nil, fmt.Errorf("NATS cannot be reached at %s: %w: is it running? `quorate dev` starts a cluster with one; --nats or $NATS_URL name another",
			natsrpc.RedactURLs(t.url), err)
	case errors.Is(err, nats.ErrAuthorization):
		return nil, withStatus(statusUnavailable, fmt.Errorf("NATS at %s does not let this user in: %w: check --creds, --nkey, --user or --context",
			natsrpc.RedactURLs(t.url), err))
	}
	return nil, withStatus(statusUnavailable, fmt.Errorf("connect to NATS at %s: %w", natsrpc.RedactURLs(t.url), err))
}

// withClient runs f with a client of the cluster's key-value store.
func (f *clientFlags) withClient(ctx context.Context, purpose string, use func(*kv.Client) error) (err error) {
	l, err := f.connect(ctx, purpose)
	if err != nil {
		return err
	}
	defer l.conn.Close()
	recorder, export, err := clientTelemetry(ctx, l.cluster)
	if err != nil {
		return err
	}
	defer export()
	// A command makes a few writes and ends: it registers no session for them.
	client, err := kv.NewClient(l.conn, l.cluster, kv.WithMessageIDs(), kv.WithTelemetry(recorder))
	if err != nil {
		return fmt.Errorf("client of cluster %s: %w", l.cluster, err)
	}
	defer func() {
		if closeErr := client.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("close the client: %w", closeErr)
		}
	}()
	err = use(client)
	if forbidden := l.forbidden(err); forbidden != nil {
		return forbidden
	}
	if err != nil && isUnavailable(err) && ctx.Err() == nil {
		return fmt.Errorf("cluster %s at %s: %w: `quorate status` shows its nodes; --cluster or $QUORATE_CLUSTER name another", l.cluster, l.at(), err)
	}
	return err
}
