package perf

import (
	"context"
	"fmt"
	"strings"
)

// wire is what one kind of broker speaks. Everything that a measurement is made of (when a message is due, how many are in flight,
// clocks, histograms, verification) is outside of it, one code for all brokers; a wire only finds queues, encodes and decodes. One
// is made per run. wire_remoting.go, nats.go and kafka.go implement it.
type wire interface {
	// find creates the topics unless they are to be used as they are, and lists their queues with their offsets.
	find(ctx context.Context, c *Config) (*target, error)
	// template encodes the send request to one queue.
	template(c *Config, q *queue, body []byte) (template, error)
	// sending and pulling make what one connection has to remember of the protocol.
	sending(c *Config, stream int) sendWire
	pulling(c *Config) pullWire
	// subscribe tells the broker about a reader of q that begins at q.next, where brokers want to know.
	subscribe(ctx context.Context, c *Config, q *pullQueue) error
	close()
}

// template is the send request to one queue, encoded once; what differs between messages is patched in the copy that is sent.
type template interface {
	size() int // of one request, at the most
	append(dst []byte, o *outgoing) []byte
}

// sendWire is one connection that sends.
type sendWire interface {
	// hello is what a fresh connection says first.
	hello(dst []byte) []byte
	// next reads what b begins with: size bytes, 0 when b holds no whole answer yet. a is valid until b changes.
	next(b []byte, a *sendAnswer) (size int, err error)
}

// pullWire is one connection that pulls.
type pullWire interface {
	hello(dst []byte) []byte
	// ask appends the request for what is behind q.next, under q.opaque. wait: the broker may hold it until something comes.
	ask(dst []byte, q *pullQueue, wait bool) []byte
	next(b []byte, a *pullAnswer) (size int, err error)
	// record reads the first message of an answer's records.
	record(records []byte, m *received) (rest []byte, err error)
}

// outcome says what became of a request.
type outcome byte

const (
	outcomeNone    outcome = iota // not an answer to a request
	outcomeStored                 // send: acknowledged as it was asked for
	outcomeWeak                   // send: stored, but not as safely as it was asked for; code says why
	outcomeFound                  // pull: messages
	outcomeNothing                // pull: there is nothing yet
	outcomeAgain                  // pull: ask again, at next
	outcomeMoved                  // pull: what was there is gone, go on at next
	outcomeRefused                // code and remark say why
	outcomeUnclear                // an answer that cannot be read
)

// sendAnswer is the answer to one send request.
type sendAnswer struct {
	outcome outcome
	opaque  uint32
	code    int32
	remark  []byte
	placed  bool  // queueID and offset could be read
	queueID int64 // -1: the broker does not repeat it
	offset  int64 // of the first message
	reply   []byte
}

// pullAnswer is the answer to one pull request, or one of several.
type pullAnswer struct {
	outcome outcome
	opaque  int32
	code    int32
	remark  []byte
	next    int64 // where to go on; -1: behind the last record
	records []byte
	more    bool   // the request has further answers
	reply   []byte // what the connection has to say to that
}

// received is one message as it was read.
type received struct {
	offset  int64  // -1: no message, but something that the broker keeps beside them
	early   bool   // may stand before what was asked for: Kafka gives whole batches
	queueID int64  // -1: the message does not say
	topic   []byte // nil: the message does not say
	body    []byte
	broken  error // what the broker's own checksum says
}

// outgoing is one request that is being encoded: what differs from its template.
type outgoing struct {
	opaque uint32
	born   *[13]byte
	uniq   [32]byte // UNIQ_KEY of the message in hand; the first 20 digits are the stream's
	number uint64   // of the stream's next message
	stamp  stamp
	lane   *lane
}

// advance goes on to the next message of the request.
func (o *outgoing) advance() {
	putHex(o.uniq[20:], o.number)
	o.number++
	o.stamp.sequence = o.lane.next
	o.lane.next++
}

// Protocols are what Config.Protocol can be; the first is the default.
var Protocols = []string{"rocketmq", "nats", "kafka"}

func newWire(c *Config) (wire, error) {
	switch c.Protocol {
	case "", Protocols[0]:
		return &remotingWire{}, nil
	case Protocols[1]:
		return &natsWire{}, nil
	case Protocols[2]:
		return &kafkaWire{}, nil
	}
	return nil, fmt.Errorf("--protocol %q is none of %s", c.Protocol, strings.Join(Protocols, ", "))
}
