// Package uring is the program's own io_uring: one ring type, over the raw layer of iouring-go's syscall package.
//
//	Ring        submission queue, completion queue, registered buffers and files, and a wake-up      one thread, see below
//	Entry       one submission, cleared before use
//	Completion  one result: a copy, nothing points into the queue
//	Arena       memory that the kernel may hold on to: off Go's heap, aligned for O_DIRECT
//	BufferRing  provided buffers: the kernel picks one for each receive
//	Probe       what this kernel has of all this, and why it refuses it
//
// # Threads
//
// A ring is created with IORING_SETUP_SINGLE_ISSUER and IORING_SETUP_DEFER_TASKRUN where the kernel has them (6.1): then only the thread
// that enabled it may submit and wait, and completions are worked off in its own calls and interrupt nobody. So the owner locks its
// goroutine to a thread (runtime.LockOSThread) before New, or before Enable for a ring that was made with Options.Disabled. Wake is the one
// method for any goroutine. The kernel cancels what a thread has in flight when the thread ends: an owner's goroutine does not return before
// its completions are in.
//
// # Calls into the kernel
//
// Waits go through unix.Syscall, never through RawSyscall: a thread that sleeps in a raw call can't be stopped by Go's collector, and
// everybody else waits for it (105 ms were measured). A submission that can't block, as those of sockets, may go raw (Options.RawSubmit).
// When completions are there already, nothing waits.
//
// # Order
//
// Operations in flight have no order. Chains (IOSQE_IO_LINK) are not offered: a short write breaks a chain and lets the sync behind
// it run. Whoever needs a write before a sync waits for the write's completion, looks at its length, and submits the sync then.
package uring
