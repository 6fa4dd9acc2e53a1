package ioengine

import (
	"errors"
	"time"
)

// ColdRead is a way to bring a part of a file that is not in memory to a socket.
type ColdRead int

const (
	// ColdPread has a goroutine read it and write it to the socket.
	ColdPread ColdRead = iota
	// ColdSendfile has a goroutine call sendfile, which waits for the disk.
	ColdSendfile
	// ColdUring has an io_uring read it on one of the kernel's threads; the ring's owner writes it to the socket.
	ColdUring
)

var coldNames = [...]string{"pread", "sendfile", "uring"}

func (c ColdRead) String() string { return coldNames[c] }

const (
	// ColdBlock is what a probe reads at a time, bytes.
	ColdBlock = 64 << 10
	// ColdDepth is how many such reads it has under way.
	ColdDepth = 8
)

// ErrColdRefused is wrapped by the errors of a ColdProbe that mean "not here".
var ErrColdRefused = errors.New("cold reads cannot be measured in this way here")

// ColdFigures are what a probe measured. The time in which the file is thrown out of memory is not in them.
type ColdFigures struct {
	Elapsed   time.Duration
	Latencies []time.Duration // of each read, from its start to its last byte in the socket
	CPU       time.Duration   // of the whole process, those who empty the sockets included
}
