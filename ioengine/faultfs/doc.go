// Package faultfs is the test double of ioengine.FS (rule R8): a file system in
// memory that fails when told, records what it was asked, and can be crashed.
//
// Each file has two images and each folder two lists of names:
//
//	            running programs see      a power loss leaves
//	bytes       cache                     dev, plus any part of cache's difference
//	names       entries                   durable, plus any of the pending changes
//
//	Sync, SyncRange   cache -> dev (the bytes that the call covers, as they were when it began)
//	SyncDir           the folder's pending changes -> durable
//
// A file that was created and synced is still lost while nobody synced its folder;
// a rename is atomic but not ordered against anything else. That is harsher than
// ext4 and no harsher than POSIX.
//
// After a failed sync the bytes that it covered count as clean although the device
// has not got them, as on linux: the next sync answers nil and does not write them,
// and a power loss takes them in every mode. Bytes count as dirty again once they
// are written by a call, or changed through a window (found by comparing, sector by
// sector: storing the same bytes again goes unseen). The same goes for a failed WriteBack and WaitWriteBack.
//
// Windows and views are slices of cache. Whoever stores through a window may let
// SyncRange of other bytes run at the same time; Sync, Crash and Kill read all
// bytes, so the tail owner must be at rest then (under the race detector an
// overlap is reported).
package faultfs
