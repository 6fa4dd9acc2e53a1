//go:build !race

package broker

import "time"

// mostStart is the promise of rule R6.
const mostStart = 2 * time.Second
