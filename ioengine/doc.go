// Package ioengine is the room of the files: every other room reaches them through
// an FS, and nobody else maps the CommitLog for writing.
//
//	FS ── Open ────────> File      metadata, ConsumeQueue, IndexFile: calls only
//	   └─ OpenSegment ─> Segment   one CommitLog segment: a File that is mapped twice
//
//	            segment file  [ record | record | record | zeroes, warm | zeroes ]
//	Window (read-write map)     ^^^ the tail owner stores records here
//	View   (read-only map)      ^^^ everybody else reads here; a store faults
//
// There are three implementations. OS is the best that the system has. Portable
// needs nothing but files and mappings; it is OS everywhere but on linux, and on
// linux it is chosen by ioEngine=portable. faultfs is the double for tests.
//
//	                 linux                             portable
//	ReadAtNoWait     preadv2 RWF_NOWAIT                ErrNoWaitUnsupported
//	Resident         cachestat, else mincore           false
//	Allocate         fallocate, else zeroes            zeroes
//	Sync             fdatasync                         fsync (after a flush of the map)
//	Zero             writes, write-back paced          writes, a sync each 64 MiB
//	Warm             populate, else touch; and mlock   touch
//	WriteBack        sync_file_range                   left to the system
//	Fd               the descriptor                    -1
//
// # Who owns what
//
// The bytes of a Window belong to the owner of the log's tail. The bytes of a View
// are valid until Unmap, which is for whoever knows that no reader is left. A
// descriptor from Fd is borrowed until Close. A buffer given to a call is the
// caller's again when the call returns.
//
// # What a failed sync means
//
// The kernel reports a failed write-back once, marks the pages clean, and answers
// nil to the next sync. So an error of Sync, SyncRange or WaitWriteBack means that
// bytes are lost; nothing here retries it, and the log stops (rule R2). A full disk
// is different and told apart by ErrDiskFull.
//
// # The life of a segment
//
// OpenSegment(create) allocates, Zero turns the unwritten extents into written ones
// (a sync of unwritten ones costs up to 3.8 times as much), Sync and FS.SyncDir make
// file and name durable, Warm brings the pages in ahead of the tail. The tail passes
// through: Window, store, WriteBack, SyncRange. Cool takes the pages out of the
// mappings when the tail has left; they stay in the page cache for readers. Unmap,
// Close, RemoveInSteps end it.
package ioengine
