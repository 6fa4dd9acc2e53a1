// Package metrics is the room of the process's own HTTP endpoint: what Prometheus scrapes, what tells a supervisor that the process
// is well, and Go's profiles. It imports no other room. What is measured stays where it happens, in plain counters; a
// prometheus.Collector of the room that owns them reads them when somebody scrapes, and nothing of it is on the hot path.
//
//	/metrics        the registry, Go's runtime and the process included
//	/healthz        200 and "ok", or 503 and the reason
//	/debug/pprof/   only where the listener's address is a loopback one: profiles show names and cost time
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	runtimepprof "runtime/pprof"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// DefaultListen is metricsListen's default. RocketMQ's exporter has the same port.
const DefaultListen = "127.0.0.1:5557"

// Limits of an endpoint that two or three programs use. What comes beyond them is closed or answered with 503.
const (
	maxConns       = 64
	maxScrapes     = 4
	maxHeader      = 16 << 10
	readTimeout    = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	answerDeadline = 30 * time.Second
)

// Server is the endpoint.
type Server struct {
	http    *http.Server // nil where nothing is served
	addr    string
	conns   atomic.Int64
	stopped chan struct{} // closed when the serving goroutine has ended
}

// Listen serves reg at addr until Close. Go's runtime and the process are added to reg; nil makes a new one. healthy says what is wrong
// with the process, or nil; it must not wait. An empty addr serves nothing, and so does, with a warning, the default address when it is
// taken: a second process on one machine must not fail over its metrics.
func Listen(addr string, reg *prometheus.Registry, healthy func() error, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if addr == "" {
		return &Server{}, nil
	}
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		var already prometheus.AlreadyRegisteredError
		if err := reg.Register(c); err != nil && !errors.As(err, &already) {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	l, err := net.Listen("tcp", addr)
	switch {
	case err != nil && addr == DefaultListen:
		log.Warn("no metrics: their default address is taken; set metricsListen to a free one, or to nothing", "addr", addr, "err", err)
		return &Server{}, nil
	case err != nil:
		return nil, fmt.Errorf("metrics: %w; set metricsListen to a free address, or to nothing", err)
	}
	return serve(l, reg, healthy, log), nil
}

func serve(l net.Listener, reg *prometheus.Registry, healthy func() error, log *slog.Logger) *Server {
	s := &Server{addr: l.Addr().String(), stopped: make(chan struct{})}
	s.http = &http.Server{
		Handler: routes(s.addr, reg, healthy, log), ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ConnState: s.count, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go runtimepprof.Do(context.Background(), runtimepprof.Labels("room", "metrics", "thread", "http"), func(context.Context) {
		defer close(s.stopped)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not served any more", "addr", s.addr, "err", err)
		}
	})
	log.Info("metrics are served", "addr", s.addr, "pprof", isLoopback(s.addr))
	return s
}

// count closes connections above the limit.
func (s *Server) count(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if s.conns.Add(1) > maxConns {
			c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.conns.Add(-1)
	}
}

func routes(addr string, reg *prometheus.Registry, healthy func() error, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	// What cannot be collected is left out and said; the rest is served.
	scrape := promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, Registry: reg,
	})
	mux.Handle("GET /metrics", withDeadline(scrape))
	mux.Handle("GET /healthz", withDeadline(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { health(w, healthy) })))
	if isLoopback(addr) {
		for path, h := range map[string]http.HandlerFunc{
			"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
			"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
		} {
			mux.Handle(path, localOnly(h))
		}
	}
	return mux
}

// scrapeLog says what could not be collected.
type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(v ...any) {
	l.log.Warn("metrics are incomplete", "err", strings.TrimSpace(fmt.Sprintln(v...)))
}

// withDeadline bounds the time a slow reader may take. Profiles run as long as they are asked to, so the bound is not the server's.
func withDeadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerDeadline)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func health(w http.ResponseWriter, healthy func() error) {
	w.Header().Set("Cache-Control", "no-store")
	if healthy != nil {
		if err := healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

// localOnly refuses requests that name another host than this machine: a page in a browser here can make its own name lead to a loopback
// address.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if host != "localhost" && (err != nil || !ip.IsLoopback()) {
			http.Error(w, "profiles are given to this machine only: ask by a loopback address", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLoopback(addr string) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// Addr is the bound address, with the port that was given for port 0; empty where nothing is served.
func (s *Server) Addr() string { return s.addr }

// Close ends the listener and all connections.
func (s *Server) Close() error {
	if s.http == nil {
		return nil
	}
	err := s.http.Close()
	<-s.stopped
	return err
}
