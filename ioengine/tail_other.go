//go:build !linux

package ioengine

import "errors"

var errNoTail = errors.New("the log engines pwrite and uring need linux: set ioEngine=auto")

// NewTail answers that there is none here.
func NewTail(int64) (*Tail, error) { return nil, errNoTail }

// NewTailFile answers that there is none here.
func NewTailFile(string, int64, bool) (*Tail, error) { return nil, errNoTail }

// TailRest is what a tail file has and the segments may not.
type TailRest struct {
	From int64
	Data []byte
	Sync bool // nothing of it was acknowledged
}

// ReadTail finds nothing: there are no tail files here.
func ReadTail(string) (*TailRest, error) { return nil, nil }

func (t *Tail) warm(int64, int64) (WarmKind, error) { return WarmNone, errNoTail }

func zeroDirect(string, int64, int64) error { return errNoTail }
