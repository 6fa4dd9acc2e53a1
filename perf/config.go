package perf

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// Group is the producer and consumer group that the generator uses.
const Group = "perf"

// Config says what load to make. The zero value of a field means its default, given with the field.
type Config struct {
	// NameServers or Brokers say where to go. Brokers are dialled directly, and no name server is asked.
	NameServers []string
	Brokers     []string
	Cluster     string // with NameServers: only the brokers of this cluster

	// Protocol is what the brokers speak: one of Protocols.
	Protocol string

	Topic  string // "perf"; with several topics their names are topic-0, topic-1, ...
	Topics int    // 1
	Queues int    // per topic and broker: 4
	// UseExisting leaves topics as they are; by default they are created (request 17).
	UseExisting bool
	// Shared tells that others send to the topics too: queue offsets need not be contiguous.
	Shared bool

	Workers int // threads that send: 1
	Readers int // threads that pull: 1
	Conns   int // connections that send: 1
	Depth   int // closed loop: requests in flight per connection: 1
	// Rate is the open loop: messages (of a batch: batches times size) per second over all connections. 0: closed loop.
	Rate      float64
	Size      int    // body bytes: 1024
	Batch     int    // messages per request: 1
	Tag       string // TAGS of every message
	Keys      string // KEYS of every message; "unique" gives each its own
	Serialize byte   // header serialisation of our requests

	Duration time.Duration // measured time: 10 s; without effect when there is a Count
	Warmup   time.Duration // before it, verified but not measured
	Count    int64         // end after so many messages; 0: by time
	Timeout  time.Duration // of one request: 3 s
	Idle     time.Duration // e2e, drain, consume with a Count: give up when nothing comes for so long: 10 s

	KeepBytes int64  // nats, kafka: what a topic (kafka: a queue) keeps; 0: everything
	Passes    int    // drain: how often every queue is read: 1
	PullBytes int    // kafka: of one answer: 1 MiB
	PullConns int    // connections that pull: 1
	PullBatch int    // maxMsgNums of a pull: 32
	From      string // where consume and drain begin: "min", "max" or a queue offset

	ServerPID   int  // measure this process: CPU, memory, context switches
	StrictOrder bool // "overtaken" fails the run, too

	Windows    bool   // report every second by itself
	HDR        string // file for the interval log
	Plot       string // file for the percentile plot
	Ledger     string // produce, e2e: file that says what was acknowledged; drain: what must be there
	Progress   io.Writer
	ProgressTo bool // Progress is a terminal: one line that is written again and again
}

// MinSize is the smallest body: the stamp that verification needs.
const MinSize = bodyHeader

func (c *Config) settle() error {
	orInt(&c.Topics, 1)
	orInt(&c.Queues, 4)
	orInt(&c.Workers, 1)
	orInt(&c.Readers, 1)
	orInt(&c.Conns, 1)
	orInt(&c.Depth, 1)
	orInt(&c.Size, 1024)
	orInt(&c.Batch, 1)
	orInt(&c.PullConns, 1)
	orInt(&c.PullBatch, 32)
	orInt(&c.PullBytes, 1<<20)
	orInt(&c.Passes, 1)
	if c.Topic == "" {
		c.Topic = "perf"
	}
	if c.Duration == 0 && c.Count == 0 {
		c.Duration = 10 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Second
	}
	if c.Idle == 0 {
		c.Idle = 10 * time.Second
	}
	c.Conns = max(c.Conns, c.Workers)
	c.PullConns = max(c.PullConns, c.Readers)
	return c.check()
}

func orInt(v *int, fallback int) {
	if *v == 0 {
		*v = fallback
	}
}

// Limits of a configuration. They keep a slip of the finger from taking the machine down, not more.
const (
	maxConns = 10000
	maxDepth = 1 << 16
	maxSize  = 4 << 20
	maxBatch = 4096
)

func (c *Config) check() error {
	if len(c.NameServers) == 0 && len(c.Brokers) == 0 {
		return errors.New("neither a name server nor a broker is given: use --namesrv or --broker")
	}
	for _, limit := range []struct {
		name          string
		value, lo, hi int
	}{
		{"--topics", c.Topics, 1, 100000}, {"--queues", c.Queues, 1, 65536}, {"--conns", c.Conns, 1, maxConns},
		{"--workers", c.Workers, 1, 256}, {"--readers", c.Readers, 1, 256}, {"--pull-conns", c.PullConns, 1, maxConns},
		{"--depth", c.Depth, 1, maxDepth}, {"--size", c.Size, MinSize, maxSize}, {"--batch", c.Batch, 1, maxBatch},
		{"--batch times --size", c.Batch * c.Size, MinSize, maxSize}, {"--pull-batch", c.PullBatch, 1, maxBatch},
		{"--pull-bytes", c.PullBytes, 1, maxFrame / 2}, {"--passes", c.Passes, 1, 1000},
	} {
		if limit.value < limit.lo || limit.value > limit.hi {
			return fmt.Errorf("%s %d is not between %d and %d", limit.name, limit.value, limit.lo, limit.hi)
		}
	}
	if c.Rate < 0 || c.Count < 0 || c.Duration < 0 || c.Warmup < 0 {
		return errors.New("--rate, --count, --duration and --warmup cannot be negative")
	}
	if c.Serialize != remoting.SerializeJSON && c.Serialize != remoting.SerializeRocketMQ {
		return fmt.Errorf("unknown serialisation %d", c.Serialize)
	}
	for _, topic := range c.topicNames() {
		if remark := message.CheckTopic([]byte(topic)); remark != "" {
			return errors.New(remark)
		}
	}
	return nil
}

func (c *Config) topicNames() []string {
	if c.Topics == 1 {
		return []string{c.Topic}
	}
	names := make([]string, c.Topics)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", c.Topic, i)
	}
	return names
}

// clock is the one time of a run: nanoseconds since its start, and what that is since 1970.
type clock struct {
	start time.Time
	wall  int64
}

func newClock() *clock {
	now := time.Now()
	return &clock{start: now, wall: now.UnixNano()}
}

func (c *clock) now() int64 { return int64(time.Since(c.start)) }
