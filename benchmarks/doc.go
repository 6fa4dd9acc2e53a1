// Package benchmarks runs ringmq and Apache RocketMQ on one machine under the same load, in turns, and keeps what it
// saw: peers starts both brokers with their production options, warms them up, drives them with `ringmq perf` in the order
// A B B A, and writes tables under benchmarks/results. docs/benchmarks.md tells how to run and read it.
//
// A figure is kept with the machine, the versions, the durability setting and the message size it was taken with.
package benchmarks
