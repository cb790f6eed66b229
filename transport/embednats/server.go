// Package embednats runs a NATS server inside the process: for development, for nodes that bring their own NATS, and for tests.
package embednats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Options say which server to start.
type Options struct {
	// Host and Port clients connect to. Default host: 127.0.0.1. Port 0 or -1 takes a free one.
	Host string
	Port int
	// Dir is where JetStream keeps its files.
	Dir       string
	JetStream bool
	// ServerName is unique in a cluster of servers.
	ServerName string
	// ClusterName, ClusterListen (host:port) and Routes (URLs) join the server with others.
	ClusterName   string
	ClusterListen string
	Routes        []string
	// Logger gets the server's log lines: its notices at debug level. Default: nowhere.
	Logger *slog.Logger
	// MaxPayload is the largest message. Default: 1 MiB.
	MaxPayload int
}

// Server is a running NATS server.
type Server struct{ server *server.Server }

const startTimeout = 10 * time.Second

// sayAgain is how many attempts to reach another server go by, one a second, until the log says again that it is not there.
const sayAgain = 30

// Start starts a server and returns when it takes clients.
func Start(options Options) (*Server, error) {
	o, err := serverOptions(options)
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	failure := &firstError{first: make(chan string, 1)}
	s.SetLoggerV2(&serverLogger{logger: options.Logger, failure: failure}, false, false, false)
	s.Start()
	switch {
	case failure.fatal.Load(): // it has given up already
		err = fmt.Errorf("start NATS: %s", failure.get())
	case !s.ReadyForConnections(startTimeout):
		err = fmt.Errorf("start NATS on %s: not ready within %v: %s", net.JoinHostPort(o.Host, strconv.Itoa(o.Port)), startTimeout, failure.get())
	default:
		return &Server{server: s}, nil
	}
	s.Shutdown()
	s.WaitForShutdown()
	return nil, err
}

func serverOptions(options Options) (*server.Options, error) {
	o := &server.Options{
		Host: options.Host, Port: options.Port, ServerName: options.ServerName,
		JetStream: options.JetStream, StoreDir: options.Dir,
		NoSigs: true, MaxPayload: int32(options.MaxPayload),
		ConnectErrorReports: sayAgain, ReconnectErrorReports: sayAgain,
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	if o.Port > 0 {
		if err := checkPort(o.Host, o.Port); err != nil {
			return nil, err
		}
	}
	if options.ClusterListen != "" {
		host, port, err := splitAddress(options.ClusterListen)
		if err != nil {
			return nil, fmt.Errorf("start NATS: address for routes: %w", err)
		}
		if port > 0 {
			if err := checkPort(host, port); err != nil {
				return nil, err
			}
		}
		o.Cluster = server.ClusterOpts{Name: options.ClusterName, Host: host, Port: port}
	}
	for _, route := range options.Routes {
		u, err := ParseRoute(route)
		if err != nil {
			return nil, fmt.Errorf("start NATS: %w", err)
		}
		o.Routes = append(o.Routes, u)
	}
	return o, nil
}

// ParseRoute reads where another server listens to its like: nats://host:port.
func ParseRoute(route string) (*url.URL, error) {
	if !strings.Contains(route, "://") {
		route = "nats://" + route
	}
	u, err := url.Parse(route)
	if err != nil {
		return nil, fmt.Errorf("route %q must be nats://host:port", route)
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return nil, fmt.Errorf("route %q must be nats://host:port, with a port from 1 to 65535", route)
	}
	return u, nil
}

// PortError says that a server cannot listen where it shall.
type PortError struct {
	Address string
	Err     error
}

func (e *PortError) Error() string {
	if !errors.Is(e.Err, syscall.EADDRINUSE) {
		return fmt.Sprintf("cannot listen on %s: %v", e.Address, e.Err)
	}
	return fmt.Sprintf("cannot listen on %s: %v (is a NATS server running there already? use it, or choose another port)", e.Address, e.Err)
}

func (e *PortError) Unwrap() error { return e.Err }

// checkPort finds out before the server starts, which itself only logs it.
func checkPort(host string, port int) error {
	address := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := net.Listen("tcp", address)
	if err != nil {
		return &PortError{Address: address, Err: err}
	}
	return l.Close()
}

func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	if err != nil {
		return "", 0, fmt.Errorf("port %q: %w", text, err)
	}
	return host, port, nil
}

// ClientURL is where clients connect.
func (s *Server) ClientURL() string { return s.server.ClientURL() }

// Port is the port clients connect to.
func (s *Server) Port() int { return s.server.Addr().(*net.TCPAddr).Port }

// ClusterAddress is where other servers' routes connect, or empty.
func (s *Server) ClusterAddress() string {
	if addr := s.server.ClusterAddr(); addr != nil {
		return addr.String()
	}
	return ""
}

// Connect connects to the server over TCP.
func (s *Server) Connect(options ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(s.ClientURL(), options...)
}

// Close stops the server and waits until it has ended. Clients are disconnected.
func (s *Server) Close() error {
	if s == nil || s.server == nil {
		return errors.New("close NATS: no server")
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return nil
}

// firstError keeps the first error that the server logged, which is why it did not start, and whether it gave up.
type firstError struct {
	first chan string
	fatal atomic.Bool
}

func (f *firstError) set(s string) {
	select {
	case f.first <- s:
	default:
	}
}

func (f *firstError) get() string {
	select {
	case s := <-f.first:
		return s
	default:
		return "it did not say why"
	}
}

// serverLogger passes the server's log lines on.
type serverLogger struct {
	logger  *slog.Logger
	failure *firstError
}

func (l *serverLogger) log(level slog.Level, format string, args ...any) {
	if level >= slog.LevelError {
		l.failure.set(fmt.Sprintf(format, args...))
	}
	if l.logger != nil {
		l.logger.Log(context.Background(), level, fmt.Sprintf(format, args...), "from", "nats-server")
	}
}

func (l *serverLogger) Noticef(format string, args ...any) { l.log(slog.LevelDebug, format, args...) }
func (l *serverLogger) Warnf(format string, args ...any)   { l.log(slog.LevelWarn, format, args...) }
func (l *serverLogger) Errorf(format string, args ...any)  { l.log(slog.LevelError, format, args...) }
func (l *serverLogger) Debugf(format string, args ...any)  { l.log(slog.LevelDebug, format, args...) }
func (l *serverLogger) Tracef(format string, args ...any)  { l.log(slog.LevelDebug, format, args...) }
func (l *serverLogger) Fatalf(format string, args ...any) {
	l.log(slog.LevelError, format, args...)
	l.failure.fatal.Store(true)
}
