// Package store is the commit log with everything that is derived from it: queues (ConsumeQueue), the key index (IndexFile), checkpoints and
// retention. Whatever is derived can be read from the log again.
//
//	storePathRootDir/
//	  commitlog/            the log (package commitlog)
//	  consumequeue/T/Q/     entries of queue Q of topic T, 20 bytes a message, Java's format
//	  index/                key index, Java's format
//	  checkpoint            how far queues and index are on disk, Java's format
//	  queues.snapshot       the ends of all queues at that checkpoint, and their entries that are in no file yet: a start opens no queue file
//	  quarantine/           damaged parts of the log that recovery set aside
//	  abort, lock           present while a broker runs
//
// Progress is a few log offsets that only grow:
//
//	Invariant: indexed <= dispatched <= published; checkpoint <= dispatched; checkpoint <= flushed.
//
// Appenders dispatch what they appended at the end of their turn (dispatch.go); the index, checkpoints and retention have a goroutine each.
package store
