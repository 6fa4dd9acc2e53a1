package client

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

// ErrClosed is why requests fail after Close.
var ErrClosed = errors.New("connection closed by us")

// Options of a connection. The zero value is usable.
type Options struct {
	TLS       *tls.Config // nil: plain
	Serialize byte        // remoting.SerializeJSON or SerializeRocketMQ
	// Handler gets the requests that the server sends. It runs on the reader: it must not block, and request is valid only until
	// it returns. Without one, requests that want an answer get code 3.
	Handler      func(c *Conn, request *remoting.Command)
	DialTimeout  time.Duration // 3 s
	Timeout      time.Duration // of an Invoke whose context has no deadline: 5 s
	WriteTimeout time.Duration // a server that does not read for so long loses the connection: 10 s
	MaxFrame     int           // including the four bytes of its length: 16 MiB
	MaxInFlight  int           // 1024
}

func (o *Options) settle() {
	orDuration(&o.DialTimeout, 3*time.Second)
	orDuration(&o.Timeout, 5*time.Second)
	orDuration(&o.WriteTimeout, 10*time.Second)
	if o.MaxFrame <= 0 {
		o.MaxFrame = 16 << 20
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 1024
	}
}

func orDuration(d *time.Duration, fallback time.Duration) {
	if *d <= 0 {
		*d = fallback
	}
}

// Conn is one connection to a name server or broker. Its methods may be called from any goroutine.
type Conn struct {
	options Options
	addr    string
	socket  net.Conn
	table   inflight
	done    chan struct{}
	// why is the first reason to end, set before the socket is closed: the reader that finds it closed would name that instead.
	why atomic.Pointer[error]

	// out is where a frame is built; the holder of mu writes it to the socket.
	mu  sync.Mutex
	out []byte
}

// Dial connects to addr ("host:port").
func Dial(ctx context.Context, addr string, o Options) (*Conn, error) {
	o.settle()
	ctx, cancel := context.WithTimeout(ctx, o.DialTimeout)
	defer cancel()
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	if o.TLS != nil {
		if socket, err = startTLS(ctx, socket, addr, o.TLS); err != nil {
			return nil, err
		}
	}
	c := &Conn{options: o, addr: addr, socket: socket, done: make(chan struct{}), out: make([]byte, 0, 4096)}
	c.table.init(o.MaxInFlight)
	go c.read()
	return c, nil
}

func startTLS(ctx context.Context, socket net.Conn, addr string, config *tls.Config) (net.Conn, error) {
	if config.ServerName == "" && !config.InsecureSkipVerify {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	secure := tls.Client(socket, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf("tls handshake with %s: %w", addr, err)
	}
	return secure, nil
}

// Addr is the address that was dialled.
func (c *Conn) Addr() string { return c.addr }

// LocalAddr is our end of the connection.
func (c *Conn) LocalAddr() net.Addr { return c.socket.LocalAddr() }

// Done is closed when the connection has ended; Err then tells why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is nil while the connection lives.
func (c *Conn) Err() error { return c.table.err() }

// Close ends the connection; requests in flight fail with ErrClosed.
func (c *Conn) Close() error {
	c.end(ErrClosed)
	return nil
}

// end closes the socket before it tells the waiting ones, so that who is told can trust that nothing more is sent.
func (c *Conn) end(err error) {
	c.why.CompareAndSwap(nil, &err)
	_ = c.socket.Close()
	if c.table.fail(*c.why.Load()) {
		close(c.done)
	}
}

// Invoke sends a request and waits for its answer. The error tells that there is none; the answer's code is the caller's matter
// (Response.Err).
func (c *Conn) Invoke(ctx context.Context, r Request) (*Response, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.options.Timeout)
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return nil, c.wrap(&r, err)
	}
	type answer struct {
		response *Response
		err      error
	}
	answered := make(chan answer, 1)
	opaque, err := c.start(&r, func(a *remoting.Command, err error) {
		if err != nil {
			answered <- answer{err: err}
			return
		}
		answered <- answer{response: copyResponse(a, r.name())}
	})
	if err != nil {
		return nil, c.wrap(&r, err)
	}
	select {
	case a := <-answered:
		if a.err != nil {
			return nil, c.wrap(&r, a.err)
		}
		return a.response, nil
	case <-ctx.Done():
		c.table.take(opaque)
		return nil, c.wrap(&r, ctx.Err())
	}
}

// Call is Invoke for callers to whom any code but 0 is an error.
func (c *Conn) Call(ctx context.Context, r Request) (*Response, error) {
	response, err := c.Invoke(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := response.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.addr, err)
	}
	return response, nil
}

// Go sends a request; done is called once, with the answer or with the error that ended the connection. When Go itself returns
// an error, done is not called. There is no time limit: a caller that needs one closes the connection.
func (c *Conn) Go(r Request, done Done) error {
	if _, err := c.start(&r, done); err != nil {
		return c.wrap(&r, err)
	}
	return nil
}

