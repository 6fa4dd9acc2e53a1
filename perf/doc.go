// Package perf is the load generator: it sends to and reads from any RocketMQ-compatible broker, NATS JetStream or Kafka through its
// socket, measures, and verifies every message. Produce, Consume, EndToEnd and Drain run a load; Stub is the control, a server that
// answers and stores nothing.
//
// A worker is one locked thread with one poller, its connections and a timer; it allocates nothing per message. What is to be sent
// is encoded once per queue (template.go) and patched in place; all answers of one read are handled together, all frames of one
// turn leave in one write.
//
//	sender  (sender.go)   streams: connections that send. Each settles its requests in a ring of slots (stream.go).
//	puller  (puller.go)   connections that pull, one request in flight per queue; checks every record (check.go).
//	wire    (wire.go)     what a kind of broker speaks, and nothing else: wire_remoting.go with template.go, nats.go, kafka.go.
//
// Latency counts from the intended send time, so that a server that stalls is charged for every message that it held up
// (open loop, --rate). How late the generator itself was is a histogram of its own, "send lag".
//
// Every message says who it is, in its body (big-endian):
//
//	| at | bytes | field                                                                                      |
//	|----|-------|--------------------------------------------------------------------------------------------|
//	| 0  | 4     | "RPF1"                                                                                     |
//	| 4  | 4     | CRC-32 (IEEE) of everything behind it                                                      |
//	| 8  | 8     | generator: random, one per run                                                             |
//	| 16 | 4     | stream: the connection that sent it                                                        |
//	| 20 | 4     | queue id that it was sent to                                                               |
//	| 24 | 8     | sequence within its lane, that is (stream, queue), from 0                                  |
//	| 32 | 8     | settled: the lane's messages below this number had their answer before this one was sent   |
//	| 40 | 8     | intended send time, ns since 1970                                                          |
//	| 48 | ...   | filler                                                                                     |
//
// With several requests in flight a broker may store them in another order (the Java broker does: its send threads race). That is
// counted as "overtaken". Out of order is what no client can explain: a message behind one that was sent after its answer, which
// the field settled tells.
package perf
