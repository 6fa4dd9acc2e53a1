// Command peers runs ringmq and Apache RocketMQ 5.5.0 on this machine under the same load, in turns, with a control (a stub that
// answers and stores nothing) in every round, and writes tables of medians and ranges under benchmarks/results.
//
//	peers --quick     about four minutes, two pairs
//	peers             about twenty minutes, five pairs
//
// Only one server is under load at a time; the others are stopped (SIGSTOP). A round is A B C, the next C B A, and so on, so that a
// machine that gets slower or faster during the run favours nobody. Each server is warmed up before the first round, and each load
// begins with a second that is not measured. Load and figures are those of `ringmq perf`, another process.
package main
