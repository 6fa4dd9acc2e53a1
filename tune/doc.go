// Package tune measures what is the best of several means on one disk and one kernel: "ringmq tune". docs/tune.md tells what is measured
// and how to read it.
//
//	sections                    kinds                           measured by
//	sync commit, async append   uring direct pwrite mmap        commitlog.Trial, a log in a scratch folder on the store's disk
//	cold read                   pread sendfile uring            ioengine.ColdProbe, a file in that folder
//	reactor                     epoll uring                     netpath.Server over loopback, with a handler that echoes
//	        │
//	        ▼
//	rounds: each kind once, in turns (ABCD DCBA)  ──► medians with their ends ──► Choose ──► ringmq-tune.json, Report
//
// One slow moment of the machine hits one round of one kind, and widens the range of that kind: then nothing is clearly better than the
// first, the usual choice, which stays. The room makes no system call of its own.
package tune
