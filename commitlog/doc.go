// Package commitlog is the one log that every message of a broker is appended to: RocketMQ's CommitLog, byte for byte.
//
//	commitlog/00000000000000000000   segments of mappedFileSizeCommitLog bytes (1 GiB), named by their first offset
//	commitlog/00000000001073741824   records back to back (package message), a blank at the end of each segment, zeroes ahead
//
// Who does what:
//
//	appender  whoever holds the tail's lock: reserves, encodes the record straight into the mapped segment, publishes. Reactors,
//	          and goroutines of the control plane.
//	keeper    one goroutine: zeroes, faults in and locks the memory ahead of the tail, makes the next segment before it is
//	          needed, lets go of what is far behind. It is the reason why an append never meets a cold page or a file system.
//	flusher   one goroutine: write-back pacing, group commits, and the fail-stop of rule R2.
//
// Progress is a handful of numbers that only grow:
//
//	Invariant: minOffset <= flushed <= published <= limit.
//
//	minOffset  first byte that is still there; retention raises it
//	flushed    every byte before it is on the device
//	published  end of the log: every byte before it is whole and readable
//	limit      end of the memory that is ready; the tail never passes it
//
// A log whose device has failed once takes no more records and acknowledges nothing until the process is started anew (R2).
package commitlog
