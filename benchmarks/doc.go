// Package benchmarks runs ringmq and Apache RocketMQ on one machine under the same load, in turns, and keeps what it
// saw: scripts start both brokers with their production options, warm them up, drive them with `ringmq perf` in the order
// A B B A, and write tables under benchmarks/results.
//
// A figure is kept with the machine, the versions, the durability setting and the message size it was taken with.
package benchmarks
