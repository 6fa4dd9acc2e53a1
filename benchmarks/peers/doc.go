// Command peers runs ringmq and Apache RocketMQ 5.5.0 on this machine under the same load, in turns, with a control (a stub that
// answers and stores nothing), and writes tables of medians and ranges under benchmarks/results. docs/benchmarks.md tells how to
// read them, and why it is done this way.
//
//	main.go      flags; the run from its beginning to its end
//	scenario.go  the loads
//	round.go     rounds: warm-up, one load of one server, order
//	start.go     time from exec to the first acknowledged send; idle memory
//	server.go    the three servers as processes: start, stop, SIGSTOP
//	java.go      Apache RocketMQ: jars, options, configuration
//	machine.go   what the machine did meanwhile: other processes, stolen time, the disk
//	table.go     medians, ranges, ratios; the document
//	aims.go      what was aimed at, and whether it held
package main
