package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringmq/ringmq/e2e/go/program"
)

// suite is one run.
type suite struct {
	target    string // java or ringmq
	dir       string // temporary folder of the run
	ringmq    string
	goClients string
	only      []string
	java      program.Java

	mu     sync.Mutex
	ok     int
	failed []string
}

// brokerProps are the properties that every broker of the suite has; both targets read them.
func brokerProps(store string) program.Props {
	return program.Props{
		"brokerClusterName":  "e2e-cluster",
		"brokerName":         "e2e-broker",
		"brokerId":           "0",
		"brokerIP1":          "127.0.0.1",
		"brokerIP2":          "127.0.0.1",
		"storePathRootDir":   store,
		"storePathCommitLog": filepath.Join(store, "commitlog"),
		"messageDelayLevel":  strings.TrimSpace(strings.Repeat("1s ", 18)),
		"timerWheelEnable":   "true", // without it the original cannot delete a topic (code 1, null pointer)
		"flushDiskType":      "ASYNC_FLUSH",
		// A busy test machine must not look like a refusing broker: the defaults are 200 ms and 1 s.
		"waitTimeMillsInSendQueue":    "10000",
		"osPageCacheBusyTimeOutMills": "10000",
	}
}

// part is a group of scenarios that can be run by itself (-only).
type part struct {
	name string
	run  func(context.Context) error
}

func (s *suite) run() error {
	if s.target != "java" && s.target != "ringmq" {
		return fmt.Errorf("unknown target %q: use java or ringmq", s.target)
	}
	// Two lanes, because most scenarios wait for timers of the clients, and no more, because time-outs must not be met.
	lanes := [][]part{
		{{"clients", s.clients}, {"mqadmin", s.mqadmin}, {"nameserver", s.nameServer}},
		{{"exchange", s.exchange}},
	}
	parts := slices.Concat(lanes...)
	for _, name := range s.only {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) && !slices.Contains(clientParts, name) {
			return fmt.Errorf("unknown part %q: use clients, mqadmin, nameserver, exchange or one of %v", name, clientParts)
		}
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for _, lane := range lanes {
		all.Go(func() {
			for _, p := range lane {
				if !s.wanted(p.name) && !(p.name == "clients" && slices.ContainsFunc(clientParts, s.named)) {
					continue
				}
				if err := p.run(ctx); err != nil {
					s.fail(p.name, err)
				}
			}
		})
	}
	all.Wait()
	for _, f := range s.failed {
		fmt.Println("failed:", f)
	}
	fmt.Printf("target %s: %v\n", s.target, time.Since(begin).Round(time.Second))
	fmt.Printf("e2e: %d passed, %d failed\n", s.ok, len(s.failed))
	if len(s.failed) > 0 {
		return errors.New("not all scenarios passed")
	}
	if s.ok == 0 {
		return errors.New("no scenario ran")
	}
	return nil
}

func (s *suite) wanted(name string) bool { return len(s.only) == 0 || slices.Contains(s.only, name) }
func (s *suite) named(name string) bool  { return slices.Contains(s.only, name) }

func (s *suite) fail(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, name)
	fmt.Printf("FAIL %s %s\n", name, strings.ReplaceAll(err.Error(), "\n", "\n    "))
}

// counter passes the lines of a client program on and counts its scenarios.
type counter struct {
	s       *suite
	part    []byte
	okCount int
	failed  int
}

func (c *counter) Write(b []byte) (int, error) {
	c.part = append(c.part, b...)
	for {
		line, rest, found := bytes.Cut(c.part, []byte{'\n'})
		if !found {
			return len(b), nil
		}
		c.part = rest
		c.line(string(line))
	}
}

func (c *counter) line(line string) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if strings.HasPrefix(line, "ok ") {
		c.okCount++
		c.s.ok++
		fmt.Println(line)
	} else if rest, ok := strings.CutPrefix(line, "FAIL "); ok {
		c.failed++
		name, _, _ := strings.Cut(rest, " ")
		c.s.failed = append(c.s.failed, name)
		fmt.Println(line)
	}
}

// runClient runs one client program to its end. Its own FAIL lines have been counted; an end without any of them is a
// failure of its own.
func (s *suite) runClient(ctx context.Context, name, path string, args ...string) (failed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	c := &counter{s: s}
	err = program.Run(ctx, c, s.dir, name, s.java.Env(), path, args...)
	if err != nil && (c.failed == 0 || ctx.Err() != nil) {
		return c.failed, fmt.Errorf("%w\n%s", err, program.Tail(filepath.Join(s.dir, name+".log"), 30))
	}
	if err == nil && c.okCount == 0 {
		return 0, fmt.Errorf("%s ended without a scenario", name)
	}
	return c.failed, nil
}

// runJava runs one of the Java test programs.
func (s *suite) runJava(ctx context.Context, name string, defines []string, main string, args ...string) (failed int, err error) {
	defines = append([]string{"-Drocketmq.client.rebalance.waitInterval=1000"}, defines...)
	return s.runClient(ctx, name, "java", s.java.Args("512m", defines, "ringmq.e2e."+main, args...)...)
}

// cluster is a running name server and broker.
type cluster struct {
	nameServer string // address
	broker     string // address
	processes  []*program.Process
}

// start runs the tested or the original name server and broker on a store.
func (s *suite) start(kind, name, data string, more program.Props) (*cluster, error) {
	ns, err := program.FreePort()
	if err != nil {
		return nil, err
	}
	port, err := program.FreePort()
	if err != nil {
		return nil, err
	}
	c := &cluster{nameServer: fmt.Sprintf("127.0.0.1:%d", ns), broker: fmt.Sprintf("127.0.0.1:%d", port)}
	conf := brokerProps(filepath.Join(data, "store")).With(program.Props{
		"listenPort":   fmt.Sprint(port),
		"haListenPort": fmt.Sprint(port + 1),
		"namesrvAddr":  c.nameServer,
	}).With(more)
	if err := os.MkdirAll(filepath.Join(data, "store"), 0o755); err != nil {
		return nil, err
	}
	if kind == "ringmq" {
		p, err := program.Ringmq{Binary: s.ringmq, Dir: s.dir}.StartStandalone(name, ns, data, conf)
		if p != nil {
			c.processes = append(c.processes, p)
		}
		return c, err
	}
	p, err := s.java.StartNameServer(name+"-namesrv", ns, nil)
	if p != nil {
		c.processes = append(c.processes, p)
	}
	if err != nil {
		return c, err
	}
	p, err = s.java.StartBroker(name+"-broker", conf)
	if p != nil {
		c.processes = append(c.processes, p)
	}
	return c, err
}

// kill is kill -9 for all processes of the cluster.
func (c *cluster) kill() {
	for _, p := range slices.Backward(c.processes) {
		p.Kill()
	}
}

// stop ends the broker cleanly, then the name server.
func (c *cluster) stop() error {
	var errs []error
	for _, p := range slices.Backward(c.processes) {
		errs = append(errs, p.Stop(60*time.Second))
	}
	return errors.Join(errs...)
}
