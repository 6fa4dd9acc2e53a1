package uring

import (
	"errors"
	"fmt"
)

var (
	// ErrUnsupported is wrapped by every error that means "not on this kernel, or not in this container": the caller goes on with plain
	// system calls.
	ErrUnsupported = errors.New("io_uring is not available")
	// ErrClosed answers the use of a closed ring.
	ErrClosed = errors.New("ring is closed")
)

// RefusedError says who refuses io_uring, and the cure.
type RefusedError struct {
	Cause error // the kernel's answer
	Why   string
	Cure  string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("io_uring is refused: %s (%v): %s", e.Why, e.Cause, e.Cure)
}

// Unwrap makes errors.Is find both ErrUnsupported and the kernel's answer.
func (e *RefusedError) Unwrap() []error { return []error{ErrUnsupported, e.Cause} }
