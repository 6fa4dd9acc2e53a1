//go:build !linux && !darwin && !freebsd && !dragonfly

package ioengine

import "time"

// ProcessCPU is not known here.
func ProcessCPU() (time.Duration, bool) { return 0, false }
