package metrics

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func listen(t *testing.T, reg *prometheus.Registry, healthy func() error) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", reg, healthy, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// get asks with the Host header that is given; the server's own address when empty.
func get(t *testing.T, s *Server, path, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("GET", "http://"+s.Addr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestMetricsAreReadOnScrape(t *testing.T) {
	var n atomic.Int64
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ringmq_test"}, func() float64 { return float64(n.Load()) }))
	s := listen(t, reg, nil)
	for _, want := range []string{"ringmq_test 0", "go_goroutines ", "process_start_time_seconds "} {
		if code, text := get(t, s, "/metrics", ""); code != 200 || !strings.Contains(text, "\n"+want) {
			t.Errorf("%d, without %q", code, want)
		}
	}
	n.Store(7)
	if _, text := get(t, s, "/metrics", ""); !strings.Contains(text, "\nringmq_test 7") {
		t.Error("the second scrape shows the first one's number")
	}
	// A registry that has the runtime in it already is served, too.
	listen(t, reg, nil)
}

// brokenCollector tells of a number that it does not have.
type brokenCollector struct{ desc *prometheus.Desc }

func (c brokenCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }
func (c brokenCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(c.desc, errors.New("not there"))
}

func TestOneBadMetricDoesNotHideTheOthers(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(brokenCollector{prometheus.NewDesc("ringmq_broken", "", nil, nil)})
	s := listen(t, reg, nil)
	if code, text := get(t, s, "/metrics", ""); code != 200 || !strings.Contains(text, "\ngo_goroutines ") {
		t.Errorf("%d %q", code, text)
	}
}

func TestHealth(t *testing.T) {
	var failure atomic.Pointer[error]
	s := listen(t, nil, func() error {
		if p := failure.Load(); p != nil {
			return *p
		}
		return nil
	})
	if code, text := get(t, s, "/healthz", ""); code != 200 || text != "ok\n" {
		t.Errorf("well: %d %q", code, text)
	}
	err := errors.New("the device failed")
	failure.Store(&err)
	if code, text := get(t, s, "/healthz", ""); code != 503 || !strings.Contains(text, "the device failed") {
		t.Errorf("ill: %d %q", code, text)
	}
	failure.Store(nil)
	if code, _ := get(t, s, "/healthz", ""); code != 200 {
		t.Errorf("well again: %d", code)
	}
}

func TestProfilesAreForThisMachine(t *testing.T) {
	s := listen(t, nil, nil)
	for host, want := range map[string]int{"": 200, "localhost:5557": 200, "[::1]:5557": 200, "evil.example": 403, "192.0.2.1": 403} {
		if code, _ := get(t, s, "/debug/pprof/goroutine?debug=1", host); code != want {
			t.Errorf("asked as %q: %d, want %d", host, code, want)
		}
	}
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "0.0.0.0:1": false, "[::]:1": false, "192.0.2.1:1": false, "": false,
	} {
		if isLoopback(addr) != want {
			t.Errorf("isLoopback(%q) is %v", addr, !want)
		}
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	open := serve(l, prometheus.NewRegistry(), nil, slog.New(slog.DiscardHandler))
	defer open.Close()
	_, port, err := net.SplitHostPort(open.Addr())
	if err != nil {
		t.Fatal(err)
	}
	open.addr = "127.0.0.1:" + port
	if code, _ := get(t, open, "/debug/pprof/", ""); code != 404 {
		t.Errorf("profiles on an address that is not loopback: %d", code)
	}
	if code, _ := get(t, open, "/healthz", ""); code != 200 {
		t.Errorf("health on an address that is not loopback: %d", code)
	}
}

func TestTakenAddress(t *testing.T) {
	first := listen(t, nil, nil)
	if _, err := Listen(first.Addr(), nil, nil, nil); err == nil || !strings.Contains(err.Error(), "metricsListen") {
		t.Errorf("a chosen address that is taken: %v", err)
	}
	// Whoever holds the default port, the next one only warns.
	if l, err := net.Listen("tcp", DefaultListen); err == nil {
		defer l.Close()
	}
	var said bytes.Buffer
	second, err := Listen(DefaultListen, nil, nil, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if second.Addr() != "" || !strings.Contains(said.String(), "metricsListen") {
		t.Errorf("address %q, said %q", second.Addr(), said.String())
	}
}

func TestEmptyAddressServesNothing(t *testing.T) {
	s, err := Listen("", nil, nil, nil)
	if err != nil || s.Addr() != "" || s.Close() != nil {
		t.Errorf("%v", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	s := listen(t, nil, nil)
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	for range maxConns {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	over, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	over.SetReadDeadline(time.Now().Add(5 * time.Second)) // below readTimeout, which would end it, too
	if _, err := over.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("connection %d is kept: %v", maxConns+1, err)
	}
}