// Oneway sends a request that gets no answer.
func (c *Conn) Oneway(r Request) error {
	if err := c.table.err(); err != nil {
		return c.wrap(&r, err)
	}
	opaque, err := c.table.add(func(*remoting.Command, error) {})
	if err != nil {
		return c.wrap(&r, err)
	}
	defer func() { c.table.take(opaque) }()
	if err := c.send(func(dst []byte) []byte { return r.appendTo(dst, c.options.Serialize, opaque, remoting.FlagOneway) }); err != nil {
		return c.wrap(&r, err)
	}
	return nil
}

// Reply answers a request of the server, from Handler or later (then with a copy of the request's Opaque and Serialize).
func (c *Conn) Reply(request *remoting.Command, code int32, remark string, header func(w *remoting.Writer), body []byte) error {
	if request.IsOneway() {
		return nil
	}
	return c.send(func(dst []byte) []byte {
		w := remoting.Respond(dst, request, code, remark)
		if header != nil {
			header(&w)
		}
		return w.Finish(body)
	})
}

func (c *Conn) wrap(r *Request, err error) error {
	return fmt.Errorf("%s to %s: %w", r.name(), c.addr, err)
}

// start registers the request before it is sent: its answer may come before the write returns.
func (c *Conn) start(r *Request, done Done) (opaque int32, err error) {
	if opaque, err = c.table.add(done); err != nil {
		return 0, err
	}
	err = c.send(func(dst []byte) []byte { return r.appendTo(dst, c.options.Serialize, opaque, 0) })
	if err != nil && c.table.take(opaque) != nil {
		return 0, err
	}
	return opaque, nil // the reader, or end, has called done or will
}

// keepOut is the largest buffer that a connection keeps between frames.
const keepOut = 64 << 10

func (c *Conn) send(build func(dst []byte) []byte) error {
	broken, err := c.write(build)
	if broken {
		// Part of the frame may be out: nothing that follows could be understood.
		c.end(err)
		return *c.why.Load()
	}
	return err
}

func (c *Conn) write(build func(dst []byte) []byte) (broken bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = build(c.out[:0])
	frame := c.out
	if cap(c.out) > keepOut {
		c.out = make([]byte, 0, 4096)
	}
	if len(frame) > c.options.MaxFrame {
		return false, fmt.Errorf("frame of %d bytes is larger than %d", len(frame), c.options.MaxFrame)
	}
	_ = c.socket.SetWriteDeadline(time.Now().Add(c.options.WriteTimeout))
	_, err = c.socket.Write(frame)
	return err != nil, err
}

// read cuts frames until the connection ends. The buffer grows with what has arrived, never with what a length claims.
func (c *Conn) read() {
	var command remoting.Command
	buf := make([]byte, 16<<10)
	start, end := 0, 0
	for {
		n, err := c.socket.Read(buf[end:])
		end += n
		for err == nil {
			frame, size, cutErr := cut(buf[start:end], c.options.MaxFrame)
			if err = cutErr; size == 0 || err != nil {
				break
			}
			if err = command.Decode(frame); err == nil {
				c.dispatch(&command)
				start += size
			}
		}
		if err != nil {
			c.end(fmt.Errorf("connection to %s: %w", c.addr, err))
			return
		}
		buf, start, end = makeRoom(buf, start, end)
	}
}

// cut finds the first frame in b; size counts its length field too and is 0 when the frame is not complete.
func cut(b []byte, maxFrame int) (frame []byte, size int, err error) {
	if len(b) < 4 {
		return nil, 0, nil
	}
	length := int64(binary.BigEndian.Uint32(b))
	if length < 4 || length+4 > int64(maxFrame) {
		return nil, 0, fmt.Errorf("frame length %d is not between 4 and %d", length, maxFrame-4)
	}
	if int64(len(b)) < length+4 {
		return nil, 0, nil
	}
	return b[4 : 4+length], int(length) + 4, nil
}

// makeRoom moves an unfinished frame to the front, and doubles a buffer that it fills.
func makeRoom(buf []byte, start, end int) ([]byte, int, int) {
	if start > 0 {
		end = copy(buf, buf[start:end])
	}
	if end == len(buf) {
		buf = append(buf, make([]byte, len(buf))...)
	}
	return buf, 0, end
}

func (c *Conn) dispatch(command *remoting.Command) {
	if command.IsResponse() {
		if done := c.table.take(command.Opaque); done != nil {
			done(command, nil)
		}
		return
	}
	if c.options.Handler != nil {
		c.options.Handler(c, command)
		return
	}
	_ = c.Reply(command, remoting.RespRequestCodeNotSupported, fmt.Sprintf(" request type %d not supported", command.Code), nil, nil)
}
