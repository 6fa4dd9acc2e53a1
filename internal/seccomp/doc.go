// Package seccomp refuses system calls to the program's own process, for tests: a container's profile answers EPERM to io_uring, an old
// kernel ENOSYS, and neither is at hand where tests run.
//
// There is no way back: a test starts its own binary again (os.Args[0], with -test.run and an environment variable) and lets that child call
// Refuse. Nothing but tests imports this package.
package seccomp
