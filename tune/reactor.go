package tune

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/uring"
)

// reactorKind is a way for the network threads to wait.
type reactorKind struct {
	name   string
	choose func(*netpath.Options) error // the error is errRefused where it is not to be had
}

// reactorKinds are all there are, the usual one first. portable is measured where it is the only one: reactorPoller cannot be it, and its sockets
// wait in Go's own poller together with the client's here, without a switch between threads, which no broker has.
var reactorKinds = []reactorKind{
	{"epoll", func(*netpath.Options) error {
		if runtime.GOOS != "linux" {
			return fmt.Errorf("%w: %s has no epoll", errRefused, runtime.GOOS)
		}
		return nil
	}},
	{"uring", func(o *netpath.Options) error {
		if _, err := uring.Probe(); err != nil {
			return fmt.Errorf("%w: %w", errRefused, err)
		}
		o.Poller = netpath.PollerUring
		return nil
	}},
	{"portable", func(o *netpath.Options) error {
		o.Portable = true
		return nil
	}},
}

// echoLoads are connections and requests in flight on each.
var echoLoads = []struct{ conns, depth int }{{16, 4}, {1, 1}}

// echoFrame is the size of a request, and of its answer.
const echoFrame = 1024

func reactorSection() *section {
	s := &section{
		name: "reactor", title: "reactor",
		about:   "requests of 1 KiB over loopback, echoed; connections x in flight. CPU is of both ends",
		columns: []column{{keyMessages, "requests/s", inThousands}, {keyP50, "p50", inMicros}, {keyP996, "p99.6", inMicros}, {keyCPU, "CPU a request", inMicros}},
		scale:   "the geometric mean of requests/s and 1/CPU of both",
		measure: measureReactor,
		score: func(loads []Figures) float64 {
			var all []float64
			for _, f := range loads {
				all = append(all, f[keyMessages])
				if cpu, known := f[keyCPU]; known {
					all = append(all, 1/cpu)
				}
			}
			return geometricMean(all...)
		},
	}
	for _, k := range reactorKinds {
		if (k.name == "portable") == (runtime.GOOS == "linux") {
			continue
		}
		s.kinds = append(s.kinds, k.name)
	}
	for _, l := range echoLoads {
		s.loads = append(s.loads, fmt.Sprintf("%d x %d", l.conns, l.depth))
	}
	return s
}

// echo answers each frame with itself.
type echo struct{}

func (echo) OnFrame(c *netpath.Conn, frame []byte) {
	b := binary.BigEndian.AppendUint32(c.Begin(), uint32(len(frame)))
	c.End(append(b, frame...))
}

func (echo) OnClose(*netpath.Conn) {}

func (echo) OnTurn(netpath.Clock) {}

func measureReactor(ctx context.Context, kind string, d time.Duration) (loads []Figures, err error) {
	o := netpath.Options{Listen: []string{"127.0.0.1:0"}, Logger: slog.New(slog.DiscardHandler),
		NewHandler: func(*netpath.Reactor) netpath.Handler { return echo{} }}
	for _, k := range reactorKinds {
		if k.name == kind {
			if err := k.choose(&o); err != nil {
				return nil, err
			}
		}
	}
	server, err := netpath.NewServer(o)
	if err != nil {
		return nil, err
	}
	server.Start()
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, server.Shutdown(stopping))
	}()
	for _, l := range echoLoads {
		f, err := askEcho(ctx, server.Addr(0).String(), l.conns, l.depth, d)
		if err != nil {
			return nil, err
		}
		loads = append(loads, f)
	}
	return loads, nil
}

// askEcho keeps depth requests in flight on each connection for d.
func askEcho(ctx context.Context, addr string, conns, depth int, d time.Duration) (Figures, error) {
	askers := make([]*asker, conns)
	defer func() {
		for _, a := range askers {
			if a != nil {
				a.conn.Close()
			}
		}
	}()
	for i := range askers {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		askers[i] = newAsker(conn, depth)
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		// The first answer is not measured: the server takes the connection on for it.
		if err := askers[i].run(0); err != nil {
			return nil, errors.Join(ctx.Err(), err)
		}
		askers[i].reset()
	}
	cpu, cpuKnown := ioengine.ProcessCPU()
	began := time.Now()
	errs := make([]error, conns)
	var all sync.WaitGroup
	for i, a := range askers {
		all.Go(func() { errs[i] = a.run(d) })
	}
	all.Wait()
	elapsed := time.Since(began)
	spent, _ := ioengine.ProcessCPU()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	sum := askers[0].histogram
	for _, a := range askers[1:] {
		sum.Merge(a.histogram)
	}
	n := float64(sum.TotalCount())
	f := Figures{keyMessages: n / elapsed.Seconds(), keyP50: float64(sum.ValueAtQuantile(50)) / 1e3, keyP996: float64(sum.ValueAtQuantile(99.6)) / 1e3}
	if cpuKnown {
		f[keyCPU] = micros(spent-cpu) / n
	}
	return f, nil
}

// asker is one connection's client.
type asker struct {
	conn      net.Conn
	requests  []byte // depth of them
	depth     int
	sent      []time.Time // of those in flight, a ring
	histogram *hdrhistogram.Histogram
}

// patience is how long an answer may take.
const patience = 10 * time.Second

func newAsker(conn net.Conn, depth int) *asker {
	const header = `{"code":10}`
	request := binary.BigEndian.AppendUint32(nil, echoFrame-4)
	request = binary.BigEndian.AppendUint32(request, uint32(len(header)))
	request = append(append(request, header...), make([]byte, echoFrame-8-len(header))...)
	a := &asker{conn: conn, depth: depth, sent: make([]time.Time, depth)}
	for range depth {
		a.requests = append(a.requests, request...)
	}
	a.reset()
	return a
}

func (a *asker) reset() { a.histogram = hdrhistogram.New(1, int64(2*patience), 3) }

// run asks for d, each answer being followed by the next request, and returns when all are answered.
func (a *asker) run(d time.Duration) error {
	began := time.Now()
	if err := a.conn.SetDeadline(began.Add(d + patience)); err != nil {
		return err
	}
	asked, answered, part := 0, 0, 0
	ask := func(n int) error {
		now := time.Now()
		for range n {
			a.sent[asked%a.depth] = now
			asked++
		}
		_, err := a.conn.Write(a.requests[:n*echoFrame])
		return err
	}
	err := ask(a.depth)
	buf := make([]byte, 64<<10)
	for err == nil && answered < asked {
		var n int
		if n, err = a.conn.Read(buf); err != nil {
			break
		}
		part += n
		whole, now := part/echoFrame, time.Now()
		part %= echoFrame
		for range whole {
			_ = a.histogram.RecordValue(int64(max(1, now.Sub(a.sent[answered%a.depth])))) // within its range
			answered++
		}
		if whole > 0 && now.Sub(began) < d {
			err = ask(whole)
		}
	}
	return err
}
