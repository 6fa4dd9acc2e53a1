//go:build !linux

package seccomp

// RefuseIfAsked has nothing to refuse: there is no io_uring here.
func RefuseIfAsked(string) {}
