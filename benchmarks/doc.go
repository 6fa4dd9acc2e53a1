// Package benchmarks runs ringmq, Apache RocketMQ, NATS JetStream and Apache Kafka on one machine under the same load, in turns, and
// keeps what it saw: peers starts the brokers with their production options, warms them up, drives them with `ringmq perf` in the
// order A B C, C B A, judges what the project promises, and writes tables under benchmarks/results. docs/benchmarks.md tells how to
// run and read it.
//
// A figure is kept with the machine, the versions, the durability setting and the message size it was taken with.
package benchmarks
