package natsrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Events counts what happened to a node's connections. It is safe from several goroutines.
type Events struct {
	Disconnects   atomic.Uint64
	Reconnects    atomic.Uint64
	SlowConsumers atomic.Uint64
}

// ConnectOptions say how to connect.
type ConnectOptions struct {
	// URL of the server or servers, separated by commas.
	URL string
	// Name of the connection, as NATS' monitoring shows it.
	Name   string
	Logger *slog.Logger
	// Options are added last: credentials, TLS.
	Options []nats.Option
	// Events counts; nil for nobody to see.
	Events *Events
	// Changed, if not nil, is called after each event, by goroutines of the client library. It must not block.
	Changed func()
}

// The client library's defaults are meant for clients that may wait; a consensus node may not. They are set on purpose.
const (
	reconnectWait   = 50 * time.Millisecond
	reconnectJitter = 50 * time.Millisecond
	pingInterval    = 2 * time.Second
	maxPingsOut     = 2
	dialTimeout     = 2 * time.Second
	// writeTimeout bounds how long a server that reads no more holds up who sends. It is long enough for the largest message on a slow line.
	writeTimeout = 2 * time.Second
	sayEvery     = 3 * time.Second
)

// Connect returns a connection when NATS is reached. While it is not, it tries again and says so every few seconds, until the
// context ends; only a URL that cannot be one is an error at once. Once connected, the connection comes back by itself for ever;
// nothing is kept for sending meanwhile.
func Connect(ctx context.Context, options ConnectOptions) (*nats.Conn, error) {
	if err := CheckURLs(options.URL); err != nil {
		return nil, err
	}
	logger := options.Logger
	if logger == nil {
		logger = slog.Default()
	}
	events := options.Events
	if events == nil {
		events = &Events{}
	}
	changed := options.Changed
	if changed == nil {
		changed = func() {}
	}
	all := append([]nats.Option{
		nats.Name(options.Name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.ReconnectBufSize(-1), // a stale message must not be sent after a reconnect
		nats.WriteBufferSize(1),   // a message is written by who sends it, not by a goroutine to wake first
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPingsOut),
		nats.Timeout(dialTimeout),
		nats.FlusherTimeout(writeTimeout),
		nats.IgnoreAuthErrorAbort(), // credentials may be renewed
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil when it was closed on purpose
				events.Disconnects.Add(1)
				logger.Warn("disconnected from NATS", "connection", options.Name, "error", err)
			}
			changed()
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			events.Reconnects.Add(1)
			changed()
			logger.Info("connected to NATS again", "connection", options.Name, "url", RedactURLs(nc.ConnectedUrl()))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) {
				events.SlowConsumers.Add(1)
				changed()
			}
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			logger.Warn("NATS reports an error", "connection", options.Name, "subject", subject, "error", err)
		}),
		nats.ClosedHandler(func(nc *nats.Conn) {
			if err := nc.LastError(); err != nil {
				logger.Info("connection to NATS is closed", "connection", options.Name, "last_error", err)
			}
		}),
		nats.LameDuckModeHandler(func(nc *nats.Conn) {
			logger.Info("the NATS server is about to shut down", "connection", options.Name, "url", RedactURLs(nc.ConnectedUrl()))
		}),
	}, options.Options...)
	return dial(ctx, options.URL, all, logger)
}

// dial tries until it succeeds. The library's own retry is not used because it hides the reason.
func dial(ctx context.Context, urls string, options []nats.Option, logger *slog.Logger) (*nats.Conn, error) {
	var said time.Time
	for {
		nc, err := nats.Connect(urls, options...)
		if err == nil {
			return nc, nil
		}
		if errors.Is(err, nats.ErrInvalidArg) || errors.Is(err, nats.ErrInvalidConnection) {
			return nil, fmt.Errorf("connect to NATS at %s: %w", RedactURLs(urls), err)
		}
		if now := time.Now(); now.Sub(said) >= sayEvery {
			said = now
			logger.Warn(trouble(err)+", trying again", "url", RedactURLs(urls), "error", err)
		}
		select {
		case <-time.After(2 * reconnectWait):
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to NATS at %s: %w (last: %w)", RedactURLs(urls), context.Cause(ctx), err)
		}
	}
}

// trouble says in words what kind of failure it is: the network's, or the operator's.
func trouble(err error) string {
	for _, login := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported} {
		if errors.Is(err, login) {
			return "NATS refuses the login (check user, password, token, credentials or nkey)"
		}
	}
	return "cannot reach NATS"
}

// CheckURLs refuses what no server will ever answer at.
func CheckURLs(urls string) error {
	for text := range strings.SplitSeq(urls, ",") {
		u, err := parseURL(text)
		switch {
		case err != nil: // the parser's error would show a password
			return errors.New("a NATS URL is not a URL: want nats://HOST:PORT, several with commas between them")
		case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
			return fmt.Errorf("NATS URL %s: scheme %q is none of nats, tls, ws, wss", redacted(u), u.Scheme)
		case u.Hostname() == "", strings.Contains(u.Hostname(), ":") && u.Host[0] != '[', u.Path != "" && u.Path != "/" && u.Scheme[0] != 'w':
			return fmt.Errorf("NATS URL %s: want nats://HOST:PORT", redacted(u))
		case u.Port() != "" && !isPort(u.Port()):
			return fmt.Errorf("NATS URL %s: the port must be from 1 to 65535", redacted(u))
		}
	}
	return nil
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

// RedactURLs is a list of URLs, with commas between them, without their passwords: for logs and messages.
func RedactURLs(urls string) string {
	if urls == "" {
		return "" // of a connection that is down
	}
	list := strings.Split(urls, ",")
	for i, text := range list {
		u, err := parseURL(text)
		if err != nil {
			list[i] = "(not a URL)"
			continue
		}
		list[i] = redacted(u)
	}
	return strings.Join(list, ",")
}

// redacted hides the password, or what stands alone where a user stands: a token.
func redacted(u *url.URL) string {
	if u.User == nil {
		return u.String()
	}
	hidden := *u
	if _, ok := u.User.Password(); !ok {
		hidden.User = url.User("xxxxx")
	}
	return hidden.Redacted()
}

// parseURL takes a missing scheme for nats://, as the client library does.
func parseURL(text string) (*url.URL, error) {
	text = strings.TrimSpace(text)
	if !strings.Contains(text, "://") {
		text = "nats://" + text
	}
	return url.Parse(text)
}
