package broker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

// calls are requests from the broker to clients, on the connections that the clients opened. Their opaque numbers are the broker's own: the
// two directions of a connection know nothing of each other's. Does the work of Broker2Client.
type calls struct {
	opaque  atomic.Int32
	running atomic.Int32 // requests that wait for other programs, see request.later
	mu      sync.Mutex
	waiting map[callKey]chan *clientAnswer
}

type callKey struct {
	conn   uint64
	opaque int32
}

// clientAnswer is what a client answered, copied out of its frame.
type clientAnswer struct {
	code   int32
	remark string
	body   []byte
}

// maxCalls bounds the calls in flight.
const maxCalls = 10_000

var errClientGone = refuse(remoting.RespConsumerNotOnline, "the client's connection is closed")

// tell sends a request that wants no answer.
func (k *calls) tell(c pusher, code int32, body []byte, fields ...field) bool {
	w := remoting.Request(nil, remoting.SerializeJSON, code, k.opaque.Add(1), remoting.FlagOneway)
	for _, f := range fields {
		w.Text(f.key, f.value)
	}
	return c.Send(w.Finish(body))
}

// call sends a request to a client and waits for the answer.
func (k *calls) call(ctx context.Context, connID uint64, c pusher, code int32, body []byte, fields ...field) (*clientAnswer, error) {
	key := callKey{connID, k.opaque.Add(1)}
	ch := make(chan *clientAnswer, 1)
	k.mu.Lock()
	if k.waiting == nil {
		k.waiting = map[callKey]chan *clientAnswer{}
	}
	if len(k.waiting) >= maxCalls {
		k.mu.Unlock()
		return nil, refuse(remoting.RespSystemBusy, "too many requests to clients are waiting for answers")
	}
	k.waiting[key] = ch
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.waiting, key)
		k.mu.Unlock()
	}()
	w := remoting.Request(nil, remoting.SerializeJSON, code, key.opaque, 0)
	for _, f := range fields {
		w.Text(f.key, f.value)
	}
	if !c.Send(w.Finish(body)) {
		return nil, errClientGone
	}
	select {
	case a := <-ch:
		if a == nil {
			return nil, errClientGone
		}
		return a, nil
	case <-ctx.Done():
		return nil, refuse(remoting.RespConsumeMsgTimeout, "the client did not answer %s in time", fmt.Sprint(remoting.RequestName(code)))
	}
}

// answered gets a response frame from a client, on its reactor.
func (k *calls) answered(c *netpath.Conn, cmd *remoting.Command) {
	k.mu.Lock()
	ch := k.waiting[callKey{c.ID, cmd.Opaque}]
	k.mu.Unlock()
	if ch == nil {
		return // too late, or never asked
	}
	select {
	case ch <- &clientAnswer{cmd.Code, string(cmd.Remark), append([]byte(nil), cmd.Body...)}:
	default:
	}
}

// connClosed ends the calls to a client that is gone.
func (k *calls) connClosed(connID uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, ch := range k.waiting {
		if key.conn != connID {
			continue
		}
		select {
		case ch <- nil:
		default: // answered already
		}
	}
}
