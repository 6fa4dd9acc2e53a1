//go:build !linux

package ioengine

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// ColdProbe needs linux: elsewhere no file is thrown out of memory at will.
type ColdProbe struct{}

// NewColdProbe answers ErrColdRefused.
func NewColdProbe(string, int64) (*ColdProbe, error) {
	return nil, fmt.Errorf("%w: %s cannot throw a file out of its cache", ErrColdRefused, runtime.GOOS)
}

// Run is never reached.
func (*ColdProbe) Run(context.Context, ColdRead, time.Duration) (*ColdFigures, error) {
	return nil, ErrColdRefused
}

// Close is never reached.
func (*ColdProbe) Close() error { return nil }

// Forget answers ErrColdRefused.
func Forget(string) error { return ErrColdRefused }
