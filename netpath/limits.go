package netpath

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bounds what strangers can make the process hold. A zero field takes its default.
type Limits struct {
	MaxFrame            int           // largest frame, its length bytes counted
	FirstFrameTimeout   time.Duration // from accept to the end of the first frame; also bounds sniffing and the TLS handshake
	PartialFrameTimeout time.Duration // from a frame's first byte to its last, and for output without progress
	IdleTimeout         time.Duration // no byte read and none written
	FirstFrameBytes     int           // buffered until the first frame's prefix and first header byte are valid
	MaxBacklog          int           // output waiting for one connection; above it the connection is closed
	MaxConns            int
	MaxConnsPerAddr     int
	// MaxInFlightBytes bounds unfinished frames and unsent output of all connections together.
	// Above it a connection that needs a larger buffer is not read, except for one at a time:
	// that one finishes, so the total falls, so the others go on.
	MaxInFlightBytes int64
}

// DefaultLimits are meant for a broker on a shared network.
func DefaultLimits() Limits {
	return Limits{
		MaxFrame:            MaxFrame,
		FirstFrameTimeout:   10 * time.Second,
		PartialFrameTimeout: 30 * time.Second,
		IdleTimeout:         120 * time.Second,
		FirstFrameBytes:     4096,
		MaxBacklog:          32 << 20,
		MaxConns:            65536,
		MaxConnsPerAddr:     8192,
		MaxInFlightBytes:    512 << 20,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	orInt := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	orTime := func(v *time.Duration, def time.Duration) {
		if *v <= 0 {
			*v = def
		}
	}
	orInt(&l.MaxFrame, d.MaxFrame)
	orTime(&l.FirstFrameTimeout, d.FirstFrameTimeout)
	orTime(&l.PartialFrameTimeout, d.PartialFrameTimeout)
	orTime(&l.IdleTimeout, d.IdleTimeout)
	orInt(&l.FirstFrameBytes, d.FirstFrameBytes)
	l.FirstFrameBytes = max(l.FirstFrameBytes, 2*prefixSize)
	orInt(&l.MaxBacklog, d.MaxBacklog)
	orInt(&l.MaxConns, d.MaxConns)
	orInt(&l.MaxConnsPerAddr, d.MaxConnsPerAddr)
	if l.MaxInFlightBytes <= 0 {
		l.MaxInFlightBytes = d.MaxInFlightBytes
	}
	return l
}

// shortest is the deadline that the sweep must not miss by much.
func (l *Limits) shortest() time.Duration {
	return min(l.FirstFrameTimeout, l.PartialFrameTimeout, l.IdleTimeout)
}

// Output above pauseBacklog stops the reading of its connection: whoever does not
// take answers gets no more questions answered. Reading goes on below resumeBacklog.
const (
	pauseBacklog  = 1 << 20
	resumeBacklog = pauseBacklog / 2
)

// Why a connection was closed, for those who branch on it, and for the log.
var (
	ErrBacklog      = errors.New("output backlog over its limit; the peer does not read its answers")
	ErrStalled      = errors.New("output made no progress; the peer does not read its answers")
	ErrFirstFrame   = errors.New("no whole first frame in time")
	ErrPartialFrame = errors.New("frame not completed in time")
	ErrIdle         = errors.New("idle for too long; clients should send heartbeats")
	ErrPlain        = errors.New("plain text refused: TLS is enforced; set tls.enable in the client")
	ErrTLS          = errors.New("TLS refused: it is disabled here; unset tls.enable in the client or set tls.server.mode")
	ErrShutdown     = errors.New("server is shut down")
	errPerAddr      = errors.New("too many connections from one address; check for a leak there or raise the limit")
	errFileShort    = errors.New("file ended before the range that was to be sent")
)

// refusal counts, by reason, what was refused or closed on our decision.
type refusal int

const (
	refusedMaxConns refusal = iota
	refusedPerAddr
	refusedPlain
	refusedTLS
	refusedProxy
	refusedFrame
	closedFirstFrame
	closedPartialFrame
	closedIdle
	closedStalled
	closedBacklog
	refusals
)

var refusalNames = [refusals]string{
	"maxConns", "maxConnsPerAddr", "plainRefused", "tlsRefused", "badProxyHeader", "badFrame",
	"firstFrameTimeout", "partialFrameTimeout", "idle", "stalledOutput", "backlog",
}

// refusalOf says under which name the closing for this reason is counted.
func refusalOf(reason error) (refusal, bool) {
	var frame *FrameError
	switch {
	case errors.Is(reason, ErrFirstFrame):
		return closedFirstFrame, true
	case errors.Is(reason, ErrPartialFrame):
		return closedPartialFrame, true
	case errors.Is(reason, ErrIdle):
		return closedIdle, true
	case errors.Is(reason, ErrStalled):
		return closedStalled, true
	case errors.Is(reason, ErrBacklog):
		return closedBacklog, true
	case errors.Is(reason, ErrPlain):
		return refusedPlain, true
	case errors.Is(reason, ErrTLS):
		return refusedTLS, true
	case errors.Is(reason, errPerAddr):
		return refusedPerAddr, true
	case errors.Is(reason, errProxy):
		return refusedProxy, true
	case errors.As(reason, &frame):
		return refusedFrame, true
	}
	return 0, false
}

// census counts connections, in all and by peer address. It is asked at accept and at
// close only, so one lock does.
type census struct {
	mu     sync.Mutex
	total  int
	byAddr map[netip.Addr]int
}

// enter counts a connection from addr, or says why it has to go.
func (n *census) enter(addr netip.Addr, l *Limits) (refusal, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.total >= l.MaxConns {
		return refusedMaxConns, false
	}
	if n.byAddr[addr] >= l.MaxConnsPerAddr {
		return refusedPerAddr, false
	}
	n.total++
	n.byAddr[addr]++
	return 0, true
}

func (n *census) leave(addr netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.total--
	if n.byAddr[addr]--; n.byAddr[addr] <= 0 {
		delete(n.byAddr, addr)
	}
}

// move recounts a connection whose PROXY header named the address it really comes from.
func (n *census) move(from, to netip.Addr, l *Limits) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byAddr[to] >= l.MaxConnsPerAddr {
		return false
	}
	if n.byAddr[from]--; n.byAddr[from] <= 0 {
		delete(n.byAddr, from)
	}
	n.byAddr[to]++
	return true
}

func (n *census) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.total
}

// budget is MaxInFlightBytes and what is used of it. Only memory that outlives a loop
// turn is charged, so that a connection that is answered at once never touches it.
type budget struct {
	limit int64
	used  atomic.Int64
	// privileged is the one connection that may grow beyond the limit. Without it many
	// unfinished frames could fill the budget, each waiting for another to finish.
	// Holding it ends with the frame, and PartialFrameTimeout ends the frame.
	privileged atomic.Pointer[Conn]
}

func (b *budget) over() bool { return b.used.Load() > b.limit }

// mayGrow says whether c may take n more bytes.
func (b *budget) mayGrow(c *Conn, n int) bool {
	if b.used.Load()+int64(n) <= b.limit {
		return true
	}
	return b.privileged.Load() == c || b.privileged.CompareAndSwap(nil, c)
}

// yield gives the privilege back if c has it.
func (b *budget) yield(c *Conn) {
	if b.privileged.Load() == c {
		b.privileged.CompareAndSwap(c, nil)
	}
}
