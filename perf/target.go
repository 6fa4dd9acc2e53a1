package perf

// queue is one queue of one broker.
type queue struct {
	addr  string
	topic string
	id    int
	base  int64 // its max offset before the run
	least int64 // its min offset before the run
	// sparse: its offsets are shared with other queues, so that they have gaps.
	sparse bool
}

// target is where the load goes: the brokers and the queues.
type target struct {
	brokers []string
	queues  []*queue // by topic, then queue id, then broker: neighbours are on different brokers
}
