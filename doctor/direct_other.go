//go:build !linux

package doctor

import "errors"

// writeDirect is missing rather than pretended; the check runs on linux only.
func writeDirect(string) error { return errors.ErrUnsupported }
