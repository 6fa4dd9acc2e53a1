// Command peers runs ringmq, Apache RocketMQ 5.5.0, NATS JetStream, Apache Kafka and rocketmq-rust on this machine under the same
// load, in turns, with a control (a stub that answers and stores nothing), and writes tables of medians and ranges under
// benchmarks/results. docs/benchmarks.md tells how to read them, and why it is done this way.
//
//	main.go      flags; the run from its beginning to its end
//	scenario.go  the scenarios: what is run, who takes part, how long
//	round.go     rounds of one load: warm-up, one load of one server, order
//	alone.go     scenarios for which each server is started afresh: idle, start, kill -9, many queues
//	long.go      a quarter of an hour with old segments going; sends while a consumer drains a cold store
//	commit.go    the bare commit program: what the disk alone does
//	disk.go      the disk: free space, cold caches, its sequential rate
//	server.go    servers as processes: start, stop, restart, SIGSTOP
//	java.go, nats.go, kafka.go, rust.go   how each is fetched, configured and started
//	machine.go   what the machine did meanwhile: other processes, stolen time, system calls
//	table.go     medians, ranges, ratios; the document
//	figures.go   the lines of the tables
//	aims.go      what was aimed at, and whether it held
package main
