package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metricsServer serves the metrics and the health of the nodes of this process over HTTP.
type metricsServer struct {
	http     *http.Server
	listener net.Listener
	ended    chan struct{}
}

// listenMetrics serves /metrics, /healthz and /readyz at an address. The nodes are asked for at each request.
func listenMetrics(address string, gatherer prometheus.Gatherer, nodes func() []*health, logger *slog.Logger) (*metricsServer, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for /metrics (--metrics-listen): %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, nodes(), (*health).alive) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, nodes(), (*health).ready) })
	s := &metricsServer{
		http:     &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug)},
		listener: listener, ended: make(chan struct{}),
	}
	go func() {
		defer close(s.ended)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics are not served any more", "error", err)
		}
	}()
	logger.Info("serving /metrics, /healthz and /readyz", "address", listener.Addr().String())
	return s, nil
}

// address is where it listens.
func (s *metricsServer) address() string { return s.listener.Addr().String() }

// close ends it. It blocks until requests under way are answered or the context ends.
func (s *metricsServer) close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	err := s.http.Shutdown(ctx)
	<-s.ended
	return err
}

// answerHealth answers 200 if all nodes pass, and else 503 with what is wrong.
func answerHealth(w http.ResponseWriter, nodes []*health, check func(*health) error) {
	var errs []error
	for _, n := range nodes {
		if err := check(n); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", n.id, err))
		}
	}
	if len(nodes) == 0 {
		errs = append(errs, errors.New("no node has started yet"))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err := errors.Join(errs...); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}
